"""`service watch`: the instances of a service, then each change, until interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import click

from kvstore.cli.commands.service.group import service
from kvstore.cli.context import Session
from kvstore.cli.printers import emit
from kvstore.cli.services import shapes, views
from kvstore.cli.services.arguments import (
    EVERY_NAMESPACE,
    namespace_option,
    selection,
    selection_options,
    service_argument,
)
from kvstore.cli.services.columns import Look, plain
from kvstore.cli.services.present import check_form, now_ms, remark, show_json
from kvstore.cli.services.times import moment
from kvstore.client.registry.answers import Update
from kvstore.client.registry.values import Instance, InstanceEvent, InstanceName, Reason

__all__ = ("Line", "lines", "watch")

_GAP = Reason("gone", "it was gone after a gap in the watch; `history` knows why")


class Line(NamedTuple):
    """What is printed of an update."""

    event: InstanceEvent
    snapshot: bool
    """No change: so it was when the watch began."""


@service.command(
    examples=(
        "kvstore service watch payment",
        "kvstore service watch payment -w json | jq -r 'select(.event == \"unhealthy\")'",
        "kvstore service watch payment --healthy   # only who gets requests",
        "kvstore service watch                     # all services of all namespaces",
    )
)
@namespace_option(None, "Namespace (default: `default` with SERVICE, else all).")
@selection_options
@click.option("--rev", default=0, help="Go on after this revision, without the state first.")
@click.option("--subscriber", default="", metavar="ID", help="Acknowledge, under this id.")
@service_argument(required=False)
@click.pass_obj
def watch(
    session: Session,
    /,
    service: str | None,
    namespace: str | None,
    rev: int,
    subscriber: str,
    **options: Any,
) -> None:
    """Show the instances of a service, then each change as it happens.

    The JSON form is one object a line: event, reason, revision, instance. First comes each
    instance as it is, as an event `registered` with `"snapshot": true`; then the changes:
    registered, updated, unhealthy, recovered, drained, deregistered, expired. An instance that is
    no longer among those asked for has `"left": true`. With --subscriber, `deregister --wait`
    and `drain --wait` wait until this watch has shown the change.
    """
    check_form(session)
    session.printer.check_table()
    found = session.client.registry.watch(
        service or "",
        namespace=namespace or ("default" if service else EVERY_NAMESPACE),
        selection=selection(options),
        after_revision=rev,
        subscriber=subscriber,
    )
    look = Look.of_stdout()
    alone = service is not None
    with found:
        for line in lines(found):
            if session.form == "json":
                show_json(shapes.event(line.event, snapshot=line.snapshot))
            else:
                emit((_sentence(line, look, alone=alone),))
        remark("the watch has ended")


def lines(updates: Iterable[Update]) -> Iterator[Line]:
    """What to print. After a gap in the watch: only what is different from before.

    The first update may be the whole state; another whole state comes when changes were missed.
    """
    known: dict[InstanceName, Instance] = {}
    began = False
    for update in updates:
        if update.is_snapshot:
            fresh = {each.name: each for each in update.snapshot}
            yield from _after_gap(known, fresh, update.revision) if began else _first(fresh)
            known = fresh
        for event in update.events:
            if event.left:
                known.pop(event.instance.name, None)
            else:
                known[event.instance.name] = event.instance
            yield Line(event, snapshot=False)
        began = True


def _first(fresh: Mapping[InstanceName, Instance]) -> Iterator[Line]:
    for each in fresh.values():
        yield Line(InstanceEvent("registered", each.reason, each.mod_revision, each), True)


def _after_gap(
    known: Mapping[InstanceName, Instance], fresh: Mapping[InstanceName, Instance], revision: int
) -> Iterator[Line]:
    for name, each in known.items():
        if name not in fresh:
            gone = InstanceEvent("deregistered", _GAP, revision, each, left=True)
            yield Line(gone, snapshot=False)
    for name, each in fresh.items():
        before = known.get(name)
        if before is None or before.mod_revision != each.mod_revision:
            event = "registered" if before is None else "updated"
            yield Line(InstanceEvent(event, each.reason, each.mod_revision, each), snapshot=False)


def _sentence(line: Line, look: Look, *, alone: bool) -> str:
    event, instance = line.event, line.event.instance
    word = "present" if line.snapshot else event.event
    who = instance.id if alone else f"{instance.namespace}/{instance.service}/{instance.id}"
    status = views.status_cell(instance)
    gone = event.event in views.GONE
    shown = look.paint("gone", "2") if gone else look.paint(status.text, status.colour)
    # What is gone does not tell when it went: we hear of it at once.
    when = moment(now_ms() if gone else instance.changed_at_ms)
    text = views.reason_text(event.reason)
    said = "" if text in (event.event, "registered") else f"  {text}"
    word = look.paint(f"{word:<12}", "2" if line.snapshot else views.EVENT_COLOURS[event.event])
    return f"{when}  {word}  {plain(who)}  {shown}  {instance.target}{plain(said)}"
