"""What both transports promise, and the traps that gRPC libraries set."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import pytest

from kvstore.api.address import ListenError
from kvstore.api.call import Call, MethodTable, Outlet
from kvstore.errors import EMPTY_KEY, Code, EtcdError
from tests.unit.api.serving import (
    MAX_REQUEST_BYTES,
    UNLIMITED,
    LoopThread,
    free_port,
    served,
    transport,
)

PATH = "/test.Service/"


def table(**handlers: Any) -> Callable[[], MethodTable]:
    """A table with the given unary handlers."""

    def build() -> MethodTable:
        methods = MethodTable()
        for name, handler in handlers.items():
            methods.unary(PATH + name, handler)
        return methods

    return build


def status(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code(), error.details()


# Three ways to answer, and to fail


def test_ways_to_answer(kind: str) -> None:
    later: list[Call] = []

    def at_once(call: Call) -> bytes:
        return call.payload[::-1]

    async def in_a_task(call: Call) -> bytes:
        await asyncio.sleep(0.001)
        return call.payload[::-1]

    def keep(call: Call) -> None:
        later.append(call)
        asyncio.get_running_loop().call_later(0.01, lambda: call.reply(call.payload[::-1]))

    def reply_inside(call: Call) -> None:
        call.reply(call.payload[::-1])
        call.reply(b"twice does no harm")
        call.fail(EMPTY_KEY)

    names = {"A": at_once, "B": in_a_task, "C": keep, "D": reply_inside}
    with served(kind, table(**names)) as server:
        for name in names:
            assert server.unary(PATH + name, b"abc") == b"cba"
        method = server.table.get(PATH + "C")
        assert method is not None
        assert (method.started, method.received, method.sent, method.handled[0]) == (1, 1, 1, 1)
    assert later[0].finished


def test_ways_to_fail(kind: str) -> None:
    def raising(call: Call) -> bytes:
        raise EMPTY_KEY

    async def raising_in_a_task(call: Call) -> bytes:
        raise EMPTY_KEY

    def failing(call: Call) -> None:
        call.fail(EMPTY_KEY)

    def crashing(call: Call) -> bytes:
        raise ZeroDivisionError("a secret")

    def odd(call: Call) -> None:
        call.fail(EtcdError(Code.UNKNOWN, "grüße %\n"))

    names: dict[str, Any] = {"A": raising, "B": raising_in_a_task, "C": failing}
    with served(kind, table(**names, Crash=crashing, Odd=odd)) as server:
        for name in names:
            got = status(partial(server.unary, PATH + name))
            assert got == (grpc.StatusCode.INVALID_ARGUMENT, EMPTY_KEY.message)
        code, text = status(lambda: server.unary(PATH + "Crash"))
        assert code == grpc.StatusCode.INTERNAL
        assert "secret" not in text
        assert status(lambda: server.unary(PATH + "Odd"))[1] == "grüße %\n"
        code, text = status(lambda: server.unary(PATH + "Nope"))
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert text == "unknown method Nope for service test.Service"
        assert status(lambda: server.unary("/no.Such/Nope"))[1] == "unknown service no.Such"
        method = server.table.get(PATH + "C")
        assert method is not None
        assert method.handled[Code.INVALID_ARGUMENT] == 1


def test_catalogue_errors_do_not_collect_tracebacks(kind: str) -> None:
    def raising(call: Call) -> bytes:
        raise EMPTY_KEY

    with served(kind, table(A=raising)) as server:
        for _ in range(5):
            status(lambda: server.unary(PATH + "A"))
    depth, trace = 0, EMPTY_KEY.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth <= 2, "one more per refused request is a leak"


def test_hot_handlers_run_without_a_task() -> None:
    pytest.importorskip("pygrpc_native")

    def handler(call: Call) -> bytes:
        return b"no" if asyncio.current_task() is None else b"yes"

    with served("native", table(A=handler)) as server:
        assert server.unary(PATH + "A") == b"no"


def test_metadata_peer_and_deadline(kind: str) -> None:
    seen: list[Call] = []

    def handler(call: Call) -> bytes:
        seen.append(call)
        return b""

    with served(kind, table(A=handler)) as server:
        server.unary(PATH + "A", metadata=[("token", "t"), ("twice", "1"), ("twice", "2")])
        server.channel.unary_unary(PATH + "A")(b"")
    with_deadline, without = seen
    assert with_deadline.metadata["token"] == "t"
    assert with_deadline.metadata["twice"] == "2"
    assert "127.0.0.1" in with_deadline.peer
    assert with_deadline.deadline is not None
    assert 5 < with_deadline.deadline < 11  # gRPC rounds up on the wire
    assert without.deadline is None


# Clients that leave


@pytest.mark.parametrize("way", ["deadline", "cancel"])
def test_a_client_that_leaves_cancels_its_call(kind: str, way: str) -> None:
    arrived, gone = threading.Event(), threading.Event()
    calls: list[Call] = []

    def keeping(call: Call) -> None:
        calls.append(call)
        call.on_cancel(gone.set)
        arrived.set()

    async def waiting(call: Call) -> bytes:
        arrived.set()
        try:
            await asyncio.sleep(30)
        finally:
            gone.set()
        return b""

    with served(kind, table(Keeping=keeping, Waiting=waiting)) as server:
        for name in ("Keeping", "Waiting"):
            arrived.clear()
            gone.clear()
            timeout = 0.2 if way == "deadline" else 10
            call = server.channel.unary_unary(PATH + name).future(b"", timeout=timeout)
            assert arrived.wait(5)
            if way == "cancel":
                call.cancel()
            assert gone.wait(5), name
        assert calls[0].cancelled
        server.thread.call(calls[0].reply, b"too late")  # reaches nobody and breaks nothing


# Streams


def streaming(handler: Any) -> Callable[[], MethodTable]:
    def build() -> MethodTable:
        methods = MethodTable()
        methods.stream(PATH + "Stream", handler)
        methods.unary(PATH + "Ping", lambda call: b"pong")
        return methods

    return build


def test_a_stream_ends_well_or_with_its_error(kind: str) -> None:
    async def handler(call: Call) -> AsyncIterator[bytes]:
        for number in range(200):
            yield b"%d" % number
        if call.payload == b"fail":
            raise EMPTY_KEY

    with served(kind, streaming(handler)) as server:
        stream = server.channel.unary_stream(PATH + "Stream")
        assert len(list(stream(b"", timeout=10))) == 200
        received: list[bytes] = []

        def drain() -> None:
            for message in stream(b"fail", timeout=10):
                received.append(message)  # noqa: PERF402 - keeps what came before the error

        assert status(drain) == (grpc.StatusCode.INVALID_ARGUMENT, EMPTY_KEY.message)
        assert len(received) == 200, "what was sent before the error arrives"


def test_a_stalled_stream_reader_slows_nobody_and_loses_nothing(kind: str) -> None:
    closed = threading.Event()

    async def handler(call: Call) -> AsyncIterator[bytes]:
        try:
            for number in range(500):
                yield b"%06d" % number + bytes(60_000)
        finally:
            closed.set()

    with served(kind, streaming(handler)) as server:
        stalled = server.channel.unary_stream(PATH + "Stream")(b"", timeout=30)
        left = server.channel.unary_stream(PATH + "Stream")(b"", timeout=30)
        next(left)
        time.sleep(0.1)
        start = time.monotonic()
        for _ in range(50):
            assert server.unary(PATH + "Ping") == b"pong"
        assert time.monotonic() - start < 2
        assert not closed.is_set(), "nobody has read 30 MB yet: the producer must be waiting"
        left.cancel()
        assert closed.wait(5), "the handler of a client that left is closed"
        numbers = [int(message[:6]) for message in stalled]
        assert numbers == list(range(500))


class Echo:
    """A session that sends back what it gets, and takes no more while it holds `limit`."""

    def __init__(self, outlet: Outlet, limit: int = 4) -> None:
        self.outlet = outlet
        self.limit = limit
        self.held: list[bytes] = []
        self.most = 0
        self.taking = True
        self.was_closed = 0

    @property
    def accepting(self) -> bool:
        return len(self.held) < self.limit

    def received(self, payload: bytes) -> None:
        if payload == b"fail":
            raise EMPTY_KEY
        self.held.append(payload)
        self.most = max(self.most, len(self.held))
        self.outlet.wake()

    def half_closed(self) -> None:
        self.outlet.finish(None)

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        if not self.taking:
            return []
        taken, self.held = self.held[:max_messages], self.held[max_messages:]
        return taken

    def closed(self) -> None:
        self.was_closed += 1


def sessions(opened: list[Echo]) -> Callable[[], MethodTable]:
    def build() -> MethodTable:
        def handler(outlet: Outlet) -> Echo:
            if outlet.metadata.get("refuse"):
                raise EMPTY_KEY
            opened.append(Echo(outlet))
            return opened[-1]

        methods = MethodTable()
        methods.session(PATH + "Echo", handler)
        return methods

    return build


def test_bidi_stream_echoes_ends_and_fails(kind: str) -> None:
    opened: list[Echo] = []
    with served(kind, sessions(opened)) as server:
        echo = server.channel.stream_stream(PATH + "Echo")
        messages = [b"%d" % number for number in range(300)]
        assert list(echo(iter(messages), timeout=10)) == messages
        got = status(lambda: list(echo(iter([b"1", b"fail"]), timeout=10)))
        assert got == (grpc.StatusCode.INVALID_ARGUMENT, EMPTY_KEY.message)
        got = status(lambda: list(echo(iter([]), timeout=10, metadata=[("refuse", "1")])))
        assert got == (grpc.StatusCode.INVALID_ARGUMENT, EMPTY_KEY.message)
        method = server.table.get(PATH + "Echo")
        assert method is not None
        assert method.handled[Code.OK] == 1
        assert method.handled[Code.INVALID_ARGUMENT] == 2
    assert [session.was_closed for session in opened] == [1, 1]


def test_a_session_that_accepts_no_more_is_not_fed(kind: str) -> None:
    opened: list[Echo] = []
    with served(kind, sessions(opened)) as server:
        released = threading.Event()

        def requests() -> Any:
            yield b"first"
            released.wait(5)
            yield from (b"x" for _ in range(50))

        call = server.channel.stream_stream(PATH + "Echo")(requests(), timeout=10)
        assert next(call) == b"first"
        session = opened[0]
        server.thread.call(setattr, session, "taking", False)
        released.set()
        time.sleep(0.2)
        assert session.most == session.limit, "reading stopped where the session said so"
        server.thread.call(setattr, session, "taking", True)
        server.thread.call(session.outlet.wake)
        assert len(list(call)) == 50, "and went on when there was room again"


def test_a_session_whose_client_leaves_is_closed(kind: str) -> None:
    opened: list[Echo] = []
    with served(kind, sessions(opened)) as server:
        hold = threading.Event()

        def requests() -> Any:
            yield b"1"
            hold.wait(5)

        call = server.channel.stream_stream(PATH + "Echo")(requests(), timeout=10)
        assert next(call) == b"1"
        call.cancel()
        deadline = time.monotonic() + 5
        while not opened[0].was_closed and time.monotonic() < deadline:
            time.sleep(0.01)
        hold.set()
        assert opened[0].was_closed == 1


# Traps


def test_a_used_port_is_refused_with_a_sentence(kind: str) -> None:
    with served(kind, table(A=lambda call: b"")) as server:
        thread = LoopThread()

        async def second() -> None:
            await transport(kind, MethodTable()).listen(server.target)

        with pytest.raises(ListenError, match="another process listens there already"):
            thread.run(second())
        thread.close()


def test_a_port_shared_by_an_eager_server_is_refused(kind: str) -> None:
    """gRPC servers set SO_REUSEPORT by default; two of them then share a port unseen."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        thread = LoopThread()
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}"):
            thread.run(transport(kind, MethodTable()).listen(f"127.0.0.1:{port}"))
        thread.close()


@pytest.mark.parametrize("target", ["nonsense", "host:99999", "no.such.host.invalid:1"])
def test_a_bad_target_is_refused_with_a_sentence(kind: str, target: str) -> None:
    thread = LoopThread()
    with pytest.raises(ListenError, match="listen"):
        thread.run(transport(kind, MethodTable()).listen(target))
    thread.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    names = {found[4][0] for found in socket.getaddrinfo("localhost", 1)}
    return {"::1", "127.0.0.1"} <= names


def test_localhost_is_every_loopback_address(kind: str) -> None:
    thread = LoopThread()
    server: Any = None

    async def start() -> list[str]:
        nonlocal server
        server = transport(kind, table(A=lambda call: b"here")())
        bound: list[str] = await server.listen(f"localhost:{free_port()}")
        await server.start()
        return bound

    bound = thread.run(start())
    assert len(bound) == (2 if has_ipv6() else 1)
    for address in bound:
        with grpc.insecure_channel(address) as channel:
            assert channel.unary_unary(PATH + "A")(b"", timeout=5) == b"here"
    thread.run(server.stop(0))
    thread.close()


def test_more_than_1024_calls_on_one_connection(kind: str) -> None:
    wanted = 1_100
    held: list[Call] = []

    def handler(call: Call) -> None:
        held.append(call)
        if len(held) == wanted:
            for one in held:
                one.reply(b"all here")

    with served(kind, table(A=handler)) as server:
        method = server.channel.unary_unary(PATH + "A")
        calls = [method.future(b"", timeout=20) for _ in range(wanted)]
        assert {call.result() for call in calls} == {b"all here"}


def test_more_than_1024_streams_on_one_connection(kind: str) -> None:
    wanted = 1_100
    opened: list[Echo] = []

    def build() -> MethodTable:
        def handler(outlet: Outlet) -> Echo:
            session = Echo(outlet)
            session.taking = False
            session.half_closed = lambda: None  # type: ignore[method-assign]
            opened.append(session)
            if len(opened) == wanted:
                for one in opened:
                    one.taking = True
                    one.outlet.finish(None)
            return session

        methods = MethodTable()
        methods.session(PATH + "Echo", handler)
        return methods

    with served(kind, build) as server:
        method = server.channel.unary_stream(PATH + "Echo")  # sends one message and half-closes
        calls = [method(b"m", timeout=30) for _ in range(wanted)]
        for call in calls:
            list(call)
        assert len(opened) == wanted


def test_pings_of_go_clients_are_not_punished(kind: str) -> None:
    pytest.importorskip("h2")
    from h2.connection import H2Connection
    from h2.events import ConnectionTerminated, PingAckReceived

    with (
        served(kind, table(A=lambda call: b"")) as server,
        socket.create_connection(("127.0.0.1", int(server.target.rpartition(":")[2]))) as raw,
    ):
        raw.settimeout(5)
        connection = H2Connection()
        connection.initiate_connection()
        acknowledged = 0
        for number in range(20):
            connection.ping(number.to_bytes(8, "big"))
            raw.sendall(connection.data_to_send())
            while acknowledged <= number:
                for event in connection.receive_data(raw.recv(65536)):
                    assert not isinstance(event, ConnectionTerminated), "too_many_pings"
                    acknowledged += isinstance(event, PingAckReceived)
                raw.sendall(connection.data_to_send())


def test_an_oversized_message_harms_nobody_else(kind: str) -> None:
    with served(kind, table(Length=lambda call: b"%d" % len(call.payload))) as server:
        limit = MAX_REQUEST_BYTES + 512 * 1024
        assert server.unary(PATH + "Length", bytes(limit)) == b"%d" % limit
        method = server.channel.unary_unary(PATH + "Length")
        small = [method.future(b"abc", timeout=20) for _ in range(20)]
        huge = [method.future(bytes(8 << 20), timeout=20) for _ in range(3)]
        small += [method.future(b"abc", timeout=20) for _ in range(20)]
        for call in huge:
            code, text = status(call.result)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "eceived message larger than max" in text
        assert {call.result() for call in small} == {b"3"}
        assert server.unary(PATH + "Length", b"after") == b"5"


def test_large_responses_are_not_limited(kind: str) -> None:
    with served(kind, table(A=lambda call: bytes(6 << 20))) as server:
        assert len(server.unary(PATH + "A")) == 6 << 20


def test_stop_fails_open_calls_and_frees_the_port(kind: str) -> None:
    arrived = threading.Event()

    def keeping(call: Call) -> None:
        arrived.set()

    with served(kind, table(A=keeping)) as server:
        call = server.channel.unary_unary(PATH + "A").future(b"", timeout=10)
        assert arrived.wait(5)
        server.thread.run(server.transport.stop(0.05))
        assert status(call.result)[0] in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        )
        thread = LoopThread()
        again = transport(kind, MethodTable())
        assert thread.run(again.listen(server.target)) == [server.target]
        thread.close()


def test_many_clients_at_once_get_their_own_answers(kind: str) -> None:
    with served(kind, table(Echo=lambda call: call.payload)) as server:
        wrong: list[bytes] = []

        def work(name: int) -> None:
            with grpc.insecure_channel(server.target, options=UNLIMITED) as channel:
                method = channel.unary_unary(PATH + "Echo")
                for number in range(30):
                    payload = b"%d-%d" % (name, number)
                    if method(payload, timeout=10) != payload:
                        wrong.append(payload)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not wrong
        method = server.table.get(PATH + "Echo")
        assert method is not None
        assert method.handled[0] == 180
