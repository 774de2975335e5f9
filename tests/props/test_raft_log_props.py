"""RaftLog against a plain list, with a disk beside it."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raft.log import RaftLog
from raft.types import Entry


class LogMachine(RuleBasedStateMachine):
    """The model: all entries ever kept from index 1 on, and what a disk would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog((0, 0), [], commit=0, applied=0)
        self.model: list[Entry] = []
        self.disk: list[Entry] = []
        self.in_flight: list[Entry] | None = None
        self.commit = 0
        self.handed = 0
        self.term = 1
        self.base = 0
        self.pending_restore = 0

    def _entries(self, first: int, count: int) -> list[Entry]:
        return [
            Entry(first + i, self.term, 0, b"%d/%d" % (first + i, self.term)) for i in range(count)
        ]

    @rule(count=st.integers(1, 3), new_term=st.booleans())
    def lead(self, count: int, new_term: bool) -> None:
        self.term += new_term
        added = self._entries(len(self.model) + 1, count)
        self.log.append(added)
        self.model += added

    @rule(data=st.data(), count=st.integers(0, 3), new_term=st.booleans())
    def follow(self, data: st.DataObject, count: int, new_term: bool) -> None:
        """An append that agrees with the model up to prev and then brings its own entries."""
        self.term += new_term
        prev = data.draw(st.integers(max(self.commit, self.base), len(self.model)))
        keep = data.draw(st.integers(prev, len(self.model)))
        sent = self.model[prev:keep]
        if keep == len(self.model) or new_term:
            sent = sent + self._entries(keep + 1, count)
        prev_term = self.model[prev - 1].term if prev else 0
        assert self.log.try_append(prev, prev_term, sent) == prev + len(sent)
        if sent and self.model[prev : prev + len(sent)] != sent:
            self.model[prev:] = sent

    @rule(data=st.data())
    def mismatch(self, data: st.DataObject) -> None:
        prev = data.draw(st.integers(self.base + 1, len(self.model) + 3))
        before = self.log.last_index
        assert self.log.try_append(prev, self.term + 1, []) is None
        assert self.log.last_index == before

    @rule(data=st.data())
    def commit_some(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.model)))
        assert self.log.commit_to(index) == (index > self.commit)
        self.commit = max(self.commit, index)

    @precondition(lambda self: self.in_flight is None)
    @rule()
    def start_write(self) -> None:
        self.in_flight = self.log.take_unstable()

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def end_write(self) -> None:
        assert self.in_flight is not None
        if self.in_flight:
            self.disk[self.in_flight[0].index - 1 :] = self.in_flight
        self.in_flight = None
        self.log.written()

    @rule(count=st.integers(1, 4))
    def apply(self, count: int) -> None:
        taken = self.log.take_committed(count)
        assert taken == self.model[self.handed : self.handed + len(taken)]
        self.handed += len(taken)
        assert len(taken) == count or self.handed == min(self.commit, self.log.stable)
        self.log.applied_to(self.handed)

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.base = max(self.base, data.draw(st.integers(0, self.handed)))
        self.log.compact(self.base)

    @rule(data=st.data(), max_bytes=st.integers(1, 120))
    def slice(self, data: st.DataObject, max_bytes: int) -> None:
        if self.base == len(self.model):
            return
        start = data.draw(st.integers(self.base + 1, len(self.model)))
        entries, size = self.log.slice_from(start, max_bytes)
        assert entries == self.model[start - 1 : start - 1 + len(entries)]
        assert len(entries) == 1 or size <= max_bytes
        assert entries

    @rule(data=st.data())
    def meet(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.base, len(self.model) + 2))
        term = data.draw(st.integers(0, self.term + 1))
        found, found_term = self.log.meeting_point(index, term)
        fitting = [e.index for e in self.model[:index] if e.term <= term and e.index > self.base]
        assert found == max(fitting, default=self.base)
        assert found_term == (self.model[found - 1].term if found else 0)

    @invariant()
    def equals_the_model(self) -> None:
        log = self.log
        assert (log.last_index, log.commit, log.handed) == (
            len(self.model),
            self.commit,
            self.handed,
        )
        assert log.base_index == self.base
        for entry in self.model[self.base :]:
            assert log.term_at(entry.index) == entry.term
        assert log.term_at(len(self.model) + 1) is None

    @invariant()
    def stable_means_on_disk(self) -> None:
        stable = self.log.stable
        assert self.disk[:stable] == self.model[:stable]
        assert self.log.base_index <= self.log.applied <= self.log.handed
        assert self.log.handed <= min(self.log.commit, stable)


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRaftLog = LogMachine.TestCase
