"""The mass-expiry guard of one service: when many fall silent at once, it is rather us. Pure.

While more than a share of a service's instances, and at least a number of them, fell silent
within a window of time, the guard is *engaged*: those instances are *held*, that is, they keep
their last status (marked as stale) and are not removed. It ends

* by itself, when so many came back that the rest is no longer too many (RECOVERED),
* after its time (TIMED_OUT),
* by an operator: LIFTED (they have their grace again) or CONFIRMED (they are really gone).

Who is held at that moment is let go, and goes DOWN. The same silence never engages it twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from kvstore.registry import limits
from kvstore.registry.names import Invalid

__all__ = ("Decision", "Guard", "GuardSettings", "Verdict", "too_many")


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """When the guard of a service engages, and for how long."""

    enabled: bool = True
    percent: int = limits.GUARD_PERCENT
    """More than this share …"""
    at_least: int = limits.GUARD_AT_LEAST
    """… and this many …"""
    window_s: float = limits.GUARD_WINDOW_S
    """… fell silent within this time …"""
    hold_s: float = limits.GUARD_HOLD_MAX_S
    """… are held for so long at most."""

    @classmethod
    def of_json(cls, told: Any) -> GuardSettings:
        """Reads the settings of a service: {"guard": {"percent": …, …}}. Raises Invalid."""
        if not isinstance(told, Mapping):
            raise Invalid("the settings are not a JSON object")
        guard = told.get("guard", {})
        if not isinstance(guard, Mapping):
            raise Invalid("guard: an object is expected")
        known = {"enabled": bool, "percent": int, "at_least": int, "window_s": int, "hold_s": int}
        fields: dict[str, Any] = {}
        for name, kind in known.items():
            if name not in guard:
                continue
            value = guard[name]
            if kind is int and isinstance(value, float) and name.endswith("_s"):
                pass
            elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise Invalid(f"guard.{name} is {value!r}")
            fields[name] = value
        settings = cls(**fields)
        if not 0 <= settings.percent <= 100 or settings.at_least < 1:
            raise Invalid("guard: percent is from 0 to 100, at_least from 1 on")
        if not 0 < settings.window_s <= 3600 or not 0 <= settings.hold_s <= 3600:
            raise Invalid("guard: window_s and hold_s are at most 3600")
        return settings


def too_many(silent: int, total: int, settings: GuardSettings) -> bool:
    """Whether so many of `total` are suspicious."""
    enough = silent >= settings.at_least
    return settings.enabled and enough and 100 * silent > settings.percent * total


class Verdict(Enum):
    """What the guard decided."""

    ENGAGED = "engaged"
    HELD = "held"
    """Some more fell silent while it was engaged."""
    RECOVERED = "recovered"
    TIMED_OUT = "timed out"
    LIFTED = "lifted"
    CONFIRMED = "confirmed"

    @property
    def ends(self) -> bool:
        """Whether the guard is no longer engaged after this."""
        return self not in (Verdict.ENGAGED, Verdict.HELD)


class Decision(NamedTuple):
    """A decision, and the instances that are held, or let go, by it."""

    verdict: Verdict
    instances: tuple[int, ...]


class Guard:
    """The guard of one service. Instances are numbers (their leases), times are seconds.

    `total` is how many instances the service has that send heartbeats, silent or not.
    """

    def __init__(self, settings: GuardSettings | None = None) -> None:
        self.settings = settings or GuardSettings()
        self._recent: dict[int, float] = {}
        """Who fell silent lately, and when; in this order."""
        self._held: dict[int, None] = {}
        self.engaged = False
        self.until = 0.0
        """When it gives up, while it is engaged."""

    @property
    def idle(self) -> bool:
        """Nothing is remembered: the guard is as good as new."""
        return not self.engaged and not self._recent

    @property
    def held(self) -> tuple[int, ...]:
        """Who is held."""
        return tuple(self._held)

    def __contains__(self, instance: int) -> bool:
        return instance in self._held

    def resume(self, held: Iterable[int], until: float) -> None:
        """Goes on where the leader before left off."""
        self.engaged = True
        self.until = until
        self._held = dict.fromkeys(held)

    def fell(self, instances: Iterable[int], now: float, total: int) -> Decision | None:
        """These fell silent just now."""
        if self.engaged:
            more = tuple(each for each in instances if each not in self._held)
            self._held.update(dict.fromkeys(more))
            return Decision(Verdict.HELD, more) if more else None
        for each in instances:
            self._recent.pop(each, None)
            self._recent[each] = now
        self._forget_old(now)
        if not too_many(len(self._recent), total, self.settings):
            return None
        self.engaged = True
        self.until = now + self.settings.hold_s
        self._held = dict.fromkeys(self._recent)
        self._recent.clear()
        return Decision(Verdict.ENGAGED, self.held)

    def hold_too(self, instances: Iterable[int]) -> None:
        """These are held as well, while it is engaged, whenever they fell silent."""
        assert self.engaged, "nobody is held by a guard that is not engaged"
        self._held.update(dict.fromkeys(instances))

    def gone(self, instances: Iterable[int], total: int) -> Decision | None:
        """These are heard of again, or are no more."""
        for each in instances:
            self._recent.pop(each, None)
            self._held.pop(each, None)
        if self.engaged and not too_many(len(self._held), total, self.settings):
            return self._end(Verdict.RECOVERED)
        return None

    def tick(self, now: float) -> Decision | None:
        """Time goes on."""
        if self.engaged and now >= self.until:
            return self._end(Verdict.TIMED_OUT)
        self._forget_old(now)
        return None

    def lift(self) -> Decision | None:
        """An operator ends the hold."""
        return self._end(Verdict.LIFTED) if self.engaged else None

    def confirm(self) -> Decision | None:
        """An operator says that those who are held are really gone."""
        return self._end(Verdict.CONFIRMED) if self.engaged else None

    def _end(self, verdict: Verdict) -> Decision:
        let_go = self.held
        self.engaged = False
        self._held.clear()
        self._recent.clear()
        return Decision(verdict, let_go)

    def _forget_old(self, now: float) -> None:
        oldest = now - self.settings.window_s
        while self._recent:
            first = next(iter(self._recent))
            if self._recent[first] >= oldest:
                return
            del self._recent[first]
