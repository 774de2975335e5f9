"""Members as the state machine knows them, and which changes to their set are valid.

Whether a change is *wise* (enough members started, connected, in sync) is judged before it is
proposed and is the node's business. Whether it is *possible* is judged here, when it is applied,
from replicated state only, so that every member gives the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

import msgpack

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine.command import CommandError
from raft.types import ConfChange, ConfChangeKind, ConfState

__all__ = (
    "ConfContext",
    "Member",
    "apply_change",
    "conf_state",
    "pack_member",
    "refusal",
    "unpack_member",
)


class Member(NamedTuple):
    """One member. `name` and `client_urls` are empty until it has started once."""

    id: int
    name: str = ""
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False


class ConfContext(NamedTuple):
    """What a ConfChange carries for us in its `context`."""

    request_id: int
    member: Member
    promote: bool = False
    """ADD_VOTER of a member that is a learner already."""

    def encode(self) -> bytes:
        """The bytes for `ConfChange.context`."""
        packed: bytes = msgpack.packb([self.request_id, self.promote, list(self.member)])
        return packed

    @classmethod
    def decode(cls, context: bytes) -> ConfContext:
        """Reads what `encode` wrote; raises CommandError for anything else."""
        try:
            request_id, promote, member = msgpack.unpackb(context)
            return cls(request_id, _member(member), bool(promote))
        except (ValueError, TypeError) as error:
            raise CommandError(f"unreadable context of a membership change: {error}") from error


def pack_member(member: Member) -> bytes:
    """A member's record in the `members` table."""
    packed: bytes = msgpack.packb(list(member))
    return packed


def unpack_member(record: bytes) -> Member:
    """Reads what `pack_member` wrote."""
    return _member(msgpack.unpackb(record))


def _member(fields: list) -> Member:  # type: ignore[type-arg]
    number, name, peer_urls, client_urls, is_learner = fields
    return Member(number, name, tuple(peer_urls), tuple(client_urls), bool(is_learner))


def conf_state(members: Iterable[Member]) -> ConfState:
    """Who votes and who only follows."""
    voters: list[int] = []
    learners: list[int] = []
    for member in members:
        (learners if member.is_learner else voters).append(member.id)
    return ConfState(tuple(sorted(voters)), tuple(sorted(learners)))


def refusal(
    change: ConfChange,
    context: ConfContext,
    members: Mapping[int, Member],
    removed: Set[int],
    *,
    max_learners: int,
) -> EtcdError | None:
    """Why a committed change must not take effect; None when it is valid."""
    known = members.get(change.node_id)
    if change.node_id in removed:
        return errors.MEMBER_NOT_FOUND
    if change.kind == ConfChangeKind.ADD_VOTER and context.promote:
        if known is None:
            return errors.MEMBER_NOT_FOUND
        return None if known.is_learner else errors.MEMBER_NOT_LEARNER
    if change.kind in (ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_LEARNER):
        if known is not None:
            return errors.MEMBER_EXISTS
        if _urls_taken(change.node_id, context.member, members):
            return errors.PEER_URL_EXISTS
        learners = sum(member.is_learner for member in members.values())
        if change.kind == ConfChangeKind.ADD_LEARNER and learners >= max_learners:
            return errors.TOO_MANY_LEARNERS
        return None
    if known is None:
        return errors.MEMBER_NOT_FOUND
    if change.kind == ConfChangeKind.REMOVE:
        voters = conf_state(members.values()).voters
        # Without a voter nothing could ever be decided again.
        return errors.NOT_ENOUGH_STARTED if voters == (change.node_id,) else None
    taken = _urls_taken(change.node_id, context.member, members)
    return errors.PEER_URL_EXISTS if taken else None


def _urls_taken(node_id: int, wanted: Member, members: Mapping[int, Member]) -> bool:
    return any(
        url in member.peer_urls
        for member in members.values()
        if member.id != node_id
        for url in wanted.peer_urls
    )


def apply_change(
    change: ConfChange, context: ConfContext, members: Mapping[int, Member]
) -> Member | None:
    """The changed member as it is after a valid change; None when it is gone."""
    known = members.get(change.node_id)
    match change.kind:
        case ConfChangeKind.REMOVE:
            return None
        case ConfChangeKind.ADD_VOTER if context.promote and known is not None:
            return known._replace(is_learner=False)
        case ConfChangeKind.UPDATE if known is not None:
            return known._replace(peer_urls=context.member.peer_urls)
        case _:
            learner = change.kind == ConfChangeKind.ADD_LEARNER
            return context.member._replace(id=change.node_id, is_learner=learner)
