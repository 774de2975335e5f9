"""Runs one golden script of the watch hub: commands in, every decoded response out.

A script is lines: `# a comment`, a command, and under it, indented, what it printed. Commands:

    put k=v …              one revision, committed and published
    txn put k=v del k …    several changes in one revision, committed and published
    del k …                likewise
    commit <one of these>  committed, not published
    publish                publishes what was committed before
    repeat n <command>     `#` in it becomes 1 … n
    compact rev            | restored: what was committed came with a snapshot
    open s | close s
    create s key [end] [from=rev] [id=n] [prev] [notify] [fragment] [noput] [nodelete]
    cancel s id | progress s | tick
    pump [slices]          without a number until nothing is waiting
    take s [messages]
    state
    response_bytes n       first line only: where responses are cut and split (else 1 MiB)
Keys and ends: `-` is empty, `\\0` the zero byte; `p*` stands for all keys that begin with p.
"""

from __future__ import annotations

from kvstore.pb import kv_pb2, rpc_pb2
from kvstore.watch import WatchStream
from tests.unit.watch.model import (
    Change,
    ModelHistory,
    cancel,
    create,
    decode,
    hub_on,
    progress,
    pump_dry,
)

__all__ = ("run_script",)

_LONG = 16
"""Longer lists of responses or events show their ends only."""

_CREATE_FLAGS = {
    "prev": {"prev_kv": True},
    "notify": {"progress_notify": True},
    "fragment": {"fragment": True},
    "noput": {"filters": [rpc_pb2.WatchCreateRequest.NOPUT]},
    "nodelete": {"filters": [rpc_pb2.WatchCreateRequest.NODELETE]},
    "unknownfilter": {"filters": [7]},
}


def run_script(text: str) -> str:
    """The script with its output as it is now."""
    world = _World()
    lines = []
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [f"  {each}" for each in world.run(line.split())]
    assert world.history.open_views == 0, "a view was left open"
    return "\n".join(lines) + "\n"


class _World:
    def __init__(self) -> None:
        self.history = ModelHistory()
        self.hub = hub_on(self.history)
        self.streams: dict[str, WatchStream] = {}
        self.woken: list[str] = []
        self.unpublished: list[Change] = []

    def run(self, words: list[str]) -> list[str]:
        self.woken.clear()
        out = getattr(self, f"do_{words[0]}")(*words[1:]) or []
        return [*(f"wakes {name}" for name in self.woken), *out]

    def do_response_bytes(self, size: str) -> None:
        self.hub = hub_on(self.history, int(size))

    def do_commit(self, *words: str) -> None:
        operations: list[tuple[bytes, bytes | None]] = []
        kind = words[0]
        for word in words:
            if word in ("put", "del", "txn"):
                kind = word
            elif kind == "put":
                key, value = word.split("=")
                operations.append((key.encode(), value.encode()))
            else:
                operations.append((word.encode(), None))
        self.unpublished += self.history.commit(*operations)

    def do_publish(self) -> None:
        changes, self.unpublished = self.unpublished, []
        self.hub.publish(changes)

    def do_put(self, *words: str) -> None:
        self.do_commit("put", *words)
        self.do_publish()

    def do_del(self, *words: str) -> None:
        self.do_commit("del", *words)
        self.do_publish()

    def do_txn(self, *words: str) -> None:
        self.do_commit(*words)
        self.do_publish()

    def do_repeat(self, times: str, *words: str) -> list[str]:
        out = []
        for number in range(1, int(times) + 1):
            command = [word.replace("#", str(number)) for word in words]
            out += getattr(self, f"do_{command[0]}")(*command[1:]) or []
        return out

    def do_compact(self, revision: str) -> None:
        self.history.compact(int(revision))

    def do_restored(self) -> None:
        self.hub.restored()

    def do_open(self, name: str) -> None:
        self.streams[name] = self.hub.open(lambda: self.woken.append(name))

    def do_close(self, name: str) -> None:
        self.streams.pop(name).close()

    def do_create(self, name: str, *words: str) -> None:
        fields: dict[str, object] = {}
        keys = []
        for word in words:
            if word in _CREATE_FLAGS:
                fields |= _CREATE_FLAGS[word]
            elif word.startswith("from="):
                fields["start_revision"] = int(word[5:])
            elif word.startswith("id="):
                fields["watch_id"] = int(word[3:])
            else:
                keys.append(word)
        if keys[0].endswith("*"):
            prefix = keys[0][:-1].encode()
            keys = []
            key, end = prefix, prefix[:-1] + bytes([prefix[-1] + 1])
        else:
            key, end = ([_bytes(word) for word in keys] + [b""])[:2]
        self.streams[name].request(create(key, end, **fields))

    def do_cancel(self, name: str, watch_id: str) -> None:
        self.streams[name].request(cancel(int(watch_id)))

    def do_progress(self, name: str) -> None:
        self.streams[name].request(progress())

    def do_tick(self) -> None:
        self.hub.progress_tick()

    def do_pump(self, slices: str = "") -> None:
        if slices:
            for _ in range(int(slices)):
                self.hub.pump()
        else:
            pump_dry(self.hub)

    def do_take(self, name: str, messages: str = "1000000") -> list[str]:
        taken = self.streams[name].take(int(messages), 1 << 40)
        shown = [_shown(decode(message)) for message in taken] or ["nothing"]
        return _abbreviated(shown, "responses")

    def do_state(self) -> list[str]:
        hub = self.hub
        watchers = f"watchers {hub.watchers} (slow {hub.slow_watchers})"
        waiting = f"pending {hub.pending}, events {hub.events_total}"
        return [f"revision {hub.revision}, streams {hub.streams}, {watchers}, {waiting}"]


def _bytes(word: str) -> bytes:
    return {"-": b"", "\\0": b"\0"}.get(word, word.encode())


def _shown(response: rpc_pb2.WatchResponse) -> str:
    words = [f"id={response.watch_id}", f"@{response.header.revision}"]
    words += [flag for flag in ("created", "canceled", "fragment") if getattr(response, flag)]
    if response.compact_revision:
        words.append(f"compact_revision={response.compact_revision}")
    if response.cancel_reason:
        words.append(f'reason="{response.cancel_reason}"')
    events = [_shown_event(event) for event in response.events]
    words += _abbreviated(events, "events") or ["-"] * (len(words) == 2)
    return "  ".join(words)


def _abbreviated(lines: list[str], what: str) -> list[str]:
    if len(lines) > _LONG:
        lines[3:-3] = [f"… {len(lines) - 6} more {what} …"]
    return lines


def _shown_event(event: kv_pb2.Event) -> str:
    kv = event.kv
    if event.type == kv_pb2.Event.DELETE:
        assert kv == kv_pb2.KeyValue(key=kv.key, mod_revision=kv.mod_revision)
        text = f"del {kv.key.decode()} {kv.mod_revision}"
    else:
        text = f"put {kv.key.decode()}={kv.value.decode()}"
        text += f" {kv.create_revision}/{kv.mod_revision}/v{kv.version}"
    if event.HasField("prev_kv"):
        text += f" (was {event.prev_kv.value.decode()} {event.prev_kv.mod_revision})"
    return text
