"""The pieces around a call: outliers, retries, their budget, the breaker, deadlines, verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import errno
import math
import socket
import threading
import urllib.error
import urllib.request

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client import ConnectError, DeadlineError, UnavailableError
from kvstore.client.registry import (
    BreakerState,
    CircuitBreaker,
    CircuitOpenError,
    Failure,
    NoInstanceError,
    OutlierPolicy,
    Outliers,
    RetryBudget,
    RetryPolicy,
    deadline,
    judge,
    timeout_s,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(outliers: Outliers, id: str, times: int) -> bool:
    return [outliers.failed(id) for _ in range(times)][-1]


def test_outliers_leave_after_failures_in_a_row_and_return() -> None:
    clock = Clock()
    outliers = Outliers(OutlierPolicy(consecutive_failures=3, ejection_s=10), clock)
    outliers.members("abcd")
    assert not fail(outliers, "a", 2)
    outliers.succeeded("a")
    assert not fail(outliers, "a", 2)
    assert fail(outliers, "a", 1)
    assert outliers.ejected() == {"a"}
    clock.now = 10.0
    assert outliers.ejected() == frozenset()
    # The second time is twice as long; good times make it shorter again.
    fail(outliers, "a", 3)
    clock.now = 29.9
    assert outliers.ejected() == {"a"}
    clock.now = 50.1
    outliers.succeeded("a")
    fail(outliers, "a", 3)
    clock.now += 10.1
    assert outliers.ejected() == frozenset()


def test_outliers_never_take_more_than_their_part() -> None:
    outliers = Outliers(OutlierPolicy(consecutive_failures=1, max_ejected_percent=50), Clock())
    outliers.members("abcd")
    assert [outliers.failed(id) for id in "abcd"] == [True, True, False, False]
    outliers.members("a")
    assert outliers.ejected() == {"a"}
    outliers.members("xy")
    assert outliers.ejected() == frozenset()
    assert not outliers.failed("stranger")


@given(st.integers(1, 20), st.floats(0, 0.999))
def test_pauses_are_jittered_and_bounded(failures: int, chance: float) -> None:
    policy = RetryPolicy(first_s=0.1, max_s=2.0)
    pause = policy.pause_s(failures, lambda: chance)
    assert 0 <= pause <= min(0.1 * 2 ** (failures - 1), 2.0)


def test_a_budget_bounds_retries_to_a_part_of_the_calls() -> None:
    clock = Clock()
    budget = RetryBudget(0.25, reserve=2, least_per_s=1, clock=clock)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(8):
        budget.called()
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock.now = 1.0
    assert budget.spend()
    clock.now = 99.0
    assert budget.saved == 2


def run(breaker: CircuitBreaker, error: BaseException | None = None) -> None:
    with contextlib.suppress(BaseException), breaker.permit():
        if error is not None:
            raise error


def test_a_breaker_opens_probes_and_closes() -> None:
    clock = Clock()
    breaker = CircuitBreaker("pay", window=10, at_least=4, open_s=5, clock=clock)
    for _ in range(3):
        run(breaker, ConnectionError())
    assert breaker.state is BreakerState.CLOSED
    run(breaker, ConnectionError())
    assert breaker.state is BreakerState.OPEN
    clock.now = 4.0
    with pytest.raises(CircuitOpenError) as caught:
        breaker.permit()
    assert caught.value.retry_after_s == 1.0
    clock.now = 5.0
    assert breaker.state is BreakerState.HALF_OPEN
    probe = breaker.permit()
    with pytest.raises(CircuitOpenError):
        breaker.permit()
    with pytest.raises(TimeoutError), probe:
        raise TimeoutError
    assert breaker.state is BreakerState.OPEN
    clock.now = 10.0
    run(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_a_breaker_counts_neither_the_callers_errors_nor_cancellations() -> None:
    clock = Clock()
    breaker = CircuitBreaker(at_least=1, window=4, open_s=1, clock=clock)
    for error in (ValueError(), KeyError(), asyncio.CancelledError()):
        run(breaker, error)
    assert breaker.state is BreakerState.CLOSED
    old = breaker.permit()
    for _ in range(3):
        run(breaker, ConnectionError())
    clock.now = 1.0
    run(breaker, asyncio.CancelledError())
    assert breaker.state is BreakerState.HALF_OPEN
    with pytest.raises(ConnectionError), old:
        raise ConnectionError  # begun before it opened: no news of now
    run(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_deadlines_are_inherited_and_only_get_shorter() -> None:
    clock = Clock()
    assert timeout_s(clock=clock) is None
    assert timeout_s(3.0, clock=clock) == 3.0
    with deadline(2.0, clock=clock):
        clock.now = 0.5
        with deadline(10.0, clock=clock):
            assert timeout_s(clock=clock) == 1.5
            assert timeout_s(1.0, clock=clock) == 1.0
        with deadline(0.5, clock=clock), deadline(None, clock=clock):
            assert timeout_s(clock=clock) == 0.5
        clock.now = 2.0
        with pytest.raises(DeadlineError):
            timeout_s(clock=clock)
    assert timeout_s(clock=clock) is None


def test_tasks_inherit_a_deadline_and_threads_do_not() -> None:
    found: list[float | None] = []

    async def main() -> None:
        async def child() -> None:
            found.append(timeout_s())

        with deadline(60):
            task = asyncio.create_task(child())
        await task

    asyncio.run(main())
    with deadline(60):
        thread = threading.Thread(target=lambda: found.append(timeout_s()))
        thread.start()
        thread.join()
    assert found[0] is not None
    assert 0 < found[0] <= 60
    assert found[1] is None


class Rpc(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


def chained(cause: BaseException) -> Exception:
    error = RuntimeError("some library's own")
    error.__cause__ = cause
    return error


class Answered(Exception):  # noqa: N818 - named after what it stands for
    """As `requests` and `httpx` raise an answer that is an error."""

    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})()


def http_error(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://h/", status, "", email.message.Message(), None)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), Failure.NOT_SENT),
        (urllib.error.URLError(ConnectionRefusedError(errno.ECONNREFUSED, "")), Failure.NOT_SENT),
        (chained(chained(OSError(errno.EHOSTUNREACH, ""))), Failure.NOT_SENT),
        (socket.gaierror(-2, "no such host"), Failure.NOT_SENT),
        (NoInstanceError("none"), Failure.NOT_SENT),
        (ConnectError("nobody"), Failure.NOT_SENT),
        (
            Rpc(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; x"),
            Failure.NOT_SENT,
        ),
        (Rpc(grpc.StatusCode.UNAVAILABLE, "Socket closed"), Failure.INSTANCE),
        (Rpc(grpc.StatusCode.DEADLINE_EXCEEDED), Failure.INSTANCE),
        (Rpc(grpc.StatusCode.NOT_FOUND), Failure.CALLER),
        (ConnectionResetError(), Failure.INSTANCE),
        (TimeoutError(), Failure.INSTANCE),
        (UnavailableError("away"), Failure.INSTANCE),
        (http_error(503), Failure.INSTANCE),
        (http_error(404), Failure.CALLER),
        (Answered(500), Failure.INSTANCE),
        (Answered(409), Failure.CALLER),
        (FileNotFoundError(), Failure.CALLER),
        (ValueError("bug"), Failure.CALLER),
    ],
    ids=lambda value: str(getattr(value, "value", None) or type(value).__name__),
)
def test_exceptions_are_read_right(error: BaseException, verdict: Failure) -> None:
    assert judge(error) is verdict


def test_a_real_refused_connection_was_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(urllib.error.URLError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    assert judge(caught.value) is Failure.NOT_SENT
    assert not math.isnan(port)
