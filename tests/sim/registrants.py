"""Clients that register services: instances that beat, fall silent, crash, drain and come back.

Each instance has one script, and one TTL for the whole seed, so that what it was promised can be
said. Others meddle: an operator overrides, drains and deregisters, strangers put instances on
leases of their own as any etcd client can, and now and then a whole service goes silent at once.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Final

from kvstore.pb import registry_pb2 as pb
from kvstore.pb import rpc_pb2
from tests.linear.history import Outcome
from tests.sim.clients import Ask, Clients, Script, Sleep, Wait, run_script
from tests.sim.frontdoor import Answer, Told
from tests.sim.prng import Prng
from tests.sim.process import Process
from tests.sim.registry_history import Call
from tests.sim.world import MS, SECOND

__all__ = ("NAMESPACE", "REGISTRY", "Registrants", "service_of")

NAMESPACE: Final = "default"
REGISTRY: Final = "/kvstore.registry.v1.Registry/"
_STATUSES: Final = ("STARTING", "UP", "UP", "DEGRADED", "DRAINING", "OUT_OF_SERVICE")
_OVERRIDES: Final = ("DOWN", "OUT_OF_SERVICE", "DRAINING", "UP")
_FIRST_LEASE: Final = 5_000_000


def service_of(number: int) -> str:
    """The name of a service."""
    return f"svc{number}"


class Registrants:
    """All who register; `outstanding` of their requests have not come to an end."""

    def __init__(self, clients: Clients) -> None:
        self.outstanding = 0
        self._clients = clients
        self._params = clients.cluster.params
        self._world = clients.cluster.world
        self._chance = self._world.prng.fork("registry")
        self._dark_until: dict[str, int] = {}
        self._strangers = 0

    def start(self) -> None:
        """Begins all of them."""
        params, chance = self._params, self._chance
        if not params.registrants:
            return
        scripts: list[Script] = [
            self._instance(number, chance.fork(f"instance {number}"))
            for number in range(params.registrants)
        ]
        scripts += [
            self._stranger(number, chance.fork(f"stranger {number}"))
            for number in range(params.registry_strangers)
        ]
        if params.registry_operator:
            scripts.append(self._operator(chance.fork("operator")))
        scripts.append(self._blackouts(chance.fork("blackouts")))
        for script in scripts:
            run_script(self._world, self._clients.door, script)

    # ---- one request -----------------------------------------------------------------------

    def _call(
        self, process: Process, kind: str, name: str, method: str, request: Any
    ) -> Generator[Any, Any, tuple[Call, Answer]]:
        """Asks, and shows it."""
        world = self._world
        call = Call(kind, name, world.now_ns)
        self.outstanding += 1
        world.log(f"registry {kind} {name} at {process.name}")
        world.show("registry_asked", call)
        answer: Answer = yield Ask(
            process,
            REGISTRY + method,
            request.SerializeToString(),
            self._params.client_timeout_ns,
        )
        call.told_ns = world.now_ns
        if answer.told is Told.OK:
            call.outcome = Outcome.OK
            _fill(call, method, answer.body)
        elif answer.effectless:
            call.outcome = Outcome.REFUSED
        world.log(f"registry {kind} {name} {call.outcome.value} {call.ttl_s} {answer.text}")
        self.outstanding -= 1
        world.show("registry_told", call)
        return call, answer

    # ---- an instance -----------------------------------------------------------------------

    def _instance(self, number: int, chance: Prng) -> Script:
        params, clients = self._params, self._clients
        service = service_of(number % params.registry_services)
        name = f"{NAMESPACE}/{service}/i{number}"
        ttl_s = chance.between(*params.ttl_s)
        grace_s = chance.between(*params.grace_s)
        # Some go down with the member that they talk to.
        faithful = chance.chance(1, 4)
        process = clients.some_process(chance)
        yield Sleep(chance.below(2 * SECOND))
        while not clients.stopped:
            if not faithful or chance.chance(1, 10):
                process = clients.some_process(chance)
            wanted = pb.Instance(
                name=pb.InstanceName(namespace=NAMESPACE, service=service, id=f"i{number}"),
                address=f"10.0.{number // 200}.{number % 200 + 1}",
                ports=[pb.Port(name="http", number=8000 + number)],
                weight=chance.pick((1, 1, 1, 2, 0)),
                version=chance.pick(("1", "2")),
                ttl_s=ttl_s,
                grace_s=grace_s,
            )
            request = pb.RegisterRequest(instance=wanted)
            call, answer = yield from self._call(process, "register", name, "Register", request)
            if call.outcome is not Outcome.OK:
                yield Sleep(chance.between(50, 1_000) * MS)
                continue
            lease = pb.RegisterResponse.FromString(answer.body).instance.lease
            yield from self._life(process, name, lease, ttl_s, grace_s, faithful, chance)
            yield Sleep(chance.between(100, 1_000 * (ttl_s + grace_s)) * MS)

    def _life(
        self,
        process: Process,
        name: str,
        lease: int,
        ttl_s: int,
        grace_s: int,
        faithful: bool,
        chance: Prng,
    ) -> Script:
        """Beats until it ends, in one way or another."""
        clients, world = self._clients, self._world
        for _ in range(chance.between(3, 40)):
            yield Sleep(ttl_s * SECOND * chance.between(25, 40) // 100)
            dark_ns = self._dark_until.get(name.rpartition("/")[0], 0) - world.now_ns
            if dark_ns > 0:
                yield Sleep(dark_ns)
            if clients.stopped:
                return
            if not faithful and (chance.chance(1, 8) or not process.serving):
                process = clients.some_process(chance)
            beats = yield from self._beat(process, name, lease, chance)
            if beats == 0:
                return
            what = chance.weighted([(60, ""), (4, "silent"), (6, "report"), (4, "again"), (3, "")])
            if what == "silent":
                world.fire("instance silent")
                yield Sleep((ttl_s + grace_s) * SECOND * chance.between(30, 180) // 100)
            elif what == "report":
                status = chance.pick(_STATUSES)
                set_status = pb.SetStatusRequest(
                    name=_name(name), reported=pb.Status.Value(status), reason="says so"
                )
                yield from self._call(process, "report", name, "SetStatus", set_status)
            elif what == "again":
                break
        else:
            how = chance.weighted([(2, "deregister"), (1, "crash")])
            world.fire(f"instance ends: {how}")
            if how == "deregister":
                request = pb.DeregisterRequest(name=_name(name), reason="stops")
                yield from self._call(process, "deregister", name, "Deregister", request)

    def _beat(
        self, process: Process, name: str, lease: int, chance: Prng
    ) -> Generator[Any, Any, int | None]:
        """One heartbeat: the TTL that was answered, None if nothing was."""
        how = chance.weighted([(4, "lease"), (2, "name"), (1, "etcd")])
        if how == "etcd":
            # A plain keep-alive is one, too.
            world = self._world
            call = Call("beat", name, world.now_ns)
            self.outstanding += 1
            world.show("registry_asked", call)
            ttl_s = yield Wait(lambda resume: self._clients.renew(process, lease, resume))
            call.told_ns = world.now_ns
            call.outcome = Outcome.UNKNOWN if ttl_s is None else Outcome.OK
            call.ttl_s = ttl_s or 0
            self.outstanding -= 1
            world.show("registry_told", call)
            return None if ttl_s is None else int(ttl_s)
        request = pb.HeartbeatRequest()
        if how == "lease":
            request.leases.append(lease)
        else:
            request.instances.append(_name(name))
        call, _ = yield from self._call(process, "beat", name, "Heartbeat", request)
        return call.ttl_s if call.outcome is Outcome.OK else None

    def _blackouts(self, chance: Prng) -> Script:
        """Whole services fall silent: what a mass-expiry guard is for."""
        clients, params = self._clients, self._params
        while not clients.stopped:
            yield Sleep(chance.between(2_000, 20_000) * MS)
            if clients.stopped:
                return
            service = f"{NAMESPACE}/{service_of(chance.below(params.registry_services))}"
            dark_ns = chance.between(500, 1_000 * (params.ttl_s[1] + params.grace_s[1] + 3)) * MS
            self._dark_until[service] = self._world.now_ns + dark_ns
            self._world.fire("service silent")

    # ---- others ----------------------------------------------------------------------------

    def _operator(self, chance: Prng) -> Script:
        """Overrides, drains, deregisters, and ends guards."""
        clients, params = self._clients, self._params
        while not clients.stopped:
            yield Sleep(chance.between(500, 6_000) * MS)
            if clients.stopped:
                return
            number = chance.below(params.registrants)
            service = service_of(number % params.registry_services)
            name = f"{NAMESPACE}/{service}/i{number}"
            process = clients.some_process(chance)
            what = chance.weighted(
                [(4, "override"), (4, "release"), (3, "drain"), (3, "guard"), (2, "deregister")]
            )
            request: Any
            if what == "override":
                status = pb.Status.Value(chance.pick(_OVERRIDES))
                request = pb.SetStatusRequest(name=_name(name), override=status, reason="for now")
                yield from self._call(process, what, name, "SetStatus", request)
            elif what == "release":
                request = pb.SetStatusRequest(name=_name(name), release=True)
                yield from self._call(process, "override", name, "SetStatus", request)
            elif what == "drain":
                place = _name(name) if chance.chance(1, 2) else _name(f"{NAMESPACE}/{service}/")
                request = pb.DrainRequest(name=place, undo=chance.chance(1, 2))
                yield from self._call(process, what, name, "Drain", request)
            elif what == "deregister":
                request = pb.DeregisterRequest(name=_name(name), reason="an operator")
                if chance.chance(1, 2):
                    request.wait.timeout_ms = chance.pick((50, 500, 3_000))
                yield from self._call(process, what, name, "Deregister", request)
            else:
                place = pb.ServiceName(namespace=NAMESPACE, service=service)
                request = pb.EndGuardRequest(service=place, confirm=chance.chance(1, 2))
                yield from self._call(process, "guard", name, "EndGuard", request)

    def _stranger(self, number: int, chance: Prng) -> Script:
        """An instance that some etcd client writes, on its own lease, and leaves to expire."""
        clients, params = self._clients, self._params
        timeout_ns = params.client_timeout_ns
        shortest_s = -(-15 * params.heartbeat_ms // 1000)
        while not clients.stopped:
            yield Sleep(chance.between(500, 8_000) * MS)
            if clients.stopped:
                return
            self._strangers += 1
            lease, ttl_s = _FIRST_LEASE + self._strangers, shortest_s + chance.below(4)
            grant = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s).SerializeToString()
            process = clients.some_process(chance)
            granted = yield Ask(process, "/etcdserverpb.Lease/LeaseGrant", grant, timeout_ns)
            if granted.told is not Told.OK:
                continue
            service = service_of(chance.below(params.registry_services))
            value = {"address": f"10.9.0.{number + 1}", "port": 80, "version": f"{lease}"}
            put = rpc_pb2.PutRequest(
                key=f"/kvstore/services/{NAMESPACE}/{service}/x{number}".encode(),
                value=json.dumps(value).encode(),
                lease=lease,
            ).SerializeToString()
            yield Ask(process, "/etcdserverpb.KV/Put", put, timeout_ns)
            for _ in range(chance.below(6)):
                yield Sleep(ttl_s * SECOND * chance.between(20, 60) // 100)
                at = clients.some_process(chance)
                yield Wait(lambda resume, at=at, lease=lease: clients.renew(at, lease, resume))


def _name(name: str) -> Any:
    namespace, service, id_ = name.split("/")
    return pb.InstanceName(namespace=namespace, service=service, id=id_)


def _fill(call: Call, method: str, body: bytes) -> None:
    """What an answer says."""
    if method == "Register":
        told = pb.RegisterResponse.FromString(body)
        call.revision = told.instance.mod_revision
        call.ttl_s = told.instance.ttl_s
    elif method == "Heartbeat":
        (call.ttl_s,) = pb.HeartbeatResponse.FromString(body).ttl_s
