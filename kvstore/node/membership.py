"""Which membership changes are wise: the checks before a change is proposed.

Whether a change is possible is judged again when it is applied, by every member alike
(`machine.membership`). Here stands what only the present situation tells: how many members have
ever started, how many are connected, and whether a learner has caught up. A change that would
leave too few started members to decide anything is refused before it can be proposed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from kvstore import errors
from kvstore.machine.membership import ConfContext, Member
from kvstore.node.limits import HEALTHY_CONNECTION_S, LEARNER_READY_PERCENT
from raft.types import ConfChange, ConfChangeKind

__all__ = (
    "Judge",
    "cluster_id_of",
    "conf_change",
    "learner_ready",
    "member_id_of",
    "valid_peer_urls",
)

_PEER_SCHEMES = ("http", "https", "unix", "unixs")


def member_id_of(peer_urls: Iterable[str], token: str, salt: str = "") -> int:
    """A member's id: SHA-1 of its sorted peer URLs, the cluster token and, for a member that
    is added to a running cluster, the unix time in seconds as `salt` (and an empty token).
    """
    text = "".join(sorted(peer_urls)) + token + salt
    return _first_eight(text.encode())


def cluster_id_of(member_ids: Iterable[int]) -> int:
    """A cluster's id: SHA-1 of its first members' ids, ascending."""
    return _first_eight(b"".join(id_.to_bytes(8, "big") for id_ in sorted(member_ids)))


def _first_eight(data: bytes) -> int:
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") or 1


def valid_peer_urls(urls: Sequence[str]) -> bool:
    """True for one or more URLs with a scheme that peers speak, a host with port, and no path."""
    return bool(urls) and all(_valid_url(url) for url in urls)


def _valid_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _PEER_SCHEMES or parts.query or parts.fragment:
        return False
    if parts.scheme.startswith("unix"):
        return bool(parts.netloc or parts.path)
    return port is not None and bool(parts.hostname) and parts.path in ("", "/")


def conf_change(
    kind: ConfChangeKind, member: Member, *, promote: bool = False
) -> Callable[[int], ConfChange]:
    """Builds the change once a request id is known."""

    def build(request_id: int) -> ConfChange:
        context = ConfContext(request_id, member, promote).encode()
        return ConfChange(kind, member.id, context)

    return build


def learner_ready(match_index: int, leader_match_index: int) -> bool:
    """True when the learner's log reaches LEARNER_READY_PERCENT of the leader's."""
    return match_index * 100 >= leader_match_index * LEARNER_READY_PERCENT


class Judge:
    """The checks of one moment. `connected_since` is in the seconds of `now`, None when not."""

    def __init__(
        self,
        members: Mapping[int, Member],
        own_id: int,
        now: float,
        connected_since: Callable[[int], float | None],
        *,
        strict: bool,
    ) -> None:
        self._members = members
        self._own_id = own_id
        self._now = now
        self._connected_since = connected_since
        self._strict = strict

    @property
    def _voters(self) -> list[Member]:
        return [member for member in self._members.values() if not member.is_learner]

    def _steady(self, member_id: int) -> bool:
        """Whether a member has been connected long enough to be counted on."""
        if member_id == self._own_id:
            return True
        since = self._connected_since(member_id)
        return since is not None and self._now - since >= HEALTHY_CONNECTION_S

    def add(self, peer_urls: Sequence[str], *, learner: bool, max_learners: int) -> None:
        """Raises when no member with these URLs should be added now."""
        if not valid_peer_urls(peer_urls):
            raise errors.MEMBER_BAD_URLS
        taken = {url for member in self._members.values() for url in member.peer_urls}
        if not taken.isdisjoint(peer_urls):
            raise errors.PEER_URL_EXISTS
        learners = sum(member.is_learner for member in self._members.values())
        if learner and learners >= max_learners:
            raise errors.TOO_MANY_LEARNERS
        if not self._strict:
            return
        voters = self._voters
        started = sum(1 for member in voters if member.name)
        enlarged = len(voters) + 1
        if not learner and len(voters) > 1 and started < _quorum(enlarged):
            raise errors.NOT_ENOUGH_STARTED
        if len(voters) > 1:
            steady = sum(1 for member in voters if self._steady(member.id))
            if steady < _quorum(enlarged):
                raise errors.UNHEALTHY

    def remove(self, member_id: int) -> None:
        """Raises when this member should not be removed now."""
        member = self._known(member_id)
        if not self._strict or member.is_learner:
            return
        rest = [voter for voter in self._voters if voter.id != member_id]
        started = sum(1 for voter in rest if voter.name)
        if not rest or started < _quorum(len(rest)):
            raise errors.NOT_ENOUGH_STARTED
        if member_id != self._own_id and self._connected_since(member_id) is None:
            return
        steady = sum(1 for voter in self._voters if self._steady(voter.id))
        if steady - 1 < _quorum(len(rest)):
            raise errors.UNHEALTHY

    def promote(self, member_id: int, *, ready: Callable[[int], bool]) -> None:
        """Raises when this learner should not become a voter now."""
        member = self._known(member_id)
        if not member.is_learner:
            raise errors.MEMBER_NOT_LEARNER
        if not ready(member_id):
            raise errors.LEARNER_NOT_READY
        if not self._strict:
            return
        voters = self._voters
        started = 1 + sum(1 for voter in voters if voter.name)
        if started < _quorum(len(voters) + 1):
            raise errors.NOT_ENOUGH_STARTED

    def update(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Raises when the member is unknown or another one has one of the URLs."""
        self._known(member_id)
        for other in self._members.values():
            if other.id != member_id and not set(other.peer_urls).isdisjoint(peer_urls):
                raise errors.PEER_URL_EXISTS

    def _known(self, member_id: int) -> Member:
        member = self._members.get(member_id)
        if member is None:
            raise errors.MEMBER_NOT_FOUND
        return member


def _quorum(voters: int) -> int:
    return voters // 2 + 1
