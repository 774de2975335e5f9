"""Judges a history by the revisions in its answers: no search, nearly linear time.

etcd's answers say which state of the store they saw. That fixes the order of the writes, a chain
of revisions, and for every other operation the links of the chain between which it stands. So:

1. the writers must form a chain without a gap and without two of the same revision;
2. replayed on the model in that order, every answer must come out as it was given;
3. the order must agree with real time. Each operation takes effect at some moment between its
   call and its return; along the chain these moments never go back. The earliest possible moments
   are worked out from the front; an operation whose earliest moment lies after its return shows
   that the order contradicts time.

Unknown outcomes must have been settled before (`settle`); writes that were not make the verdict
INCONCLUSIVE as soon as a revision is missing. What leaves no trace in any log is taken at its
mildest: a compaction of unknown outcome may explain an error but forbids nothing, and a lease
that was never acknowledged may have been granted.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from tests.linear import model
from tests.linear.finding import LEGAL, Finding, Verdict, answer_text, illegal
from tests.linear.history import (
    Compact,
    Delete,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Outcome,
    Put,
    Range,
    Response,
    Txn,
)
from tests.linear.models import judged_error, may_be_stale, reads_only


def check(history: Sequence[Operation]) -> Finding:
    """The verdict on a history that began on an empty store."""
    return judged(history)[0]


def judged(history: Sequence[Operation]) -> tuple[Finding, model.Store | None]:
    """The verdict, and for a legal history the store that it leaves."""
    chain = _Chain(history)
    with collector_paused():
        try:
            chain.judge()
        except _BrokenError as broken:
            return broken.finding, None
    return LEGAL, chain.states[-1]


def writes(request: object, response: Response) -> bool:
    """Whether an answer says that the request made a revision.

    A lease's revocation does not tell: it makes one if the lease had keys.
    """
    if isinstance(request, Put):
        return True
    if isinstance(request, Delete):
        return response.deleted > 0
    if isinstance(request, Txn):
        branch = request.success if response.succeeded else request.failure
        return any(writes(*pair) for pair in zip(branch, response.parts, strict=False))
    return False


class _BrokenError(Exception):
    """Carries the finding out of the depth."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.sentence)
        self.finding = finding


def _demand(condition: bool, sentence: str, *operations: Operation | None) -> None:
    if not condition:
        raise _BrokenError(illegal(sentence, *operations))


@contextmanager
def collector_paused() -> Iterator[None]:
    """A check makes many objects and drops none: looking for garbage would be most of its time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(slots=True)
class _Place:
    """An operation beside the chain: after link `after` (−1: after nothing), before link `before`
    (None: before nothing), not earlier than `floor`. `pushes`: it holds back what comes after."""

    op: Operation
    after: int
    before: int | None
    floor: float
    pushes: bool = True


@dataclass
class _Chain:
    """The links, writers and compactions in order, and everything that hangs on them."""

    history: Sequence[Operation]
    links: list[Operation] = field(default_factory=list)
    link_of_revision: dict[int, int] = field(default_factory=dict)
    states: list[model.Store] = field(default_factory=list)  # by revision − 1
    compactions: list[tuple[int, int]] = field(default_factory=list)  # (value, link), ascending

    def judge(self) -> None:
        self.answered = [op for op in self.history if op.outcome is Outcome.OK]
        self.unknown = [op for op in self.history if op.outcome is Outcome.UNKNOWN]
        self.errors = [op for op in self.history if judged_error(op)]
        self._collect()
        self._replay()
        self._link()
        self._keep_time([*self._places(), *self._error_places(), *self._lease_places()])

    # ----------------------------------------------------------------------- 1 and 2: the replay

    def _collect(self) -> None:
        """Sorts the answered operations into writers by revision, and the rest."""
        self.writers: dict[int, Operation] = {}
        self.others: list[Operation] = []
        self.revocations: dict[int, list[Operation]] = {}
        for op in self.answered:
            revision = op.response.revision
            _demand(revision >= 1, f"an answer holds revision {revision}", op)
            if isinstance(op.request, LeaseRevoke):
                self.revocations.setdefault(revision, []).append(op)
            elif writes(op.request, op.response):
                twin = self.writers.setdefault(revision, op)
                _demand(twin is op, f"two writes were told revision {revision}", twin, op)
                _demand(revision > 1, "a write was told the revision of the empty store", op)
            else:
                self.others.append(op)
        self.last = max((op.response.revision for op in self.answered), default=1)

    def _replay(self) -> None:
        requests = [op.request for op in self.history if op.outcome is not Outcome.REFUSED]
        granted = frozenset(one.lease_id for one in requests if isinstance(one, LeaseGrant))
        state = model.empty()._replace(leases=granted)
        self.states.append(state)
        for revision in range(2, self.last + 1):
            op = self.writers.get(revision) or self._revocation(revision, state)
            if op is None:
                self._gap(revision)
                return
            state, answer = model.apply(state, op.request)
            self._same(op, answer, f"at revision {revision}")
            _demand(state.revision == revision, f"revision {revision} was made by a no-change", op)
            # Lives of leases are judged apart, in `_lease_places`.
            state = state._replace(leases=granted)
            self.states.append(state)
            self.writers[revision] = op
        for revocations in self.revocations.values():
            self.others += revocations
        for op in self.others:
            state = self.states[op.response.revision - 1]
            after, answer = model.apply(state, op.request)
            self._same(op, answer, f"in the state of revision {state.revision}")
            _demand(after.head is state.head, "a write left the revision as it was", op)

    def _revocation(self, revision: int, state: model.Store) -> Operation | None:
        """The revocation, if there is one, that deleted its keys at this revision."""
        candidates = self.revocations.get(revision, [])
        for op in candidates:
            if model.attached(state.head.keys, op.request.lease_id):
                candidates.remove(op)
                return op
        return None

    def _gap(self, revision: int) -> None:
        seen = next(op for op in self.answered if op.response.revision >= revision)
        if any(_could_write(op.request) for op in self.unknown):
            reason = f"no answered write made revision {revision}; an unsettled one may have"
            raise _BrokenError(Finding(Verdict.INCONCLUSIVE, reason, (seen,)))
        before = self.writers.get(revision - 1)
        after = self.writers.get(revision + 1)
        _demand(False, f"revision {revision} was made by no write", before, after, seen)

    def _same(self, op: Operation, answer: Response | model.Refusal, where: str) -> None:
        if isinstance(answer, model.Refusal):
            _demand(False, f"{where} this is an error: {answer.error}", op)
            return
        if not model.agrees(answer, op.response):
            expected = Operation(op.client, op.call, op.request, op.ret, Outcome.OK, answer)
            writer = self.writers.get(op.response.revision)
            _demand(
                False,
                f"{where} the answer is not {answer_text(expected)}",
                writer if writer is not op else None,
                op,
            )

    # ------------------------------------------------------------------------------ 3: the order

    def _link(self) -> None:
        """Makes the chain: each writer, then the compactions that saw its revision, by value."""
        compacts = [op for op in self.others if isinstance(op.request, Compact)]
        compacts.sort(key=lambda op: (op.response.revision, op.request.revision))
        for earlier, later in pairwise(compacts):
            _demand(
                earlier.request.revision < later.request.revision,
                "a compaction succeeded below one that was done before",
                earlier,
                later,
            )
        self.others = [op for op in self.others if not isinstance(op.request, Compact)]
        waiting = iter([*compacts, None])
        compact = next(waiting)
        for revision in range(1, self.last + 1):
            if revision > 1:
                self.link_of_revision[revision] = len(self.links)
                self.links.append(self.writers[revision])
            while compact is not None and compact.response.revision == revision:
                self.compactions.append((compact.request.revision, len(self.links)))
                self.links.append(compact)
                compact = next(waiting)

    def _first_compaction_above(self, revision: int) -> int | None:
        """The link that made this revision unreadable."""
        first = bisect_right(self.compactions, (revision, inf))
        return self.compactions[first][1] if first < len(self.compactions) else None

    def _places(self) -> Iterator[_Place]:
        """Reads, and writes that changed nothing, stand between two writers; a read of the past
        also before the compaction that would have refused it."""
        for op in self.others:
            if isinstance(op.request, LeaseGrant | LeaseRevoke):
                continue
            revision = op.response.revision
            after = self.link_of_revision.get(revision, -1)
            limits = [self.link_of_revision.get(revision + 1)]
            limits.append(self._limit_by_compaction(op, after))
            if may_be_stale(op.request):
                yield _Place(op, after, None, -inf, pushes=False)
                continue
            known = [limit for limit in limits if limit is not None]
            yield _Place(op, after, min(known, default=None), op.call)
        for link, op in enumerate(self.links):
            self._limit_by_compaction(op, link)

    def _limit_by_compaction(self, op: Operation, position: int) -> int | None:
        oldest = _oldest_read(op.request, op.response)
        link = None if oldest is None else self._first_compaction_above(oldest)
        if link is not None:
            _demand(
                position < link,
                f"revision {oldest} was read after it was compacted",
                self.links[link],
                op,
            )
        return link

    def _error_places(self) -> Iterator[_Place]:
        for op in self.errors:
            stale = may_be_stale(op.request)
            floor = -inf if stale else op.call
            asked = op.request.revision
            if op.error == model.FUTURE:
                before = None if stale else self.link_of_revision.get(asked)
                _demand(asked > 1, "the first revision was refused as a future one", op)
                yield _Place(op, -1, before, floor, pushes=not stale)
                continue
            # A read is refused below the compacted revision, a compaction at it as well.
            above = asked - isinstance(op.request, Compact)
            link = self._first_compaction_above(above)
            possible = self._unknown_compaction(above, op)
            if link is not None and not possible:
                yield _Place(op, link, None, floor, pushes=not stale)
            else:
                _demand(possible, f"nothing had compacted revision {asked}", op)

    def _unknown_compaction(self, above: int, op: Operation) -> bool:
        return any(
            isinstance(one.request, Compact)
            and one.request.revision > above
            and (op.ret is None or one.call <= op.ret)
            for one in self.unknown
        )

    def _lease_places(self) -> Iterator[_Place]:
        """A lease is granted before its first use and revoked, once, after its last one.

        Exact for ids that are granted once, as clients do; one that is granted again is only
        held to its first grant.
        """
        uses: dict[int, list[int]] = {}
        for link, op in enumerate(self.links):
            for lease_id in _leases_used(op.request, op.response):
                uses.setdefault(lease_id, []).append(link)
        grants: dict[int, list[Operation]] = {}
        for op in sorted(self.history, key=lambda one: one.call):
            if isinstance(op.request, LeaseGrant) and op.outcome is not Outcome.REFUSED:
                grants.setdefault(op.request.lease_id, []).append(op)
        for lease_id, ops in grants.items():
            yield self._between(ops[0], uses.get(lease_id, [None])[0])
            yield from (self._between(op, None) for op in ops[1:])
        ends: dict[int, Operation] = {}
        for op in self.answered:
            if isinstance(op.request, LeaseRevoke):
                lease_id = op.request.lease_id
                _demand(lease_id in grants, f"lease {lease_id} was never granted", op)
                if len(grants[lease_id]) == 1:
                    twin = ends.setdefault(lease_id, op)
                    _demand(twin is op, f"lease {lease_id} was revoked twice", twin, op)
                    last = uses.get(lease_id, [-1])[-1]
                    yield from self._revocation_place(op, grants[lease_id][0], last)

    def _revocation_place(self, op: Operation, grant: Operation, last: int) -> Iterator[_Place]:
        """The place of a lease's end after its grant and after the link that used it last."""
        lease_id = op.request.lease_id
        too_late = f"lease {lease_id} was used after its end"
        own = self.link_of_revision.get(op.response.revision, -1)
        if self.writers.get(op.response.revision) is op:
            _demand(last < own, too_late, op, self.links[last])
            return
        place = self._between(op, None)
        place.floor = max(place.floor, grant.call)
        if grant.outcome is Outcome.OK:
            earlier = grant.response.revision <= op.response.revision
            _demand(earlier, f"lease {lease_id} was revoked before it was granted", grant, op)
        if last > place.after:
            used_in_time = place.before is None or last < place.before
            _demand(used_in_time, too_late, op, self.links[last])
            place.after = last
        yield place

    def _between(self, op: Operation, before: int | None) -> _Place:
        """The place of an operation that made no revision, and comes before link `before`."""
        if op.outcome is Outcome.UNKNOWN:
            return _Place(op, -1, before, op.call)
        revision = op.response.revision
        after = self.link_of_revision.get(revision, -1)
        following = self.link_of_revision.get(revision + 1)
        if before is not None:
            _demand(after < before, "a lease was used before it was granted", op)
            following = before if following is None else min(before, following)
        return _Place(op, after, following, op.call)

    # ------------------------------------------------------------------------------- 3: the time

    def _keep_time(self, places: Sequence[_Place]) -> None:
        """Works out the earliest moments along the chain; `cause` is the operation that sets them.

        A place is weighed as soon as the link before it is: then it can hold back the links after.
        """
        by_after: dict[int, list[_Place]] = {}
        for place in places:
            by_after.setdefault(place.after, []).append(place)
        held: dict[int, tuple[float, Operation]] = {}
        moment, cause = -inf, None
        for link in range(-1, len(self.links)):
            if link >= 0:
                op = self.links[link]
                if link in held and held[link][0] > moment:
                    moment, cause = held[link]
                if op.call > moment:
                    moment, cause = op.call, op
                _in_time(op, moment, cause)
            for place in by_after.get(link, ()):
                earliest, because = (
                    (moment, cause) if moment >= place.floor else (place.floor, place.op)
                )
                _in_time(place.op, earliest, because)
                if not place.pushes or place.before is None or because is None:
                    continue
                if place.before not in held or held[place.before][0] < earliest:
                    held[place.before] = (earliest, because)


def _in_time(op: Operation, earliest: float, cause: Operation | None) -> None:
    if op.ret is not None and earliest > op.ret:
        _demand(
            False,
            "by their revisions the second operation comes before the first, "
            "but it was called after that one returned",
            op,
            cause,
        )


def _could_write(request: object) -> bool:
    return not (reads_only(request) or isinstance(request, Compact | LeaseGrant))


def _oldest_read(request: object, response: Response) -> int | None:
    """The oldest past revision that an answered request read, if it read any."""
    if isinstance(request, Range):
        return request.revision if request.revision > 0 else None
    if not isinstance(request, Txn):
        return None
    branch = request.success if response.succeeded else request.failure
    found = [_oldest_read(one, part) for one, part in zip(branch, response.parts, strict=False)]
    return min((one for one in found if one is not None), default=None)


def _leases_used(request: object, response: Response) -> Iterator[int]:
    """The leases that an answered request attached keys to."""
    if isinstance(request, Put):
        if request.lease:
            yield request.lease
    elif isinstance(request, Txn):
        branch = request.success if response.succeeded else request.failure
        for one, part in zip(branch, response.parts, strict=False):
            yield from _leases_used(one, part)
