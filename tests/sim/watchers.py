"""Watching clients: they begin anywhere in time, stall, lose their stream, and go on elsewhere."""

from __future__ import annotations

from typing import Any, Final

from kvstore.errors import EtcdError
from kvstore.pb import rpc_pb2
from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.clients import Clients
from tests.sim.frontdoor import FrontDoor, Stream
from tests.sim.prng import Prng
from tests.sim.requests import watch_response
from tests.sim.world import MS, SECOND, World

__all__ = ("Watcher",)

_WATCH: Final = "/etcdserverpb.Watch/Watch"
_FILTERS: Final = {
    "put": rpc_pb2.WatchCreateRequest.NOPUT,
    "delete": rpc_pb2.WatchCreateRequest.NODELETE,
}


class Watcher:
    """One client with one watch at a time, for the whole seed."""

    def __init__(self, clients: Clients, number: int, chance: Prng) -> None:
        self.client = 300 + number
        self.records: list[WatchRecord] = []
        self._clients = clients
        self._world: World = clients.cluster.world
        self._door: FrontDoor = clients.door
        self._chance = chance
        self._stream: Stream | None = None
        self._serial = 0
        self._resume_at = 0
        """The revision to go on from; 0: the watch begins anew."""
        self._template: dict[str, Any] = {}
        self._world.after(chance.below(3 * SECOND), self._open)

    def stop(self) -> None:
        """Begins no other watch; the present one goes on."""
        if self._stream is not None:
            self._stream.read_on()

    # ---- opening ---------------------------------------------------------------------------

    def _open(self) -> None:
        chance = self._chance
        self._serial += 1
        if not self._resume_at:
            self._template = self._draw()
        start = self._resume_at or self._template["start"]
        template = self._template
        process = self._clients.some_process(chance)
        record = WatchRecord(
            self.client,
            template["key"],
            template["end"],
            start,
            template["prev_kv"],
            template["filters"],
        )
        self.records.append(record)
        serial = self._serial
        self._stream = Stream(
            self._door,
            process,
            _WATCH,
            lambda message: self._received(serial, record, message),
            lambda error: self._ended(serial, error),
        )
        self._world.log(f"w{self.client} watches {template} from {start} at {process.name}")
        create = rpc_pb2.WatchCreateRequest(
            key=template["key"],
            range_end=template["end"] or b"",
            start_revision=start,
            prev_kv=template["prev_kv"],
            progress_notify=template["progress"],
            fragment=template["fragment"],
            filters=[_FILTERS[each] for each in sorted(template["filters"])],
        )
        self._send(rpc_pb2.WatchRequest(create_request=create))
        self._world.after(chance.between(100, 8_000) * MS, self._disturb, serial)

    def _draw(self) -> dict[str, Any]:
        """A new watch: where, what, and from when."""
        chance, clients = self._chance, self._clients
        keys = clients.cluster.params.keys
        key: bytes = b"k%d" % chance.below(keys)
        end: bytes | None = None
        if chance.chance(2, 3):
            key, end = chance.pick([(b"k", b"l"), (b"k", b"\0"), (b"k0", b"k%d" % (1 + keys // 2))])
        now = clients.revision
        start = chance.weighted(
            [
                (4, 0),
                (3, max(1, now - chance.below(60))),
                (1, max(1, clients.compacted)),
                (1, 1),
                (2, now + 1 + chance.below(10)),
            ]
        )
        filters = chance.weighted(
            [(6, frozenset()), (1, frozenset(("put",))), (1, frozenset(("delete",)))]
        )
        return {
            "key": key,
            "end": end,
            "start": start,
            "prev_kv": chance.chance(1, 2),
            "progress": chance.chance(1, 2),
            "fragment": chance.chance(1, 3),
            "filters": filters,
        }

    def _send(self, request: rpc_pb2.WatchRequest) -> None:
        if self._stream is not None:
            self._stream.send(request.SerializeToString())

    # ---- living with it --------------------------------------------------------------------

    def _disturb(self, serial: int) -> None:
        """What a client does to its watch: stalls, asks for progress, leaves, or nothing."""
        if serial != self._serial or self._stream is None or self._clients.stopped:
            return
        chance = self._chance
        what = chance.weighted([(3, "stall"), (4, "progress"), (2, "leave"), (1, "anew"), (3, "")])
        if what == "stall":
            self._stream.stalled = True
            self._world.fire("watch stalled")
            self._world.after(chance.between(10, 5_000) * MS, self._read_on, serial)
        elif what == "progress":
            progress = rpc_pb2.WatchProgressRequest()
            self._send(rpc_pb2.WatchRequest(progress_request=progress))
        elif what in ("leave", "anew"):
            self._stream.close()
            if what == "anew":
                self._resume_at = 0
            self._again(serial)
            return
        self._world.after(chance.between(100, 8_000) * MS, self._disturb, serial)

    def _read_on(self, serial: int) -> None:
        if serial == self._serial and self._stream is not None:
            self._stream.read_on()

    def _received(self, serial: int, record: WatchRecord, message: bytes) -> None:
        if serial != self._serial:
            return
        response = watch_response(self._world.now_ns, rpc_pb2.WatchResponse.FromString(message))
        record.responses.append(response)
        self._world.log(
            f"w{self.client} revision {response.revision} events {len(response.events)}"
            f"{' progress' if response.progress else ''}{' canceled' if response.canceled else ''}"
        )
        self._world.show("watched", record, response)
        self._follow(record, response)
        if response.canceled:
            if self._stream is not None:
                self._stream.close()
            # What was compacted is gone: the client begins where the past begins now.
            self._resume_at = response.compact_revision if response.compact_revision else 0
            self._again(serial)

    def _follow(self, record: WatchRecord, response: WatchResponse) -> None:
        """Where this watch would go on elsewhere."""
        if response.events and not response.fragment:
            self._resume_at = response.events[-1].kv.mod + 1
        elif response.created and record.start_revision == 0:
            # "Now" is the moment of this answer: what came before it is not ours.
            self._resume_at = max(self._resume_at, response.revision + 1)
        elif response.progress:
            self._resume_at = max(self._resume_at, response.revision + 1)

    def _ended(self, serial: int, error: EtcdError | None) -> None:
        if serial == self._serial:
            self._again(serial)

    def _again(self, serial: int) -> None:
        self._stream = None
        self._serial += 1
        if not self._clients.stopped:
            self._world.after(self._chance.between(5, 1_000) * MS, self._open)
