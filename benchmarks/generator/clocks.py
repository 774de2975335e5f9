"""CPU time of the generator and of the servers it drives, read at the edges of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ("CpuWatch", "cpu_s")

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class CpuWatch:
    """From construction to `stop`: wall clock, own CPU, CPU of each server in the same order."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._servers = [cpu_s(pid) for pid in pids]
        self._own = time.process_time()
        self._began = time.perf_counter()
        self.seconds = 0.0
        self.own_s = 0.0
        self.servers_s: list[float] = []

    def stop(self) -> None:
        """The end of what is measured. A server that has died by then counts with no CPU: its
        connections are lost, which voids the run."""
        self.seconds = time.perf_counter() - self._began
        self.own_s = time.process_time() - self._own
        self.servers_s = []
        for pid, before in zip(self._pids, self._servers, strict=True):
            try:
                self.servers_s.append(cpu_s(pid) - before)
            except FileNotFoundError:
                self.servers_s.append(0.0)
