"""Which member is responsible for what: rendezvous hashing, the same answer on every member. Pure.

Each member and instance together give a number, and the member with the highest one has it. So
when a member goes, its instances spread over the others, and nothing else moves.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b

from kvstore.registry.names import InstanceName

__all__ = ("responsible",)


def responsible(name: InstanceName, members: Collection[int]) -> int:
    """The id of the member that has this instance; 0 if there is no member."""
    key = "/".join(name).encode()

    def score(member: int) -> tuple[bytes, int]:
        return blake2b(key, digest_size=8, salt=member.to_bytes(8, "big")).digest(), member

    return max(members, key=score, default=0)
