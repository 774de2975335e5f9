"""What a fuzz target is: a function of bytes, the errors it may raise, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

__all__ = ("Feed", "Open", "Refused", "Target", "plain")

Feed = Callable[[bytes], None]
"""Takes one input: returns if it was accepted, raises a declared error if it was refused."""

Open = Callable[[], AbstractContextManager[Feed]]
"""Sets up what a target needs (a loop, a node, a directory) for one campaign."""


class Refused(Exception):  # noqa: N818 - an outcome, not a failure
    """For targets that refuse by an answer and not by an error; the text says which."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser. Whatever it raises beyond `declared` is a bug that the campaign has found."""

    name: str
    open: Open
    declared: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    """Well-formed inputs (and a few that are not), from which the others are made."""
    words: tuple[bytes, ...] = ()
    """Pieces of the format that chance alone would not hit."""
    mend: Callable[[bytes], bytes] | None = None
    """Makes the checksums of a mutated input right, so that what lies behind them is reached."""
    label: Callable[[Exception], str] = lambda error: type(error).__name__
    """How refusals are counted apart."""
    time_s: float = 1.0
    """Processor time that one input may take."""
    memory_mib: int = 32
    """What one input may allocate at most, beside itself."""
    cost: int = 1
    """A dear target gets one input where the others get `cost`."""
    accepts: bool = True
    """False: there is nothing here that this parser accepts."""
    refuses: bool = True
    """False: there is nothing that it refuses."""


def plain(function: Feed) -> Open:
    """A target that needs nothing set up."""

    @contextmanager
    def opened() -> Iterator[Feed]:
        yield function

    return opened
