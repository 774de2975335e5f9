"""The Cluster service: who belongs to the cluster."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.api import validation
from kvstore.api.call import Call, MethodTable
from kvstore.api.encoding import encoded
from kvstore.api.facade import Member, Node
from kvstore.api.guard import Guard
from kvstore.pb import rpc_pb2

__all__ = ("ClusterService",)

_SERVICE = "/etcdserverpb.Cluster/"


def _message(member: Member) -> rpc_pb2.Member:
    return rpc_pb2.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )


def _messages(members: Sequence[Member]) -> list[rpc_pb2.Member]:
    return [_message(member) for member in sorted(members, key=lambda member: member.id)]


class ClusterService:
    """MemberAdd, MemberRemove, MemberUpdate, MemberList, MemberPromote; no revision in headers."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        guard = self._guard
        table.unary(_SERVICE + "MemberAdd", guard.unary(self.add))
        table.unary(_SERVICE + "MemberRemove", guard.unary(self.remove))
        table.unary(_SERVICE + "MemberUpdate", guard.unary(self.update))
        table.unary(_SERVICE + "MemberList", guard.unary(self.list))
        table.unary(_SERVICE + "MemberPromote", guard.unary(self.promote))

    async def add(self, call: Call) -> bytes:
        """A new member, voter or learner, that has not started yet."""
        request = validation.parse(rpc_pb2.MemberAddRequest, call.payload)
        urls = validation.check_peer_urls(request.peerURLs)
        member, members = await self._node.member_add(urls, request.isLearner)
        response = rpc_pb2.MemberAddResponse(member=_message(member), members=_messages(members))
        return encoded(response, self._node.header(0))

    async def remove(self, call: Call) -> bytes:
        """The member's id is never used again."""
        request = validation.parse(rpc_pb2.MemberRemoveRequest, call.payload)
        members = await self._node.member_remove(request.ID)
        response = rpc_pb2.MemberRemoveResponse(members=_messages(members))
        return encoded(response, self._node.header(0))

    async def update(self, call: Call) -> bytes:
        """Replaces the peer URLs; their form is not checked, as in etcd."""
        request = validation.parse(rpc_pb2.MemberUpdateRequest, call.payload)
        members = await self._node.member_update(request.ID, list(request.peerURLs))
        response = rpc_pb2.MemberUpdateResponse(members=_messages(members))
        return encoded(response, self._node.header(0))

    async def list(self, call: Call) -> bytes:
        """The members, as the cluster or (not linearizable) as this member sees them."""
        request = validation.parse(rpc_pb2.MemberListRequest, call.payload)
        members = await self._node.members(request.linearizable)
        response = rpc_pb2.MemberListResponse(members=_messages(members))
        return encoded(response, self._node.header(0))

    async def promote(self, call: Call) -> bytes:
        """Makes a learner that has caught up a voter."""
        request = validation.parse(rpc_pb2.MemberPromoteRequest, call.payload)
        members = await self._node.member_promote(request.ID)
        response = rpc_pb2.MemberPromoteResponse(members=_messages(members))
        return encoded(response, self._node.header(0))
