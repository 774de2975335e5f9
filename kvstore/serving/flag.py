"""What one server flag is: its name, type, default, and what we do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvstore.serving.values import parse_bool, parse_duration, parse_int, parse_list

__all__ = ("Flag", "FlagType", "Kind", "Value", "harmless", "implemented", "refused")

Value = str | bool | int | float | tuple[str, ...]
"""A flag's value: text, truth, number, seconds, or the parts of a list."""


class FlagType(Enum):
    """How the text of a value is read."""

    TEXT = "text"
    BOOL = "true|false"
    INT = "number"
    DURATION = "duration"
    LIST = "list"


class Kind(Enum):
    """What giving the flag does here."""

    IMPLEMENTED = "implemented"
    HARMLESS = "harmless"
    """Accepted and without effect, because what it tunes does not exist here; `reason` says so."""
    REFUSED = "refused"
    """Any value but the default ends the start with exit code 2; `reason` is the sentence."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of `kvstore serve`."""

    name: str
    type: FlagType
    default: str
    help: str
    kind: Kind
    reason: str = ""
    aliases: tuple[str, ...] = ()
    """Other accepted names (etcd's `experimental-…` spellings), without dashes in front."""
    ours: bool = False
    """True when etcd has no such flag."""

    def parse(self, text: str) -> Value:
        """The value that `text` stands for; raises BadValueError."""
        match self.type:
            case FlagType.BOOL:
                return parse_bool(text)
            case FlagType.INT:
                return parse_int(text)
            case FlagType.DURATION:
                return parse_duration(text)
            case FlagType.LIST:
                return parse_list(text)
            case FlagType.TEXT:
                return text

    @property
    def default_value(self) -> Value:
        return self.parse(self.default)


def implemented(
    name: str,
    type: FlagType,
    default: str,
    help: str,
    *,
    aliases: tuple[str, ...] = (),
    ours: bool = False,
) -> Flag:
    return Flag(name, type, default, help, Kind.IMPLEMENTED, "", aliases, ours)


def harmless(
    name: str,
    type: FlagType,
    default: str,
    help: str,
    reason: str,
    *,
    aliases: tuple[str, ...] = (),
) -> Flag:
    return Flag(name, type, default, help, Kind.HARMLESS, reason, aliases)


def refused(
    name: str,
    type: FlagType,
    default: str,
    help: str,
    reason: str,
    *,
    aliases: tuple[str, ...] = (),
) -> Flag:
    return Flag(name, type, default, help, Kind.REFUSED, reason, aliases)
