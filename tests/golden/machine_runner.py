"""Golden traces of the state machine: scripts of commands with the exact output under each.

A line that begins with "> " is a command, lines with "| " behind it belong to it, everything else
up to the next command is its output. KVSTORE_GOLDEN=rewrite writes the outputs anew. The name of a
file is a claim that the trace shows to be true; its comment lines ("#") may add why.

Commands (KEY, END, VALUE may contain escapes such as \\x00; END "\\0" means "and all behind"):
  put KEY [VALUE] [lease=N] [prev_kv] [ignore_value] [ignore_lease]
  delete KEY [END] [prev_kv]
  range KEY [END] [rev=N] [limit=N] [sort=TARGET] [order=asc|desc] [keys_only] [count_only]
        [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
  txn / read_txn, with lines: if KEY[..END] TARGET OP [OPERAND] | then COMMAND | else COMMAND
        (a nested "then txn" has its lines two deeper)
  batch, with one write command per line: all in one store transaction
  compact N | sweep [N] | hash [N] | changes FROM TO | previous KEY REV | revisions | restart
  grant ID TTL | revoke ID | expire TERM ID... [at=MS] | checkpoint ID TTL | leases | keys ID
  term N
  items [at=MS] [if_term=N], with one line per item: keep|new|lease|delete KEY any|absent|REVISION
        [VALUE] [lease=N] [ttl=N] [reason=WORD]: a BATCH command
  journal [FROM] | bounds RECORDS AGE_MS (restarts with these bounds of the journal)
  alarm raise|clear MEMBER nospace|corrupt | alarms | quota_cost COMMAND
  add ID URL.. | learner ID URL.. | promote ID | remove ID | update ID URL..
  attributes ID NAME URL..
  members
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kvstore.errors import EtcdError
from kvstore.machine import (
    ABSENT,
    ANY_REVISION,
    PUT,
    BatchAction,
    BatchItem,
    CommandKind,
    ConfContext,
    MachineConfig,
    Member,
    Result,
    batch_payload,
    cost_bytes,
    expiry_payload,
    member_attributes_payload,
    read_outcomes,
    run,
)
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import (
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from kvstore.storage.store import Store
from raft.types import ConfChange, ConfChangeKind
from tests.unit.machine.kit import Bench

__all__ = ("check_file", "scripts")

_TARGETS = {"key": 0, "version": 1, "create": 2, "mod": 3, "value": 4}
_COMPARES = {
    "version": (Compare.VERSION, "version"),
    "create": (Compare.CREATE, "create_revision"),
    "mod": (Compare.MOD, "mod_revision"),
    "value": (Compare.VALUE, "value"),
    "lease": (Compare.LEASE, "lease"),
}
_RESULTS = {"=": 0, ">": 1, "<": 2, "!=": 3}
_FLAGS = frozenset(["prev_kv", "ignore_value", "ignore_lease", "keys_only", "count_only"])
_ALARMS = {"nospace": 1, "corrupt": 2}
_ACTIONS = {
    "keep": BatchAction.PUT_KEEP,
    "new": BatchAction.PUT_NEW_LEASE,
    "lease": BatchAction.PUT_LEASE,
    "delete": BatchAction.DELETE,
}
_EXPECTED = {"any": ANY_REVISION, "absent": ABSENT}


def scripts(directory: Path) -> list[Path]:
    """The traces of a directory, by name."""
    return sorted(directory.glob("*/*.txt"))


def check_file(path: Path, store: Store) -> None:
    """Runs a trace and compares, or rewrites it."""
    text = path.read_text()
    actual = "".join(Script(store).play(text))
    if os.environ.get("KVSTORE_GOLDEN") == "rewrite":
        path.write_text(actual)
        return
    assert actual == text, f"{path.name} says otherwise; KVSTORE_GOLDEN=rewrite if that is right"


def _bytes(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _text(data: bytes) -> str:
    return repr(data)[2:-1] if data else "''"


def _pair(kv: KeyValue) -> str:
    lease = f" lease={kv.lease}" if kv.lease else ""
    return (
        f"{_text(kv.key)}={_text(kv.value)} create={kv.create_revision} mod={kv.mod_revision}"
        f" version={kv.version}{lease}"
    )


def _split(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Positional words and options."""
    options: dict[str, Any] = {}
    plain = []
    for word in words:
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            options[word] = True
        elif equals and re.fullmatch(r"[a-z_]+", name) and name not in ("",):
            options[name] = value
        else:
            plain.append(word)
    return plain, options


def _request(words: list[str], lines: list[str]) -> Any:
    """The protobuf request that a write or range command stands for."""
    name, *rest = words
    plain, options = _split(rest)
    if name in ("txn", "read_txn"):
        return _txn(lines)
    if name == "put":
        options = {key: int(value) for key, value in options.items()}
        value = _bytes(plain[1]) if len(plain) > 1 else b""
        return PutRequest(key=_bytes(plain[0]), value=value, **options)
    if name == "compact":
        return CompactionRequest(revision=int(plain[0]))
    key = _bytes(plain[0])
    end = _bytes(plain[1]) if len(plain) > 1 else b""
    if name == "delete":
        return DeleteRangeRequest(key=key, range_end=end, **options)
    assert name == "range", f"unknown command {name}"
    renamed: dict[str, Any] = {}
    for option, value in options.items():
        match option:
            case "rev":
                renamed["revision"] = int(value)
            case "sort":
                renamed["sort_target"] = _TARGETS[value]
            case "order":
                renamed["sort_order"] = {"asc": 1, "desc": 2}[value]
            case "limit":
                renamed["limit"] = int(value)
            case "keys_only" | "count_only":
                renamed[option] = True
            case _:
                renamed[f"{option}_revision"] = int(value)
    return RangeRequest(key=key, range_end=end, **renamed)


def _txn(lines: list[str]) -> TxnRequest:
    request = TxnRequest()
    for line, below in _blocks(lines):
        clause, *words = line.split()
        if clause == "if":
            request.compare.append(_compare(words))
            continue
        inner = _request(words, below)
        field = {
            RangeRequest: "request_range",
            PutRequest: "request_put",
            DeleteRangeRequest: "request_delete_range",
            TxnRequest: "request_txn",
        }[type(inner)]
        branch = {"then": request.success, "else": request.failure}[clause]
        branch.append(RequestOp(**{field: inner}))
    return request


def _compare(words: list[str]) -> Compare:
    key, _, end = words[0].partition("..")
    target, field = _COMPARES[words[1]]
    compare = Compare(
        key=_bytes(key), range_end=_bytes(end), target=target, result=_RESULTS[words[2]]
    )
    if len(words) > 3:
        operand: Any = _bytes(words[3]) if field == "value" else int(words[3])
        setattr(compare, field, operand)
    return compare


def _item(words: list[str]) -> BatchItem:
    """One line of `items`."""
    (action, key, expected, *value), options = _split(words)
    return BatchItem(
        _bytes(key),
        _EXPECTED[expected] if expected in _EXPECTED else int(expected),
        _ACTIONS[action],
        _bytes(value[0]) if value else b"",
        int(options.get("lease", 0)),
        int(options.get("ttl", 0)),
        options.get("reason", ""),
    )


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each line without indentation, with the lines indented under it (two less)."""
    head: str | None = None
    below: list[str] = []
    for line in lines:
        if line.startswith("  "):
            below.append(line[2:])
            continue
        if head is not None:
            yield head, below
        head, below = line, []
    if head is not None:
        yield head, below


class Script:
    """One run of one trace."""

    def __init__(self, store: Store) -> None:
        self.bench = Bench(store, MachineConfig())

    def play(self, text: str) -> Iterator[str]:
        """The trace again, with the outputs as they are now."""
        lines = text.splitlines()
        at = 0
        while at < len(lines):
            line = lines[at]
            at += 1
            if line.startswith("#") or not line:
                yield line + "\n"
                continue
            if not line.startswith("> "):
                continue
            yield line + "\n"
            below = []
            while at < len(lines) and lines[at].startswith("| "):
                below.append(lines[at][2:])
                yield lines[at] + "\n"
                at += 1
            for out in self._command(line[2:].split(), below):
                yield out + "\n"

    def _command(self, words: list[str], below: list[str]) -> Iterator[str]:
        name, *rest = words
        special: Callable[..., Iterator[str]] | None = getattr(self, f"_do_{name}", None)
        if name == "batch":
            requests = [_request(line.split(), more) for line, more in _blocks(below)]
            results = self.bench.apply_all(requests, max_ops=1)
            for request, result in zip(requests, results, strict=True):
                yield from self._outcome(request, result)
            yield from self._events()
        elif name == "items":
            yield from self._items(rest, below)
        elif special is not None:
            yield from special(*rest) if name != "read_txn" else special(below)
        elif name == "range":
            yield from self._read(_request(words, below))
        else:
            yield from self._write(_request(words, below))

    def _write(self, request: Any, kind: CommandKind | None = None) -> Iterator[str]:
        result = self.bench.apply(request, kind)
        yield from self._outcome(request, result)
        yield from self._events()

    def _outcome(self, request: Any, result: Result) -> Iterator[str]:
        if result.error is not None:
            yield f"rev {result.revision} error {result.error.code.name} {result.error.message}"
            return
        yield f"rev {result.revision}"
        yield from _answer(request, result.body)

    def _events(self) -> Iterator[str]:
        assert self.bench.last is not None
        yield from _changes(self.bench.last.changes)

    def _read(self, request: RangeRequest) -> Iterator[str]:
        try:
            with self.bench.machine.view() as view:
                yield from _answer(request, run(view.range(request)).body)
        except EtcdError as error:
            yield f"error {error.code.name} {error.message}"

    def _do_read_txn(self, below: list[str]) -> Iterator[str]:
        request = _txn(below)
        try:
            with self.bench.machine.view() as view:
                yield from _answer(request, run(view.read_txn(request)))
        except EtcdError as error:
            yield f"error {error.code.name} {error.message}"

    # History

    def _do_sweep(self, count: str = "500") -> Iterator[str]:
        yield "done" if self.bench.machine.sweep(int(count)) else "more"

    def _do_hash(self, revision: str = "0") -> Iterator[str]:
        try:
            with self.bench.machine.view() as view:
                answer = run(view.hash_kv(int(revision)))
        except EtcdError as error:
            yield f"error {error.code.name} {error.message}"
        else:
            yield f"{answer.hash:08x} at {answer.hash_revision} compact {answer.compact_revision}"

    def _do_changes(self, start: str, stop: str) -> Iterator[str]:
        with self.bench.machine.view() as view:
            yield from _changes(view.changes(int(start), int(stop)))

    def _do_previous(self, key: str, revision: str) -> Iterator[str]:
        with self.bench.machine.view() as view:
            kv = view.previous(_bytes(key), int(revision))
        yield "none" if kv is None else _pair(KeyValue.FromString(kv))

    def _do_revisions(self) -> Iterator[str]:
        machine = self.bench.machine
        yield f"rev {machine.revision} compact {machine.compact_revision}"
        txn = self.bench.store.read()
        for at, kv in txn.scan("revisions"):
            mark = " deleted" if len(at) > 16 else ""
            place = f"{int.from_bytes(at[:8])}.{int.from_bytes(at[8:16])}"
            yield f"{place} {_text(KeyValue.FromString(kv).key)}{mark}"
        txn.close()

    def _do_restart(self) -> Iterator[str]:
        self.bench.reopen()
        machine = self.bench.machine
        yield f"applied {machine.applied_index} rev {machine.revision}"

    # Leases

    def _do_grant(self, number: str, ttl: str) -> Iterator[str]:
        yield from self._write(LeaseGrantRequest(ID=int(number), TTL=int(ttl)))

    def _do_revoke(self, number: str) -> Iterator[str]:
        yield from self._write(LeaseRevokeRequest(ID=int(number)))

    def _do_expire(self, term: str, *numbers: str) -> Iterator[str]:
        plain, options = _split(list(numbers))
        payload = expiry_payload(
            int(term), [int(number) for number in plain], int(options.get("at", 0))
        )
        yield from self._write(payload, CommandKind.LEASE_EXPIRE)

    # Batches and the journal

    def _items(self, words: list[str], below: list[str]) -> Iterator[str]:
        _, options = _split(words)
        items = [_item(line.split()) for line in below]
        payload = batch_payload(int(options.get("at", 0)), int(options.get("if_term", 0)), items)
        result = self.bench.apply(payload, CommandKind.BATCH)
        yield f"rev {result.revision}" + (f" error {result.error}" if result.error else "")
        if result.error is None:
            for item, outcome in zip(items, read_outcomes(result.body), strict=True):
                verdict = outcome.failure.name.lower() if outcome.failure else "applied"
                yield f"  {_text(item.key)} {verdict} {outcome.revision}"
        yield from self._events()
        batch = self.bench.last
        assert batch is not None
        for kind, numbers in (("revoked", batch.revoked), ("granted", sorted(batch.granted))):
            if numbers:
                yield f"{kind} {' '.join(map(str, numbers))}"

    def _do_journal(self, start: str = "0") -> Iterator[str]:
        with self.bench.machine.view() as view:
            for record in view.journal_since(int(start), 1000):
                op = "put" if record.op == PUT else "delete"
                because = f" because {record.reason}" if record.reason else ""
                yield (
                    f"{record.revision}.{record.sub} at {record.time_ms} {op} {_text(record.key)}"
                    f"={_text(record.value)} {record.cause.name.lower()}{because}"
                )
        yield f"clock {self.bench.machine.clock_ms}"

    def _do_bounds(self, records: str, age_ms: str) -> Iterator[str]:
        self.bench.config = MachineConfig(
            journal_max_records=int(records), journal_max_age_ms=int(age_ms)
        )
        self.bench.reopen()
        yield from ()

    def _do_checkpoint(self, number: str, remaining: str) -> Iterator[str]:
        request = LeaseCheckpointRequest()
        request.checkpoints.add(ID=int(number), remaining_TTL=int(remaining))
        yield from self._write(request, CommandKind.LEASE_CHECKPOINT)

    def _do_leases(self) -> Iterator[str]:
        for lease in sorted(self.bench.machine.leases.values()):
            yield f"lease {lease.id} ttl={lease.ttl_s} remaining={lease.remaining_s}"

    def _do_keys(self, number: str) -> Iterator[str]:
        with self.bench.machine.view() as view:
            keys = run(view.lease_keys(int(number)))
        yield " ".join(map(_text, keys)) or "none"

    def _do_term(self, term: str) -> Iterator[str]:
        self.bench.term = int(term)
        yield from ()

    # Alarms and members

    def _do_alarm(self, action: str, member: str, alarm: str) -> Iterator[str]:
        number = {"raise": 1, "clear": 2}[action]
        request = AlarmRequest(action=number, memberID=int(member), alarm=_ALARMS[alarm])
        yield from self._write(request, CommandKind.ALARM)

    def _do_alarms(self) -> Iterator[str]:
        names = {number: name for name, number in _ALARMS.items()}
        for member, alarm in sorted(self.bench.machine.alarms):
            yield f"member {member} {names[alarm]}"

    def _do_add(self, number: str, *urls: str) -> Iterator[str]:
        yield from self._change(ConfChangeKind.ADD_VOTER, number, urls)

    def _do_learner(self, number: str, *urls: str) -> Iterator[str]:
        yield from self._change(ConfChangeKind.ADD_LEARNER, number, urls)

    def _do_promote(self, number: str) -> Iterator[str]:
        yield from self._change(ConfChangeKind.ADD_VOTER, number, (), promote=True)

    def _do_remove(self, number: str) -> Iterator[str]:
        yield from self._change(ConfChangeKind.REMOVE, number, ())

    def _do_update(self, number: str, *urls: str) -> Iterator[str]:
        yield from self._change(ConfChangeKind.UPDATE, number, urls)

    def _change(
        self, kind: ConfChangeKind, number: str, urls: tuple[str, ...], *, promote: bool = False
    ) -> Iterator[str]:
        member = Member(int(number), peer_urls=urls)
        context = ConfContext(5, member, promote).encode()
        result = self.bench.apply(ConfChange(kind, int(number), context))
        verdict = "valid" if result.conf_valid else f"refused {result.error}"
        yield f"{verdict}; {self.bench.machine.conf_state()}"

    def _do_attributes(self, number: str, name: str, *urls: str) -> Iterator[str]:
        payload = member_attributes_payload(int(number), name, urls)
        yield from self._write(payload, CommandKind.MEMBER_ATTRIBUTES)

    def _do_members(self) -> Iterator[str]:
        for member in sorted(self.bench.machine.members.values()):
            learner = " learner" if member.is_learner else ""
            urls = ",".join(member.peer_urls), ",".join(member.client_urls)
            yield f"{member.id} name={member.name!r} peer={urls[0]} client={urls[1]}{learner}"
        removed = sorted(self.bench.machine.removed_members)
        yield f"removed {removed}"

    def _do_quota_cost(self, *words: str) -> Iterator[str]:
        request = _request(list(words), [])
        entry = self.bench.entry(request)
        yield f"{cost_bytes(CommandKind(entry.data[0]), request.SerializeToString())} bytes"


def _changes(changes: Any) -> Iterator[str]:
    for change in changes:
        place = f"event {change.revision}.{change.sub}"
        kv = KeyValue.FromString(change.kv)
        if change.kind == PUT:
            created = " created" if change.created else ""
            yield f"{place} put {_pair(kv)}{created}"
        else:
            assert kv.mod_revision == change.revision, "a deletion tells its revision"
            yield f"{place} delete {_text(kv.key)}"


def _answer(request: Any, body: bytes) -> Iterator[str]:
    match request:
        case RangeRequest():
            answer = RangeResponse.FromString(body)
            more = " more" if answer.more else ""
            yield f"count {answer.count}{more}"
            yield from (f"  {_pair(kv)}" for kv in answer.kvs)
        case PutRequest():
            answer = PutResponse.FromString(body)
            if answer.HasField("prev_kv"):
                yield f"prev {_pair(answer.prev_kv)}"
        case DeleteRangeRequest():
            answer = DeleteRangeResponse.FromString(body)
            yield f"deleted {answer.deleted}"
            yield from (f"prev {_pair(kv)}" for kv in answer.prev_kvs)
        case TxnRequest():
            yield from _txn_answer(TxnResponse.FromString(body))
        case LeaseGrantRequest():
            answer = LeaseGrantResponse.FromString(body)
            yield f"lease {answer.ID} ttl={answer.TTL}"
        case AlarmRequest():
            for alarm in AlarmResponse.FromString(body).alarms:
                yield f"told member {alarm.memberID} alarm {alarm.alarm}"
        case _:
            assert not body, f"an unexpected body: {body!r}"


_ANSWERED = {
    "response_range": RangeRequest(),
    "response_put": PutRequest(),
    "response_delete_range": DeleteRangeRequest(),
    "response_txn": TxnRequest(),
}


def _txn_answer(answer: TxnResponse) -> Iterator[str]:
    yield "succeeded" if answer.succeeded else "failed"
    for response in answer.responses:
        kind = response.WhichOneof("response")
        inner = getattr(response, kind)
        yield f"- {kind.removeprefix('response_')} rev {inner.header.revision}"
        inner.ClearField("header")
        body = inner.SerializeToString()
        yield from (f"  {line}" for line in _answer(_ANSWERED[kind], body))
