"""The log: shape of a line, outputs, rotation, and a reader that does not read."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.serving.logging import (
    QUEUE_RECORDS,
    ConsoleFormatter,
    JsonFormatter,
    LogConfig,
    LogWriter,
    Rotation,
    start_logging,
)


@pytest.fixture(autouse=True)
def _root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def record(message: str, *args: object, level: int = logging.INFO, **extra: Any) -> Any:
    logger = logging.getLogger("kvstore.node.test")
    return logger.makeRecord(
        logger.name, level, "/x/loop.py", 7, message, args, None, extra=extra or None
    )


def test_a_json_line_has_etcds_fields_and_the_events_own() -> None:
    line = json.loads(JsonFormatter().format(record("term %d\nis", 5, member="a", urls=["x"])))
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "caller": "node.test/loop.py:7",
        "msg": "term 5\nis",
        "member": "a",
        "urls": ["x"],
    }


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logging.DEBUG, "debug"),
        (logging.WARNING, "warn"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "fatal"),
    ],
)
def test_levels_have_etcds_names(level: int, name: str) -> None:
    assert json.loads(JsonFormatter().format(record("x", level=level)))["level"] == name
    assert f" {name}" in ConsoleFormatter().format(record("x", level=level))


def test_a_console_line_is_for_people() -> None:
    text = ConsoleFormatter().format(record("took %s", "office", term=3))
    assert text.endswith("info  took office  term=3")


def test_a_traceback_is_part_of_the_line() -> None:
    try:
        raise KeyError("gone")
    except KeyError:
        failed = record("broken")
        failed.exc_info = sys.exc_info()
    line = json.loads(JsonFormatter().format(failed))
    assert line["error"].endswith("KeyError: 'gone'")
    assert "\n" not in JsonFormatter().format(failed)


def test_lines_go_to_every_output_at_the_level_asked_for(tmp_path: Path) -> None:
    paths = (str(tmp_path / "a.log"), str(tmp_path / "b.log"))
    writer = start_logging(LogConfig(logging.WARNING, "json", paths))
    logging.getLogger("kvstore.x").info("not this")
    logging.getLogger("kvstore.x").warning("this %s", "one")
    writer.stop()
    for path in paths:
        lines = Path(path).read_text().splitlines()
        assert [json.loads(line)["msg"] for line in lines] == ["this one"]


def test_an_output_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        start_logging(LogConfig(logging.INFO, "json", (str(tmp_path / "no" / "x.log"),)))


def test_a_full_file_is_put_aside_and_old_ones_removed(tmp_path: Path) -> None:
    path = tmp_path / "kv.log"
    rotation = Rotation(max_bytes=400, max_age_s=0.0, max_backups=2, local_time=False)
    writer = start_logging(LogConfig(logging.INFO, "json", (str(path),), rotation))
    for number in range(20):
        logging.getLogger("kvstore.x").info("event number %d", number)
    writer.stop()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    assert all(file.stat().st_size <= 400 for file in files)
    assert json.loads(path.read_text().splitlines()[-1])["msg"] == "event number 19"


def test_old_backups_go_by_age(tmp_path: Path) -> None:
    path = tmp_path / "kv.log"
    old = tmp_path / "kv-2001-01-01T00-00-00.000000.log"
    old.write_text("old")
    os.utime(old, (1, 1))
    rotation = Rotation(max_bytes=100, max_age_s=60.0, max_backups=0, local_time=True)
    writer = start_logging(LogConfig(logging.INFO, "console", (str(path),), rotation))
    for _ in range(4):
        logging.getLogger("kvstore.x").info("a line of some length, more than a few words")
    writer.stop()
    assert not old.exists()
    assert len(list(tmp_path.iterdir())) > 1


def test_a_reader_that_stalls_never_stalls_the_caller() -> None:
    reading, writing = os.pipe()
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(reading, 1 << 20):
            received.extend(chunk)

    reader = threading.Thread(target=drain)
    with os.fdopen(writing, "w") as stalled:
        writer = LogWriter([stalled], JsonFormatter())
        for _ in range(QUEUE_RECORDS + 2_000):
            writer.emit(record("x" * 50))
        writer.stop(wait_s=0.05)  # gives up, since nobody reads
        reader.start()
        writer.stop(wait_s=10)
    reader.join(10)
    os.close(reading)
    lines = received.decode().splitlines()
    assert sum("log records were dropped" in line for line in lines) >= 1
    assert QUEUE_RECORDS <= len(lines) < QUEUE_RECORDS + 2_000
