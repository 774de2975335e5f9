"""The server's log: one JSON object (or one readable line) per event, written off the loop.

Records go through a bounded queue to a thread, so that a reader of stderr that stalls cannot stall
the server; what does not fit is counted and the count logged. Anything a caller passes in `extra`
becomes a field of its own. Keys' values are never logged, by anyone.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

__all__ = (
    "LEVELS",
    "ConsoleFormatter",
    "JsonFormatter",
    "LogConfig",
    "LogWriter",
    "Rotation",
    "start_logging",
)

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}

QUEUE_RECORDS = 10_000
"""Records that may wait for the writing thread; more are dropped and counted."""
STOP_WAIT_S = 2.0
"""How long the end of the process waits for the last records to be written."""

_PLAIN_ATTRIBUTES = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
}
_LEVEL_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warn",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log file is put aside, and which of those put aside stay (0: all)."""

    max_bytes: int
    max_age_s: float
    max_backups: int
    local_time: bool


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Level, form and destinations (`stderr`, `stdout`, or paths of files)."""

    level: int
    format: str
    outputs: tuple[str, ...]
    rotation: Rotation | None = None


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN_ATTRIBUTES}


def _level(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelno, record.levelname.lower())


class JsonFormatter(logging.Formatter):
    """etcd's shape: level, ts, caller, msg, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "level": _level(record),
            "ts": when.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z",
            "caller": f"{record.name.removeprefix('kvstore.')}/{record.filename}:{record.lineno}",
            "msg": record.getMessage(),
        }
        line.update(_fields(record))
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["error"] = record.exc_text
        return json.dumps(line, default=str, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """Time, level, message and fields on one line (a traceback takes more)."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = [f"{when}.{int(record.msecs):03d} {_level(record):5} {record.getMessage()}"]
        parts += [f"{name}={value}" for name, value in _fields(record).items()]
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        text = "  ".join(parts)
        return f"{text}\n{record.exc_text}" if record.exc_text else text


class _File:
    """A log file that is put aside when full, under its name with the time in it."""

    def __init__(self, path: Path, rotation: Rotation | None) -> None:
        self._path = path
        self._rotation = rotation
        self._file = path.open("a", encoding="utf-8")
        self._size_bytes = path.stat().st_size

    def write(self, text: str) -> None:
        size = len(text.encode("utf-8", "backslashreplace"))
        rotation = self._rotation
        if rotation and self._size_bytes and self._size_bytes + size > rotation.max_bytes:
            self._rotate(rotation)
        self._file.write(text)
        self._size_bytes += size

    def flush(self) -> None:
        self._file.flush()

    def _rotate(self, rotation: Rotation) -> None:
        self._file.close()
        now = datetime.now(None if rotation.local_time else UTC)
        stamp = now.strftime("%Y-%m-%dT%H-%M-%S.%f")
        self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        self._file = self._path.open("a", encoding="utf-8")
        self._size_bytes = 0
        backups = sorted(
            self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"), reverse=True
        )
        for position, backup in enumerate(backups):
            surplus = rotation.max_backups and position >= rotation.max_backups
            old = rotation.max_age_s and time.time() - backup.stat().st_mtime > rotation.max_age_s
            if surplus or old:
                backup.unlink(missing_ok=True)


class LogWriter(logging.Handler):
    """The handler at the root logger: queues records, and writes them from a thread of its own."""

    def __init__(self, outputs: Sequence[IO[str] | _File], formatter: logging.Formatter) -> None:
        super().__init__()
        self._outputs = tuple(outputs)
        self._line_formatter = formatter
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_RECORDS)
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        # What the arguments refer to may change before the thread comes round to it.
        record.msg = record.getMessage()
        record.args = None
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def stop(self, wait_s: float = STOP_WAIT_S) -> None:
        """Writes what waits, for at most `wait_s` seconds."""
        try:
            self._queue.put(None, timeout=wait_s)
        except queue.Full:
            return
        self._thread.join(wait_s)

    def _work(self) -> None:
        while (record := self._queue.get()) is not None:
            self._write(record)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._write(
                    logging.LogRecord(
                        __name__,
                        logging.WARNING,
                        __file__,
                        0,
                        f"{dropped} log records were dropped: their reader is too slow",
                        None,
                        None,
                    )
                )

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self._line_formatter.format(record) + "\n"
        except Exception as error:  # a record that cannot be formatted must not end the thread
            line = f"unprintable log record from {record.name}: {error!r}\n"
        for output in self._outputs:
            try:
                output.write(line)
                output.flush()
            except (OSError, ValueError):
                continue  # nowhere to report it to; the other outputs still get theirs


def start_logging(config: LogConfig) -> LogWriter:
    """Directs all logging to the configured outputs; raises OSError if a file cannot be opened."""
    streams: dict[str, IO[str]] = {"stderr": sys.stderr, "stdout": sys.stdout}
    outputs = [
        streams[name] if name in streams else _File(Path(name), config.rotation)
        for name in config.outputs
    ]
    formatter = JsonFormatter() if config.format == "json" else ConsoleFormatter()
    writer = LogWriter(outputs, formatter)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(writer)
    root.setLevel(config.level)
    if config.level < logging.INFO:
        logging.getLogger("asyncio").setLevel(logging.INFO)
    return writer
