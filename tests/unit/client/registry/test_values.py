"""Instances as values: their JSON is the registry's own, and nothing is lost on the way."""

from __future__ import annotations

import json

import pytest

from kvstore.api.services.registry_messages import fill_instance, instance_of
from kvstore.client.registry import (
    Check,
    GrpcCheck,
    HttpCheck,
    Instance,
    Settings,
    Status,
    TcpCheck,
    convert,
    to_json,
)
from kvstore.client.registry.address import outgoing_address
from kvstore.client.registry.values import rfc3339
from kvstore.pb import registry_pb2 as pb
from kvstore.registry import model

CHECKS = (
    Check(HttpCheck("/health", "HEAD", {"x": "y"}, (200, 204)), "web", 5.0, 1.5, 2, 4),
    Check(TcpCheck("10.0.0.1:80"), "port"),
    Check(GrpcCheck(service="pay")),
)
FULL = Instance(
    service="payment",
    namespace="shop",
    id="payment-1",
    address="fd00::1",
    ports={"http": 8080, "admin": 1},
    zone="a",
    region="eu",
    version="1.2",
    weight=0,
    tags=("x", "y"),
    metadata={"team": "pay"},
    reported=Status.STARTING,
    ttl_s=7,
    grace_s=0,
    drain_s=3,
    checks=CHECKS,
)


def stored(instance: Instance) -> model.Instance:
    """As the registry keeps it."""
    return instance_of(convert.instance_to_pb(instance))


def answered(instance: model.Instance) -> Instance:
    message = pb.Instance()
    fill_instance(message, instance)
    return convert.instance(pb.Instance.FromString(message.SerializeToString()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lease": 0x1234, "registered_ms": 1_760_000_000_123, "changed_ms": 1_760_000_000_999},
        {"override": model.Status.OUT_OF_SERVICE, "silent": True, "stale": True},
        {"reported": model.Status.UP, "reason": model.Reason("recovered", "a heartbeat came")},
        {
            "check": {
                "results": {
                    "web": {
                        "name": "web",
                        "status": "DOWN",
                        "output": "500",
                        "checked_at": "2026-03-01T12:00:00.000Z",
                    }
                }
            }
        },
    ],
)
def test_the_json_is_that_of_the_registry(changes: dict[str, object]) -> None:
    kept = stored(FULL).changed(model.Reason("registered"), 5, reported=model.Status.UP)
    reason = changes.pop("reason", kept.reason)
    changed_ms = changes.pop("changed_ms", 6)
    assert isinstance(reason, model.Reason)
    assert isinstance(changed_ms, int)
    kept = kept.changed(reason, changed_ms, **changes)
    instance = answered(kept)
    # The lease and the revision are told beside the value.
    message = pb.Instance(lease=kept.lease, mod_revision=9)
    fill_instance(message, kept)
    instance = convert.instance(message)
    told = to_json(instance)
    assert told == {**model.to_json(kept), "revision": 9, "routable": kept.routable}
    json.dumps(told)


def test_a_registration_says_what_was_asked_for() -> None:
    back = answered(stored(FULL))
    assert [each.probe for each in back.checks] == [each.probe for each in CHECKS]
    assert back.checks[0] == CHECKS[0]  # the others get what they leave to the server
    for name in ("name", "ports", "zone", "region", "version", "weight", "tags", "metadata"):
        assert getattr(back, name) == getattr(FULL, name)
    assert (back.ttl_s, back.grace_s, back.drain_s) == (7, 0, 3)
    assert list(back.ports) == ["http", "admin"]


def test_targets_and_urls() -> None:
    assert FULL.target == "[fd00::1]:8080"
    assert FULL.target_of("admin") == "[fd00::1]:1"
    assert FULL.url("/pay", scheme="https") == "https://[fd00::1]:8080/pay"
    with pytest.raises(KeyError, match=r"no port 'web', but http, admin"):
        FULL.target_of("web")
    assert hash(FULL) == hash(FULL)


def test_times_are_written_as_the_registry_does() -> None:
    from kvstore.registry.times import rfc3339 as theirs

    for ms in (0, 1, 999, 1_760_000_000_123, 4_000_000_000_000):
        assert rfc3339(ms) == theirs(ms)


def test_settings_keep_what_is_not_given() -> None:
    settings = Settings(guard_enabled=False, guard_percent=0)
    assert convert.settings(convert.settings_to_pb(settings)) == settings


def test_a_status_of_a_newer_server_is_unknown() -> None:
    assert convert.status(99) is Status.UNKNOWN


def test_the_own_address_is_the_one_that_packets_leave_from() -> None:
    assert outgoing_address("127.0.0.1:2379") == "127.0.0.1"
    assert outgoing_address("localhost:2379") in ("127.0.0.1", "::1")
    with pytest.raises(ValueError, match="address="):
        outgoing_address("unix:/run/kvstore.sock")
    with pytest.raises(ValueError, match="address="):
        outgoing_address("no-such-host.invalid:1")
