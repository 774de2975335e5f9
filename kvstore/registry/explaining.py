"""Why an instance gets requests, or does not: each rule in its order, and one sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kvstore.registry.catalog import Entry
from kvstore.registry.errors import no_instance
from kvstore.registry.history import What
from kvstore.registry.model import Instance, Status
from kvstore.registry.names import InstanceName
from kvstore.registry.selection import Health, Selection
from kvstore.registry.times import rfc3339

__all__ = ("Explanation", "Facts", "Finding", "explain")


class Finding(NamedTuple):
    """What one rule found."""

    rule: str
    passes: bool
    text: str


class Facts(NamedTuple):
    """What is known beside the instance itself."""

    has_leader: bool
    lease_left_s: int | None
    """As the leader counts it; None: not known."""
    guard: Mapping[str, Any] | None
    """The note of the guard, while it holds instances of the service."""


class Explanation(NamedTuple):
    """The answer."""

    entry: Entry | None
    routable: bool
    findings: list[Finding]
    recent: list[What]
    """What happened to it lately, newest first."""
    verdict: str


def explain(
    name: InstanceName,
    entry: Entry | None,
    recent: Sequence[What],
    facts: Facts,
    selection: Selection,
) -> Explanation:
    """Raises NOT_FOUND for an instance of which nothing is known, now or before."""
    if entry is None:
        if not recent:
            raise no_instance(name)
        last = recent[0]
        text = f"it is gone since {rfc3339(last.time_ms)}: {last.event}, {last.reason.line}"
        findings = [Finding("registered", False, text)]
        return Explanation(None, False, findings, list(recent), f"{name} gets none: {text}")
    instance = entry.instance
    if instance is None:
        findings = [Finding("registered", False, f"its value is no instance: {entry.problem}")]
        verdict = f"{name} gets none: {findings[0].text}"
        return Explanation(entry, False, findings, list(recent), verdict)
    findings = [
        Finding("registered", True, f"since {rfc3339(instance.registered_ms)}"),
        _lease(entry, instance, facts),
        _heartbeat(instance, facts),
        _override(instance),
        _reported(instance),
        _check(instance),
        _guard(instance, facts),
        _selection(instance, selection),
    ]
    chosen = findings[-1].passes
    if chosen:
        verdict = f"{name} gets requests: it is {instance.status}"
        if instance.stale:
            verdict += ", although its heartbeats are missing, because the guard holds it"
    else:
        first = next((each for each in findings if not each.passes), findings[-1])
        verdict = f"{name} gets none: it is {instance.status} ({first.rule}: {first.text})"
    return Explanation(entry, instance.routable, findings, list(recent), verdict)


def _lease(entry: Entry, instance: Instance, facts: Facts) -> Finding:
    if not entry.owned:
        held = f"on the lease {entry.lease:x}" if entry.lease else "without a lease"
        text = f"written by a client, {held}: the registry does not watch over it"
        return Finding("lease", True, text)
    text = f"{entry.lease:x}, {instance.ttl_s} s and a grace of {instance.grace_s} s"
    if facts.lease_left_s is not None:
        text += f"; {max(facts.lease_left_s, 0)} s are left until it is removed"
    elif not facts.has_leader:
        text += "; without a leader it does not end"
    return Finding("lease", True, text)


def _heartbeat(instance: Instance, facts: Facts) -> Finding:
    if instance.silent:
        return Finding("heartbeat", False, f"none for {instance.ttl_s} s or more")
    if instance.stale:
        return Finding("heartbeat", True, "missing, but the guard keeps the status as it was")
    text = "not needed" if not instance.lease else "in time"
    if instance.lease and not facts.has_leader:
        text = "not known: without a leader nobody listens"
    return Finding("heartbeat", True, text)


def _override(instance: Instance) -> Finding:
    if instance.override is None:
        return Finding("override", True, "none")
    passes = instance.override in (Status.UP, Status.DEGRADED)
    return Finding("override", passes, f"an operator set {instance.override}")


def _reported(instance: Instance) -> Finding:
    passes = instance.reported in (Status.UP, Status.DEGRADED)
    text = f"{instance.reported}"
    if instance.override is not None:
        return Finding("reported", True, f"{text}, which the override makes void")
    return Finding("reported", passes, text)


def _check(instance: Instance) -> Finding:
    told = instance.check
    if told is None:
        return Finding("check", True, "no result is known")
    results = told.get("results")
    if not isinstance(results, Mapping):
        return Finding("check", True, str(told.get("summary") or told.get("output", ""))[:200])
    bad = [
        f"{name}: {result.get('status')}"
        for name, result in results.items()
        if isinstance(result, Mapping) and result.get("status") not in ("UP", "DEGRADED")
    ]
    return Finding("check", not bad, ", ".join(bad) or f"{len(results)} pass")


def _guard(instance: Instance, facts: Facts) -> Finding:
    if facts.guard is None:
        return Finding("guard", True, "holds nothing of this service")
    held = "this one, too" if instance.stale else "not this one"
    text = f"{facts.guard.get('silent')} of {facts.guard.get('of')} are held, {held}"
    return Finding("guard", True, f"{text}; until {facts.guard.get('until')}")


def _selection(instance: Instance, selection: Selection) -> Finding:
    missing = [tag for tag in selection.tags if tag not in instance.tags]
    if missing:
        return Finding("selection", False, f"asked for the tags {', '.join(missing)}")
    if selection.version and selection.version != instance.version:
        text = f"asked for version {selection.version}, it is {instance.version or 'not told'}"
        return Finding("selection", False, text)
    if selection.health is Health.ALL:
        return Finding("selection", True, "asked for all, whatever their status")
    if selection.is_healthy(instance):
        return Finding("selection", True, f"{instance.status} is asked for")
    if selection.health is Health.HEALTHY_OR_ELSE_ALL:
        text = f"{instance.status} is only given if no instance is healthy"
        return Finding("selection", False, text)
    return Finding("selection", False, f"only healthy ones are asked for, it is {instance.status}")
