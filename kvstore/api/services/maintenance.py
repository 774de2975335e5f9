"""The Maintenance service: status, alarms, hashes, the snapshot stream, leadership."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from kvstore.api import limits, validation
from kvstore.api.call import Call, MethodTable, UnaryAnswer
from kvstore.api.encoding import encoded
from kvstore.api.facade import Answer, Node, Write
from kvstore.api.guard import Guard
from kvstore.errors import Code, EtcdError
from kvstore.pb import rpc_pb2

__all__ = ("MaintenanceService",)

_SERVICE = "/etcdserverpb.Maintenance/"
_SECTOR_BYTES = 512
"""etcd's clients accept a snapshot only if it is whole sectors and the 32-byte hash."""

_MOVE_LEADER_BASE_S = 5.0


class MaintenanceService:
    """Alarm, Status, Defragment, Hash, HashKV, Snapshot, MoveLeader, Downgrade."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        guard = self._guard
        table.unary(_SERVICE + "Alarm", guard.unary(self.alarm))
        table.unary(_SERVICE + "Status", guard.unary(self.status, learner=True))
        table.unary(_SERVICE + "Defragment", guard.unary(self.defragment))
        table.unary(_SERVICE + "Hash", guard.unary(self.hash))
        table.unary(_SERVICE + "HashKV", guard.unary(self.hash_kv))
        table.stream(_SERVICE + "Snapshot", guard.stream(self.snapshot, learner=True))
        table.unary(_SERVICE + "MoveLeader", guard.unary(self.move_leader))
        table.unary(_SERVICE + "Downgrade", guard.unary(self.downgrade))

    def alarm(self, call: Call) -> UnaryAnswer:
        """GET reads the alarms of the whole cluster; the rest is replicated."""
        request = validation.parse(rpc_pb2.AlarmRequest, call.payload)
        if request.action == rpc_pb2.AlarmRequest.GET:
            return self._alarms(request.alarm)

        def done(answer: Answer, error: EtcdError | None) -> None:
            if error is None:
                call.reply(self._node.header(answer.revision) + answer.body)
            else:
                call.fail(error)

        self._node.write(Write.ALARM, call.payload, done)
        return None

    async def _alarms(self, wanted: int) -> bytes:
        await self._node.linearize()
        response = rpc_pb2.AlarmResponse()
        for member_id, alarm in self._node.alarms():
            if wanted in (rpc_pb2.NONE, alarm):
                response.alarms.add(memberID=member_id, alarm=alarm)
        return encoded(response, self._header())

    def _header(self) -> bytes:
        return self._node.header(self._node.revision)

    def status(self, call: Call) -> bytes:
        """This member's own view; works without a leader and on learners."""
        validation.parse(rpc_pb2.StatusRequest, call.payload)
        status = self._node.status()
        response = rpc_pb2.StatusResponse(
            version=status.version,
            dbSize=status.db_size,
            dbSizeInUse=status.db_in_use,
            leader=status.leader,
            raftIndex=status.raft_index,
            raftTerm=status.raft_term,
            raftAppliedIndex=status.applied_index,
            errors=status.errors,
            isLearner=status.is_learner,
            storageVersion=status.storage_version,
            dbSizeQuota=status.quota,
            downgradeInfo=rpc_pb2.DowngradeInfo(),
        )
        return encoded(response, self._header())

    async def defragment(self, call: Call) -> bytes:
        """The response is empty: no header either."""
        validation.parse(rpc_pb2.DefragmentRequest, call.payload)
        await self._node.defragment()
        return b""

    async def hash(self, call: Call) -> bytes:
        """Hash of the whole backend; for tests."""
        validation.parse(rpc_pb2.HashRequest, call.payload)
        response = rpc_pb2.HashResponse(hash=await self._node.hash())
        return encoded(response, self._header())

    async def hash_kv(self, call: Call) -> bytes:
        """Hash of the history up to a revision; equal on every member."""
        request = validation.parse(rpc_pb2.HashKVRequest, call.payload)
        answer = await self._node.hash_kv(request.revision)
        response = rpc_pb2.HashKVResponse(
            hash=answer.hash,
            compact_revision=answer.compact_revision,
            hash_revision=answer.hash_revision,
        )
        return encoded(response, self._header())

    async def snapshot(self, call: Call) -> AsyncIterator[bytes]:
        """The state in chunks, padded to whole sectors, then the SHA-256 of all of it."""
        validation.parse_streamed(rpc_pb2.SnapshotRequest, call.payload)
        version = self._node.status().storage_version
        digest = hashlib.sha256()
        padding: int | None = None
        async for blob, remaining in self._node.snapshot_chunks(limits.SNAPSHOT_CHUNK_BYTES):
            if padding is None:
                padding = -(len(blob) + remaining) % _SECTOR_BYTES
            if not remaining:
                blob += bytes(padding)
            digest.update(blob)
            left = remaining + padding if remaining else 0
            yield encoded(
                rpc_pb2.SnapshotResponse(blob=blob, remaining_bytes=left, version=version)
            )
        yield encoded(rpc_pb2.SnapshotResponse(blob=digest.digest(), version=version))

    async def move_leader(self, call: Call) -> bytes:
        """Must hit the leader; waits until the target leads."""
        request = validation.parse(rpc_pb2.MoveLeaderRequest, call.payload)
        timeout_s = _MOVE_LEADER_BASE_S + 2 * self._node.config.election_ms / 1000
        if call.deadline is not None:
            timeout_s = min(timeout_s, call.deadline)
        await self._node.move_leader(request.targetID, timeout_s)
        return b""

    def downgrade(self, call: Call) -> bytes:
        """There is one storage format and nothing to go back to."""
        validation.parse(rpc_pb2.DowngradeRequest, call.payload)
        raise EtcdError(Code.UNIMPLEMENTED, "kvstore: downgrade is not supported")
