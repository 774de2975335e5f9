"""Clients that read the service registry: watches that go on elsewhere, questions, and DNS."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import dns.message
import dns.rdatatype

from kvstore.errors import EtcdError
from kvstore.gateways.dns.counts import Counts
from kvstore.gateways.dns.responder import Later, Responder
from kvstore.gateways.dns.settings import make_settings
from kvstore.pb import registry_pb2 as pb
from tests.sim.clients import Ask, Clients, Script, Sleep, Wait, run_script
from tests.sim.frontdoor import Answer, ServerStream, Told
from tests.sim.prng import Prng
from tests.sim.process import Process
from tests.sim.registrants import NAMESPACE, REGISTRY, service_of
from tests.sim.registry_history import Past, Reading, Shown, ToldEvent, Watch, WatchAnswer
from tests.sim.world import MS, SECOND

__all__ = ("Asker", "ServiceWatcher", "start_readers")

_ZONE: Final = "kv.local"
_HISTORY_EVENTS: Final = 500


def start_readers(clients: Clients) -> list[ServiceWatcher]:
    """Begins all who read, if anybody registers; returns those that watch."""
    params, world = clients.cluster.params, clients.cluster.world
    if not params.registrants:
        return []
    chance = world.prng.fork("registry readers")
    for number in range(params.registry_askers):
        asker = Asker(clients, chance.fork(f"asker {number}"))
        run_script(world, clients.door, asker.script())
    return [
        ServiceWatcher(clients, 500 + number, chance.fork(f"watcher {number}"))
        for number in range(params.registry_watchers)
    ]


def _shown(instance: Any) -> Shown:
    return Shown(instance.mod_revision, pb.Status.Name(instance.status))


def _name(instance: Any) -> str:
    name = instance.name
    return f"{name.namespace}/{name.service}/{name.id}"


def _event(told: Any) -> ToldEvent:
    return ToldEvent(
        told.revision,
        _name(told.instance),
        told.event,
        told.reason.code,
        told.reason.text,
        _shown(told.instance),
        told.left,
    )


class ServiceWatcher:
    """One client with one registry watch at a time; it goes on where it left off."""

    def __init__(self, clients: Clients, client: int, chance: Prng) -> None:
        self.client = client
        self._clients = clients
        self._world = clients.cluster.world
        self._chance = chance
        self._stream: ServerStream | None = None
        self._serial = 0
        self._scope = ""
        self._healthy = False
        self._id = f"watcher{client}" if chance.chance(1, 2) else ""
        self._after = 0
        self._state: dict[str, Shown] = {}
        self._world.after(chance.below(3 * SECOND), self._open)

    def _open(self) -> None:
        chance, clients = self._chance, self._clients
        self._serial += 1
        serial = self._serial
        if not self._after:
            service = service_of(chance.below(clients.cluster.params.registry_services))
            places = [(4, f"{NAMESPACE}/{service}"), (2, NAMESPACE), (1, "*")]
            self._scope = chance.weighted(places)
            self._healthy = chance.chance(1, 2)
            self._state = {}
        process = clients.some_process(chance)
        namespace, _, service = self._scope.partition("/")
        request = pb.WatchRequest(
            service=pb.ServiceName(namespace=namespace, service=service),
            selection=pb.Selection(
                health=pb.Selection.HEALTHY if self._healthy else pb.Selection.ALL
            ),
            after_revision=self._after,
            subscriber_id=self._id,
        )
        watch = Watch(
            self.client,
            self._scope,
            self._healthy,
            self._after,
            dict(self._state),
            process.name,
        )
        self._world.log(f"rw{self.client} watches {self._scope} {self._after} at {process.name}")
        self._stream = ServerStream(
            clients.door,
            process,
            REGISTRY + "Watch",
            request.SerializeToString(),
            lambda message: self._received(serial, watch, message),
            lambda error: self._ended(serial, error),
        )
        self._world.after(chance.between(100, 6_000) * MS, self._disturb, serial)

    def _disturb(self, serial: int) -> None:
        """Stalls, leaves, begins anew, or nothing."""
        if serial != self._serial or self._stream is None or self._clients.stopped:
            return
        chance = self._chance
        what = chance.weighted([(3, "stall"), (4, "leave"), (1, "anew"), (3, "")])
        if what == "stall":
            self._stream.stalled = True
            self._world.fire("registry watch stalled")
            self._world.after(chance.between(10, 4_000) * MS, self._read_on, serial)
        elif what in ("leave", "anew"):
            self._stream.close()
            if what == "anew":
                self._after = 0
            self._again(serial)
            return
        self._world.after(chance.between(100, 6_000) * MS, self._disturb, serial)

    def _read_on(self, serial: int) -> None:
        if serial == self._serial and self._stream is not None:
            self._stream.read_on()

    def _received(self, serial: int, watch: Watch, message: bytes) -> None:
        if serial != self._serial:
            return
        told = pb.WatchResponse.FromString(message)
        answer = WatchAnswer(
            self._world.now_ns,
            told.revision,
            told.is_snapshot,
            told.is_progress,
            {_name(each): _shown(each) for each in told.snapshot},
            tuple(_event(each) for each in told.events),
        )
        watch.answers.append(answer)
        self._world.log(
            f"rw{self.client} revision {answer.revision} snapshot {sorted(answer.snapshot)} "
            f"events {[(each.revision, each.name, each.event) for each in answer.events]}"
        )
        self._world.show("registry_watched", watch, answer)
        if answer.is_snapshot:
            self._state = dict(answer.snapshot)
        for event in answer.events:
            self._state.pop(event.name, None)
            if not event.left:
                self._state[event.name] = event.shown
        self._after = answer.revision
        if self._id and self._stream is not None and self._chance.chance(2, 3):
            self._ack(self._stream.process, answer.revision)

    def _ack(self, process: Process, revision: int) -> None:
        namespace, _, service = self._scope.partition("/")
        place = pb.ServiceName(namespace=namespace, service=service)
        ack = pb.AckRequest(subscriber_id=self._id, service=place, revision=revision)
        timeout_ns = self._clients.cluster.params.client_timeout_ns
        payload = ack.SerializeToString()
        self._clients.door.call(process, REGISTRY + "Ack", payload, timeout_ns, lambda _: None)

    def _ended(self, serial: int, error: EtcdError | None) -> None:
        if serial == self._serial:
            self._again(serial)

    def _again(self, serial: int) -> None:
        self._stream = None
        self._serial += 1
        if not self._clients.stopped:
            self._world.after(self._chance.between(5, 1_000) * MS, self._open)


class Asker:
    """Asks for instances, for the past, and by DNS."""

    def __init__(self, clients: Clients, chance: Prng) -> None:
        self._clients = clients
        self._world = clients.cluster.world
        self._chance = chance
        self._responders: dict[str, tuple[int, Responder]] = {}

    def script(self) -> Script:
        """Asks again and again."""
        chance, clients = self._chance, self._clients
        while not clients.stopped:
            yield Sleep(chance.between(20, 1_500) * MS)
            if clients.stopped:
                return
            process = clients.some_process(chance)
            service = service_of(chance.below(clients.cluster.params.registry_services))
            what = chance.weighted([(5, "get"), (5, "dns"), (1, "history")])
            if what == "get":
                yield from self._get(process, service)
            elif what == "dns":
                kind = chance.pick(("A", "SRV", "TXT", "ANY"))
                yield Wait(lambda resume, p=process, s=service, k=kind: self._dns(p, s, k, resume))
            else:
                yield from self._history(process, service)

    def _unary(self, process: Process, method: str, request: Any) -> Generator[Any, Any, Answer]:
        timeout_ns = self._clients.cluster.params.client_timeout_ns
        payload = request.SerializeToString()
        answer: Answer = yield Ask(process, REGISTRY + method, payload, timeout_ns)
        return answer

    def _get(self, process: Process, service: str) -> Script:
        chance, now_ns = self._chance, self._world.now_ns
        healthy, linearizable = chance.chance(1, 2), chance.chance(1, 3)
        incarnation = process.incarnation
        request = pb.GetInstancesRequest(
            service=pb.ServiceName(namespace=NAMESPACE, service=service),
            selection=pb.Selection(health=pb.Selection.HEALTHY if healthy else pb.Selection.ALL),
            linearizable=linearizable,
        )
        answer = yield from self._unary(process, "GetInstances", request)
        if answer.told is not Told.OK or process.incarnation != incarnation:
            return
        told = pb.GetInstancesResponse.FromString(answer.body)
        reading = Reading(
            "get",
            f"{NAMESPACE}/{service}",
            healthy,
            now_ns,
            told.header.revision,
            told.service_revision,
            linearizable,
            {_name(each): _shown(each) for each in told.instances},
        )
        self._world.log(f"got {reading}")
        self._world.show("registry_read", process, reading)

    def _history(self, process: Process, service: str) -> Script:
        first = max(1, self._clients.revision - self._chance.below(200))
        request = pb.HistoryRequest(
            name=pb.InstanceName(namespace=NAMESPACE, service=service),
            from_revision=first,
            limit=_HISTORY_EVENTS,
        )
        answer = yield from self._unary(process, "History", request)
        if answer.told is not Told.OK:
            return
        told = pb.HistoryResponse.FromString(answer.body)
        past = Past(
            f"{NAMESPACE}/{service}",
            first,
            told.header.revision,
            told.oldest_revision,
            tuple(_event(each.event) for each in told.events),
            len(told.events) < _HISTORY_EVENTS,
        )
        self._world.log(f"past {past.service} {first} {len(past.events)}")
        self._world.show("registry_past", past)

    # ---- DNS -------------------------------------------------------------------------------

    def _dns(
        self, process: Process, service: str, kind: str, resume: Callable[[Any], None]
    ) -> None:
        """One question, answered on the loop of the member as its DNS would."""
        name = f"{service}.{NAMESPACE}.svc.{_ZONE}"
        query = dns.message.make_query(name, kind, id=1)
        wire = query.to_wire()
        invoked_ns = self._world.now_ns

        def ask() -> None:
            registry = process.registry
            if registry is None:
                return
            responder = self._responder(process)
            answer = responder.respond(wire, udp=False)
            if isinstance(answer, Later):
                responder.when_read(answer, ask)
                return
            assert answer is not None
            shown = _named(dns.message.from_wire(answer))
            reading = Reading(
                "dns",
                f"{NAMESPACE}/{service}",
                True,
                invoked_ns,
                registry.catalog.revision,
                0,
                False,
                {address: Shown(0, "") for address in shown},
            )
            self._world.log(f"dns {process.name} {name} {kind} {reading.revision} {shown}")
            self._world.show("registry_read", process, reading)

        if process.serving:
            process.loop.call_soon(ask)
        self._world.after(self._clients.door.delay_ns(), resume, None)

    def _responder(self, process: Process) -> Responder:
        known = self._responders.get(process.name)
        if known is not None and known[0] == process.incarnation:
            return known[1]
        assert process.registry is not None
        loop = process.loop

        def run(steps: Iterator[None]) -> None:
            if next(steps, run) is not run:
                loop.call_soon(run, steps)

        settings = make_settings(_ZONE, ttl_s=5)
        responder = Responder(settings, process.registry.catalog, run, Counts())
        responder.start()
        self._responders[process.name] = (process.incarnation, responder)
        return responder


def _named(message: Any) -> list[str]:
    """The addresses that an answer leads to, sorted."""
    found: dict[str, None] = {}
    for section in (message.answer, message.additional):
        for rrset in section:
            for record in rrset:
                if rrset.rdtype == dns.rdatatype.A:
                    found[record.address] = None
                elif rrset.rdtype == dns.rdatatype.TXT:
                    for text in record.strings:
                        key, _, value = text.decode().partition("=")
                        if key == "address":
                            found[value] = None
    return sorted(found)
