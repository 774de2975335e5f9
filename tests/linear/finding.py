"""What a checker says about a history, and how a few of its operations are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.linear.history import (
    KV,
    TO_THE_END,
    Compact,
    Delete,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    Response,
    Txn,
)

SHOWN_MAX = 12


class Verdict(Enum):
    LEGAL = "legal"
    ILLEGAL = "illegal"
    INCONCLUSIVE = "inconclusive"  # the search's bound was reached, or facts are missing


@dataclass(frozen=True)
class Finding:
    """A verdict, its reason in one sentence, and the operations that show it."""

    verdict: Verdict
    sentence: str = ""
    operations: tuple[Operation, ...] = ()

    @property
    def legal(self) -> bool:
        return self.verdict is Verdict.LEGAL

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: {self.sentence}" if self.sentence else self.verdict.value]
        if self.operations:
            lines.append(table(self.operations))
        return "\n".join(lines)


def illegal(sentence: str, *operations: Operation | None) -> Finding:
    return Finding(Verdict.ILLEGAL, sentence, tuple(one for one in operations if one is not None))


LEGAL = Finding(Verdict.LEGAL)


def table(operations: Iterable[Operation], limit: int = SHOWN_MAX) -> str:
    """A few operations as aligned columns: client, call, return, request, answer."""
    shown = list(operations)[:limit]
    rows = [("client", "call", "return", "request", "answer")]
    rows += [
        (
            str(op.client),
            str(op.call),
            "-" if op.ret is None else str(op.ret),
            request_text(op.request),
            answer_text(op),
        )
        for op in shown
    ]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)


def text(octets: bytes) -> str:
    return octets.decode("ascii", "backslashreplace")


def _span(key: bytes, end: bytes | None) -> str:
    if end is None:
        return text(key)
    return f"[{text(key)}, …)" if end == TO_THE_END else f"[{text(key)}, {text(end)})"


def request_text(request: Any) -> str:
    """A request in the words of its kind, short enough for a table."""
    match request:
        case Put(key, value, lease):
            return f"put {text(key)} = {text(value)}" + (f" lease {lease}" if lease else "")
        case Range():
            words = [f"get {_span(request.key, request.end)}"]
            words += [f"at {request.revision}"] if request.revision else []
            words += ["serializable"] if request.serializable else []
            words += ["count"] if request.count_only else []
            return " ".join(words)
        case Delete(key, end):
            return f"delete {_span(key, end)}"
        case Txn(compares, success, failure):
            guards = " and ".join(
                f"{one.target}({text(one.key)}) {one.relation} "
                + (text(one.operand) if isinstance(one.operand, bytes) else str(one.operand))
                for one in compares
            )
            branches = ["; ".join(request_text(one) for one in ops) for ops in (success, failure)]
            return f"if {guards or 'true'} then {{{branches[0]}}} else {{{branches[1]}}}"
        case Compact(revision):
            return f"compact {revision}"
        case LeaseGrant(lease_id, ttl_s):
            return f"grant lease {lease_id} for {ttl_s} s"
        case LeaseRevoke(lease_id):
            return f"revoke lease {lease_id}"
    return str(request)


def _pair_text(kv: KV) -> str:
    lease = f" lease {kv.lease}" if kv.lease else ""
    return f"{text(kv.key)}={text(kv.value)} (c{kv.create} m{kv.mod} v{kv.version}{lease})"


def response_text(response: Any) -> str:
    if not isinstance(response, Response):
        return str(response)
    words = [f"rev {response.revision}"]
    if response.succeeded is not None:
        words.append("then" if response.succeeded else "else")
    words += [_pair_text(kv) for kv in response.kvs]
    if response.count != len(response.kvs):
        words.append(f"count {response.count}")
    if response.deleted:
        words.append(f"deleted {response.deleted}")
    words += [f"({response_text(part)})" for part in response.parts]
    return " ".join(words)


def answer_text(op: Operation) -> str:
    if op.response is None:
        return f"{op.outcome.value} {op.error}".rstrip()
    return response_text(op.response)
