"""`check perf`: whether a cluster takes a load that its machines should carry."""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from typing import NamedTuple

import click

from kvstore.cli.context import Session, as_bytes
from kvstore.cli.exits import BAD_FEATURE, ERROR, INVALID_INPUT, CliError
from kvstore.cli.options import DURATION, ClientCommand

__all__ = ("perf",)


class _Load(NamedTuple):
    clients: int
    writes_per_s: int


_LOADS = {
    "s": _Load(50, 150),
    "m": _Load(200, 1_000),
    "l": _Load(500, 8_000),
    "xl": _Load(1_000, 15_000),
}
_ALIASES = {"small": "s", "medium": "m", "large": "l", "xlarge": "xl", "xLarge": "xl"}
_KEY_BYTES = 256
_VALUE_BYTES = 1024
_RATE_PART = 0.9
_SLOWEST_S = 0.5
_STDDEV_S = 0.1


class _CleansUp(ClientCommand):
    cleans_up = True


@click.command(
    cls=_CleansUp, examples=("kvstore check perf", "kvstore check perf --load=m --auto-compact")
)
@click.option(
    "--load", default="s", show_default=True, help="s(mall), m(edium), l(arge) or xl(arge)."
)
@click.option(
    "--prefix", default="/etcdctl-check-perf/", show_default=True, help="Where the keys are made."
)
@click.option("--duration", default="60s", type=DURATION, show_default=True, help="How long.")
@click.option("--auto-compact", is_flag=True, help="Compact the history afterwards.")
@click.option("--auto-defrag", is_flag=True, help="Give the space back afterwards.")
@click.pass_obj
def perf(
    session: Session,
    /,
    load: str,
    prefix: str,
    duration: float,
    auto_compact: bool,
    auto_defrag: bool,
) -> None:
    """Write at a fixed rate for a minute and judge rate and delays: PASS or FAIL.

    The loads are 150, 1000, 8000 and 15000 writes a second of 1 KiB from 50, 200, 500 and 1000
    clients. This command needs a machine of its own for the larger ones.
    """
    from kvstore.client import operations

    chosen = _LOADS.get(_ALIASES.get(load, load))
    if chosen is None:
        raise CliError(f"unknown load option {load}: use {', '.join(_LOADS)}", BAD_FEATURE)
    where = as_bytes(prefix)
    if session.call(operations.range(where, prefix=True, limit=1)).kvs:
        raise CliError(
            f'prefix "{prefix}" has keys. Delete with `kvstore del --prefix {prefix}` first.',
            INVALID_INPUT,
        )
    run = _Run(session, where, chosen, duration)
    try:
        run.go()
    finally:
        last = session.call(operations.delete(where, prefix=True), timeout_s=60.0)
    if auto_compact:
        session.call(operations.compact(last.header.revision, physical=True), timeout_s=60.0)
        click.echo(f"Compacted with revision {last.header.revision}")
    if auto_defrag:
        for endpoint in session.endpoints:
            session.call(operations.defragment(endpoint=endpoint), timeout_s=60.0)
            click.echo(f'Defragmented "{endpoint}"')
    if not run.judge():
        raise SystemExit(ERROR)


class _Run:
    """The writers and what they measured."""

    def __init__(self, session: Session, prefix: bytes, load: _Load, duration_s: float) -> None:
        self._session = session
        self._prefix = prefix
        self._load = load
        self._duration_s = duration_s
        self._turn = threading.Lock()
        self._next = 0
        self._stop = threading.Event()
        self._delays: list[float] = []
        self._errors: dict[str, int] = {}
        self._began = self._ended = 0.0

    def go(self) -> None:
        """Writes for the whole time; a progress bar shows how much of it is over."""
        from kvstore.cli.progress import progress_bar

        self._session.client  # noqa: B018 - made here, before threads would each make one
        self._began = time.monotonic()
        threads = [
            threading.Thread(target=self._write, daemon=True) for _ in range(self._load.clients)
        ]
        for thread in threads:
            thread.start()
        try:
            with progress_bar("Writing") as move:
                while (passed := time.monotonic() - self._began) < self._duration_s:
                    move(passed, self._duration_s)
                    self._stop.wait(min(0.2, self._duration_s - passed))
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        self._ended = time.monotonic()

    def _take(self) -> float:
        """The moment at which the next write is due, whoever does it."""
        with self._turn:
            due = self._began + self._next / self._load.writes_per_s
            # A rate, not a debt: what a stall cost is not made up for by a burst.
            late = time.monotonic() - due
            self._next += 1 + max(int(late * self._load.writes_per_s) - self._load.clients, 0)
            return due

    def _write(self) -> None:
        from kvstore.errors import EtcdError

        client, value = self._session.client, os.urandom(_VALUE_BYTES)
        while not self._stop.wait(max(self._take() - time.monotonic(), 0.0)):
            key = self._prefix + os.urandom(_KEY_BYTES)
            start = time.monotonic()
            try:
                client.put(key, value)
            except EtcdError as error:
                self._errors[error.message] = self._errors.get(error.message, 0) + 1
            else:
                self._delays.append(time.monotonic() - start)

    def judge(self) -> bool:
        """Prints the verdicts; whether all of them are good."""
        good = True
        for error, count in self._errors.items():
            good = False
            click.echo(f"FAIL: {error} -> {count}")
        elapsed = max(self._ended - self._began, 1e-9)
        rate = int(len(self._delays) / elapsed) + 1
        if rate < self._load.writes_per_s * _RATE_PART:
            click.echo(f"FAIL: Throughput too low: {rate} writes/s")
            good = False
        else:
            click.echo(f"PASS: Throughput is {rate} writes/s")
        slowest = max(self._delays, default=math.inf)
        if slowest > _SLOWEST_S:
            click.echo(f"Slowest request took too long: {slowest:f}s")
            good = False
        else:
            click.echo(f"PASS: Slowest request took {slowest:f}s")
        spread = statistics.pstdev(self._delays) if self._delays else math.inf
        if spread > _STDDEV_S:
            click.echo(f"Stddev too high: {spread:f}s")
            good = False
        else:
            click.echo(f"PASS: Stddev is {spread:f}s")
        click.echo("PASS" if good else "FAIL")
        return good
