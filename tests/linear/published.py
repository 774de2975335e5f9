"""Reads the published histories: Jepsen's log of a register, and the key-value records."""

from __future__ import annotations

import re
from pathlib import Path

from tests.linear.history import Operation, Outcome
from tests.linear.models import Append, Cas, Get, Read, Set, Write

DIRECTORY = Path(__file__).parent / "data" / "jepsen-etcd"

_REGISTER_LINE = re.compile(
    r"INFO\s+jepsen\.util - (?P<process>\d+)\s+:(?P<type>invoke|ok|fail|info)"
    r"\s+:(?P<f>read|write|cas)\s+(?P<value>.+?)\s*"
)
_TEXT_LINE = re.compile(
    r"\{:process (?P<process>\d+), :type :(?P<type>invoke|ok), :f :(?P<f>get|put|append), "
    r':key "(?P<key>[^"]*)", :value (?P<value>nil|"[^"]*")\}'
)


def register_verdicts() -> dict[str, bool]:
    """For each register history whether it is linearizable, as published."""
    lines = (DIRECTORY / "VERDICTS").read_text().splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: verdict == "true" for name, verdict in pairs}


def text_verdicts() -> dict[str, bool]:
    """The same for the key-value histories; their names tell."""
    return {path.name: "-ok" in path.name for path in sorted(DIRECTORY.glob("c*.txt"))}


def register_history(name: str) -> list[Operation]:
    """Times are line numbers. A read that timed out is left out of the search by its outcome; any
    other request that did is unknown: it may have happened."""
    history: list[Operation] = []
    pending: dict[str, Operation] = {}
    for number, line in enumerate((DIRECTORY / name).read_text().splitlines()):
        found = _REGISTER_LINE.fullmatch(line)
        if found is None:
            continue  # the nemesis speaks in between
        process, kind, f, value = found.group("process", "type", "f", "value")
        if kind == "invoke":
            op = Operation(int(process), number, _register_request(f, value))
            pending[process] = op
            history.append(op)
            continue
        op = pending.pop(process)
        if value == ":timed-out":
            if kind == "fail":
                op.outcome, op.ret = Outcome.REFUSED, number
            continue
        op.outcome, op.ret = Outcome.OK, number
        if f == "read":
            op.response = None if value == "nil" else int(value)
        elif f == "cas":
            op.response = kind == "ok"
    return history


def _register_request(f: str, value: str) -> Read | Write | Cas:
    if f == "read":
        return Read()
    if f == "write":
        return Write(int(value))
    old, new = value.strip("[]").split()
    return Cas(int(old), int(new))


def text_history(name: str) -> list[Operation]:
    """Times are line numbers; a request without an answer is unknown."""
    history: list[Operation] = []
    pending: dict[str, Operation] = {}
    for number, line in enumerate((DIRECTORY / name).read_text().splitlines()):
        found = _TEXT_LINE.fullmatch(line)
        assert found is not None, f"{name}:{number + 1}: {line}"
        process, kind, f, key, value = found.group("process", "type", "f", "key", "value")
        value = value.strip('"')
        if kind == "invoke":
            request: Get | Set | Append = (
                Get(key) if f == "get" else Set(key, value) if f == "put" else Append(key, value)
            )
            pending[process] = Operation(int(process), number, request)
            history.append(pending[process])
            continue
        op = pending.pop(process)
        op.outcome, op.ret = Outcome.OK, number
        op.response = value if f == "get" else None
    return history
