"""How simulated clients reach a member: the method table, with a network in between.

A call travels for a while, runs on the member's loop, and its answer travels back. What a client
learns is one of four things: an answer, an error of the server, that the member was never reached
(so nothing has happened), or that the connection was lost or time ran out (anything may happen
yet).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore.api.call import BidiMethod, Call, Session, StreamMethod, UnaryMethod
from kvstore.errors import EtcdError, detach, lookup
from tests.sim.observer import Violated
from tests.sim.prng import Prng
from tests.sim.world import World

if TYPE_CHECKING:
    from tests.sim.process import Process

__all__ = ("Answer", "FrontDoor", "ServerStream", "Stream", "Told")

_TAKE_MESSAGES = 16
_TAKE_BYTES = 64 * 1024


class Told(Enum):
    """What a client learned."""

    OK = "ok"
    ERROR = "error"
    UNREACHED = "unreached"
    LOST = "lost"


class Answer(NamedTuple):
    """The end of a call, as its client sees it."""

    told: Told
    body: bytes = b""
    error: EtcdError | None = None

    @property
    def effectless(self) -> bool:
        """Whether the request certainly has no effect and never will."""
        if self.told is Told.UNREACHED:
            return True
        if self.error is None:
            return False
        # What a client knows of an error is its code and text; the catalogue says the rest.
        known = lookup(self.error.code, self.error.message)
        return known is not None and known.outcome_known

    @property
    def text(self) -> str:
        """The error for the history."""
        return self.error.message if self.error is not None else self.told.value


Done = Callable[[Answer], None]


class _SimCall(Call):
    __slots__ = ("_answered",)

    def __init__(self, payload: bytes, answered: Callable[[bytes, EtcdError | None], None]) -> None:
        super().__init__(payload, (), "client", None)
        self._answered = answered

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        self._answered(body, error)


class FrontDoor:
    """All clients' way to all members."""

    def __init__(self, world: World, delay_ns: tuple[int, int], loss_rate: int) -> None:
        self.world = world
        self.chance: Prng = world.prng.fork("client network")
        self.loss_rate = loss_rate
        """Requests or answers lost, per 10,000; set to 0 once faults have stopped."""
        self._delay_ns = delay_ns

    def delay_ns(self) -> int:
        """How long the next thing takes between a client and a member."""
        return self.chance.between(*self._delay_ns)

    def lost(self) -> bool:
        """Whether the next thing gets lost."""
        if self.loss_rate and self.chance.below(10_000) < self.loss_rate:
            self.world.fire("client message lost")
            return True
        return False

    def call(
        self, process: Process, path: str, payload: bytes, timeout_ns: int, done: Done
    ) -> None:
        """Calls a unary method; `done` gets the outcome, once."""
        _Exchange(self, process, path, payload, done).begin(timeout_ns)

    def crashed(self, process: Process, path: str, error: BaseException) -> None:
        """A handler raised what no handler should."""
        self.world.violate(Violated("K3", f"{process.name}: {path} raised {error!r}"))


class _Exchange:
    """One unary call under way."""

    def __init__(
        self, door: FrontDoor, process: Process, path: str, payload: bytes, done: Done
    ) -> None:
        self._door = door
        self._process = process
        self._path = path
        self._payload = payload
        self._done: Done | None = done
        self._ticket = 0

    def begin(self, timeout_ns: int) -> None:
        """Sends the request."""
        door = self._door
        door.world.after(timeout_ns, self._end, Answer(Told.LOST))
        if not door.lost():
            door.world.after(door.delay_ns(), self._arrive)

    def _end(self, answer: Answer) -> None:
        done, self._done = self._done, None
        self._process.guests.pop(self._ticket, None)
        if done is not None:
            done(answer)

    def _arrive(self) -> None:
        process, door = self._process, self._door
        if self._done is None:
            return
        if not process.serving:
            door.world.after(door.delay_ns(), self._end, Answer(Told.UNREACHED))
            return
        self._ticket = process.admit(self._cut_off)
        process.loop.call_soon(self._run)

    def _cut_off(self) -> None:
        """The member has died."""
        door = self._door
        door.world.after(door.delay_ns(), self._end, Answer(Told.LOST))

    def _run(self) -> None:
        process = self._process
        table = process.table
        method = table.get(self._path) if table is not None else None
        if method is None:
            self._cut_off()  # It stops serving just now.
            return
        assert isinstance(method, UnaryMethod), self._path
        call = _SimCall(self._payload, self._answered)
        try:
            answer = method.handler(call)
        except EtcdError as error:
            call.fail(error)
            return
        except Exception as error:
            self._door.crashed(process, self._path, error)
            return
        if isinstance(answer, bytes):
            call.reply(answer)
        elif answer is not None:
            process.loop.create_task(self._await(call, answer))

    async def _await(self, call: Call, answer: Coroutine[Any, Any, bytes]) -> None:
        try:
            call.reply(await answer)
        except EtcdError as error:
            call.fail(error)
        except Exception as error:
            self._door.crashed(self._process, self._path, error)

    def _answered(self, body: bytes, error: EtcdError | None) -> None:
        door = self._door
        if not self._process.alive:
            return
        self._process.guests.pop(self._ticket, None)
        if door.lost():
            return  # The client waits until its time is over.
        if error is None:
            answer = Answer(Told.OK, body)
        else:
            answer = Answer(Told.ERROR, b"", EtcdError(error.code, error.message))
        door.world.after(door.delay_ns(), self._end, answer)


class Stream:
    """A bidirectional stream of one client; messages arrive in order, until it ends.

    `received(bytes)` and `ended(error or None)` are called at the client. A client that does not
    read (`stalled`) leaves its messages with the member.
    """

    def __init__(
        self,
        door: FrontDoor,
        process: Process,
        path: str,
        received: Callable[[bytes], None],
        ended: Callable[[EtcdError | None], None],
    ) -> None:
        self.process = process
        self.metadata: dict[str, str] = {}
        self.peer = "client"
        self.stalled = False
        self._door = door
        self._path = path
        self._received = received
        self._ended = ended
        self._session: Session | None = None
        self._over = False
        self._told = False
        self._pumping = False
        self._arrival_ns = 0
        self._departure_ns = 0
        self._ticket = 0
        self._finish: tuple[EtcdError | None] | None = None
        self._to_member(self._open)

    # the client's side

    def send(self, payload: bytes) -> None:
        """A message to the member."""
        self._to_member(self._request, payload)

    def read_on(self) -> None:
        """The client reads again."""
        self.stalled = False
        self._to_member(self.wake)

    def close(self) -> None:
        """The client leaves."""
        self._told = True
        self._to_member(self._leave)

    def _to_member(self, event: Callable[..., None], *args: Any) -> None:
        world = self._door.world
        self._departure_ns = max(self._departure_ns + 1, world.now_ns + self._door.delay_ns())
        world.at(self._departure_ns, self._at_member, event, args)

    def _at_member(self, event: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self._over:
            return
        if event == self._open:
            if not self.process.serving:
                self._over = True
                self._to_client(self._tell_end, None)
                return
            self._ticket = self.process.admit(self._cut_off)
        self.process.loop.call_soon(event, *args)

    def _to_client(self, event: Callable[..., None], *args: Any) -> None:
        world = self._door.world
        self._arrival_ns = max(self._arrival_ns + 1, world.now_ns + self._door.delay_ns())
        world.at(self._arrival_ns, event, *args)

    def _tell(self, message: bytes) -> None:
        if not self._told:
            self._received(message)

    def _tell_end(self, error: EtcdError | None) -> None:
        if not self._told:
            self._told = True
            self._ended(error)

    # the member's side, on its loop

    def _open(self) -> None:
        table = self.process.table
        method = table.get(self._path) if table is not None else None
        if method is None:
            self.finish(None)
            return
        assert isinstance(method, BidiMethod), self._path
        try:
            self._session = method.handler(self)
        except EtcdError as error:
            self.finish(error)
        except Exception as error:
            self._door.crashed(self.process, self._path, error)

    def _request(self, payload: bytes) -> None:
        if self._session is None or self._over:
            return
        try:
            self._session.received(payload)
        except EtcdError as error:
            self.finish(error)
        except Exception as error:
            self._door.crashed(self.process, self._path, error)

    def _leave(self) -> None:
        if not self._over:
            self._over = True
            self._close_session()

    def wake(self) -> None:
        """The session has something to send."""
        if not self._pumping and not self._over and self._session is not None:
            self._pumping = True
            self.process.loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        session = self._session
        if self._over or self.stalled or session is None:
            return
        taken = session.take(_TAKE_MESSAGES, _TAKE_BYTES)
        for message in taken:
            self._to_client(self._tell, message)
        if taken:
            self.wake()
        elif self._finish is not None:
            self._end_with(self._finish[0])

    def finish(self, error: EtcdError | None) -> None:
        """The member ends the stream once everything is sent."""
        if error is not None:
            error = EtcdError(error.code, error.message)
        if self._session is None:
            self._end_with(error)
        else:
            self._finish = (error,)
            self.wake()

    def _end_with(self, error: EtcdError | None) -> None:
        if not self._over:
            self._over = True
            self._close_session()
            self._to_client(self._tell_end, error)

    def _close_session(self) -> None:
        self.process.guests.pop(self._ticket, None)
        session, self._session = self._session, None
        if session is not None:
            session.closed()

    def _cut_off(self) -> None:
        """The member has died."""
        if not self._over:
            self._over = True
            self._session = None
            self._to_client(self._tell_end, None)


class ServerStream(Stream):
    """A stream of answers to one request."""

    def __init__(
        self,
        door: FrontDoor,
        process: Process,
        path: str,
        payload: bytes,
        received: Callable[[bytes], None],
        ended: Callable[[EtcdError | None], None],
    ) -> None:
        self._payload = payload
        self._task: asyncio.Task[None] | None = None
        self._woken: asyncio.Event | None = None
        super().__init__(door, process, path, received, ended)

    def _open(self) -> None:
        table = self.process.table
        method = table.get(self._path) if table is not None else None
        if method is None:
            self.finish(None)
            return
        assert isinstance(method, StreamMethod), self._path
        self._woken = asyncio.Event()
        self._task = self.process.loop.create_task(self._run(method))

    async def _run(self, method: StreamMethod) -> None:
        assert self._woken is not None
        call = _SimCall(self._payload, lambda body, error: None)
        try:
            async with aclosing(method.handler(call)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    while self.stalled:
                        self._woken.clear()
                        await self._woken.wait()
                    self._to_client(self._tell, message)
        except EtcdError as error:
            detach(error)
            self.finish(error)
        except Exception as error:
            # (The loops of the living are buried, too, at the end of a seed.)
            if not self._over and not self.process.loop.dead:
                self._door.crashed(self.process, self._path, error)
        else:
            self.finish(None)

    def wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    def _close_session(self) -> None:
        super()._close_session()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
