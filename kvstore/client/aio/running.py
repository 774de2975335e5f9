"""Carries recipes' programs out in the calling task."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kvstore.client.aio.lease import AsyncLease
from kvstore.client.aio.watch import AsyncWatch
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
    from kvstore.client.aio.client import AsyncClient

__all__ = ("run_program",)

T = TypeVar("T")


async def run_program(client: AsyncClient, program: Program[T]) -> T:
    """Do what the program says, step by step; its result."""
    try:
        step = next(program)
        while True:
            try:
                answer = await _do(client, step, UNLIMITED)
            except BaseException as error:
                # A cancellation, too: the program gives back what it has begun to take.
                step = program.throw(error)
            else:
                step = program.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def _do(client: AsyncClient, step: Step, limits: Limits) -> Any:
    if isinstance(step, Bounded):
        return await _do(client, step.step, limits.joined(step.limits))
    why = limits.reason()
    if why is not None:
        raise why
    try:
        match step:
            case Unary():
                return await client._invoke(step, limits.deadline)
            case Grant():
                left_s = max(min(limits.deadline - client._clock(), client._timeout_s), 0.0)
                return await client.lease(step.ttl_s, timeout=left_s)
            case Revoke():
                return await cast("AsyncLease", step.lease).revoke()
            case Idle():
                return await _idle(client, limits)
            case WaitDeleted() | WaitChange():
                return await _wait(client, step, limits)
    except (DeadlineError, UnavailableError) as error:
        if client._clock() < limits.deadline:
            raise
        raise LockTimeoutError(
            "the server did not answer in time", outcome=error.outcome
        ) from error


def _left_s(client: AsyncClient, limits: Limits) -> float | None:
    if math.isinf(limits.deadline):
        return None
    return max(limits.deadline - client._clock(), 0.0)


async def _wait(client: AsyncClient, step: WaitDeleted | WaitChange, limits: Limits) -> None:
    watch = AsyncWatch(client, step.request(), require_leader=False, timeout=None)
    stops = (*limits.stops, client._closing_bell)
    for stop in stops:
        stop.subscribe(watch._stop)
    try:
        seen = await watch.get(_left_s(client, limits))
    except WatchCompacted:
        return
    finally:
        for stop in stops:
            stop.unsubscribe(watch._stop)
        await watch.cancel()
    if seen is None:
        raise _ended(client, limits)


async def _idle(client: AsyncClient, limits: Limits) -> None:
    woken = asyncio.Event()
    stops = (*limits.stops, client._closing_bell)
    for stop in stops:
        stop.subscribe(woken.set)
    try:
        async with asyncio.timeout(_left_s(client, limits)):
            await woken.wait()
    except TimeoutError:
        pass
    finally:
        for stop in stops:
            stop.unsubscribe(woken.set)
    raise _ended(client, limits)


def _ended(client: AsyncClient, limits: Limits) -> KvError:
    """Why waiting ended without what was waited for."""
    return limits.reason() or client._closing_bell.reason() or LockTimeoutError("time is up")
