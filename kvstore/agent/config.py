"""What an agent is told: services, programs, times; how it is written on a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from kvstore.agent import limits
from kvstore.checks.limits import CHECKS_MAX, DEFAULT_TIMEOUT_S
from kvstore.checks.spec import (
    BadCheck,
    Check,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    Probe,
    TcpProbe,
    TtlProbe,
    distinct,
    validate,
)
from kvstore.serving.values import BadValueError, parse_duration

__all__ = (
    "AgentConfig",
    "BadConfig",
    "ServiceConfig",
    "check_label",
    "check_port",
    "check_seconds",
    "default_id",
    "distinct_checks",
    "make_check",
    "parse_pairs",
    "parse_ports",
    "parse_probe",
)


class BadConfig(ValueError):  # noqa: N818 - what it says of a value
    """The agent was told something that cannot be; the text says what and where."""


def _nothing() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One instance to be registered."""

    service: str
    ports: Mapping[str, int]
    """By name; the first is the main one."""
    namespace: str = "default"
    id: str = ""
    """Empty: made of the service, the host and the port, so that it is the same every time."""
    address: str = ""
    """Empty: the address of this machine from which the cluster is reached."""
    ttl_s: int = limits.DEFAULT_TTL_S
    grace_s: int = limits.DEFAULT_GRACE_S
    drain_s: float = limits.DEFAULT_DRAIN_S
    """How long its end waits for those who use it to know."""
    zone: str = ""
    region: str = ""
    version: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=_nothing)
    checks: tuple[Check, ...] = ()
    command: tuple[str, ...] = ()
    """Its own program; empty: that of the agent, if it has one."""

    @property
    def port(self) -> int:
        """The main port."""
        return next(iter(self.ports.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Everything one agent is told."""

    services: tuple[ServiceConfig, ...]
    command: tuple[str, ...] = ()
    """The program behind the services that have none of their own; empty: none is started."""
    stop_timeout_s: float = limits.DEFAULT_STOP_TIMEOUT_S
    stop_with_agent: bool = True
    """The kernel ends the programs when the agent is killed (Linux)."""


# ---- single values -------------------------------------------------------------------------

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9._:-]+")
_ID_CHARS_MAX: Final = 128
_SECONDS_MAX: Final = 86_400 * 30


def check_label(text: str) -> str:
    """A name that can stand in DNS. Raises BadConfig."""
    if not _LABEL.fullmatch(text):
        raise BadConfig(
            f"{text!r:.80} is not a name: use up to 63 lower-case letters, digits and inner hyphens"
        )
    return text


def check_port(number: int) -> int:
    """A TCP port. Raises BadConfig."""
    if not 1 <= number <= 65_535:
        raise BadConfig(f"{number} is not a port: 1 to 65535 are")
    return number


def check_seconds(text: str, *, least: float = 0.0, whole: bool = False) -> float:
    """Seconds of a duration such as 10s. Raises BadConfig."""
    try:
        seconds = parse_duration(text)
    except BadValueError as error:
        raise BadConfig(str(error)) from None
    if not least <= seconds <= _SECONDS_MAX:
        raise BadConfig(f"{text} is too {'short' if seconds < least else 'long'}")
    if whole and seconds != int(seconds):
        raise BadConfig(f"{text} is not a whole number of seconds")
    return seconds


def default_id(service: str, host: str, port: int) -> str:
    """The same at every start on this host, so that a restart takes its own place again."""
    return f"{service}-{_NOT_IN_ID.sub('-', host) or 'host'}-{port}"[-_ID_CHARS_MAX:]


def parse_ports(texts: Iterable[str]) -> dict[str, int]:
    """Ports as `8080` or `http=8080`. Raises BadConfig."""
    ports: dict[str, int] = {}
    for text in texts:
        name, named, number = text.rpartition("=")
        if not re.fullmatch(r"[0-9]{1,6}", number):
            raise BadConfig(f"{text!r:.80} is not a port such as 8080 or http=8080")
        name = check_label(name) if named else "main"
        if name in ports:
            raise BadConfig(f"there are two ports called {name}; write NAME=PORT")
        ports[name] = check_port(int(number))
    return ports


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Metadata as `key=value`. Raises BadConfig."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadConfig(f"{text!r:.80} is not key=value")
        pairs[name] = value
    return pairs


def parse_probe(text: str) -> Probe:
    """What a check asks, as on a command line. Raises BadConfig.

    `http://…`, `https://…`, `/path`, `tcp://host:port`, `tcp`, `grpc://host:port/service`,
    `grpc`, `cmd:program arguments`, `ttl:30s:/path`; a path, `tcp` and `grpc` alone mean the
    instance's own address and main port.
    """
    kind, colon, rest = text.partition(":")
    if text.startswith("/") or kind in ("http", "https"):
        return HttpProbe(text)
    if kind == "tcp":
        return TcpProbe(rest.removeprefix("//"))
    if kind == "grpc":
        target, _, service = rest.removeprefix("//").partition("/")
        return GrpcProbe(target, service)
    if kind == "cmd" and colon:
        try:
            return CommandProbe(tuple(shlex.split(rest)))
        except ValueError as error:
            raise BadConfig(f"the command {rest!r:.80} cannot be read: {error}") from None
    if kind == "ttl" and colon:
        seconds, _, path = rest.partition(":")
        return TtlProbe(path, check_seconds(seconds))
    raise BadConfig(
        f"{text!r:.80} is not a check: write http://…, /path, tcp://host:port, "
        "grpc://host:port/service, cmd:PROGRAM or ttl:30s:FILE"
    )


def make_check(
    probe: Probe, *, name: str = "", interval_s: float, timeout_s: float | None, up: int, down: int
) -> Check:
    """A check that can be run; `up` and `down` are its thresholds. Raises BadConfig."""
    check = Check(
        probe=probe,
        name=name,
        interval_s=interval_s,
        timeout_s=min(DEFAULT_TIMEOUT_S, interval_s) if timeout_s is None else timeout_s,
        healthy_after=up,
        unhealthy_after=down,
    )
    try:
        return validate(check, interval_min_s=limits.CHECK_INTERVAL_MIN_S)
    except BadCheck as error:
        raise BadConfig(str(error)) from None


def distinct_checks(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks of one service, each with a title of its own. Raises BadConfig."""
    try:
        found = distinct(checks)
    except BadCheck as error:
        raise BadConfig(str(error)) from None
    if len(found) > CHECKS_MAX:
        raise BadConfig(f"there are {len(found)} checks; {CHECKS_MAX} are allowed")
    return found
