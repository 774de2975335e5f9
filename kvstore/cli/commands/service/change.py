"""`service deregister`, `drain`, `status`: what an operator does to instances."""

from __future__ import annotations

import click

from kvstore.cli.commands.service.group import service
from kvstore.cli.context import Session
from kvstore.cli.exits import CliError, bad_args
from kvstore.cli.options import DURATION
from kvstore.cli.printers import emit
from kvstore.cli.services import shapes, views
from kvstore.cli.services.arguments import instance_argument, namespace_option, service_argument
from kvstore.cli.services.parse import status_word
from kvstore.cli.services.present import ask, now_ms, remark, show, show_json
from kvstore.client.registry.values import Health, Instance, Selection, to_json

__all__ = ("deregister", "drain", "status")

_wait_option = click.option(
    "--wait",
    type=DURATION,
    metavar="TIME",
    help="Until all who acknowledge have done so, at most so long.",
)
_reason_option = click.option("--reason", default="", help="Why, for those who watch, and later.")


@service.command(
    examples=(
        "kvstore service deregister payment payment-1",
        "kvstore service deregister payment payment-1 --wait 5s --reason 'host is replaced'",
    )
)
@namespace_option()
@_reason_option
@_wait_option
@service_argument()
@instance_argument()
@click.pass_obj
def deregister(
    session: Session,
    /,
    service: str,
    instance: str,
    namespace: str,
    reason: str,
    wait: float | None,
) -> None:
    """Remove an instance.

    One that still runs and sends heartbeats registers itself again: `drain` keeps requests away
    from it, whatever it does.
    """
    from kvstore.client.registry import operations

    result = ask(
        session,
        operations.deregister(service, instance, namespace=namespace, reason=reason, wait=wait),
        wait_s=wait or 0.0,
    )
    if session.form == "json":
        show_json(shapes.deregistered(result))
    if not result.existed:
        raise CliError(
            f"there is no instance {instance} of {service} in namespace {namespace};"
            f" `kvstore service get {service}` lists them"
        )
    if session.form != "json":
        emit((f"{service}/{instance} is deregistered",))
        remark(*views.acknowledged(result.acknowledged))


@service.command(
    examples=(
        "kvstore service drain payment payment-1 --wait 5s",
        "kvstore service drain payment payment-1 --undo",
        "kvstore service drain payment --all --reason 'moving to eu-2'",
    )
)
@namespace_option()
@_reason_option
@_wait_option
@click.option("--undo", is_flag=True, help="End the draining.")
@click.option("--all", "everyone", is_flag=True, help="All instances of the service.")
@service_argument()
@instance_argument(required=False)
@click.pass_obj
def drain(
    session: Session,
    /,
    service: str,
    instance: str | None,
    namespace: str,
    reason: str,
    wait: float | None,
    undo: bool,
    everyone: bool,
) -> None:
    """Keep new requests away from an instance, until --undo. Heartbeats do not change that."""
    from kvstore.client.registry import operations

    if everyone == (instance is not None):
        raise bad_args(
            "say which instance, or --all for all of the service"
            if instance is None
            else "--all and an instance exclude one another"
        )
    operation = operations.drain(
        service, instance or "", namespace=namespace, reason=reason, wait=wait, undo=undo
    )
    result = ask(session, operation, wait_s=wait or 0.0)
    if session.form == "json":
        show_json(shapes.drained(result))
        return
    show(session, views.instances(result.instances, now_ms()))
    remark(*views.acknowledged(result.acknowledged))


@service.command(
    examples=(
        "kvstore service status payment payment-1                  # everything about it",
        "kvstore service status payment payment-1 OUT_OF_SERVICE --reason 'bad disk'",
        "kvstore service status payment payment-1 --release        # as it says of itself again",
    )
)
@namespace_option()
@_reason_option
@click.option("--release", is_flag=True, help="End what an operator has set.")
@click.option("--reported", is_flag=True, help="Speak for the instance, not as an operator.")
@service_argument()
@instance_argument()
@click.argument("wanted", metavar="[STATUS]", required=False)
@click.pass_obj
def status(
    session: Session,
    /,
    service: str,
    instance: str,
    wanted: str | None,
    namespace: str,
    reason: str,
    release: bool,
    reported: bool,
) -> None:
    """Show an instance, or set its status.

    What an operator sets counts until --release, whatever heartbeats and checks say. STATUS is
    one of STARTING, UP, DEGRADED, DRAINING, OUT_OF_SERVICE, DOWN, UNKNOWN.
    """
    from kvstore.client.registry import operations

    if release and (wanted or reported):
        raise bad_args("--release ends a status and takes none")
    if reported and not wanted:
        raise bad_args("--reported wants a status")
    if not release and not wanted:
        _show_one(session, _find(session, service, instance, namespace))
        return
    word = None if wanted is None else status_word(wanted)
    operation = operations.set_status(
        service,
        instance,
        reported=word if reported else None,
        override=None if reported else word,
        release=release,
        reason=reason,
        namespace=namespace,
    )
    _show_one(session, ask(session, operation).instance)


def _find(session: Session, service: str, instance: str, namespace: str) -> Instance:
    from kvstore.client.registry import operations

    everyone = Selection(health=Health.ALL)
    result = ask(
        session, operations.get_instances(service, namespace=namespace, selection=everyone)
    )
    for each in result:
        if each.id == instance:
            return each
    raise CliError(f"there is no instance {instance} of {service} in namespace {namespace}")


def _show_one(session: Session, instance: Instance) -> None:
    if session.form == "json":
        show_json(to_json(instance))
    else:
        show(session, views.details(instance, now_ms()))
