"""The KV service: from request bytes to the node and back, without tasks or response objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from kvstore.api import limits, validation
from kvstore.api.call import Call, MethodTable
from kvstore.api.encoding import length_delimited
from kvstore.api.facade import Answer, Done, Node, Write
from kvstore.api.guard import Guard
from kvstore.errors import NOT_SUPPORTED_FOR_LEARNER, TOO_MANY_REQUESTS, EtcdError
from kvstore.pb import rpc_pb2

__all__ = ("KVService",)

_SERVICE = "/etcdserverpb.KV/"


class KVService:
    """Range, RangeStream, Put, DeleteRange, Txn, Compact."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard
        self._max_request_bytes = node.config.max_request_bytes
        self._max_txn_ops = node.config.max_txn_ops

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        guard = self._guard
        table.unary(_SERVICE + "Range", self.range)  # checks learners itself: see there
        table.unary(_SERVICE + "Put", guard.unary(self.put))
        table.unary(_SERVICE + "DeleteRange", guard.unary(self.delete_range))
        table.unary(_SERVICE + "Txn", guard.unary(self.txn))
        table.unary(_SERVICE + "Compact", guard.unary(self.compact))
        table.stream(_SERVICE + "RangeStream", guard.stream(self.range_stream))

    def _answers(self, call: Call) -> Done:
        """The callback that ends a call with what the node says."""
        header = self._node.header

        def done(answer: Answer, error: EtcdError | None) -> None:
            if error is None:
                call.reply(header(answer.revision) + answer.body)
            else:
                call.fail(error)

        return done

    def range(self, call: Call) -> None:
        """A learner serves it when the request asks for a local read."""
        request = validation.parse(rpc_pb2.RangeRequest, call.payload)
        if self._node.is_learner and not request.serializable:
            raise NOT_SUPPORTED_FOR_LEARNER
        self._guard.admit("unary", call.metadata)
        validation.check_range(request)

        def done(response: bytes, error: EtcdError | None) -> None:
            if error is None and call.congested:
                error = TOO_MANY_REQUESTS
            if error is None:
                call.reply(response)
            else:
                call.fail(error)

        self._node.range_response(request, done)

    def put(self, call: Call) -> None:
        """The request's own bytes become the log entry."""
        payload = call.payload
        request = validation.parse(rpc_pb2.PutRequest, payload)
        validation.check_quota(self._node, validation.put_cost(request))
        validation.check_put(request)
        self._write(Write.PUT, call)

    def delete_range(self, call: Call) -> None:
        """Always allowed to run when the quota is used up: it frees space."""
        validation.check_delete(validation.parse(rpc_pb2.DeleteRangeRequest, call.payload))
        self._write(Write.DELETE_RANGE, call)

    def txn(self, call: Call) -> Coroutine[Any, Any, bytes] | None:
        """A transaction that only reads does not go through the log."""
        request = validation.parse_txn(call.payload)
        if len(call.payload) > limits.TXN_AT_ONCE_BYTES:
            return self._large_txn(call, request)
        for _ in self._check_txn(request):
            pass
        self._run_txn(call.payload, request, self._answers(call))
        return None

    async def _large_txn(self, call: Call, request: rpc_pb2.TxnRequest) -> bytes:
        """The same with pauses, in which others have their turn."""
        for _ in self._check_txn(request):
            await asyncio.sleep(0)
        outcome = asyncio.get_running_loop().create_future()

        def done(answer: Answer, error: EtcdError | None) -> None:
            if outcome.done():
                return  # the client has left
            if error is None:
                outcome.set_result(self._node.header(answer.revision) + answer.body)
            else:
                outcome.set_exception(EtcdError(error.code, error.message))

        self._run_txn(call.payload, request, done)
        response: bytes = await outcome
        return response

    def _check_txn(self, request: rpc_pb2.TxnRequest) -> validation.Steps[None]:
        cost_bytes = yield from validation.txn_cost(request)
        validation.check_quota(self._node, cost_bytes)
        yield from validation.check_txn(request, self._max_txn_ops)

    def _run_txn(self, payload: bytes, request: rpc_pb2.TxnRequest, done: Done) -> None:
        if validation.is_read_only(request):
            self._node.read_txn(request, validation.is_serializable(request), done)
        else:
            validation.check_size(payload, self._max_request_bytes)
            self._node.write(Write.TXN, payload, done)

    def compact(self, call: Call) -> None:
        """The revision is judged when the command is applied; `physical` waits for the space."""
        request = validation.parse(rpc_pb2.CompactionRequest, call.payload)
        answers = self._answers(call)
        if not request.physical:
            self._write(Write.COMPACT, call)
            return

        def done(answer: Answer, error: EtcdError | None) -> None:
            if error is None:
                self._node.when_swept(lambda: answers(answer, None))
            else:
                answers(answer, error)

        self._node.write(Write.COMPACT, call.payload, done)

    def _write(self, kind: Write, call: Call) -> None:
        validation.check_size(call.payload, self._max_request_bytes)
        self._node.write(kind, call.payload, self._answers(call))
        call.payload = b""  # it is the log entry by now: a call that waits keeps no second copy

    async def range_stream(self, call: Call) -> AsyncIterator[bytes]:
        """A range in pieces; only the last has a header, and all merged equal the Range answer."""
        request = validation.parse(rpc_pb2.RangeRequest, call.payload)
        validation.check_range(request)
        refusal = validation.stream_order_error(request)
        if refusal is not None:
            raise refusal
        chunks = self._node.range_chunks(request, self._max_request_bytes)
        async for revision, body, last in chunks:
            header = self._node.header(revision) if last else b""
            yield length_delimited(1, header + body)
