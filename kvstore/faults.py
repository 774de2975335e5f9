"""Named fault points: places in the program where a test may make something go wrong.

A point is a line such as `point("wal.after_write")`. Nothing is armed in a server, and a point is
then one look at a global (some 40 ns); points stand around batches, commits and file operations,
never around single keys or entries. There are two ways to use them:

`KVSTORE_FAULTS`, for real processes: `wal.after_write=exit:17,snapshot.before_sync=eio`. `kvstore
serve` refuses to start if it cannot read the variable, and warns in its log if it can.

    exit          ends the process on the spot, with code 137: nothing is flushed, as by kill -9
    sleep:50ms    holds the thread that passes (also 2s)
    eio, enospc   raises OSError, as if the operation had failed
    :17           behind exit, eio and enospc: only at the 17th passage (exit: else at the first,
                  the errors: else at each)

`install`, for the simulator: a function of its own is called with the name of every point that is
passed, and may raise; another one answers `maybe`, the questions whether the program should take a
rare, but legal way (CHOICES). In a server the answer is always no.

Counts are kept while something is installed or armed: a point that a campaign never passed is a
place that it did not try.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn

__all__ = (
    "CHOICES",
    "EXIT_CODE",
    "POINTS",
    "VARIABLE",
    "Fault",
    "FaultsError",
    "arm",
    "fired",
    "install",
    "maybe",
    "parse",
    "passed",
    "point",
)

_LOG = logging.getLogger(__name__)

VARIABLE: Final = "KVSTORE_FAULTS"
EXIT_CODE: Final = 137
"""What a shell calls a process that kill -9 ended."""

POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # The log.
        "wal.before_write": "a batch is about to be written to the log",
        "wal.after_write": "a batch is written, not synced",
        "wal.before_sync": "the log is about to be synced",
        "wal.after_sync": "the log is synced, and nobody knows yet",
        "wal.before_segment": "the segment is full and synced, the next one does not exist",
        "wal.segment_written": "the new segment is whole and synced, under a temporary name",
        "wal.segment_named": "the new segment has its name, the directory is not synced",
        "wal.after_segment": "the new segment is durable and empty",
        "wal.before_release": "segments behind a snapshot are about to be removed",
        "wal.segment_removed": "one of them is removed, the directory is not synced",
        "wal.after_release": "all of them are removed",
        "wal.before_reset": "the log is about to restart behind a received snapshot",
        "wal.reset_begun": "the log has restarted, the old segments are still there",
        "wal.after_reset": "the old segments are removed",
        "wal.tail_erased": "at start: an unfinished last write was cut off",
        "wal.refilled": "at start: a segment that was too short has its size again",
        "wal.closed": "the log says that all of it is synced, and is closed",
        # Snapshot files, made here or received.
        "snapshot.begun": "the file exists under a temporary name, empty",
        "snapshot.piece": "a piece is written to it",
        "snapshot.before_sync": "all of it is written, not synced",
        "snapshot.after_sync": "it is synced, not yet read back",
        "snapshot.read_back": "it was read back and is good, still under the temporary name",
        "snapshot.after_rename": "it has its name, the directory is not synced",
        "snapshot.after_dir_sync": "it is durable",
        "snapshot.pruned": "an older one is removed, the directory is not synced",
        # Building a store from a snapshot file.
        "rebuild.before": "the image is about to be taken out of the snapshot",
        "rebuild.piece": "a piece of the image is written",
        "rebuild.after": "the image is whole and synced, beside the store",
        # The store and its file.
        "store.before_open": "the store's file is about to be opened",
        "store.after_open": "it is open",
        "store.before_commit": "a transaction is about to be committed",
        "store.after_commit": "it is committed (the store's commits are never synced)",
        "store.before_copy": "the store is about to be copied to another file",
        "store.copy_piece": "a piece of a copy, or of a snapshot's image, was read",
        "store.after_copy": "the copy is whole and synced",
        "store.before_mark": "the mark that says how the store was left is about to change",
        "store.after_mark": "the mark has changed, durably",
        "store.before_final_sync": "an orderly end: the store is about to be synced",
        "store.after_final_sync": "it is synced, and still marked as in use",
        "store.set_aside": "a store that is not believed was renamed, the directory is not synced",
        # Another file in the place of the store's: defragmentation, rebuilding, a snapshot.
        "swap.before_rename": "the store is closed, its successor lies beside it",
        "swap.after_rename": "the successor has the store's name, the directory is not synced",
        "swap.after_dir_sync": "the exchange is durable, the store is not open yet",
        "swap.reopened": "the store is open again",
        # Applying committed entries.
        "apply.before": "a batch of entries is about to be applied",
        "apply.after": "it is committed to the store, and nobody was told",
        "apply.answered": "proposers and watchers were told",
        "sweep.before_commit": "a slice of the sweep is done, not committed",
        "sweep.after_commit": "it is committed",
        # Beginning and recovering.
        "bootstrap.marked": "a new member: it is noted that it has no log yet",
        "bootstrap.store_made": "its store is made and holds the first members",
        "bootstrap.snapshot_made": "its first snapshot is made",
        "bootstrap.log_created": "its log is made; the note that there is none is still there",
        "bootstrap.done": "the note is gone",
        "recovery.store_opened": "at start: the store was trusted and opened",
        "recovery.log_opened": "at start: the log was read and checked",
        "recovery.rebuilt": "at start: the store was built anew",
        # Installing a received snapshot.
        "install.before": "a received snapshot is about to become the state",
        "install.log_reset": "the log has restarted behind it, the store is the old one",
        "install.store_replaced": "the store is the new one",
        "install.after": "the member goes on from it",
        # Between members.
        "peer.before_send": "a frame of Raft messages is about to go to a peer",
        "peer.after_send": "it was handed to the socket",
        "peer.received": "a frame of Raft messages has come, Raft has not seen it",
        "transfer.before_send": "a snapshot file is about to be sent",
        "transfer.chunk_sent": "a piece of it was sent",
        "transfer.sent": "the receiver has it all",
        "transfer.announced": "a snapshot file is announced by a peer",
        "transfer.chunk_received": "pieces of it are written",
        "transfer.received": "it is whole and checked, Raft has not seen it",
    }
)
"""Every point, and the moment that it is."""

CHOICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "apply.wait": "a turn that could apply does not",
        "apply.one_entry": "a batch of one entry",
        "sweep.one_revision": "a slice of the sweep of one revision",
        "snapshot.now": "a periodic snapshot, however little the log has grown",
    }
)
"""Every rare way that may be taken, as `maybe` is asked for it."""

passed: Final[dict[str, int]] = dict.fromkeys(POINTS, 0)
"""How often each point was passed, while something was armed or installed."""
fired: Final[dict[str, int]] = dict.fromkeys((*POINTS, *CHOICES), 0)
"""How often something happened at each point or choice; whoever makes it happen counts it."""

_lock = threading.Lock()
_handler: Callable[[str], None] | None = None
_coin: Callable[[str], bool] | None = None


def point(name: str) -> None:
    """Passes a point. Raises OSError, or whatever the simulator makes happen there."""
    if _handler is not None:
        with _lock:
            passed[name] += 1
        _handler(name)


def maybe(name: str) -> bool:
    """Whether to take a rare way; False unless a simulator says otherwise."""
    if _coin is None or not _coin(name):
        return False
    fired[name] += 1
    return True


def install(
    handler: Callable[[str], None] | None, coin: Callable[[str], bool] | None = None
) -> None:
    """From now on `handler` sees every point that is passed and `coin` decides the choices.

    None takes it back. One for the whole process: a simulator knows whose turn it is.
    """
    global _handler, _coin
    _handler, _coin = handler, coin


# ---- KVSTORE_FAULTS ----------------------------------------------------------------------------


class FaultsError(ValueError):
    """KVSTORE_FAULTS cannot be read; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to happen at a point."""

    point: str
    action: str
    """"exit", "sleep", "eio" or "enospc"."""
    passage: int = 0
    """At which passage, from 1; 0: at each."""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.action == "sleep":
            return f"{self.point}=sleep:{self.seconds * 1000:g}ms"
        return f"{self.point}={self.action}" + (f":{self.passage}" if self.passage else "")


_ERRORS: Final = {"eio": errno.EIO, "enospc": errno.ENOSPC}
_UNITS: Final = {"ms": 0.001, "s": 1.0}


def parse(text: str) -> tuple[Fault, ...]:
    """Reads KVSTORE_FAULTS; raises FaultsError."""
    faults = []
    for part in text.split(","):
        name, _, what = part.strip().partition("=")
        if name not in POINTS:
            raise FaultsError(
                f"{VARIABLE} names the fault point {name!r}, which does not exist. There are: "
                f"{', '.join(POINTS)}."
            )
        action, colon, argument = what.partition(":")
        try:
            faults.append(_fault(name, action, argument if colon else None))
        except ValueError:
            raise FaultsError(
                f"{VARIABLE} wants {what!r} at {name}; it must be one of exit, eio, enospc (each "
                "perhaps with the number of the passage, from 1: exit:17) and sleep with a time "
                "(sleep:50ms, sleep:2s)."
            ) from None
    return tuple(faults)


def _fault(name: str, action: str, argument: str | None) -> Fault:
    """Raises ValueError for anything else than an action and its argument."""
    if action == "sleep":
        for unit, seconds in _UNITS.items():
            number = (argument or "").removesuffix(unit)
            if number != argument and number.isascii() and number.isdigit():
                return Fault(name, action, seconds=int(number) * seconds)
        raise ValueError(argument)
    if action not in ("exit", *_ERRORS):
        raise ValueError(action)
    passage = 0 if argument is None else int(argument)
    if passage < (argument is not None):
        raise ValueError(argument)
    return Fault(name, action, passage)


def arm(faults: Iterable[Fault]) -> None:
    """Makes these happen in this process, and says so in the log; nothing if there are none."""
    by_point: dict[str, list[Fault]] = {}
    for fault in faults:
        by_point.setdefault(fault.point, []).append(fault)
        _LOG.warning("ARMED TO FAIL by %s, for tests only: %s", VARIABLE, fault)
    if not by_point:
        return

    counts = dict.fromkeys(by_point, 0)

    def happen(name: str) -> None:
        if name not in by_point:
            return
        with _lock:
            # Threads may come by at once: each has a number of its own.
            counts[name] += 1
            passage = counts[name]
            due = [fault for fault in by_point[name] if fault.passage in (0, passage)]
            fired[name] += len(due)
        for fault in due:
            _carry_out(fault)

    install(happen)


def _carry_out(fault: Fault) -> None:
    if fault.action == "exit":
        _exit(fault)
    _LOG.warning("fault point: %s", fault)
    if fault.action == "sleep":
        time.sleep(fault.seconds)
        return
    number = _ERRORS[fault.action]
    raise OSError(number, f"{os.strerror(number)} (armed: {fault})")


def _exit(fault: Fault) -> NoReturn:
    # Past the log, which has a thread of its own and would come too late.
    os.write(2, f"fault point: {fault}\n".encode())
    os._exit(EXIT_CODE)
