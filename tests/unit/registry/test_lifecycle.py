"""What each event makes of an instance."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.checks.spec import Check, TcpProbe
from kvstore.registry import lifecycle
from kvstore.registry.lifecycle import Pulse, event_of
from kvstore.registry.model import Instance, Reason, Status

from .test_model import instance, instances


def test_registering_sets_the_times_and_the_reason() -> None:
    new = lifecycle.after_register(instance(reported=Status.STARTING), None, 5000)
    assert (new.registered_ms, new.changed_ms, new.reason.code) == (5000, 5000, "registered")
    assert new.status is Status.STARTING


@given(instances)
def test_registering_again_as_it_is_changes_nothing(before: Instance) -> None:
    alive = replace(before, silent=False, stale=False)
    assert lifecycle.after_register(alive, alive, 1) is alive


def test_registering_again_keeps_the_override_and_the_first_time() -> None:
    before = lifecycle.after_override(
        lifecycle.after_register(instance(), None, 5000), Status.OUT_OF_SERVICE, "bad deploy", 6000
    )
    after = lifecycle.after_register(instance(version="2"), before, 7000)
    assert (after.registered_ms, after.changed_ms, after.version) == (5000, 7000, "2")
    assert after.status is Status.OUT_OF_SERVICE
    assert event_of(after.reason) == "updated"


def test_registering_again_is_a_sign_of_life() -> None:
    down = lifecycle.after_pulse(instance(lease=7), Pulse.SILENT, 6000)
    after = lifecycle.after_register(instance(lease=8), down, 7000)
    assert (after.status, event_of(after.reason)) == (Status.UP, "recovered")


@pytest.mark.parametrize(
    ("pulse", "status", "stale", "code", "event"),
    [
        (Pulse.SILENT, Status.DOWN, False, "missed_heartbeat", "unhealthy"),
        (Pulse.CONFIRMED, Status.DOWN, False, "confirmed", "unhealthy"),
        (Pulse.HELD, Status.DEGRADED, True, "stale", "updated"),
    ],
)
def test_silence_and_the_way_back(
    pulse: Pulse, status: Status, stale: bool, code: str, event: str
) -> None:
    before = instance(reported=Status.DEGRADED)
    silent = lifecycle.after_pulse(before, pulse, 9000)
    assert (silent.status, silent.stale, silent.changed_ms) == (status, stale, 9000)
    assert (silent.reason.code, event_of(silent.reason)) == (code, event)
    assert lifecycle.after_pulse(silent, pulse, 9500) is silent
    back = lifecycle.after_pulse(silent, Pulse.BEATING, 9900)
    assert (back.status, back.silent, back.stale) == (Status.DEGRADED, False, False)
    assert event_of(back.reason) == "recovered"
    assert lifecycle.after_pulse(back, Pulse.BEATING, 9999) is back


@given(instances, st.lists(st.sampled_from(Pulse), max_size=5))
def test_heartbeats_never_touch_what_others_have_said(
    before: Instance, pulses: list[Pulse]
) -> None:
    after = before
    for at, pulse in enumerate(pulses):
        after = lifecycle.after_pulse(after, pulse, at)
        assert not (after.silent and after.stale) or after is before
    kept = replace(
        after,
        silent=before.silent,
        stale=before.stale,
        reason=before.reason,
        changed_ms=before.changed_ms,
    )
    assert kept == before


def test_an_override_survives_heartbeats_and_reports_until_it_is_released() -> None:
    out = lifecycle.after_override(instance(), Status.OUT_OF_SERVICE, "rollback", 1)
    assert (out.reason, out.status) == (Reason("overridden", "rollback"), Status.OUT_OF_SERVICE)
    assert lifecycle.after_override(out, Status.OUT_OF_SERVICE, "again", 2) is out
    worse = lifecycle.after_report(out, Status.DEGRADED, "slow", 3)
    assert worse.status is Status.OUT_OF_SERVICE
    released = lifecycle.after_override(worse, None, "", 4)
    assert (released.status, released.reason.code) == (Status.DEGRADED, "released")


def test_draining_is_reported_or_an_operators() -> None:
    for drained in (
        lifecycle.after_report(instance(), Status.DRAINING, "SIGTERM", 1),
        lifecycle.after_override(instance(), Status.DRAINING, "SIGTERM", 1),
    ):
        assert drained.status is Status.DRAINING
        assert not drained.routable
        assert event_of(drained.reason) == "drained"


def test_a_report_of_what_is_known_changes_nothing() -> None:
    before = instance()
    assert lifecycle.after_report(before, Status.UP, "", 1) is before
    assert lifecycle.after_check(before, Status.UP, {"code": 200}, 1) is before


def test_a_check_keeps_its_output() -> None:
    failed = lifecycle.after_check(instance(), Status.DOWN, {"summary": "HTTP 500"}, 1)
    assert (failed.status, failed.reason) == (Status.DOWN, Reason("check_failed", "HTTP 500"))
    assert failed.check == {"summary": "HTTP 500"}
    assert event_of(failed.reason) == "unhealthy"
    assert event_of(lifecycle.after_check(failed, Status.UP, {}, 2).reason) == "recovered"


def test_why_an_instance_goes() -> None:
    assert event_of(lifecycle.deregistered("SIGTERM")) == "deregistered"
    reason = lifecycle.expired(instance())
    assert reason.text == "no heartbeat for 10 s and a grace time of 30 s"
    assert event_of(reason) == "expired"
    assert event_of(Reason("of a later version")) == "updated"


def test_results_of_checks_end_with_what_they_were_found_by() -> None:
    found = {"results": {"http": {"status": "UP"}}}
    before = instance(check=found)
    again = lifecycle.after_register(instance(), before, 1)
    assert again is before, "the same request twice is one"
    restarted = lifecycle.after_register(instance(reported=Status.STARTING), before, 1)
    assert restarted.check is None
    assert restarted.status is Status.STARTING


def test_what_the_clusters_own_checks_have_found_stands() -> None:
    check = Check(TcpProbe())
    failed = lifecycle.after_result(
        instance(checks=(check,)), Status.DOWN, {"name": "tcp", "output": "refused"}, "", 1
    )
    assert lifecycle.after_register(instance(checks=(check,)), failed, 2) is failed
    other = instance(checks=(Check(TcpProbe("h:1")),))
    changed = lifecycle.after_register(other, failed, 2)
    assert (changed.status, changed.check) == (Status.UP, None)
