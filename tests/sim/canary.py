"""An invariant that is false on purpose: a campaign that reports it as kept checks nothing."""

from __future__ import annotations

from typing import ClassVar

from tests.linear.history import Operation, Outcome
from tests.sim.observer import Invariant

__all__ = ("Canary",)

_ENOUGH = 20


class Canary(Invariant):
    """Claims that no cluster ever answers twenty requests."""

    number: ClassVar[str] = "canary"
    title: ClassVar[str] = "A promise that every working cluster breaks."

    answered = 0

    def completed(self, op: Operation) -> None:
        self.answered += op.outcome is Outcome.OK
        if self.answered >= _ENOUGH:
            raise self.violated(f"{self.answered} requests were answered, as planned")
