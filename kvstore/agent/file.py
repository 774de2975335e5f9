"""Reads an agent's file: services in YAML; every mistake is told with its line and field.

The schema is in docs/agent.md. The document is read as nodes, which know their lines, and each
field by a function of its own; what is left over is a field that does not exist.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import yaml

from kvstore.agent import limits
from kvstore.agent.config import (
    AgentConfig,
    BadConfig,
    ServiceConfig,
    check_label,
    check_port,
    check_seconds,
    distinct_checks,
    make_check,
    parse_probe,
)
from kvstore.checks.limits import (
    DEFAULT_HEALTHY_AFTER,
    DEFAULT_INTERVAL_S,
    DEFAULT_UNHEALTHY_AFTER,
)
from kvstore.checks.spec import Check, CommandProbe, GrpcProbe, HttpProbe, Probe, TtlProbe

__all__ = ("parse_config", "read_config")

T = TypeVar("T")
_KINDS = ("http", "tcp", "grpc", "cmd", "ttl")


def read_config(path: Path) -> AgentConfig:
    """What a file says. Raises BadConfig, or OSError if it cannot be read."""
    with path.open("rb") as file:
        content = file.read(limits.FILE_BYTES_MAX + 1)
    if len(content) > limits.FILE_BYTES_MAX:
        raise BadConfig(f"{path}: larger than {limits.FILE_BYTES_MAX} bytes")
    return parse_config(content, str(path))


def parse_config(content: bytes, source: str) -> AgentConfig:
    """What a YAML document says; `source` names it in errors. Raises BadConfig."""
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadConfig(f"{source}{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise BadConfig(f"{source}: not YAML: {error}") from None
    if root is None:
        raise BadConfig(f"{source}: the file is empty; it needs a list of services")
    fields = _Fields(root, source, "")
    config = AgentConfig(
        services=fields.take("services", _services),
        command=fields.take("command", _texts, ()),
        stop_timeout_s=fields.take("stop_timeout", _seconds, limits.DEFAULT_STOP_TIMEOUT_S),
        stop_with_agent=fields.take("stop_with_agent", _flag, True),
    )
    fields.finish()
    return config


class _Place:
    """A node of the document, and what it is called."""

    def __init__(self, node: yaml.Node, source: str, field: str) -> None:
        self.node = node
        self.source = source
        self.field = field

    def wrong(self, problem: object) -> BadConfig:
        """The error, with line and field."""
        at = f"{self.source}:{self.node.start_mark.line + 1}"
        return BadConfig(f"{at}: {self.field}: {problem}" if self.field else f"{at}: {problem}")

    def is_told_by(self, error: BadConfig) -> bool:
        """The error says already where it is."""
        return str(error).startswith(f"{self.source}:")

    def items(self) -> list[_Place]:
        """Of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong("a list is expected")
        return [
            _Place(node, self.source, f"{self.field}[{index}]")
            for index, node in enumerate(self.node.value)
        ]

    def pairs(self) -> list[tuple[str, _Place]]:
        """Of a mapping, in the order of the file; no name twice."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong("fields are expected (name: value)")
        found: dict[str, _Place] = {}
        for key, value in self.node.value:
            here = _Place(key, self.source, self.field)
            if not isinstance(key, yaml.ScalarNode):
                raise here.wrong("the name of a field must be a text")
            inner = f"{self.field}.{key.value}" if self.field else str(key.value)
            if key.value in found:
                raise here.wrong(f"{key.value} is given twice")
            found[key.value] = _Place(value, self.source, inner)
        return list(found.items())

    def scalar(self, wanted: str, *tags: str) -> str:
        """The text of a single value, if YAML takes it for one of these kinds."""
        kinds = [f"tag:yaml.org,2002:{tag}" for tag in tags]
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag not in kinds:
            raise self.wrong(f"{wanted} is expected")
        return str(self.node.value)


class _Fields:
    """The fields of a mapping, taken one by one."""

    def __init__(self, node: yaml.Node, source: str, field: str) -> None:
        self._place = _Place(node, source, field)
        self._left = dict(self._place.pairs())
        self._known: list[str] = []

    @classmethod
    def of(cls, place: _Place) -> _Fields:
        return cls(place.node, place.source, place.field)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def wrong(self, problem: object) -> BadConfig:
        """An error of the whole."""
        return self._place.wrong(problem)

    def take(self, name: str, read: Callable[[_Place], T], default: T | None = None) -> T:
        """One field; without a default it has to be there."""
        self._known.append(name)
        place = self._left.pop(name, None)
        if place is None:
            if default is None:
                raise self.wrong(f"{name} is missing")
            return default
        try:
            return read(place)
        except BadConfig as error:
            raise error if place.is_told_by(error) else place.wrong(error) from None

    def finish(self) -> None:
        """Whatever was not taken does not exist."""
        for name, place in self._left.items():
            close = difflib.get_close_matches(name, self._known, 1)
            hint = f"; is it {close[0]}?" if close else f"; there are {', '.join(self._known)}"
            raise place.wrong(f"there is no such field{hint}")


# ---- values --------------------------------------------------------------------------------


def _text(place: _Place) -> str:
    # What looks like a number or a truth is meant as it is written: version: 1.10, zone: no.
    return place.scalar("a text", "str", "int", "float", "bool", "timestamp")


def _number(place: _Place) -> int:
    text = place.scalar("a whole number", "int")
    try:
        return int(text.replace("_", ""), 0)
    except ValueError:
        raise place.wrong("a whole number is expected") from None


def _flag(place: _Place) -> bool:
    text = place.scalar("true or false", "bool")
    return text.lower() in ("true", "yes", "on")


def _label(place: _Place) -> str:
    return check_label(_text(place))


def _port(place: _Place) -> int:
    return check_port(_number(place))


def _seconds(place: _Place) -> float:
    return check_seconds(_text(place))


def _ttl(place: _Place) -> int:
    return int(check_seconds(_text(place), least=1.0, whole=True))


def _grace(place: _Place) -> int:
    return int(check_seconds(_text(place), whole=True))


def _texts(place: _Place) -> tuple[str, ...]:
    return tuple(map(_text, place.items()))


def _pairs(place: _Place) -> dict[str, str]:
    return {name: _text(value) for name, value in place.pairs()}


def _ports(place: _Place) -> dict[str, int]:
    ports = {}
    for name, value in place.pairs():
        try:
            ports[check_label(name)] = check_port(_number(value))
        except BadConfig as error:
            raise error if place.is_told_by(error) else value.wrong(error) from None
    return ports


# ---- services ------------------------------------------------------------------------------


def _services(place: _Place) -> tuple[ServiceConfig, ...]:
    found = tuple(map(_service, place.items()))
    if not found:
        raise place.wrong("there is no service in it")
    if len(found) > limits.SERVICES_MAX:
        raise place.wrong(f"{len(found)} services; {limits.SERVICES_MAX} are allowed")
    return found


def _service(place: _Place) -> ServiceConfig:
    fields = _Fields.of(place)
    if ("port" in fields) == ("ports" in fields):
        raise fields.wrong("give either port or ports")
    no_ports: dict[str, int] = {}
    ports = fields.take("ports", _ports, no_ports)
    config = ServiceConfig(
        service=fields.take("service", _label),
        ports=ports or {"main": fields.take("port", _port)},
        namespace=fields.take("namespace", _label, "default"),
        id=fields.take("id", _text, ""),
        address=fields.take("address", _text, ""),
        ttl_s=fields.take("ttl", _ttl, limits.DEFAULT_TTL_S),
        grace_s=fields.take("grace", _grace, limits.DEFAULT_GRACE_S),
        drain_s=fields.take("drain", _seconds, limits.DEFAULT_DRAIN_S),
        zone=fields.take("zone", _text, ""),
        region=fields.take("region", _text, ""),
        version=fields.take("version", _text, ""),
        weight=fields.take("weight", _number, 1),
        tags=fields.take("tags", _texts, ()),
        metadata=fields.take("meta", _pairs, {}),
        command=fields.take("command", _texts, ()),
        checks=fields.take("checks", _checks, ()),
    )
    fields.finish()
    return config


def _checks(place: _Place) -> tuple[Check, ...]:
    return distinct_checks(map(_check, place.items()))


def _check(place: _Place) -> Check:
    fields = _Fields.of(place)
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        raise fields.wrong(f"a check needs exactly one of {', '.join(_KINDS)}")
    probe = _probe(kinds[0], fields)
    timeout_s = fields.take("timeout", _seconds, math.nan)
    try:
        check = make_check(
            probe,
            name=fields.take("name", _text, ""),
            interval_s=fields.take("interval", _seconds, DEFAULT_INTERVAL_S),
            timeout_s=None if math.isnan(timeout_s) else timeout_s,
            up=fields.take("healthy_after", _number, DEFAULT_HEALTHY_AFTER),
            down=fields.take("unhealthy_after", _number, DEFAULT_UNHEALTHY_AFTER),
        )
    except BadConfig as error:
        raise error if place.is_told_by(error) else place.wrong(error) from None
    fields.finish()
    return check


def _probe(kind: str, fields: _Fields) -> Probe:
    """What a check asks; the fields that only its kind has stand beside it."""
    match kind:
        case "cmd":
            return CommandProbe(fields.take("cmd", _texts))
        case "ttl":
            return TtlProbe(fields.take("ttl", _text), fields.take("max_age", _seconds))
        case "http":
            return HttpProbe(
                fields.take("http", _text),
                fields.take("method", _text, "GET"),
                fields.take("headers", _pairs, {}),
                fields.take("expected", _statuses, ()),
            )
    target = fields.take(kind, _optional_text, "")
    probe = parse_probe(f"{kind}://{target}" if target else kind)
    if isinstance(probe, GrpcProbe):
        probe = replace(probe, service=fields.take("service", _text, probe.service))
    return probe


def _optional_text(place: _Place) -> str:
    """`tcp:` with nothing behind it is fine."""
    return "" if place.node.tag == "tag:yaml.org,2002:null" else _text(place)


def _statuses(place: _Place) -> tuple[int, ...]:
    return tuple(map(_number, place.items()))
