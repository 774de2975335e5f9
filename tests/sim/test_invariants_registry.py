"""The invariants of the service registry: what each must accept, and what it must object to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvstore.machine.command import BatchAction, BatchItem, CommandKind, batch_payload
from kvstore.pb.rpc_pb2 import LeaseGrantRequest, PutRequest
from tests.linear.history import Outcome
from tests.sim.books.instances import instances_of
from tests.sim.invariants.i30_all_or_nothing import AllOrNothing
from tests.sim.invariants.i40_revocation_is_exact import RevocationIsExact
from tests.sim.invariants.i42_instances_live_out_their_time import InstancesLiveOutTheirTime
from tests.sim.invariants.i43_registry_watches_are_true import RegistryWatchesAreTrue
from tests.sim.invariants.i44_names_lead_to_the_living import NamesLeadToTheLiving
from tests.sim.invariants.i51_guards_hold import GuardsHold
from tests.sim.invariants.i52_deregistered_stays_away import DeregisteredStaysAway
from tests.sim.invariants.i53_history_tells_the_same import HistoryTellsTheSame
from tests.sim.observer import Invariant
from tests.sim.params import Params
from tests.sim.prng import Prng
from tests.sim.registry_history import Call, Past, Reading, Shown, ToldEvent, Watch, WatchAnswer
from tests.sim.stubs import StubProcess, StubWorld, apply, command, objection

S = 1_000_000_000
SERVICE = "default/pay"
ONE, TWO = f"{SERVICE}/i1", f"{SERVICE}/i2"


class Bench:
    """A process whose committed batches an invariant is shown."""

    def __init__(self, kind: type[Invariant]) -> None:
        self.world: Any = StubWorld()
        self.world.params = Params(1)
        self.invariant: Any = kind(self.world)
        self.process: Any = StubProcess(self.world)
        self.book = instances_of(self.world)

    @property
    def revision(self) -> int:
        revision: int = self.process.machine.revision
        return revision

    def batch(self, *items: BatchItem) -> int:
        payload = batch_payload(0, 0, items)
        apply(self.process, command(CommandKind.BATCH, payload), watchers=[self.invariant])
        return self.revision

    def register(self, name: str = ONE, lease: int = 7, **fields: Any) -> int:
        value = _value(lease, **fields)
        key = _key(name)
        return self.batch(
            BatchItem(key, 0, BatchAction.PUT_NEW_LEASE, value, lease, 5, "registered")
        )

    def change(self, reason: str, name: str = ONE, lease: int = 7, **fields: Any) -> int:
        value = _value(lease, reason=reason, **fields)
        return self.batch(BatchItem(_key(name), -1, BatchAction.PUT_KEEP, value, reason=reason))

    def remove(self, reason: str, name: str = ONE) -> int:
        return self.batch(BatchItem(_key(name), -1, BatchAction.DELETE, reason=reason))

    def guard(self, state: str) -> int:
        key = f"/kvstore/guards/{SERVICE}".encode()
        if not state:
            return self.batch(BatchItem(key, -1, BatchAction.DELETE))
        note = json.dumps({"state": state}).encode()
        return self.batch(BatchItem(key, -1, BatchAction.PUT_KEEP, note))

    def heard(self, kind: str, asked: int, told: int, ttl_s: int = 2) -> None:
        call = Call(kind, ONE, asked, told, Outcome.OK, ttl_s=ttl_s)
        self.invariant.registry_asked(call)
        self.invariant.registry_told(call)

    def at(self, seconds: float) -> None:
        self.world.now_ns = int(seconds * S)


def _key(name: str) -> bytes:
    return f"/kvstore/services/{name}".encode()


def _value(
    lease: int,
    *,
    reported: str = "UP",
    silent: bool = False,
    stale: bool = False,
    reason: str = "registered",
    address: str = "10.0.0.1",
) -> bytes:
    told = {
        "address": address,
        "reported": reported,
        "silent": silent,
        "stale": stale,
        "ttl_s": 2,
        "grace_s": 3,
        "lease": f"{lease:x}",
        "reason": {"code": reason.partition(":")[0]},
    }
    return json.dumps(told).encode()


# ---- I42


def test_i42_nobody_is_found_silent_early() -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    bench.heard("beat", 10 * S, 11 * S)
    bench.at(11.9)
    bench.change("missed_heartbeat", silent=True)
    bench.change("recovered")
    # The clock of a leader is 10 % fast at most: 2 s of it are 1.81 s.
    bench.at(11.7)
    with objection("I42"):
        bench.change("missed_heartbeat", silent=True)


def test_i42_nor_held_nor_removed_early() -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    bench.heard("beat", 10 * S, 11 * S)
    bench.at(11.5)
    with objection("I42"):
        bench.change("stale", stale=True)
    bench.at(14)
    with objection("I42"):
        bench.remove("expired")


def test_i42_what_was_decided_before_a_heartbeat_stands() -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    bench.at(10)
    bench.book.proposed[_key(ONE), -1, "missed_heartbeat"] = 10 * S
    bench.heard("beat", 10 * S + 1, 10 * S + 2)
    bench.at(10.1)
    bench.change("missed_heartbeat", silent=True)


def test_i42_deregistering_is_no_expiry() -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    bench.heard("beat", 10 * S, 10 * S)
    bench.at(10.1)
    bench.remove("deregistered")


def test_i42_silence_is_found_in_time() -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    bench.at(10)
    bench.heard("beat", 9 * S, 10 * S)
    bench.invariant.phase_ended("liveness")
    bench.at(14)
    bench.change("missed_heartbeat", silent=True)
    bench.at(18)
    with objection("I42"):
        bench.remove("expired")


@pytest.mark.parametrize("guarded", [False, True])
def test_i42_a_guard_may_take_its_time(guarded: bool) -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    bench.invariant.phase_ended("liveness")
    if guarded:
        bench.guard("holding")
    bench.at(20)
    if guarded:
        bench.remove("expired")
        return
    with objection("I42"):
        bench.remove("expired")


def test_i42_in_the_end_nobody_is_left() -> None:
    bench = Bench(InstancesLiveOutTheirTime)
    bench.register()
    with objection("I42"):
        bench.invariant.phase_ended("silence")
    bench.remove("expired")
    bench.invariant.phase_ended("silence")


# ---- I43


def _watch(**fields: Any) -> Watch:
    told = {"client": 500, "scope": SERVICE, "healthy": False, "after": 0, "state": {}}
    return Watch(**{**told, "member": "n1", **fields})


def _told(bench: Bench, watch: Watch, revision: int, **fields: Any) -> None:
    shown = {"is_snapshot": False, "is_progress": False, "snapshot": {}, "events": ()}
    answer = WatchAnswer(bench.world.now_ns, revision, **{**shown, **fields})
    watch.answers.append(answer)
    bench.invariant.registry_watched(watch, answer)


def _event(revision: int, name: str = ONE, status: str = "UP", **fields: Any) -> ToldEvent:
    told = {"event": "updated", "code": "updated", "text": "", "left": False}
    shown = Shown(fields.pop("shown_at", revision), status)
    return ToldEvent(revision, name, shown=shown, **{**told, **fields})


def test_i43_a_watcher_knows_what_there_is() -> None:
    bench = Bench(RegistryWatchesAreTrue)
    first = bench.register()
    watch = _watch()
    _told(bench, watch, first, is_snapshot=True, snapshot={ONE: Shown(first, "UP")})
    second = bench.change("updated", reported="DRAINING")
    _told(bench, watch, second, events=(_event(second, status="DRAINING"),))
    third = bench.remove("deregistered")
    gone = _event(third, status="DRAINING", shown_at=second, left=True)
    _told(bench, watch, third, events=(gone,))
    _told(bench, watch, third, is_progress=True)
    with objection("I43"):
        _told(bench, watch, second, is_progress=True)


def test_i43_a_change_is_not_left_out() -> None:
    bench = Bench(RegistryWatchesAreTrue)
    first = bench.register()
    watch = _watch()
    _told(bench, watch, first, is_snapshot=True, snapshot={ONE: Shown(first, "UP")})
    second = bench.register(TWO, 8)
    with objection("I43"):
        _told(bench, watch, second, is_progress=True)


def test_i43_who_goes_on_is_not_taken_back() -> None:
    bench = Bench(RegistryWatchesAreTrue)
    first = bench.register()
    second = bench.register(TWO, 8)
    state = {ONE: Shown(first, "UP"), TWO: Shown(second, "UP")}
    _told(bench, _watch(after=second, state=dict(state)), second, is_progress=True)
    with objection("I43"):
        only = {ONE: Shown(first, "UP")}
        _told(
            bench, _watch(after=second, state=dict(state)), first, is_snapshot=True, snapshot=only
        )


def test_i43_nobody_is_woken_for_nothing() -> None:
    bench = Bench(RegistryWatchesAreTrue)
    first = bench.register()
    known = {ONE: Shown(first, "UP")}
    second = bench.register(f"{SERVICE}x/i1", 8)
    with objection("I43"):
        _told(bench, _watch(after=first, state=dict(known)), second)
    with objection("I43"):
        same = _event(second, shown_at=first)
        _told(bench, _watch(after=first, state=dict(known)), second, events=(same,))
    with objection("I43"):
        never = _event(second, TWO, left=True)
        _told(bench, _watch(after=first, state=dict(known)), second, events=(never,))


def _reading(bench: Bench, revision: int, **fields: Any) -> None:
    told = {"how": "get", "healthy": True, "service_revision": revision, "linearizable": False}
    reading = Reading(
        service=SERVICE, revision=revision, **{"invoked_ns": 0, "shown": {}, **told, **fields}
    )
    bench.invariant.registry_read(bench.process, reading)


def test_i43_a_member_does_not_go_back() -> None:
    bench = Bench(RegistryWatchesAreTrue)
    bench.at(1)
    _reading(bench, 9)
    _reading(bench, 8)  # Asked for before the other was answered.
    _reading(bench, 9, invoked_ns=2 * S)
    with objection("I43"):
        _reading(bench, 8, invoked_ns=2 * S)
    with objection("I43"):
        _reading(bench, 9, service_revision=8, invoked_ns=2 * S)
    bench.process.incarnation += 1
    _reading(bench, 8, invoked_ns=2 * S)


def test_i43_linearizable_is_not_behind() -> None:
    bench = Bench(RegistryWatchesAreTrue)
    bench.at(1)
    call = Call("register", ONE, 0, S, Outcome.OK, revision=9)
    bench.invariant.registry_told(call)
    bench.at(3)
    _reading(bench, 8, invoked_ns=2 * S)
    with objection("I43"):
        _reading(bench, 8, linearizable=True, invoked_ns=2 * S)


# ---- I44


def test_i44_answers_name_the_living() -> None:
    bench = Bench(NamesLeadToTheLiving)
    first = bench.register()
    second = bench.change("missed_heartbeat", silent=True)
    _reading(bench, first, shown={ONE: Shown(first, "UP")})
    _reading(bench, second)
    _reading(bench, second, healthy=False, shown={ONE: Shown(second, "DOWN")})
    for wrong in ({ONE: Shown(first, "UP")}, {ONE: Shown(second, "DOWN")}):
        with objection("I44"):
            _reading(bench, second, shown=wrong)
    with objection("I44"):
        _reading(bench, first)


def test_i44_so_does_dns() -> None:
    bench = Bench(NamesLeadToTheLiving)
    first = bench.register()
    address = {"10.0.0.1": Shown(0, "")}
    _reading(bench, first, how="dns", shown=address)
    _reading(bench, first, how="dns")
    second = bench.change("drained", reported="DRAINING")
    with objection("I44"):
        _reading(bench, second, how="dns", shown=address)


# ---- I51


def test_i51_a_guard_keeps_its_word() -> None:
    bench = Bench(GuardsHold)
    bench.register()
    bench.register(TWO, 8)
    bench.change("missed_heartbeat", TWO, 8, silent=True)
    bench.guard("holding")
    bench.change("stale", stale=True)
    bench.remove("expired", TWO)  # It was DOWN before.
    with objection("I51"):
        bench.change("missed_heartbeat", silent=True)
    bench.change("recovered")
    with objection("I51"):
        bench.remove("expired")


@pytest.mark.parametrize("state", ["confirmed", ""])
def test_i51_until_it_ends(state: str) -> None:
    bench = Bench(GuardsHold)
    bench.register()
    bench.guard("holding")
    bench.change("stale", stale=True)
    bench.guard(state)
    bench.change("confirmed", silent=True)
    bench.remove("expired")


def test_i51_strangers_are_none_of_its_business() -> None:
    bench = Bench(GuardsHold)
    put = PutRequest(key=_key(ONE), value=b"{}", lease=9)
    apply(
        bench.process,
        command(CommandKind.LEASE_GRANT, LeaseGrantRequest(ID=9, TTL=5)),
        command(CommandKind.PUT, put),
        watchers=[bench.invariant],
    )
    bench.change("drained", reported="DRAINING", lease=0)
    with objection("I51"):
        bench.change("stale", stale=True, lease=0)


# ---- I52


def test_i52_who_was_removed_comes_back_by_registering_alone() -> None:
    bench = Bench(DeregisteredStaysAway)
    call = Call("register", ONE, 0)
    bench.invariant.registry_asked(call)
    bench.register()
    call.outcome = Outcome.OK
    bench.invariant.registry_told(call)
    bench.change("updated")
    bench.remove("deregistered")
    with objection("I52"):
        bench.change("recovered")


def test_i52_an_unknown_outcome_may_still_come() -> None:
    bench = Bench(DeregisteredStaysAway)
    call = Call("register", ONE, 0)
    bench.invariant.registry_asked(call)
    bench.invariant.registry_told(call)
    bench.register()
    bench.remove("expired")
    with objection("I52"):
        refused = Call("register", TWO, 0, outcome=Outcome.REFUSED)
        bench.invariant.registry_asked(refused)
        bench.invariant.registry_told(refused)
        bench.register(TWO, 8)


# ---- I53


def _past(bench: Bench, *events: ToldEvent, **fields: Any) -> None:
    told = {"first": 1, "revision": bench.revision, "oldest": 1, "whole": True}
    bench.invariant.registry_past(Past(SERVICE, events=events, **{**told, **fields}))


def test_i53_the_history_has_what_was_watched() -> None:
    bench = Bench(HistoryTellsTheSame)
    first = bench.register()
    second = bench.remove("deregistered: stops")
    begins = _event(first, event="registered", code="registered")
    ends = _event(second, event="deregistered", code="deregistered", text="stops", left=True)
    bench.invariant.registry_watched(
        _watch(), WatchAnswer(0, second, False, False, {}, (begins, ends))
    )
    _past(bench, begins, ends)
    _past(bench, ends, first=second)
    _past(bench, ends, oldest=second)
    with objection("I53"):
        _past(bench, begins)
    with objection("I53"):
        _past(bench, begins, ends, _event(second + 5))
    with objection("I53"):
        _past(bench, begins, ends._replace(text="another reason"))


# ---- the model's opinion of batches


@pytest.mark.parametrize("seed", range(5))
def test_batches_do_what_the_model_says(seed: int) -> None:
    """Everything that a batch may hold, at a machine and at the model beside it."""
    chance, bench = Prng(seed), Bench(AllOrNothing)
    leases: Any = RevocationIsExact(bench.world)
    applied = 0
    for _ in range(100):
        items = [
            BatchItem(
                b"/kvstore/%d" % chance.below(5),
                chance.pick((-1, -1, 0, bench.revision)),
                chance.pick(tuple(BatchAction)),
                b"{}",
                chance.below(8),
                chance.pick((0, 5)),
                "why",
            )
            for _ in range(chance.between(1, 4))
        ]
        payload = batch_payload(0, chance.pick((0, 2, 3)), items)
        before = bench.revision
        apply(
            bench.process,
            command(CommandKind.BATCH, payload),
            term=2,
            watchers=[bench.invariant, leases],
        )
        applied += bench.revision > before
    assert 20 < applied < 90
    assert bench.process.machine.leases
