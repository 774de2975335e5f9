"""Makes a failing seed small: fewer ticks, kinds of faults, clients, and single faults.

    python -m tests.sim.shrink --seed 7 --profile long

Every candidate is the same seed with something left out. It counts as the same failure when the
same promise is broken. What is printed last replays the smallest one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.sim.faults import plan
from tests.sim.params import Params, draw
from tests.sim.run import Mutant, Outcome, run_seed

__all__ = ("Case", "main", "shrink")


@dataclass(frozen=True, slots=True)
class Case:
    """A seed with something left out."""

    seed: int
    profile: str
    until_tick: int | None = None
    skipped: frozenset[int] = frozenset()
    changes: tuple[tuple[str, int], ...] = field(default=())
    """Parameters that are set otherwise than drawn."""

    def change(self, params: Params) -> None:
        """Puts the changes into the parameters."""
        for name, value in self.changes:
            setattr(params, name, value)

    def run(self, mutant: Mutant | None = None, *, keep_log: bool = False) -> Outcome:
        """Runs it."""
        return run_seed(
            self.seed,
            self.profile,
            until_tick=self.until_tick,
            skipped=self.skipped,
            change=self.change,
            mutant=mutant,
            keep_log=keep_log,
        )

    @property
    def command(self) -> str:
        """What replays it."""
        parts = [f"python -m tests.sim.run --seed {self.seed} --profile {self.profile}"]
        if self.until_tick is not None:
            parts.append(f"--upto {self.until_tick}")
        if self.skipped:
            parts.append("--skip " + ",".join(map(str, sorted(self.skipped))))
        parts += [f"--set {name}={value}" for name, value in self.changes]
        return " ".join(parts)


def shrink(
    case: Case,
    *,
    mutant: Mutant | None = None,
    budget: int = 200,
    tell: Callable[[str], None] = lambda _line: None,
) -> tuple[Case, Outcome]:
    """The smallest case found in `budget` runs that breaks the same promise."""
    best = case.run(mutant)
    assert best.violation is not None, f"{case.command} breaks nothing"
    number = best.violation.number
    runs = 1

    def fails(candidate: Case) -> bool:
        nonlocal case, best, runs
        if runs >= budget:
            return False
        runs += 1
        outcome = candidate.run(mutant)
        if outcome.violation is None or outcome.violation.number != number:
            return False
        case, best = candidate, outcome
        tell(f"{runs} runs: {best.ticks} ticks, {case.command}")
        return True

    if best.ticks < draw(case.seed, case.profile).ticks:
        # It broke before the faults ended: what would come after does not matter.
        fails(replace(case, until_tick=best.ticks + 1))
    params = draw(case.seed, case.profile)
    for name, least in (("clients", 1), ("watchers", 0), ("lease_clients", 0), ("compactor", 0)):
        _smaller(lambda: case, fails, name, int(getattr(params, name)), least)
    for number_of_nodes in (1, 3):
        if number_of_nodes < params.nodes and fails(_with(case, "nodes", number_of_nodes)):
            break
    decisions = plan(params)
    for kind in params.rates:
        same = {each.number for each in decisions if each.kind == kind} - case.skipped
        if same:
            fails(replace(case, skipped=case.skipped | same))
    _fewer(lambda: case, fails, [each.number for each in decisions])
    if best.ticks + 1 < (case.until_tick or best.ticks + 2):
        fails(replace(case, until_tick=best.ticks + 1))
    return case, best


def _with(case: Case, name: str, value: int) -> Case:
    others = tuple(each for each in case.changes if each[0] != name)
    return replace(case, changes=(*others, (name, value)))


def _smaller(
    present: Callable[[], Case], fails: Callable[[Case], bool], name: str, value: int, least: int
) -> None:
    """Halves a number as long as the case goes on failing."""
    while value > least:
        value = max(least, value // 2)
        if not fails(_with(present(), name, value)):
            return


def _fewer(
    present: Callable[[], Case], fails: Callable[[Case], bool], numbers: Iterable[int]
) -> None:
    """Delta debugging over single decisions: leaves out ever smaller groups."""
    left = [number for number in numbers if number not in present().skipped]
    size = max(1, len(left) // 2)
    while True:
        removed = False
        for start in range(0, len(left), size):
            group = left[start : start + size]
            if fails(replace(present(), skipped=present().skipped | frozenset(group))):
                removed = True
        left = [number for number in left if number not in present().skipped]
        if size == 1 and not removed:
            return
        size = max(1, size // 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.shrink", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--profile", default="long")
    parser.add_argument("--runs", type=int, default=200, help="how many candidates at most")
    options = parser.parse_args(arguments)
    case, outcome = shrink(Case(options.seed, options.profile), budget=options.runs, tell=print)
    print(outcome)
    print(case.command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
