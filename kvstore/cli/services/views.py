"""The registry's answers as headings and rows, and the remarks that belong to them. Pure.

`now_ms` is what ages are counted from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from kvstore.cli.services.columns import DIM, Cell
from kvstore.cli.services.times import age, clock, moment
from kvstore.client.registry.answers import (
    Acknowledged,
    Explanation,
    HistoryResult,
    InstancesResult,
    RegistryHeader,
    ServicesResult,
    ServiceSummary,
)
from kvstore.client.registry.values import (
    DEFAULT_NAMESPACE,
    CheckResult,
    Guard,
    Instance,
    InstanceEvent,
    Reason,
    ServiceName,
    Settings,
    Status,
    Stray,
)

__all__ = (
    "EVENT_COLOURS",
    "GONE",
    "STALE",
    "STATUS_COLOURS",
    "View",
    "acknowledged",
    "about_instances",
    "about_services",
    "details",
    "events",
    "explanation",
    "guard_line",
    "guards",
    "instances",
    "past",
    "reason_text",
    "services",
    "settings",
    "status_cell",
)

GREEN, YELLOW, RED, BLUE, MAGENTA, CYAN = "32", "33", "31", "34", "35", "36"
STALE: Final = "30;43"
"""Black on yellow: what is shown may no longer be true."""

STATUS_COLOURS: Final[Mapping[Status, str]] = MappingProxyType(
    {
        Status.UP: GREEN,
        Status.DEGRADED: YELLOW,
        Status.STARTING: CYAN,
        Status.DRAINING: BLUE,
        Status.OUT_OF_SERVICE: MAGENTA,
        Status.DOWN: RED,
        Status.UNKNOWN: DIM,
    }
)
EVENT_COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "registered": GREEN,
        "recovered": GREEN,
        "updated": CYAN,
        "drained": BLUE,
        "unhealthy": RED,
        "expired": RED,
        "deregistered": MAGENTA,
    }
)


GONE: Final = frozenset(("deregistered", "expired"))
"""Events after which there is no instance any more."""


class View(NamedTuple):
    """A table."""

    headings: Sequence[str]
    rows: list[list[Cell | str]]


def status_cell(instance: Instance) -> Cell:
    """The status; `stale` when the guard keeps it, `by an operator` when one has set it."""
    if instance.stale:
        return Cell(f"{instance.status} (stale)", STALE)
    mark = " (set)" if instance.override is not None else ""
    return Cell(f"{instance.status}{mark}", STATUS_COLOURS[instance.status])


def reason_text(reason: Reason) -> str:
    """The sentence, or the word where there is none."""
    return reason.text or reason.code.replace("_", " ")


def instances(found: Iterable[Instance], now_ms: int) -> View:
    """Instances, one a line."""
    headings = ("id", "address", "status", "zone", "version", "weight", "tags", "since", "reason")
    return View(
        headings,
        [
            [
                each.id,
                each.target,
                status_cell(each),
                each.zone,
                each.version,
                str(each.weight),
                ",".join(each.tags),
                age(each.changed_at_ms, now_ms),
                reason_text(each.reason),
            ]
            for each in found
        ],
    )


def services(found: Iterable[ServiceSummary]) -> View:
    """Services, one a line."""
    return View(
        ("namespace", "service", "instances", "routable", "statuses", "versions", "tags", "guard"),
        [
            [
                each.name.namespace,
                each.name.service,
                str(each.instances),
                Cell(str(each.routable), GREEN if each.routable else RED),
                _statuses(each),
                ",".join(each.versions),
                ",".join(each.tags),
                Cell(f"holds {each.guard.held}", STALE) if each.guard else "",
            ]
            for each in found
        ],
    )


def _statuses(summary: ServiceSummary) -> str:
    """`3 UP, 1 DOWN`, in the order of the statuses."""
    return ", ".join(
        f"{summary.by_status[status]} {status}"
        for status in Status
        if summary.by_status.get(status)
    )


def about_instances(
    name: ServiceName, result: InstancesResult, *, selected: bool = False
) -> Iterator[str]:
    """Remarks on the instances of a service; `selected`: not all of them were asked for."""
    if not result.instances:
        yield _nobody(name, selected=selected)
    if result.fell_back:
        yield "none of them is healthy; these are all"
    if result.guard is not None:
        yield guard_line(name, result.guard)
    yield from _about_strays(result.strays)
    yield from _about_header(result.header)


def _nobody(name: ServiceName, *, selected: bool) -> str:
    """Why there is no instance to show."""
    option = "" if name.namespace == DEFAULT_NAMESPACE else f" -n {name.namespace}"
    where = f"of {name.service} in namespace {name.namespace}"
    if selected:
        all_ = f"kvstore service get {name.service}{option}"
        return f"no instance {where} is as asked for; `{all_}` shows all there are"
    return f"no instance {where} is registered; `kvstore service list{option}` shows what is"


def about_services(result: ServicesResult) -> Iterator[str]:
    """Remarks on a list of services."""
    if not result.services:
        yield "no service is registered; try `kvstore service register --help`"
    for each in result.services:
        if each.guard is not None:
            yield guard_line(each.name, each.guard)
    yield from _about_strays(result.strays)
    yield from _about_header(result.header)


def guard_line(name: ServiceName, guard: Guard) -> str:
    """Whom a guard holds, until when, and what an operator can do."""
    option = "" if name.namespace == "default" else f" -n {name.namespace}"
    return (
        f"{name.service}: {guard.held} of {guard.total} instances fell silent at once; the guard"
        f" keeps their status until {clock(guard.until_ms)} UTC"
        f" (`kvstore service guard confirm {name.service}{option}` if they are gone, `lift` if not)"
    )


def _about_strays(strays: Sequence[Stray]) -> Iterator[str]:
    for stray in strays:
        yield f"the key {stray.key} is not an instance: {stray.problem}"


def _about_header(header: RegistryHeader) -> Iterator[str]:
    if header.no_leader:
        yield "the member that answered has no leader: this may be old"


def guards(held: Iterable[tuple[ServiceName, Guard]]) -> View:
    """Guards that hold instances, one a line."""
    return View(
        ("namespace", "service", "state", "held", "of", "since", "until"),
        [
            [
                name.namespace,
                name.service,
                Cell(guard.state, STALE),
                str(guard.held),
                str(guard.total),
                moment(guard.since_ms),
                moment(guard.until_ms),
            ]
            for name, guard in held
        ],
    )


def details(instance: Instance, now_ms: int) -> View:
    """Everything about one instance, a field a line."""
    ports = ", ".join(f"{name} {number}" for name, number in instance.ports.items())
    grace = "" if instance.grace_s is None else f", removed {instance.grace_s}s later"
    rows: list[list[Cell | str]] = [
        ["instance", f"{instance.service}/{instance.id} in namespace {instance.namespace}"],
        ["status", status_cell(instance)],
        ["reported", str(instance.reported)],
        ["reason", f"{reason_text(instance.reason)} ({age(instance.changed_at_ms, now_ms)} ago)"],
        ["address", instance.address],
        ["ports", ports],
        ["zone", instance.zone],
        ["region", instance.region],
        ["version", instance.version],
        ["weight", str(instance.weight)],
        ["tags", ",".join(instance.tags)],
        *_rows("metadata", (f"{name}={text}" for name, text in instance.metadata.items())),
        ["heartbeat", f"every {instance.ttl_s}s at least{grace}" if instance.ttl_s else "none"],
        *_rows("check", map(_check_line, instance.check_results)),
        ["registered", moment(instance.registered_at_ms)],
        ["lease", f"{instance.lease:x}" if instance.lease else ""],
        ["revision", str(instance.mod_revision)],
    ]
    return View(("field", "value"), rows)


def _rows(field: str, values: Iterable[str]) -> Iterator[list[Cell | str]]:
    for value in values:
        yield [field, value]


def _check_line(found: CheckResult) -> str:
    return f"{found.name}: {found.status} {found.output}".rstrip()


def events(result: HistoryResult, *, with_service: bool) -> View:
    """What happened, oldest first, one change a line."""
    headings = ("time", "revision", "event", "instance", "status", "reason")
    ordered = sorted(result.events, key=lambda each: each.event.revision)
    return View(
        headings,
        [
            [
                moment(each.time_ms),
                str(each.event.revision),
                _event_cell(each.event),
                _who(each.event.instance, with_service=with_service),
                _status_after(each.event),
                reason_text(each.event.reason),
            ]
            for each in ordered
        ],
    )


def _event_cell(event: InstanceEvent) -> Cell:
    """The event's word in its colour."""
    return Cell(event.event, EVENT_COLOURS.get(event.event, ""))


def _who(instance: Instance, *, with_service: bool) -> str:
    return f"{instance.service}/{instance.id}" if with_service else instance.id


def _status_after(event: InstanceEvent) -> Cell:
    if event.event in GONE:
        return Cell("gone", DIM)
    return status_cell(event.instance)


def past(result: HistoryResult, asked_ms: int) -> View:
    """Who was there then; ages are counted from the time that was asked for."""
    view = instances(result.instances, asked_ms or result.as_of_ms)
    lost: list[list[Cell | str]] = [
        [each.id, "", Cell("not known any more", DIM), *[""] * 6] for each in result.unknown
    ]
    return View(view.headings, [*view.rows, *lost])


def explanation(result: Explanation, now_ms: int) -> Iterator[Cell]:
    """The findings with their marks, what happened lately, and the verdict at the end."""
    instance = result.instance
    if instance is not None:
        yield Cell(f"{instance.service}/{instance.id} at {instance.target}", "1")
    width = max((len(each.rule) for each in result.findings), default=0)
    for each in result.findings:
        mark, colour = ("✓", GREEN) if each.passes else ("✗", RED)
        yield Cell(f"  {mark} {each.rule:<{width}}  {each.text}", colour)
    if result.recent:
        yield Cell("lately:", "1")
    for event in result.recent:
        when = f"{age(event.instance.changed_at_ms, now_ms)} ago"
        text = reason_text(event.reason)
        said = "" if text == event.event else f": {text}"
        yield Cell(f"  revision {event.revision}, {when}  {event.event}{said}")
    yield Cell(result.verdict, f"1;{GREEN if result.routable else RED}")


def settings(found: Settings, *, stored: bool) -> View:
    """Settings of a service; what is not set has the server's default."""
    rows: list[list[Cell | str]] = [
        ["guard", _setting(found.guard_enabled, on="on", off="off"), "whether it holds at all"],
        ["percent", _setting(found.guard_percent), "more than this share of the instances"],
        ["at-least", _setting(found.guard_at_least), "and at least so many"],
        ["window", _setting(found.guard_window_s, "s"), "fell silent within this time"],
        ["hold", _setting(found.guard_hold_s, "s"), "then they are held for so long at most"],
    ]
    return View(("setting", "value" if stored else "default", "meaning"), rows)


def _setting(value: bool | int | None, unit: str = "", *, on: str = "", off: str = "") -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return on if value else off
    return f"{value}{unit}"


def acknowledged(found: Acknowledged | None) -> Iterator[str]:
    """Who knows of a change by now, if that was waited for."""
    if found is None:
        return
    yield f"{found.acknowledged} subscribers have acknowledged it, in {found.waited_s:.3f} s"
    for each in found.laggards:
        where = each.member_name or f"{each.member_id:x}"
        yield f"{each.id} (at {where}) has not: it is at revision {each.acked_revision}"
    for member in found.silent_members:
        yield f"the member {member:x} did not answer: its subscribers are not known"
    for kind, count in sorted(found.cannot_acknowledge.items()):
        yield f"{count} by {kind} cannot acknowledge, and may or may not know"
