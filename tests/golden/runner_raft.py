"""The script language of tests/golden/raft: nodes, a wire that is moved by hand, and disks.

Nodes are numbers. `random` gives node N a timeout of election_ticks + N - 1, so timing is exact.

    nodes 3 [learners=4] [prevote=off] [...]   nodes with an empty log, all in one configuration
    node 1 conf=1,2 terms=1,1,2 [...]          one node as its disk remembers it (see _node)
    tick N [COUNT] | campaign N | propose N DATA... | read N CONTEXT | transfer N TARGET
    conf N add|learner|remove|update NODE      propose a membership change
    step KIND FROM TO TERM [field=value...]    a message from nowhere
    ready N | persist N | apply N | reject N   one duty of the caller each
    go N                                       all duties of one node until it is quiet
    deliver [A->B] [kind] | drop ... | dup ... messages that are on the wire now
    settle | elect N                           everything until all is quiet (elect: silently)
    win N                                      silently, up to the vote that decides
    cut A B | heal                             a link, both ways
    restart N | compact N INDEX | snapshot A B | report N PEER failed|unreachable
    status [N...] | progress N | log N | reads N
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from raft import messages
from raft.errors import RaftError
from raft.messages import Message, from_wire, to_wire
from raft.node import Config, Persist, RaftNode
from raft.trace import conf_text, entry_text, message_text, node_text, ready_lines
from raft.types import (
    ConfChange,
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Role,
    SnapshotMeta,
)

__all__ = ("RaftScript",)

_ROUNDS_MAX = 200
_VOTES = (messages.RequestPreVote, messages.PreVoteReply, messages.RequestVote, messages.VoteReply)

_CHANGES = {
    "add": ConfChangeKind.ADD_VOTER,
    "learner": ConfChangeKind.ADD_LEARNER,
    "remove": ConfChangeKind.REMOVE,
    "update": ConfChangeKind.UPDATE,
}
_MARKS = {
    "+": ConfChangeKind.ADD_VOTER,
    "~": ConfChangeKind.ADD_LEARNER,
    "-": ConfChangeKind.REMOVE,
}
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "prevote": ("pre_vote", lambda text: text == "on"),
    "checkquorum": ("check_quorum", lambda text: text == "on"),
    "append_bytes": ("max_append_bytes", int),
    "inflight": ("max_inflight_appends", int),
    "inflight_bytes": ("max_inflight_bytes", int),
    "uncommitted": ("max_uncommitted_bytes", int),
    "election": ("election_ticks", int),
    "heartbeat": ("heartbeat_ticks", int),
}


@dataclass
class Member:
    """A node, its disk, and what its caller has still to do."""

    node: RaftNode
    config: Config
    hard_state: HardState
    base: tuple[int, int]
    entries: list[Entry]
    conf: ConfState
    applied: int
    outstanding: Persist | None = None
    to_apply: list[Entry] = field(default_factory=list)


def _split(words: list[str]) -> tuple[list[str], dict[str, str]]:
    named = dict(word.split("=", 1) for word in words if "=" in word)
    return [word for word in words if "=" not in word], named


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _conf(text: str) -> ConfState:
    voters, _, learners = text.partition("+")
    return ConfState(_numbers(voters), _numbers(learners))


def _pair(text: str) -> tuple[int, int]:
    index, _, term = text.partition("/")
    return int(index), int(term)


def _entries(text: str, after: int) -> list[Entry]:
    """`1,1:a,2+4`: terms, with data or a membership change; indexes follow `after`."""
    entries = []
    for index, item in enumerate(filter(None, text.split(",")), after + 1):
        mark = next((mark for mark in _MARKS if mark in item), None)
        if mark is not None:
            term, _, node = item.partition(mark)
            data = ConfChange(_MARKS[mark], int(node)).encode()
            entries.append(Entry(index, int(term), int(EntryKind.CONF_CHANGE), data))
        else:
            term, _, payload = item.partition(":")
            entries.append(Entry(index, int(term), int(EntryKind.NORMAL), payload.encode()))
    return entries


class RaftScript:
    """Executes one script; call it with a command line, it gives the lines printed."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.wire: list[Message] = []
        self.cuts: set[frozenset[int]] = set()
        self.silent = False

    def __call__(self, line: str) -> list[str]:
        words = line.split()
        try:
            return list(getattr(self, f"_do_{words[0]}")(*words[1:]))
        except RaftError as error:
            return [f"{type(error).__name__}: {error}"]

    # -- setting up

    def _config(self, node_id: int, named: dict[str, str]) -> Config:
        chosen = {name: read(named[key]) for key, (name, read) in _OPTIONS.items() if key in named}
        return Config(node_id, random=lambda n: (node_id - 1) % n, **chosen)

    def _do_nodes(self, count: str, *words: str) -> Iterator[str]:
        _, named = _split(list(words))
        learners = _numbers(named.get("learners", ""))
        conf = ConfState(tuple(range(1, int(count) + 1)), learners)
        for node_id in conf.voters + conf.learners:
            self._add(node_id, self._config(node_id, named), HardState(0, 0, 0), conf)
        yield from ()

    def _do_node(self, number: str, *words: str) -> Iterator[str]:
        """conf=1,2+3 term=T vote=V commit=C base=I/T terms=1,1:a,2+4 applied=A and options."""
        _, named = _split(list(words))
        base = _pair(named.get("base", "0/0"))
        entries = _entries(named.get("terms", ""), base[0])
        last_term = entries[-1].term if entries else base[1]
        hard_state = HardState(
            int(named.get("term", last_term)),
            int(named.get("vote", 0)),
            int(named.get("commit", base[0])),
        )
        node_id = int(number)
        config = self._config(node_id, named)
        applied = int(named.get("applied", base[0]))
        self._add(node_id, config, hard_state, _conf(named["conf"]), base, entries, applied)
        yield from ()

    def _add(
        self,
        node_id: int,
        config: Config,
        hard_state: HardState,
        conf: ConfState,
        base: tuple[int, int] = (0, 0),
        entries: list[Entry] | None = None,
        applied: int = 0,
    ) -> None:
        entries = entries or []
        node = RaftNode(
            config,
            hard_state=hard_state,
            conf=conf,
            snapshot=base,
            entries=entries,
            applied=applied,
        )
        self.members[node_id] = Member(node, config, hard_state, base, list(entries), conf, applied)

    def _do_restart(self, number: str) -> Iterator[str]:
        m = self._member(number)
        node_id = m.config.node_id
        self._add(node_id, m.config, m.hard_state, m.conf, m.base, m.entries, m.applied)
        yield node_text(self.members[node_id].node)

    def _member(self, number: str) -> Member:
        return self.members[int(number)]

    def _node(self, number: str) -> RaftNode:
        return self._member(number).node

    # -- inputs

    def _do_tick(self, number: str, times: str = "1") -> Iterator[str]:
        for _ in range(int(times)):
            self._node(number).tick()
        yield from ()

    def _do_campaign(self, number: str) -> Iterator[str]:
        self._node(number).campaign()
        yield from ()

    def _do_propose(self, number: str, *datas: str) -> Iterator[str]:
        self._node(number).propose([data.encode() for data in datas])
        yield from ()

    def _do_conf(self, number: str, what: str, node_id: str) -> Iterator[str]:
        self._node(number).propose_conf_change(ConfChange(_CHANGES[what], int(node_id)))
        yield from ()

    def _do_read(self, number: str, context: str) -> Iterator[str]:
        self._node(number).read_index(int(context))
        yield from ()

    def _do_transfer(self, number: str, target: str) -> Iterator[str]:
        self._node(number).transfer_leader(int(target))
        yield from ()

    def _do_compact(self, number: str, index: str) -> Iterator[str]:
        m = self._member(number)
        term = m.node.term_at(int(index))
        assert term is not None, f"no entry {index} to compact to"
        m.node.compact_log(int(index))
        del m.entries[: int(index) - m.base[0]]
        m.base = (int(index), term)
        yield from ()

    def _do_step(self, kind: str, sender: str, to: str, term: str, *words: str) -> Iterator[str]:
        """Fields that are not given are zero; ents=1:a,1:b follow prev."""
        _, named = _split(list(words))
        cls: Any = getattr(messages, kind)
        fields: list[Any] = [int(sender), int(to), int(term)]
        for name in cls._fields[3:]:
            text = named.get(name, "")
            if name == "entries":
                fields.append(_entries(text, int(named.get("prev_index", 0))))
            elif name == "meta":
                index, snapshot_term = _pair(text)
                fields.append(SnapshotMeta(index, snapshot_term, _conf(named["conf"])))
            elif name == "datas":
                fields.append([part.encode() for part in text.split(",")])
            elif name == "contexts":
                fields.append(_numbers(text))
            elif name in ("granted", "rejected", "forced"):
                fields.append(text == "yes")
            else:
                fields.append(int(text or 0))
        self._node(to).step(cls(*fields))
        yield from ()

    # -- the caller's duties

    def _do_ready(self, number: str) -> Iterator[str]:
        m = self._member(number)
        ready = m.node.ready()
        if ready.persist is not None:
            assert m.outstanding is None, "two Persists outstanding"
            m.outstanding = ready.persist
        m.to_apply += ready.committed
        for message in ready.messages:
            if frozenset((message.sender, message.to)) not in self.cuts:
                self.wire.append(from_wire(to_wire(message)))
        lines = [f"n{number} {line}" for line in ready_lines(ready)]
        yield from lines or [f"n{number} nothing to do"]

    def _do_persist(self, number: str) -> Iterator[str]:
        m = self._member(number)
        persist, m.outstanding = m.outstanding, None
        assert persist is not None, f"node {number} has nothing to persist"
        if persist.snapshot is not None:
            meta = persist.snapshot
            m.base, m.entries = (meta.index, meta.term), []
            m.conf, m.applied = meta.conf, meta.index
        if persist.entries:
            m.entries[persist.entries[0].index - m.base[0] - 1 :] = persist.entries
        m.hard_state = persist.hard_state or m.hard_state
        m.node.persisted(persist)
        yield from ()

    def _do_apply(self, number: str) -> Iterator[str]:
        m = self._member(number)
        entries, m.to_apply = m.to_apply, []
        for entry in entries:
            if entry.kind == EntryKind.CONF_CHANGE:
                m.conf = m.node.apply_conf_change(ConfChange.decode(entry.data))
                yield f"n{number} conf={conf_text(m.conf)}"
            m.applied = entry.index
        m.node.applied_to(m.applied)

    def _do_reject(self, number: str) -> Iterator[str]:
        """Applies what is due, refusing its membership changes."""
        m = self._member(number)
        entries, m.to_apply = m.to_apply, []
        for entry in entries:
            if entry.kind == EntryKind.CONF_CHANGE:
                m.node.reject_conf_change()
            m.applied = entry.index
        m.node.applied_to(m.applied)
        yield from ()

    def _do_go(self, number: str) -> Iterator[str]:
        m = self._member(number)
        for _ in range(_ROUNDS_MAX):
            if m.outstanding is not None:
                yield from self._do_persist(number)
            if m.to_apply:
                yield from self._do_apply(number)
            if not m.node.has_ready():
                return
            lines = list(self._do_ready(number))
            if lines != [f"n{number} nothing to do"]:
                yield from lines
        raise AssertionError(f"node {number} never becomes quiet")

    # -- the wire

    def _pick(self, words: tuple[str, ...]) -> list[Message]:
        link = next((word for word in words if "->" in word), None)
        kind = next((word for word in words if "->" not in word), None)
        picked = []
        for message in self.wire:
            if link is not None and f"{message.sender}->{message.to}" != link:
                continue
            if kind is None or type(message).__name__ == kind:
                picked.append(message)
        return picked

    def _do_deliver(self, *words: str) -> Iterator[str]:
        picked = self._pick(words)
        self._remove(picked)
        for message in picked:
            if message.to in self.members:
                self.members[message.to].node.step(message)
        if not picked:
            yield "nothing to deliver"

    def _do_drop(self, *words: str) -> Iterator[str]:
        picked = self._pick(words)
        self._remove(picked)
        for message in picked:
            yield f"lost {message_text(message)}"

    def _do_dup(self, *words: str) -> Iterator[str]:
        self.wire += self._pick(words)
        yield from ()

    def _remove(self, picked: list[Message]) -> None:
        gone = set(map(id, picked))
        self.wire = [message for message in self.wire if id(message) not in gone]

    def _do_cut(self, one: str, other: str) -> Iterator[str]:
        self.cuts.add(frozenset((int(one), int(other))))
        yield from ()

    def _do_heal(self) -> Iterator[str]:
        self.cuts.clear()
        yield from ()

    def _do_settle(self) -> Iterator[str]:
        for _ in range(_ROUNDS_MAX):
            before = len(self.wire)
            for number in sorted(self.members):
                yield from self._do_go(str(number))
            if not self.wire:
                return
            assert before < 10_000, "the wire overflows"
            list(self._do_deliver())
        raise AssertionError("the cluster never becomes quiet")

    def _do_elect(self, number: str) -> Iterator[str]:
        self._node(number).campaign()
        list(self._do_settle())
        yield node_text(self._node(number))

    def _do_win(self, number: str) -> Iterator[str]:
        node = self._node(number)
        node.campaign()
        for _ in range(_ROUNDS_MAX):
            for other in sorted(self.members):
                if node.role is not Role.LEADER:
                    list(self._do_go(str(other)))
            if node.role is Role.LEADER:
                break
            votes: list[Message] = [m for m in self.wire if isinstance(m, _VOTES)]
            self._remove(votes)
            for message in votes:
                self.members[message.to].node.step(message)
        yield node_text(node)

    # -- snapshots and reports

    def _do_snapshot(self, number: str, peer: str) -> Iterator[str]:
        """Takes a snapshot of what is applied, sends it, and reports it as sent."""
        m = self._member(number)
        term = m.node.term_at(m.applied)
        assert term is not None, "the applied entry's term is gone"
        meta = SnapshotMeta(m.applied, term, m.conf)
        message = m.node.snapshot_message(int(peer), meta)
        self.wire.append(message)
        m.node.report_snapshot(int(peer), meta.index)
        yield f"n{number} send {message_text(message)}"

    def _do_report(self, number: str, peer: str, what: str) -> Iterator[str]:
        if what == "failed":
            self._node(number).report_snapshot(int(peer), None)
        else:
            assert what == "unreachable", what
            self._node(number).report_unreachable(int(peer))
        yield from ()

    # -- looking

    def _do_status(self, *numbers: str) -> Iterator[str]:
        for number in numbers or map(str, sorted(self.members)):
            yield node_text(self._node(number))

    def _do_progress(self, number: str) -> Iterator[str]:
        for peer, p in sorted(self._node(number).progress().items()):
            active = "active" if p.recent_active else "silent"
            yield f"{peer}: {p.state.lower()} match={p.match} next={p.next} {active}"

    def _do_log(self, number: str) -> Iterator[str]:
        """What is on the node's disk."""
        m = self._member(number)
        yield f"base={m.base[0]}/{m.base[1]} {' '.join(map(entry_text, m.entries))}".rstrip()
