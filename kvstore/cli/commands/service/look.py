"""`service list`, `get`, `explain`, `history`: what there is, why, and what there was."""

from __future__ import annotations

from typing import Any

import click

from kvstore.cli.commands.service.group import service
from kvstore.cli.context import Session
from kvstore.cli.exits import bad_args
from kvstore.cli.services import shapes, views
from kvstore.cli.services.arguments import (
    instance_argument,
    namespace_option,
    selection,
    selection_options,
    service_argument,
)
from kvstore.cli.services.columns import Cell
from kvstore.cli.services.present import ask, now_ms, remark, show, show_json, show_lines
from kvstore.cli.services.times import moment, parse_moment
from kvstore.client.registry.values import DEFAULT_NAMESPACE, Health, Selection, ServiceName

__all__ = ("explain", "get", "history", "list_")

_EVENTS = 100
"""How many events `history` shows unless told otherwise."""
_EVENTS_MAX = 10_000


@service.command(
    "list",
    examples=(
        "kvstore service list",
        "kvstore service list pay -n shop      # those that begin with pay",
        "kvstore service list -w json",
    ),
)
@namespace_option(None, "Only of this namespace.")
@click.argument("prefix", default="")
@click.pass_obj
def list_(session: Session, /, namespace: str | None, prefix: str) -> None:
    """List the services, of all namespaces unless told otherwise."""
    from kvstore.client.registry import operations

    result = ask(session, operations.list_services(namespace=namespace or "", prefix=prefix))
    if session.form == "json":
        show_json(shapes.summaries(result))
    else:
        show(session, views.services(result), views.about_services(result))


@service.command(
    examples=(
        "kvstore service get payment",
        "kvstore service get payment --healthy --tag blue --zone eu-1",
        "kvstore service get payment -w json | jq -r '.[] | select(.routable) | .address'",
    )
)
@namespace_option()
@selection_options
@click.option("--linearizable", is_flag=True, help="Ask a majority first; needs one.")
@service_argument()
@click.pass_obj
def get(
    session: Session, /, service: str, namespace: str, linearizable: bool, **options: Any
) -> None:
    """Show the instances of a service.

    The JSON form is an array of instances. Any member answers from what it knows, also when
    the cluster has lost its majority; --linearizable asks a majority first.
    """
    from kvstore.client.registry import operations

    wanted = selection(options)
    result = ask(
        session,
        operations.get_instances(
            service, namespace=namespace, selection=wanted, linearizable=linearizable
        ),
    )
    remarks = views.about_instances(
        ServiceName(namespace, service), result, selected=wanted != Selection(health=Health.ALL)
    )
    if session.form == "json":
        show_json(shapes.instances(result))
    else:
        show(session, views.instances(result, now_ms()), remarks)


@service.command(
    examples=(
        "kvstore service explain payment payment-1",
        "kvstore service explain payment payment-1 --tag blue   # for who selects by this tag",
    )
)
@namespace_option()
@selection_options
@service_argument()
@instance_argument()
@click.pass_obj
def explain(
    session: Session, /, service: str, instance: str, namespace: str, **options: Any
) -> None:
    """Say why an instance gets requests, or does not.

    The options describe who asks: `get` with the same ones would show it, or not.
    """
    from kvstore.client.registry import operations

    wanted = selection(options, Health.HEALTHY)
    result = ask(
        session, operations.explain(service, instance, namespace=namespace, selection=wanted)
    )
    if session.form == "json":
        show_json(shapes.explanation(result))
    elif session.form == "table":
        rows: list[list[Cell | str]] = [
            [each.rule, "yes" if each.passes else "no", each.text] for each in result.findings
        ]
        show(session, views.View(("rule", "passes", "finding"), rows), (result.verdict,))
    else:
        show_lines(views.explanation(result, now_ms()))


@service.command(
    examples=(
        "kvstore service history payment",
        "kvstore service history payment payment-1 --limit 20",
        "kvstore service history payment --at 2026-01-01T12:00:00Z   # who was there then",
        "kvstore service history payment --at 5m                     # … five minutes ago",
    )
)
@namespace_option()
@click.option("--at", metavar="TIME", help="Who was there at a time (UTC), or so long ago.")
@click.option("--revision", type=click.IntRange(1), help="Who was there at a revision.")
@click.option("--from-revision", type=click.IntRange(0), default=0, help="Events from there on.")
@click.option(
    "--limit",
    type=click.IntRange(1, _EVENTS_MAX),
    default=_EVENTS,
    show_default=True,
    help="The newest so many events.",
)
@service_argument(required=False)
@instance_argument(required=False)
@click.pass_obj
def history(
    session: Session,
    /,
    service: str | None,
    instance: str | None,
    namespace: str,
    at: str | None,
    revision: int | None,
    from_revision: int,
    limit: int,
) -> None:
    """Show what happened, or who was there at a time, and how.

    Events come oldest first; without SERVICE: of all services. History goes back some days at
    most; what is older is refused, with the time from which on it is kept.
    """
    from kvstore.client.registry import operations

    if at is not None and revision is not None:
        raise bad_args("--at and --revision exclude one another")
    then = at is not None or revision is not None
    if then and not service:
        raise bad_args("--at and --revision want a service")
    asked_ms = 0 if at is None else parse_moment(at, now_ms())
    result = ask(
        session,
        operations.history(
            service or "",
            instance or "",
            namespace=namespace if service else DEFAULT_NAMESPACE,
            time_ms=None if at is None else asked_ms,
            revision=revision,
            from_revision=from_revision,
            limit=0 if then else limit,
            newest_first=not then,
        ),
    )
    if session.form == "json":
        show_json(shapes.history(result, then=then))
    elif then:
        show(session, views.past(result, asked_ms))
        if not result.instances and not result.unknown:
            remark(f"nobody was there for {service}")
        remark(f"as of revision {result.as_of_revision} ({moment(result.as_of_ms)})")
    else:
        show(session, views.events(result, with_service=not service))
        if not result.events:
            remark(f"nothing has happened to {service or 'any service'} that is still known")
