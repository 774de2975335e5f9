"""Runs a target over many inputs: every outcome is counted, time and memory are measured."""

from __future__ import annotations

import gc
import logging
import resource
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.fuzz.mutate import Mutator
from tests.fuzz.registry import Target
from tests.sim.prng import Prng

__all__ = ("Finding", "Tally", "campaign", "memory", "replay")

ACCEPTED = "accepted"
LEAST_INPUTS = 60
"""A dear target gets so many in any case: fewer show but one side of it."""
_HEADROOM_BYTES = 2 * 1024**3
"""What the process may grow by during a campaign; more is a MemoryError, and so a finding."""


class Finding(AssertionError):  # noqa: N818
    """An input that a target does not take as it should."""

    def __init__(self, target: Target, number: int, data: bytes, what: str) -> None:
        shown = data[:2000].hex() + ("…" if len(data) > 2000 else "")
        super().__init__(
            f"{target.name}, input {number} ({len(data)} bytes): {what}\n  bytes.fromhex({shown!r})"
        )


@dataclass
class Tally:
    """What became of a campaign's inputs."""

    target: Target
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """Processor time of the slowest input."""

    @property
    def inputs(self) -> int:
        return self.outcomes.total()

    @property
    def accepted(self) -> int:
        return self.outcomes[ACCEPTED]

    def line(self) -> str:
        """One line of the report."""
        parts = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common(8))
        return f"{self.target.name}: {self.inputs} inputs, {1e3 * self.slowest_s:.1f} ms; {parts}"


def campaign(target: Target, inputs: int, *, seed: int = 1) -> Tally:
    """Feeds `inputs` inputs (fewer to a dear target); raises Finding at the first bad outcome."""
    tally = Tally(target)
    count = max(inputs // target.cost, min(inputs, LEAST_INPUTS))
    with _log_watched() as mistakes, target.open() as feed, _bounded_memory():
        # A collection in the middle of an input would be counted as that input's time.
        gc.collect()
        for number, data in enumerate(_inputs(target, count, seed)):
            began = time.process_time()
            outcome = _feed(target, feed, number, data)
            if mistakes:
                raise Finding(target, number, data, f"logged as a mistake: {mistakes[0]}")
            took_s = time.process_time() - began
            tally.outcomes[outcome] += 1
            tally.slowest_s = max(tally.slowest_s, took_s)
            if took_s > target.time_s:
                raise Finding(target, number, data, f"it took {took_s:.2f} s ({outcome})")
    return tally


def memory(target: Target, inputs: int, *, seed: int = 1) -> float:
    """The most that one input made the target allocate, in MiB; raises Finding beyond its bound."""
    most = 0.0
    with _log_watched(), target.open() as feed, _bounded_memory():
        # Once before: what is made once and kept (caches, imports) is not the input's.
        for data in target.seeds():
            _feed(target, feed, 0, data)
        tracemalloc.start()
        try:
            for number, data in enumerate(_inputs(target, inputs, seed)):
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                outcome = _feed(target, feed, number, data)
                used_mib = (tracemalloc.get_traced_memory()[1] - before) / 1024**2
                most = max(most, used_mib)
                if used_mib > target.memory_mib:
                    text = f"it took {used_mib:.0f} MiB ({outcome})"
                    raise Finding(target, number, data, text)
        finally:
            tracemalloc.stop()
    return most


def replay(target: Target, data: bytes) -> str:
    """The outcome of one input, for regression tests."""
    with _log_watched() as mistakes, target.open() as feed:
        outcome = _feed(target, feed, 0, data)
    assert not mistakes, mistakes
    return outcome


def _inputs(target: Target, count: int, seed: int) -> Iterator[bytes]:
    prng = Prng(seed).fork(target.name)
    return Mutator(prng, target.seeds(), target.words, target.mend).inputs(count)


def _feed(target: Target, feed: object, number: int, data: bytes) -> str:
    try:
        feed(data)  # type: ignore[operator]
    except target.declared as error:
        # Some errors are made once and live as long as the process: what raising has tied to them
        # would grow from input to input.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return target.label(error)
    except Finding:
        raise
    except Exception as error:
        raise Finding(target, number, data, f"{type(error).__name__}: {error}") from error
    return ACCEPTED


class _Mistakes(logging.Handler):
    """Collects what a server logs when something was raised that it has no answer for."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            lines = traceback.format_exception(record.exc_info[1], limit=-3)
            self.found.append(record.getMessage() + "\n" + "".join(lines))


@contextmanager
def _log_watched() -> Iterator[list[str]]:
    """The mistakes that are logged inside; everything else that is logged is dropped."""
    handler = _Mistakes()
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    try:
        yield handler.found
    finally:
        root.handlers = before


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """A length that lies must not take the machine's memory with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        now_bytes = int(statm.read().split()[0]) * resource.getpagesize()
    limit = now_bytes + _HEADROOM_BYTES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
