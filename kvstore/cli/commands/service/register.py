"""`service register`: registers an instance, for a time or for as long as the command runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kvstore.cli.commands.service.group import service
from kvstore.cli.context import Session, read_input
from kvstore.cli.exits import bad_args
from kvstore.cli.options import DURATION, ClientCommand
from kvstore.cli.printers import emit
from kvstore.cli.services import parse
from kvstore.cli.services.arguments import namespace_option, service_argument
from kvstore.cli.services.present import ask, check_form, remark, show_json
from kvstore.cli.services.times import whole_seconds
from kvstore.cli.signals import termination_interrupts
from kvstore.client.registry.values import Check, Instance, to_json

__all__ = ("register",)

_ONE_SHOT_TTL_S = 86_400
"""Without --heartbeat and --ttl: nobody sends heartbeats, so it lasts a day."""
_HEARTBEAT_TTL_S = 10
"""With heartbeats: ours, or those of the cluster that checks it."""


class _RegisterCommand(ClientCommand):
    """Deregisters before it ends."""

    cleans_up = True


@service.command(
    cls=_RegisterCommand,
    examples=(
        "kvstore service register payment --port 8080 --heartbeat   # until Ctrl-C",
        "kvstore service register payment --port http=8080 --port grpc=9090 --tag blue",
        "kvstore service register db --address db.example.org --port 5432 --ttl 720h",
        "kvstore service register db --address db.example.org --port 5432 --check tcp",
        'echo \'{"port": 8080, "tags": ["blue"]}\' | kvstore service register payment --json -',
    ),
)
@namespace_option()
@click.option("--id", "instance_id", default="", help="Its id (chosen by the server if not given).")
@click.option("--address", default="", help="Where it is (this machine, as the server sees it).")
@click.option(
    "--port", "ports", multiple=True, metavar="[NAME=]PORT", help="A port; the main one first."
)
@click.option("--zone", default="", help="Its zone, such as eu-1a.")
@click.option("--region", default="", help="Its region, such as eu-1.")
@click.option("--version", "of_version", default="", help="Its version.")
@click.option("--weight", type=int, help="Its share of the requests (default 1).")
@click.option("--tag", "tags", multiple=True, help="A tag (repeat for more).")
@click.option("--meta", "metadata", multiple=True, metavar="NAME=TEXT", help="Metadata (repeat).")
@click.option("--status", default="", metavar="STATUS", help="What it says of itself (default UP).")
@click.option(
    "--ttl",
    type=DURATION,
    help="DOWN so long after the last heartbeat (10s with --heartbeat or --check, else 24h).",
)
@click.option("--grace", type=DURATION, help="Removed so long after that (default 30s).")
@click.option("--drain", type=DURATION, help="How long it takes to finish what it has begun.")
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="CHECK",
    help="Checked by the cluster: http://…, /path, tcp://HOST:PORT, grpc://HOST:PORT/SERVICE; a"
    " path, tcp and grpc alone mean its own address and main port (repeat).",
)
@click.option("--json", "source", metavar="FILE", help="Read its fields from a file, or - (stdin).")
@click.option("--heartbeat", is_flag=True, help="Stay, send heartbeats, deregister at the end.")
@service_argument()
@click.pass_obj
def register(
    session: Session,
    /,
    service: str,
    namespace: str,
    source: str | None,
    heartbeat: bool,
    **options: Any,
) -> None:
    """Register an instance of a service, or change one (by its id).

    Once, with a long time to live; or with --heartbeat for as long as this command runs: it
    deregisters the instance when it is interrupted or terminated. For a program of your own,
    `kvstore agent run` does more: it starts the program and looks after it.

    With --check members of the cluster look after the instance (those that were started with
    --enable-agentless-checks): it needs no heartbeats and stays until it is deregistered.
    """
    from kvstore.client.registry import operations

    described = Instance(service=service, namespace=namespace)
    if source is not None:
        text = read_input() if source == "-" else Path(source).read_bytes()
        described = parse.from_json(_decoded(text), service, namespace)
    instance = _with_options(described, options)
    if not instance.ports:
        raise bad_args("the instance has no port; give one with --port 8080")
    if not instance.ttl_s:
        ttl_s = _HEARTBEAT_TTL_S if heartbeat or instance.checks else _ONE_SHOT_TTL_S
        instance = parse.with_fields(instance, ttl_s=ttl_s)
    if not instance.address:
        instance = parse.with_fields(instance, address=_own_address(session.endpoints))
    if heartbeat:
        check_form(session)
        _stay(session, instance)
        return
    result = ask(session, operations.register_instance(instance))
    _show(session, result.instance, created=result.created)
    if session.form != "json" and not result.instance.checks:
        remark(
            f"it is DOWN in {result.instance.ttl_s}s unless it is registered again or its lease"
            f" {result.instance.lease:x} is kept alive (`kvstore lease keep-alive`)"
        )


def _stay(session: Session, instance: Instance) -> None:
    """Keeps the instance registered until we are interrupted or terminated."""
    wanted: dict[str, Any] = {"drain": instance.drain_s, "grace": instance.grace_s}
    with (
        termination_interrupts(),
        session.client.registry.register(
            instance.service,
            id=instance.id,
            namespace=instance.namespace,
            address=instance.address,
            ports=instance.ports,
            ttl=instance.ttl_s,
            tags=instance.tags,
            zone=instance.zone,
            region=instance.region,
            version=instance.version,
            weight=instance.weight,
            metadata=instance.metadata,
            status=instance.reported,
            checks=instance.checks,
            **{name: value for name, value in wanted.items() if value is not None},
        ) as registration,
    ):
        try:
            _show(session, registration.instance, created=True)
            if session.form != "json":
                remark("it is kept alive until Ctrl-C, and then deregistered")
            # What goes wrong meanwhile is logged, and mended as soon as the cluster is back.
            threading.Event().wait()
        except KeyboardInterrupt:
            registration.deregister()
            if session.form != "json":
                remark(f"{instance.service}/{registration.id} is deregistered")


def _own_address(endpoints: tuple[str, ...]) -> str:
    """Where we are, as the first endpoint sees us."""
    from kvstore.client.endpoints import parse_endpoints
    from kvstore.client.registry.address import outgoing_address

    try:
        return outgoing_address(parse_endpoints(endpoints)[0].target)
    except ValueError as error:
        raise bad_args(f"give an --address: {str(error).removeprefix('give address=: ')}") from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise bad_args("the JSON of the instance is not UTF-8") from None


def _with_options(instance: Instance, options: dict[str, Any]) -> Instance:
    ttl, grace, drain = options["ttl"], options["grace"], options["drain"]
    weight = options["weight"]
    if weight is not None and not 0 <= weight < 2**32:
        raise bad_args(f"--weight is {weight}; 0 to 65535 are allowed")
    return parse.with_fields(
        instance,
        id=options["instance_id"],
        address=options["address"],
        ports=parse.ports(options["ports"]),
        zone=options["zone"],
        region=options["region"],
        version=options["of_version"],
        weight=weight,
        tags=options["tags"],
        metadata=parse.pairs(options["metadata"]),
        checks=_checks(options["checks"]),
        reported=parse.status_word(options["status"]) if options["status"] else None,
        ttl_s=None if ttl is None else whole_seconds("ttl", ttl, least=1),
        grace_s=None if grace is None else whole_seconds("grace", grace),
        drain_s=None if drain is None else whole_seconds("drain", drain),
    )


def _checks(texts: Sequence[str]) -> tuple[Check, ...]:
    if not texts:
        return ()
    from kvstore.cli.services.checks import of_options

    return of_options(texts)


def _show(session: Session, instance: Instance, *, created: bool) -> None:
    if session.form == "json":
        show_json(to_json(instance))
    else:
        word = "is registered" if created else "was registered before"
        emit((f"{instance.service}/{instance.id} at {instance.target} {word}",))
