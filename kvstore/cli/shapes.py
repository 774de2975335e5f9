"""What the JSON form of an answer looks like: the shapes of etcd's Go client.

Most answers are the protobuf message field by field. Some are structs of the Go client's own,
with other names, and with the header's fields among their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.cli.gotext import duration, message_fields

__all__ = ("json_shape",)


def json_shape(kind: str, answer: Any) -> Any:
    """The value to be written as JSON."""
    shape: Callable[[Any], Any] = _SHAPES.get(kind, message_fields)
    return shape(answer)


def _header(answer: Any) -> dict[str, Any]:
    return message_fields(answer.header)


def _grant(answer: Any) -> dict[str, Any]:
    return {**_header(answer), "ID": answer.ID, "TTL": answer.TTL, "Error": answer.error}


def _keep_alive(answer: Any) -> dict[str, Any]:
    return {**_header(answer), "ID": answer.ID, "TTL": answer.TTL}


def _time_to_live(answer: Any) -> dict[str, Any]:
    return {
        **_header(answer),
        "id": answer.ID,
        "ttl": answer.TTL,
        "granted-ttl": answer.grantedTTL,
        "keys": list(answer.keys) or None,
    }


def _leases(answer: Any) -> dict[str, Any]:
    return {**_header(answer), "leases": [{"id": lease.ID} for lease in answer.leases]}


def _watch(answer: Any) -> dict[str, Any]:
    return {
        "Header": _header(answer),
        "Events": [message_fields(event) for event in answer.events],
        "CompactRevision": answer.compact_revision,
        "Canceled": answer.canceled,
        "Created": answer.created,
    }


def _health(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "endpoint": each.endpoint,
            "health": each.healthy,
            "took": duration(each.took_s),
            **({"error": each.error} if each.error else {}),
        }
        for each in answer
    ]


def _per_endpoint(name: str) -> Callable[[Any], list[dict[str, Any]]]:
    def shape(answer: Any) -> list[dict[str, Any]]:
        return [{"Endpoint": endpoint, name: message_fields(each)} for endpoint, each in answer]

    return shape


def _moved(_answer: Any) -> dict[str, Any]:
    return {}


def _snapshot_status(answer: Any) -> dict[str, Any]:
    return {
        "hash": answer.hash,
        "revision": answer.revision,
        "totalKey": answer.keys,
        "totalSize": answer.size_bytes,
    }


_SHAPES: dict[str, Callable[[Any], Any]] = {
    "grant": _grant,
    "keep_alive": _keep_alive,
    "time_to_live": _time_to_live,
    "leases": _leases,
    "watch": _watch,
    "health": _health,
    "status": _per_endpoint("Status"),
    "hash": _per_endpoint("HashKV"),
    "move_leader": _moved,
    "snapshot_status": _snapshot_status,
}
