"""Answers as rows under headings, and the ASCII tables that etcdctl draws of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from kvstore.cli.gotext import duration, size

__all__ = ("TABLES", "Table", "ascii_table", "hashes", "members", "snapshot_status", "status")

Rows: TypeAlias = tuple[Sequence[str], list[list[str]]]
Table: TypeAlias = Callable[[Any], Rows]


def ascii_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Headings in capitals, in the middle; cells at the right."""
    titles = [title.upper() for title in headings]
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    yield rule
    yield "|" + "|".join(f" {_centred(t, w)} " for t, w in zip(titles, widths, strict=True)) + "|"
    yield rule
    for row in rows:
        yield "|" + "|".join(f" {c:>{w}} " for c, w in zip(row, widths, strict=True)) + "|"
    if rows:
        yield rule


def _centred(text: str, width: int) -> str:
    """The odd space goes to the right, as the Go table writer has it."""
    left = (width - len(text)) // 2
    return " " * left + text + " " * (width - len(text) - left)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def members(answer: Any) -> Rows:
    """MemberListResponse."""
    headings = ("ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner")
    return headings, [
        [
            f"{member.ID:x}",
            "started" if member.name else "unstarted",
            member.name,
            ",".join(member.peerURLs),
            ",".join(member.clientURLs),
            _flag(member.isLearner),
        ]
        for member in answer.members
    ]


def status(answer: Any) -> Rows:
    """(endpoint, StatusResponse) of each endpoint."""
    headings = (
        *("Endpoint", "ID", "Version", "DB Size", "Is Leader", "Is Learner"),
        *("Raft Term", "Raft Index", "Raft Applied Index", "Errors"),
    )
    return headings, [
        [
            endpoint,
            f"{found.header.member_id:x}",
            found.version,
            size(found.dbSize),
            _flag(found.leader == found.header.member_id),
            _flag(found.isLearner),
            str(found.raftTerm),
            str(found.raftIndex),
            str(found.raftAppliedIndex),
            ", ".join(found.errors),
        ]
        for endpoint, found in answer
    ]


def hashes(answer: Any) -> Rows:
    """(endpoint, HashKVResponse) of each endpoint."""
    return ("Endpoint", "Hash"), [[endpoint, str(found.hash)] for endpoint, found in answer]


def _health(answer: Any) -> Rows:
    return ("Endpoint", "Health", "Took", "Error"), [
        [each.endpoint, _flag(each.healthy), duration(each.took_s), each.error] for each in answer
    ]


def snapshot_status(answer: Any) -> Rows:
    """A SnapshotStatus."""
    headings = ("Hash", "Revision", "Total Keys", "Total Size")
    row = [f"{answer.hash:x}", str(answer.revision), str(answer.keys), size(answer.size_bytes)]
    return headings, [row]


def _drawn(table: Table) -> Callable[..., Iterator[str]]:
    def write(answer: Any, _printer: Any, **_details: Any) -> Iterator[str]:
        return ascii_table(*table(answer))

    return write


TABLES: Mapping[str, Callable[..., Iterator[str]]] = MappingProxyType(
    {
        "members": _drawn(members),
        "status": _drawn(status),
        "hash": _drawn(hashes),
        "health": _drawn(_health),
        "snapshot_status": _drawn(snapshot_status),
    }
)
"""Kind of answer to the function that draws it; what is not here has no table."""
