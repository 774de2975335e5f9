"""Instances as they are described on a command line: by flags, by JSON, or by both.

Here only what cannot be read is refused; what an instance may be is the server's to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from kvstore.cli.exits import bad_args
from kvstore.client.registry.values import Check, Instance, Status

__all__ = ("MAIN_PORT", "from_json", "pairs", "ports", "status_word", "with_fields")

MAIN_PORT: Final = "main"
"""The name of a port that was given without one."""

_ONLY_IN_ANSWERS: Final = frozenset(
    {
        *("override", "silent", "stale", "routable", "revision", "registered_at", "changed_at"),
        *("reason", "lease", "check"),
    }
)
"""Fields of the JSON that `get` prints and nobody registers: passed over, so that it can be fed
back."""


def ports(given: Iterable[str]) -> dict[str, int]:
    """`8080` or `http=8080`, the main one first."""
    found: dict[str, int] = {}
    for text in given:
        name, mark, number = text.rpartition("=")
        if not number.isascii() or not number.isdigit() or len(number) > 5:
            raise bad_args(f"--port {text[:60]!r} is not a number such as 8080, nor http=8080")
        if mark and not name:
            raise bad_args(f"--port {text[:60]!r} has no name before the `=`")
        name = name or MAIN_PORT
        if name in found:
            raise bad_args(f"--port names {name!r} twice; give the others names, as in http=8080")
        found[name] = int(number)
    return found


def pairs(given: Iterable[str]) -> dict[str, str]:
    """`name=text`."""
    found: dict[str, str] = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark or not name:
            raise bad_args(f"--meta {text[:60]!r} is not name=text")
        found[name] = value
    return found


def status_word(text: str) -> Status:
    """A status, in capitals or not, with `-` or `_`."""
    try:
        return Status(text.upper().replace("-", "_"))
    except ValueError:
        raise bad_args(f"{text[:40]!r} is no status; one of {', '.join(Status)}") from None


def from_json(text: str, service: str, namespace: str) -> Instance:
    """The instance that a JSON object describes, with the fields that `get -w json` prints."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_args(f"the JSON of the instance cannot be read: {error}") from None
    if not isinstance(told, dict):
        raise bad_args('the JSON of the instance is not an object, such as {"port": 8080}')
    fields: dict[str, Any] = {}
    for name, value in told.items():
        if name in ("namespace", "service"):
            expected = namespace if name == "namespace" else service
            if value != expected:
                raise bad_args(f"the JSON tells another {name} than the command: {value!r:.60}")
        elif name in _FIELDS:
            target, read = _FIELDS[name]
            # `port` of what `get` prints is the first of `ports`, which tells more.
            if not (name == "port" and told.get("ports")):
                fields[target] = _read(name, read, value)
        elif name == "checks":
            if value:
                fields["checks"] = _checks(value)
        elif name not in _ONLY_IN_ANSWERS:
            raise bad_args(
                f"the JSON has a field {name[:60]!r}, which instances do not have; put what is "
                "yours into metadata"
            )
    if told.get("ttl_s", 1) == 0:
        raise bad_args("the JSON's ttl_s is 0; at least 1 makes sense")
    if "port" in told and told.get("ports"):
        fields["ports"] = _main_first(fields["ports"], told["port"])
    # `get` prints what counts for others; what the instance says of itself is to be registered.
    if told.get("reported") is None and "status" in told:
        fields["reported"] = _read("status", _status, told["status"])
    return Instance(service=service, namespace=namespace, **fields)


def _checks(told: Any) -> tuple[Check, ...]:
    # Needed by few commands, and every command pays for what is imported above.
    from kvstore.cli.services.checks import of_json

    return of_json(told)


def _main_first(found: Mapping[str, int], main: Any) -> dict[str, int]:
    first = [name for name, number in found.items() if number == main]
    if not first:
        raise bad_args(f"the JSON tells port {main!r:.20}, which is none of its ports")
    return {first[0]: found[first[0]], **found}


def _read(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise bad_args(f"the JSON's {name}: {error}") from None


def _expect(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{what} is expected, not {json.dumps(value)[:40]}")
    return value


def _text(value: Any) -> str:
    return str(_expect(str, value, "text"))


def _number(value: Any) -> int:
    number: int = _expect(int, value, "a whole number")
    if not 0 <= number < 2**32:
        raise ValueError(f"{number} is out of range")
    return number


def _number_or_none(value: Any) -> int | None:
    return None if value is None else _number(value)


def _port(value: Any) -> dict[str, int]:
    return {MAIN_PORT: _number(value)}


def _ports(value: Any) -> dict[str, int]:
    found = _expect(dict, value, "an object of names and numbers")
    return {name: _number(number) for name, number in found.items()}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(each) for each in _expect(list, value, "a list of texts"))


def _text_map(value: Any) -> dict[str, str]:
    found = _expect(dict, value, "an object of names and texts")
    return {name: _text(text) for name, text in found.items()}


def _status(value: Any) -> Status:
    word = _text(value)
    if word not in list(Status):
        raise ValueError(f"{word[:40]!r} is none of {', '.join(Status)}")
    return Status(word)


_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "id": ("id", _text),
    "address": ("address", _text),
    "port": ("ports", _port),
    "ports": ("ports", _ports),
    "zone": ("zone", _text),
    "region": ("region", _text),
    "version": ("version", _text),
    "weight": ("weight", _number),
    "tags": ("tags", _texts),
    "metadata": ("metadata", _text_map),
    "status": ("status", _status),
    "reported": ("reported", _status),
    "ttl_s": ("ttl_s", _number),
    "grace_s": ("grace_s", _number_or_none),
    "drain_s": ("drain_s", _number_or_none),
}
"""A field of the JSON to the instance's field, and how it is read."""


def with_fields(instance: Instance, **given: Any) -> Instance:
    """The instance with those of the fields that were given (not None, not empty)."""
    return replace(
        instance,
        **{name: value for name, value in given.items() if value not in (None, (), {}, "")},
    )
