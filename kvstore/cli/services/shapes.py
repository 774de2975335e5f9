"""The registry's answers as JSON: what `-w json` prints, and scripts rely on.

An instance looks the same everywhere (`kvstore.client.registry.to_json`); times are RFC 3339.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kvstore.cli.services.times import moment
from kvstore.client.registry.answers import (
    Acknowledged,
    DeregisterResult,
    DrainResult,
    Explanation,
    HistoryResult,
    ServiceSummary,
)
from kvstore.client.registry.values import (
    Guard,
    Instance,
    InstanceEvent,
    ServiceName,
    Settings,
    to_json,
)

__all__ = (
    "deregistered",
    "drained",
    "event",
    "explanation",
    "guard",
    "history",
    "instances",
    "settings",
    "summaries",
)


def instances(found: Iterable[Instance]) -> list[dict[str, Any]]:
    """Instances, one object each."""
    return [to_json(each) for each in found]


def event(told: InstanceEvent, *, snapshot: bool = False) -> dict[str, Any]:
    """A change. `snapshot`: no change, but how it was when the watch began."""
    shown: dict[str, Any] = {
        "event": told.event,
        "reason": {"code": told.reason.code, "text": told.reason.text},
        "revision": told.revision,
        "instance": to_json(told.instance),
    }
    if told.left:
        shown["left"] = True
    if snapshot:
        shown["snapshot"] = True
    return shown


def guard(name: ServiceName, held: Guard) -> dict[str, Any]:
    """A guard that holds instances."""
    return {
        "namespace": name.namespace,
        "service": name.service,
        "state": held.state,
        "held": held.held,
        "total": held.total,
        "since": moment(held.since_ms),
        "until": moment(held.until_ms),
    }


def summaries(found: Iterable[ServiceSummary]) -> list[dict[str, Any]]:
    """Services, one object each."""
    return [
        {
            "namespace": each.name.namespace,
            "service": each.name.service,
            "instances": each.instances,
            "routable": each.routable,
            "stale": each.stale,
            "by_status": dict(sorted(each.by_status.items())),
            "tags": list(each.tags),
            "versions": list(each.versions),
            "revision": each.service_revision,
            "guard": None if each.guard is None else guard(each.name, each.guard),
        }
        for each in found
    ]


def _acknowledged(found: Acknowledged | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "complete": found.complete,
        "acknowledged": found.acknowledged,
        "laggards": [
            {
                "subscriber": each.id,
                "member": f"{each.member_id:x}",
                "member_name": each.member_name,
                "acked_revision": each.acked_revision,
            }
            for each in found.laggards
        ],
        "silent_members": [f"{member:x}" for member in found.silent_members],
        "cannot_acknowledge": dict(found.cannot_acknowledge),
        "waited_s": found.waited_s,
    }


def deregistered(result: DeregisterResult) -> dict[str, Any]:
    """What became of a deregistration."""
    return {
        "existed": result.existed,
        "instance": None if result.last is None else to_json(result.last),
        "acknowledged": _acknowledged(result.acknowledged),
    }


def drained(result: DrainResult) -> dict[str, Any]:
    """What became of a draining."""
    return {
        "instances": instances(result.instances),
        "acknowledged": _acknowledged(result.acknowledged),
    }


def explanation(result: Explanation) -> dict[str, Any]:
    """Why an instance gets requests, or does not."""
    return {
        "instance": None if result.instance is None else to_json(result.instance),
        "routable": result.routable,
        "verdict": result.verdict,
        "findings": [asdict(each) for each in result.findings],
        "recent": [event(each) for each in result.recent],
    }


def history(result: HistoryResult, *, then: bool) -> Any:
    """A list of events, oldest first; or (`then`) who was there at some time, and its revision."""
    if not then:
        ordered = sorted(result.events, key=lambda each: each.event.revision)
        return [{"time": moment(each.time_ms), **event(each.event)} for each in ordered]
    return {
        "revision": result.as_of_revision,
        "time": moment(result.as_of_ms),
        "instances": instances(result.instances),
        "unknown": [each.id for each in result.unknown],
    }


def settings(found: Settings, *, stored: bool) -> dict[str, Any]:
    """Settings of a service; null: the default of the server."""
    return {"stored": stored, **asdict(found)}
