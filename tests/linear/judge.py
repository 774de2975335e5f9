"""One verdict on everything that was recorded: both checkers, and every promise of every watch.

What must be so before a verdict means anything: the store was empty when the history began; each
client waited for one request at a time (one that it gave up may still happen); something succeeded;
and the event log is whole, which stands for what others demand of a last successful read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from tests.linear import revision_check, wgl
from tests.linear.finding import Finding, Verdict, table
from tests.linear.history import Compact, Operation, Outcome, WatchRecord, Witness
from tests.linear.models import StoreModel
from tests.linear.settle import settle
from tests.linear.watch_check import EventLog, faults

__all__ = ("Judgement", "judge")

_SHOWN_MAX = 10


@dataclass(slots=True)
class Judgement:
    """What was wrong, as sentences (none if all is well), and what was looked at."""

    problems: list[str] = field(default_factory=list)
    operations: int = 0
    watches: int = 0
    events: int = 0
    undecided: bool = False
    """The search was given up at its bound; the revision check alone has judged."""

    @property
    def legal(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        shown = self.problems[:_SHOWN_MAX]
        more = len(self.problems) - len(shown)
        return "\n".join([*shown, f"… and {more} more"] if more > 0 else shown) or "all is well"


def judge(
    history: Sequence[Operation],
    watches: Sequence[WatchRecord],
    witness: Witness,
    *,
    states_max: int = wgl.STATES_MAX,
) -> Judgement:
    """The verdict; `witness` is the store's whole event log."""
    judgement = Judgement(
        operations=len(history),
        watches=len(watches),
        events=sum(len(each.events) for record in watches for each in record.responses),
    )
    problems = judgement.problems
    problems += _unfit(history, witness)
    if problems:
        return judgement
    settled = settle(history, witness)
    by_revision = revision_check.check(settled)
    by_search = wgl.check(StoreModel(), settled, states_max)
    judgement.undecided = by_search.verdict is Verdict.INCONCLUSIVE
    if not by_revision.legal:
        problems.append(f"by revisions: {by_revision}")
    if by_search.verdict is Verdict.ILLEGAL:
        problems.append(f"by search: {by_search}")
    if not judgement.undecided and _differ(by_revision, by_search):
        problems.append("the two checkers disagree")
    log = EventLog(witness, _compactions(history))
    problems += islice(faults(watches, log), _SHOWN_MAX + 1)
    return judgement


def _compactions(history: Sequence[Operation]) -> list[tuple[int, int]]:
    """(time, revision) of each compaction that may have happened, from its call on."""
    return [
        (op.call, op.request.revision)
        for op in history
        if isinstance(op.request, Compact) and op.outcome is not Outcome.REFUSED
    ]


def _differ(one: Finding, other: Finding) -> bool:
    return one.legal != other.legal


def _unfit(history: Sequence[Operation], witness: Witness) -> list[str]:
    """Why nothing can be said about this history."""
    expected = 2
    for revision, _ in witness:
        if revision != expected:
            return [f"the event log has revision {revision} where {expected} must follow"]
        expected += 1
    if not history:
        return ["nothing was recorded"]
    ordered = sorted(history, key=lambda op: op.call)
    busy: dict[int, Operation] = {}
    for op in ordered:
        before = busy.get(op.client)
        if before is not None and before.ret is not None and before.ret > op.call:
            return [f"a client had two requests in flight\n{table([before, op])}"]
        busy[op.client] = op
    if not any(op.outcome is Outcome.OK for op in history):
        return [f"nothing succeeded\n{table(ordered[:3])}"]
    return []
