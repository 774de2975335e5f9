"""`agent run`: keeps programs registered, and ends them in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kvstore.agent.config import (
    AgentConfig,
    BadConfig,
    ServiceConfig,
    check_label,
    check_seconds,
    default_id,
    distinct_checks,
    make_check,
    parse_pairs,
    parse_ports,
    parse_probe,
)
from kvstore.agent.exits import AgentExit
from kvstore.cli.context import Session
from kvstore.cli.exits import CliError
from kvstore.cli.options import DURATION, ClientCommand, ClientGroup

__all__ = ("agent",)


@click.group(cls=ClientGroup, examples=("kvstore agent run --help",))
def agent() -> None:
    """Keep programs of any language registered."""


class _AgentCommand(ClientCommand):
    """Everything behind the program's name is the program's."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, usage_exit_code=AgentExit.USAGE, **attributes)
        self.allow_interspersed_args = False


_EXAMPLES = (
    "kvstore agent run --service payment --port 8080 --check /healthz -- ./payment --port 8080",
    "kvstore agent run --service db --port 5432 --address 10.0.1.9 --check tcp   # runs elsewhere",
    "kvstore agent run --config services.yaml",
)


@agent.command(cls=_AgentCommand, examples=_EXAMPLES)
@click.option("--service", default="", help="Name of the service.")
@click.option("--port", "ports", multiple=True, help="Its port, or NAME=PORT; the first is main.")
@click.option("--id", default="", help="Of this instance; default: service, host and port.")
@click.option("--address", default="", help="Where it is reached; default: from the endpoints.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--ttl", default="10s", show_default=True, help="DOWN after so long in silence.")
@click.option("--grace", default="30s", show_default=True, help="Removed after so long DOWN.")
@click.option("--drain", default="5s", show_default=True, help="To wait until users know the end.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--zone", default="")
@click.option("--region", default="")
@click.option("--weight", type=click.IntRange(0, 65_535), default=1, show_default=True)
@click.option("--version", default="", help="Of the program.")
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="CHECK",
    help="http(s)://…, /path, tcp://…, tcp, grpc://…/service, grpc, cmd:…, ttl:30s:FILE.",
)
@click.option("--check-interval", type=DURATION, default="10s", show_default=True)
@click.option("--check-timeout", type=DURATION, default=None, help="Default: 2s, or the interval.")
@click.option("--healthy-after", type=int, default=1, show_default=True, help="Successes in a row.")
@click.option(
    "--unhealthy-after", type=int, default=3, show_default=True, help="Failures in a row."
)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of services.")
@click.option("--stop-timeout", default=None, help="Then SIGKILL. [default: 30s]")
@click.option(
    "--stop-with-agent/--no-stop-with-agent",
    default=None,
    help="The program ends when the agent is killed (Linux; on by default).",
)
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warn", "error")),
    default="info",
    show_default=True,
)
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
@click.pass_obj
def run(session: Session, /, **given: Any) -> None:
    """Start COMMAND, register it when it is healthy, and deregister it before it stops.

    On SIGTERM the instance is deregistered first; COMMAND gets the signal when those who use it
    know, or the drain time is over. The exit code is COMMAND's (128 + n for signal n). Without a
    COMMAND something that runs elsewhere is registered.
    """
    try:
        config = _complete(_config(given), session.endpoints)
    except BadConfig as error:
        raise CliError(str(error), AgentExit.USAGE) from None
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}", AgentExit.USAGE) from None
    sys.exit(_run(config, session, given["log_level"]))


_OF_ONE_SERVICE = ("ports", "id", "address", "tags", "meta", "checks", "zone", "version")


def _config(given: dict[str, Any]) -> AgentConfig:
    """From the command line, and the file if one is named."""
    command = given["command"]
    if given["config"] is not None:
        from kvstore.agent.file import read_config

        if given["service"] or any(given[name] for name in _OF_ONE_SERVICE):
            raise BadConfig(
                "--config names the services; flags of a single service do not go with it"
            )
        config = read_config(given["config"])
        if command:
            config = replace(config, command=command)
    elif not given["service"]:
        raise BadConfig("name a --service and its --port, or a file by --config")
    else:
        config = AgentConfig(services=(_service(given),), command=command)
    if given["stop_timeout"] is not None:
        seconds = _named("--stop-timeout", check_seconds, given["stop_timeout"])
        config = replace(config, stop_timeout_s=seconds)
    if given["stop_with_agent"] is not None:
        config = replace(config, stop_with_agent=given["stop_with_agent"])
    return config


def _service(given: dict[str, Any]) -> ServiceConfig:
    ports = _named("--port", parse_ports, given["ports"])
    if not ports:
        raise BadConfig("--port is missing: where is the service reached?")
    checks = [
        _named(
            "--check",
            make_check,
            _named("--check", parse_probe, text),
            interval_s=given["check_interval"],
            timeout_s=given["check_timeout"],
            up=given["healthy_after"],
            down=given["unhealthy_after"],
        )
        for text in given["checks"]
    ]
    return ServiceConfig(
        service=_named("--service", check_label, given["service"]),
        ports=ports,
        namespace=_named("--namespace", check_label, given["namespace"]),
        id=given["id"],
        address=given["address"],
        ttl_s=int(_named("--ttl", check_seconds, given["ttl"], least=1.0, whole=True)),
        grace_s=int(_named("--grace", check_seconds, given["grace"], whole=True)),
        drain_s=_named("--drain", check_seconds, given["drain"]),
        zone=given["zone"],
        region=given["region"],
        version=given["version"],
        weight=given["weight"],
        tags=given["tags"],
        metadata=_named("--meta", parse_pairs, given["meta"]),
        checks=_named("--check", distinct_checks, checks),
    )


def _named(flag: str, read: Any, value: Any, **bounds: Any) -> Any:
    try:
        return read(value, **bounds)
    except BadConfig as error:
        raise BadConfig(f"{flag}: {error}") from None


def _complete(config: AgentConfig, endpoints: Iterable[str]) -> AgentConfig:
    """With addresses and ids where none were given."""
    address = ""
    services = []
    for each in config.services:
        if not each.address:
            address = address or _own_address(endpoints)
            each = replace(each, address=address)
        if not each.id:
            each = replace(each, id=default_id(each.service, socket.gethostname(), each.port))
        services.append(each)
    names = [(each.namespace, each.service, each.id) for each in services]
    for name in names:
        if names.count(name) > 1:
            raise BadConfig(f"the instance {'/'.join(name)} is there twice; give each an id")
    return replace(config, services=tuple(services))


def _own_address(endpoints: Iterable[str]) -> str:
    """From where the first endpoint that there is a way to is reached."""
    from kvstore.client.endpoints import parse_endpoints
    from kvstore.client.registry.address import outgoing_address

    for endpoint in parse_endpoints(endpoints):
        with contextlib.suppress(ValueError):
            return outgoing_address(endpoint.target)
    raise BadConfig("no endpoint can be reached from here, so --address has to be given")


def _run(config: AgentConfig, session: Session, level: str) -> int:
    from kvstore.agent.agent import Agent
    from kvstore.serving.logging import LEVELS, LogConfig, start_logging

    form = "json" if session.form == "json" else "console"
    log = start_logging(LogConfig(level=LEVELS[level], format=form, outputs=("stderr",)))

    async def live() -> int:
        async with session.connect_async() as client:
            return await Agent(config, client).run()

    try:
        return asyncio.run(live())
    except Exception:
        logging.getLogger(__name__).exception("the agent failed; please report it")
        return AgentExit.FAILED
    finally:
        log.stop()
