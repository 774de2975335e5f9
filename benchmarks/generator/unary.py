"""Closed loop of unary calls: as many under way as the job says, the next one when one ends."""

from __future__ import annotations

import select
from array import array
from collections.abc import Callable
from time import perf_counter

from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job, Outcome, outcome
from benchmarks.generator.requests import Method, Request, Space, draw

__all__ = ("Loop", "run")

DRAIN_S = 20.0


class Loop:
    """Connections, and how many calls each may still begin."""

    def __init__(self, job: Job, take: Callable[[], Request | None]) -> None:
        self.connections = job.connect()
        share, more = divmod(job.inflight, job.connections)
        self._free = {
            each.fileno(): share + (number < more) for number, each in enumerate(self.connections)
        }
        self._by_file = {each.fileno(): each for each in self.connections}
        self._take = take
        self._poll = select.epoll()
        for file in self._by_file:
            self._poll.register(file, select.EPOLLIN)

    def run_until(self, deadline: float) -> None:
        """Keeps calls under way until then, or until there are no more to make."""
        free, take = self._free, self._take
        for file, each in self._by_file.items():
            free[file] -= each.submit(free[file], take)
        while not self.idle and (left := deadline - perf_counter()) > 0:
            for file, events in self._poll.poll(left):
                each = self._by_file[file]
                if events & select.EPOLLIN:
                    room = free[file] + each.receive()
                    free[file] = room - each.submit(room, take) if room else 0
                else:
                    each.flush()
                self._wait_for(file, each)

    def drain(self) -> None:
        """Waits for the answers to what was sent."""
        deadline = perf_counter() + DRAIN_S
        while not self.idle and (left := deadline - perf_counter()) > 0:
            for file, _ in self._poll.poll(left):
                each = self._by_file[file]
                each.flush()
                each.receive()
                self._wait_for(file, each)

    @property
    def idle(self) -> bool:
        return not any(each.pending for each in self.connections)

    def _wait_for(self, file: int, each: Connection) -> None:
        if each.blocked:
            self._poll.modify(file, select.EPOLLIN | select.EPOLLOUT)
        elif each.was_blocked:
            self._poll.modify(file, select.EPOLLIN)
        each.was_blocked = each.blocked

    def close(self) -> None:
        self._poll.close()
        for each in self.connections:
            each.close()


def run(job: Job) -> Outcome:
    """Warms up, measures, and waits for the last answers; raises LostError."""
    methods = [Method.from_json(each) for each in job.methods]
    requests = draw(methods, Space(job.keys, job.seed, job.step))
    loop = Loop(job, lambda: next(requests, None))
    connections = loop.connections
    clock = CpuWatch(job.pids)
    try:
        loop.run_until(perf_counter() + job.warmup_s)
        for each in connections:
            del each.latencies[:]
        before = sum(each.done for each in connections)
        clock = CpuWatch(job.pids)
        loop.run_until(perf_counter() + job.seconds)
        clock.stop()
        count = sum(each.done for each in connections) - before
        latencies = array("d")
        for each in connections:
            latencies.extend(each.latencies)
        loop.drain()
    except LostError as error:
        clock.stop()
        connections[0].failures[f"connection lost: {error}"] += 1
        return outcome(connections, clock, 0, array("d"))
    finally:
        loop.close()
    return outcome(connections, clock, count, latencies)
