"""Carries recipes' programs out in the calling thread."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kvstore.client.blocking.lease import Lease
from kvstore.client.blocking.watch import Watch
from kvstore.client.call import Unary
from kvstore.client.errors import (
    DeadlineError,
    KvError,
    LockTimeoutError,
    UnavailableError,
    WatchCompacted,
)
from kvstore.client.recipes.steps import (
    UNLIMITED,
    Bounded,
    Grant,
    Idle,
    Limits,
    Program,
    Revoke,
    Step,
    WaitChange,
    WaitDeleted,
)

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("run_program",)

T = TypeVar("T")


def run_program(client: Client, program: Program[T]) -> T:
    """Do what the program says, step by step; its result."""
    try:
        step = next(program)
        while True:
            try:
                answer = _do(client, step, UNLIMITED)
            except BaseException as error:
                # Ctrl-C, too: the program gives back what it has begun to take.
                step = program.throw(error)
            else:
                step = program.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


def _do(client: Client, step: Step, limits: Limits) -> Any:
    if isinstance(step, Bounded):
        return _do(client, step.step, limits.joined(step.limits))
    why = limits.reason()
    if why is not None:
        raise why
    try:
        match step:
            case Unary():
                return client._invoke(step, limits.deadline)
            case Grant():
                left_s = max(min(limits.deadline - client._clock(), client._timeout_s), 0.0)
                return client.lease(step.ttl_s, timeout=left_s)
            case Revoke():
                return cast("Lease", step.lease).revoke()
            case Idle():
                return _idle(client, limits)
            case WaitDeleted() | WaitChange():
                return _wait(client, step, limits)
    except (DeadlineError, UnavailableError) as error:
        if client._clock() < limits.deadline:
            raise
        raise LockTimeoutError(
            "the server did not answer in time", outcome=error.outcome
        ) from error


def _left_s(client: Client, limits: Limits) -> float | None:
    if math.isinf(limits.deadline):
        return None
    return max(limits.deadline - client._clock(), 0.0)


def _wait(client: Client, step: WaitDeleted | WaitChange, limits: Limits) -> None:
    client._check_usable()
    watch = Watch(client, step.request(), require_leader=False)
    client._remember_watch(watch)
    stops = (*limits.stops, client._closing_bell)
    with watch:
        for stop in stops:
            stop.subscribe(watch.cancel)
        try:
            seen = watch.get(_left_s(client, limits))
        except WatchCompacted:
            return
        finally:
            for stop in stops:
                stop.unsubscribe(watch.cancel)
    if seen is None:
        raise _ended(client, limits)


def _idle(client: Client, limits: Limits) -> None:
    woken = threading.Event()
    stops = (*limits.stops, client._closing_bell)
    for stop in stops:
        stop.subscribe(woken.set)
    try:
        woken.wait(_left_s(client, limits))
    finally:
        for stop in stops:
            stop.unsubscribe(woken.set)
    raise _ended(client, limits)


def _ended(client: Client, limits: Limits) -> KvError:
    """Why waiting ended without what was waited for."""
    return limits.reason() or client._closing_bell.reason() or LockTimeoutError("time is up")
