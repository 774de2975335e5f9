"""`service namespace`, `guard`, `settings`: what holds for services as a whole."""

from __future__ import annotations

import click

from kvstore.cli.commands.service.group import service
from kvstore.cli.context import Session
from kvstore.cli.exits import CliError, bad_args
from kvstore.cli.options import DURATION, ClientGroup
from kvstore.cli.printers import emit
from kvstore.cli.services import shapes, views
from kvstore.cli.services.arguments import namespace_option, service_argument
from kvstore.cli.services.present import ask, remark, show, show_json
from kvstore.cli.services.times import whole_seconds
from kvstore.client.registry.values import Guard, ServiceName, Settings

__all__ = ("guard", "namespace", "settings")


@service.group(
    cls=ClientGroup,
    examples=("kvstore service namespace list", "kvstore service namespace create shop"),
)
def namespace() -> None:
    """Namespaces: names of services are unique in one. `default` is always there."""


@namespace.command("list", examples=("kvstore service namespace list",))
@click.pass_obj
def _list(session: Session, /) -> None:
    """List the namespaces."""
    from kvstore.client.registry import operations

    result = ask(session, operations.list_namespaces())
    if session.form == "json":
        show_json(list(result))
    else:
        show(session, views.View(("namespace",), [[each] for each in result]))


@namespace.command("create", examples=("kvstore service namespace create shop",))
@click.argument("name")
@click.pass_obj
def _create(session: Session, /, name: str) -> None:
    """Make a namespace; no harm if it is there."""
    from kvstore.client.registry import operations

    created = ask(session, operations.create_namespace(name))
    if session.form == "json":
        show_json({"namespace": name, "created": created})
    else:
        emit((f"namespace {name} {'is created' if created else 'was there already'}",))


@namespace.command("delete", examples=("kvstore service namespace delete shop",))
@click.argument("name")
@click.pass_obj
def _delete(session: Session, /, name: str) -> None:
    """Remove a namespace; refused while there is a service in it."""
    from kvstore.client.registry import operations

    existed = ask(session, operations.delete_namespace(name))
    if session.form == "json":
        show_json({"namespace": name, "existed": existed})
    if not existed:
        raise CliError(f"there is no namespace {name}")
    if session.form != "json":
        emit((f"namespace {name} is deleted",))


@service.group(
    cls=ClientGroup,
    short_help="The mass-expiry guard: show it, or end its hold.",
    examples=(
        "kvstore service guard show",
        "kvstore service guard confirm payment",
        "kvstore service guard lift payment",
    ),
)
def guard() -> None:
    """The mass-expiry guard: when many instances fall silent at once, it is rather the network.

    Then they keep their status for some minutes, shown as stale, and are not removed. An operator
    can end that: they are really gone (confirm), or are to be treated like any other (lift).
    """


@guard.command(
    "show", examples=("kvstore service guard show", "kvstore service guard show -w json")
)
@namespace_option(None, "Only of this namespace.")
@service_argument(required=False)
@click.pass_obj
def _show(session: Session, /, service: str | None, namespace: str | None) -> None:
    """Show which services have instances that are held."""
    from kvstore.client.registry import operations

    held: list[tuple[ServiceName, Guard]] = [
        (each.name, each.guard)
        for each in ask(
            session, operations.list_services(namespace=namespace or "", prefix=service or "")
        )
        if each.guard is not None and service in (None, each.name.service)
    ]
    if session.form == "json":
        show_json([shapes.guard(*each) for each in held])
        return
    show(session, views.guards(held))
    if not held:
        remark("no guard holds an instance")


@guard.command("confirm", examples=("kvstore service guard confirm payment",))
@namespace_option()
@service_argument()
@click.pass_obj
def _confirm(session: Session, /, service: str, namespace: str) -> None:
    """Those who are held are really gone: they go DOWN and are removed now."""
    _end(session, ServiceName(namespace, service), confirm=True)


@guard.command("lift", examples=("kvstore service guard lift payment",))
@namespace_option()
@service_argument()
@click.pass_obj
def _lift(session: Session, /, service: str, namespace: str) -> None:
    """End the hold: they go DOWN, and have their grace time again before they are removed."""
    _end(session, ServiceName(namespace, service), confirm=False)


def _end(session: Session, name: ServiceName, *, confirm: bool) -> None:
    from kvstore.client.registry import operations

    operation = operations.end_guard(name.service, confirm=confirm, namespace=name.namespace)
    held = ask(session, operation)
    if session.form == "json":
        show_json({"namespace": name.namespace, "service": name.service, "held": held})
    elif not held:
        emit((f"no guard held an instance of {name.service}",))
    else:
        rest = "are removed" if confirm else "are DOWN, and are removed after their grace time"
        emit((f"{held} instances of {name.service} {rest}",))


@service.group(
    cls=ClientGroup,
    examples=(
        "kvstore service settings get payment",
        "kvstore service settings set payment --percent 50 --hold 5m",
    ),
)
def settings() -> None:
    """Settings of a service: when its guard engages, and for how long."""


@settings.command("get", examples=("kvstore service settings get payment",))
@namespace_option()
@service_argument()
@click.pass_obj
def _get(session: Session, /, service: str, namespace: str) -> None:
    """Show the settings of a service."""
    from kvstore.client.registry import operations

    result = ask(session, operations.get_settings(service, namespace=namespace))
    if session.form == "json":
        show_json(shapes.settings(result.settings, stored=result.stored))
    else:
        show(session, views.settings(result.settings, stored=result.stored))


@settings.command(
    "set",
    examples=(
        "kvstore service settings set payment --percent 50 --at-least 5",
        "kvstore service settings set payment --guard off",
        "kvstore service settings set payment --reset    # all as by default",
    ),
)
@namespace_option()
@click.option("--guard", "enabled", type=click.Choice(("on", "off")), help="Whether it holds.")
@click.option("--percent", type=int, help="More than this share of the instances …")
@click.option("--at-least", type=int, help="… and at least so many …")
@click.option(
    "--window", type=DURATION, metavar="TIME", help="… silent within this time are held …"
)
@click.option("--hold", type=DURATION, metavar="TIME", help="… for so long at most.")
@click.option("--reset", is_flag=True, help="What is not given has the server's default again.")
@service_argument()
@click.pass_obj
def _set(
    session: Session,
    /,
    service: str,
    namespace: str,
    enabled: str | None,
    percent: int | None,
    at_least: int | None,
    window: float | None,
    hold: float | None,
    reset: bool,
) -> None:
    """Change settings of a service; what is not given stays as it is."""
    from kvstore.client.registry import operations

    given = (enabled, percent, at_least, window, hold)
    if given == (None,) * 5 and not reset:
        raise bad_args("give a setting to change, or --reset; see --help")
    for name, number in (("percent", percent), ("at-least", at_least)):
        if number is not None and not 0 <= number < 2**32:
            raise bad_args(f"--{name} is {number}, which no setting can be")
    before = Settings()
    if not reset:
        found = session.client.registry.get_settings(service, namespace=namespace)
        before = found.settings if found.stored else before
    changed = Settings(
        guard_enabled=before.guard_enabled if enabled is None else enabled == "on",
        guard_percent=before.guard_percent if percent is None else percent,
        guard_at_least=before.guard_at_least if at_least is None else at_least,
        guard_window_s=(
            before.guard_window_s if window is None else whole_seconds("window", window, least=1)
        ),
        guard_hold_s=before.guard_hold_s if hold is None else whole_seconds("hold", hold),
    )
    ask(session, operations.set_settings(service, changed, namespace=namespace))
    if session.form == "json":
        show_json(shapes.settings(changed, stored=True))
    else:
        show(session, views.settings(changed, stored=True))
