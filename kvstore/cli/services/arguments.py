"""Arguments and options that the service commands share, and their completion in a shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kvstore.cli.exits import bad_args
from kvstore.cli.options import global_values
from kvstore.client.registry.values import DEFAULT_NAMESPACE, Health, Selection

__all__ = (
    "EVERY_NAMESPACE",
    "instance_argument",
    "namespace_option",
    "selection",
    "selection_options",
    "service_argument",
)

F = TypeVar("F", bound=Callable[..., Any])

_COMPLETION_TIMEOUT_S = 1.0
"""A person waits for the Tab key."""
EVERY_NAMESPACE = "*"


def namespace_option(
    default: str | None = DEFAULT_NAMESPACE, what: str = "Namespace of the service."
) -> Callable[[F], F]:
    """`-n`, `--namespace`; without a default: all namespaces."""
    return click.option(
        "-n",
        "--namespace",
        default=default,
        show_default=default is not None,
        metavar="NAME",
        help=what,
        shell_complete=_complete_namespaces,
    )


def service_argument(*, required: bool = True) -> Callable[[F], F]:
    """SERVICE."""
    return click.argument("service", required=required, shell_complete=_complete_services)


def instance_argument(*, required: bool = True) -> Callable[[F], F]:
    """ID, of an instance of the service before it."""
    return click.argument(
        "instance",
        metavar="ID" if required else "[ID]",
        required=required,
        shell_complete=_complete_ids,
    )


_SELECTION = (
    click.option("--all", "everyone", is_flag=True, help="Whatever their status (the default)."),
    click.option("--healthy", is_flag=True, help="Only those that get requests: UP and DEGRADED."),
    click.option(
        "--healthy-or-else-all", is_flag=True, help="Those that get requests; all if none does."
    ),
    click.option("--tag", "tags", multiple=True, help="Only with this tag (repeat: with each)."),
    click.option("--version", "of_version", default="", help="Only of this version."),
    click.option("--zone", default="", help="Those of this zone first."),
    click.option("--only-zone", is_flag=True, help="With --zone: no others, if it has one."),
)


def selection_options(command: F) -> F:
    """Which instances of a service are wanted; `selection` reads them."""
    for option in reversed(_SELECTION):
        command = option(command)
    return command


def selection(options: dict[str, Any], default: Health = Health.ALL) -> Selection:
    """The selection that the options of `selection_options` describe."""
    health = {
        Health.ALL: options["everyone"],
        Health.HEALTHY: options["healthy"],
        Health.HEALTHY_OR_ELSE_ALL: options["healthy_or_else_all"],
    }
    wanted = [each for each, given in health.items() if given]
    if len(wanted) > 1:
        raise bad_args("--all, --healthy and --healthy-or-else-all exclude one another")
    if options["only_zone"] and not options["zone"]:
        raise bad_args("--only-zone wants --zone to say which")
    return Selection(
        health=wanted[0] if wanted else default,
        tags=tuple(options["tags"]),
        version=options["of_version"],
        prefer_zone=options["zone"],
        only_preferred=options["only_zone"],
    )


# Completion: whatever goes wrong, the shell is told of no candidates, and nothing is printed.


def _complete_services(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    def ask(client: Any) -> list[str]:
        namespace = ctx.params.get("namespace") or ""
        found = client.registry.list_services(namespace=namespace, prefix=incomplete)
        return sorted({each.name.service for each in found})

    return _candidates(ctx, ask, incomplete)


def _complete_ids(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    def ask(client: Any) -> list[str]:
        found = client.registry.get_instances(
            ctx.params["service"],
            namespace=ctx.params.get("namespace") or DEFAULT_NAMESPACE,
            selection=Selection(health=Health.ALL),
        )
        return sorted(each.id for each in found)

    return _candidates(ctx, ask, incomplete)


def _complete_namespaces(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _candidates(ctx, lambda client: sorted(client.registry.list_namespaces()), incomplete)


def _candidates(ctx: click.Context, ask: Callable[[Any], list[str]], incomplete: str) -> list[str]:
    from kvstore.cli.context import Session

    try:
        values = {**global_values(ctx), "command_timeout": _COMPLETION_TIMEOUT_S}
        with Session(values) as session:
            return [each for each in ask(session.client) if each.startswith(incomplete)]
    except Exception:  # a person is typing; the command itself will say what is wrong
        return []
