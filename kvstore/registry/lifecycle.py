"""The life of an instance: what each event makes of it. Pure functions of values.

    register ─► (as reported) ─► missed heartbeats: DOWN ─► heartbeat: as reported again
                     │                      └─► grace over, deregistered: the key is deleted
                     └─ a guard is on: stale, its status stays

Each change carries a reason: a code for programs, a sentence for people. A function that would
change nothing returns the instance as it is, so that nobody writes and nobody is woken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Final

from kvstore.machine import DELETE, Cause, JournalRecord
from kvstore.registry.limits import CHECKS_MAX
from kvstore.registry.model import Instance, Invalid, Reason, Status

__all__ = (
    "EVENTS",
    "WRITTEN_BY_CLIENT",
    "Pulse",
    "after_check",
    "after_override",
    "after_pulse",
    "after_register",
    "after_report",
    "after_result",
    "deregistered",
    "event_of",
    "expired",
    "reason_of",
)

EVENTS: Final[Mapping[str, str]] = {
    "registered": "registered",
    "updated": "updated",
    "missed_heartbeat": "unhealthy",
    "check_failed": "unhealthy",
    "confirmed": "unhealthy",
    "recovered": "recovered",
    "drained": "drained",
    "deregistered": "deregistered",
    "expired": "expired",
}
"""The code of a reason → the event that watchers are told; other codes are updates."""


_CONFIRMED: Final = "no heartbeat, and an operator confirmed that it is gone"
WRITTEN_BY_CLIENT: Final = Reason("updated", "written by a client")


class Pulse(Enum):
    """What the leader knows of an instance's heartbeats."""

    BEATING = "beating"
    SILENT = "silent"
    HELD = "held"
    """Silent, and a guard keeps its status."""
    CONFIRMED = "confirmed"
    """Silent, and an operator said that it is really gone."""


def event_of(reason: Reason) -> str:
    """What watchers are told of a change with this reason."""
    return EVENTS.get(reason.code, "updated")


def reason_of(record: JournalRecord) -> Reason:
    """Why a record stands in the journal."""
    match record.cause:
        case Cause.REGISTRY:
            return Reason.of_line(record.reason)
        case Cause.LEASE_EXPIRED:
            return Reason("expired", "its lease expired")
        case Cause.LEASE_REVOKED:
            return Reason("deregistered", "its lease was revoked")
    if record.op == DELETE:
        return Reason("deregistered", "deleted by a client")
    return WRITTEN_BY_CLIENT


def after_register(wanted: Instance, before: Instance | None, now_ms: int) -> Instance:
    """`wanted` takes the place of `before`, if there was one under this id.

    Whoever registers again keeps the time of its first registration and an operator's override,
    and counts as heard.
    """
    if before is None:
        return wanted.changed(
            Reason("registered"),
            now_ms,
            registered_ms=now_ms,
            silent=False,
            stale=False,
            override=None,
        )
    # What the cluster's own checks have found stands, as long as they are the same checks. What
    # somebody else's checks have found is out of date when the instance says something else.
    checked = bool(wanted.checks) and wanted.checks == before.checks
    keeps_results = wanted.check is None and (checked or wanted.reported is before.reported)
    again = replace(
        wanted,
        reported=before.reported if checked else wanted.reported,
        registered_ms=before.registered_ms,
        changed_ms=before.changed_ms,
        reason=before.reason,
        override=before.override,
        check=before.check if keeps_results else wanted.check,
        silent=False,
        stale=False,
    )
    if again == before:
        return before
    if before.silent or before.stale:
        return again.changed(Reason("recovered", "registered again"), now_ms)
    return again.changed(Reason("updated", "registered again"), now_ms)


def after_report(instance: Instance, status: Status, text: str, now_ms: int) -> Instance:
    """The instance says how it is."""
    if instance.reported is status:
        return instance
    code = "drained" if status is Status.DRAINING else "updated"
    return instance.changed(Reason(code, text), now_ms, reported=status)


def after_check(
    instance: Instance, status: Status, output: Mapping[str, Any], now_ms: int
) -> Instance:
    """A health check found another status; its output is kept.

    An output alone is no change: it is written down when the status changes.
    """
    if instance.reported is status:
        return instance
    healthy = status in (Status.UP, Status.DEGRADED)
    code = "recovered" if healthy else "check_failed"
    text = str(output.get("summary", ""))
    return instance.changed(Reason(code, text), now_ms, reported=status, check=dict(output))


_WORST_FIRST: Final = (Status.DOWN, Status.DEGRADED, Status.STARTING, Status.UNKNOWN, Status.UP)


def after_result(
    instance: Instance, status: Status, result: Mapping[str, Any], text: str, now_ms: int
) -> Instance:
    """One of several checks found a status: {"name", "output", "checked_at"}.

    The worst of their results is the status, except where the instance itself said that it wants
    no requests. An output alone is no change, as with `after_check`.
    """
    if status not in _WORST_FIRST:
        raise Invalid(f"a check finds {', '.join(sorted(_WORST_FIRST))}, not {status}")
    name = str(result.get("name", ""))
    before = (instance.check or {}).get("results", {})
    results: dict[str, Any] = dict(before) if isinstance(before, Mapping) else {}
    told = results.get(name)
    if isinstance(told, Mapping) and told.get("status") == status:
        return instance
    results[name] = {**result, "status": str(status)}
    if len(results) > CHECKS_MAX:
        raise Invalid(f"there are results of {len(results)} checks; {CHECKS_MAX} are allowed")
    check = {"results": results}
    if instance.reported in (Status.DRAINING, Status.OUT_OF_SERVICE):
        reason = Reason("updated", text or f"the check {name!r} found {status}")
        return instance.changed(reason, now_ms, check=check)
    found = {str(each.get("status")) for each in results.values()}
    worst = next(each for each in _WORST_FIRST if each in found)
    code = "updated"
    if worst is not instance.reported:
        code = "recovered" if worst is Status.UP else "check_failed"
    reason = Reason(code, text or f"the check {name!r} found {status}")
    return instance.changed(reason, now_ms, reported=worst, check=check)


def after_override(instance: Instance, status: Status | None, text: str, now_ms: int) -> Instance:
    """An operator sets the status, or (None) gives it back to the instance."""
    if instance.override is status:
        return instance
    if status is None:
        return instance.changed(Reason("released", text), now_ms, override=None)
    code = "drained" if status is Status.DRAINING else "overridden"
    return instance.changed(Reason(code, text), now_ms, override=status)


def after_pulse(instance: Instance, pulse: Pulse, now_ms: int) -> Instance:
    """The leader found the instance silent, or heard of it again."""
    if pulse is Pulse.BEATING:
        if not (instance.silent or instance.stale):
            return instance
        reason = Reason("recovered", "heartbeats have come back")
        return instance.changed(reason, now_ms, silent=False, stale=False)
    if pulse is Pulse.HELD:
        if instance.stale:
            return instance
        reason = Reason(
            "stale",
            f"no heartbeat for {instance.ttl_s} s; it keeps its status, because too many "
            "instances of the service fell silent at once",
        )
        return instance.changed(reason, now_ms, silent=False, stale=True)
    if instance.silent:
        return instance
    if pulse is Pulse.CONFIRMED:
        reason = Reason("confirmed", _CONFIRMED)
    else:
        reason = Reason("missed_heartbeat", f"no heartbeat for {instance.ttl_s} s")
    return instance.changed(reason, now_ms, silent=True, stale=False)


def deregistered(text: str = "") -> Reason:
    """Why an instance is deleted that asked for it."""
    return Reason("deregistered", text)


def expired(instance: Instance) -> Reason:
    """Why an instance is deleted that was silent for too long, or confirmed to be gone."""
    if instance.silent and instance.reason.code == "confirmed":
        return Reason("expired", _CONFIRMED)
    return Reason(
        "expired", f"no heartbeat for {instance.ttl_s} s and a grace time of {instance.grace_s} s"
    )
