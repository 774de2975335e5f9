"""Instances, services and answers of a made-up registry, for tests of what is shown of them."""

from __future__ import annotations

from typing import Any, Final

from kvstore.client.registry import answers
from kvstore.client.registry.values import (
    CheckResult,
    Guard,
    Instance,
    InstanceEvent,
    InstanceName,
    Reason,
    ServiceName,
    Settings,
    Status,
    Stray,
)

NOW_MS: Final = 1_767_268_800_000
"""2026-01-01T12:00:00Z."""
HEADER: Final = answers.RegistryHeader(cluster_id=0xC1, member_id=0xA1, revision=41)


def instance(id: str, **fields: Any) -> Instance:
    """An instance of `payment` that is UP since three minutes and twelve seconds."""
    return Instance(
        **{
            "service": "payment",
            "id": id,
            "address": "10.0.1.6",
            "ports": {"http": 8080, "grpc": 9090},
            "zone": "eu-1a",
            "version": "1.4.2",
            "ttl_s": 10,
            "grace_s": 30,
            "registered_at_ms": NOW_MS - 7_500_000,
            "changed_at_ms": NOW_MS - 192_000,
            "reason": Reason("registered"),
            "lease": 0x1F,
            "create_revision": 12,
            "mod_revision": 30,
            **fields,
        }
    )


UP: Final = instance("payment-1", tags=("blue", "eu"), weight=3)
DOWN: Final = instance(
    "payment-2",
    status=Status.DOWN,
    silent=True,
    routable=False,
    reason=Reason("missed_heartbeat", "no heartbeat for 10 s"),
    changed_at_ms=NOW_MS - 4_000,
    mod_revision=38,
)
STALE: Final = instance(
    "payment-3",
    stale=True,
    reason=Reason("stale", "no heartbeat for 10 s; it keeps its status, because too many are so"),
    changed_at_ms=NOW_MS - 90_000_000,
)
SET: Final = instance(
    "payment-4",
    address="2001:db8::6",
    ports={"main": 80},
    zone="",
    version="",
    region="eu",
    status=Status.OUT_OF_SERVICE,
    override=Status.OUT_OF_SERVICE,
    routable=False,
    reason=Reason("overridden", "bad\x1b[31m disk"),
    metadata={"owner": "shop", "port": "none"},
    drain_s=5,
    check_results=(CheckResult("http", Status.UP, "200 OK"),),
)
EVERYONE: Final = (UP, DOWN, STALE, SET)
GUARD: Final = Guard(NOW_MS - 20_000, NOW_MS + 580_000, 3, 4, "engaged")
PAYMENT: Final = ServiceName("default", "payment")
SHOP: Final = ServiceName("shop", "cart")
STRAY: Final = Stray("/kvstore/services/default/payment/x", "the value is not JSON")

INSTANCES: Final = answers.InstancesResult(HEADER, EVERYONE, 38, GUARD, (STRAY,), fell_back=False)
NOBODY: Final = answers.InstancesResult(
    answers.RegistryHeader(revision=41, no_leader=True), (), 0, None, (), fell_back=False
)
SERVICES: Final = answers.ServicesResult(
    HEADER,
    (
        answers.ServiceSummary(
            name=PAYMENT,
            instances=4,
            routable=2,
            stale=1,
            by_status={"UP": 2, "DOWN": 1, "OUT_OF_SERVICE": 1},
            tags=("blue", "eu"),
            versions=("1.4.2",),
            service_revision=38,
            guard=GUARD,
        ),
        answers.ServiceSummary(
            name=SHOP,
            instances=1,
            routable=0,
            stale=0,
            by_status={"STARTING": 1},
            tags=(),
            versions=(),
            service_revision=40,
            guard=None,
        ),
    ),
    (STRAY,),
)
REGISTERED: Final = InstanceEvent("registered", Reason("registered"), 12, UP)
UNHEALTHY: Final = InstanceEvent("unhealthy", DOWN.reason, 38, DOWN, left=True)
EXPIRED: Final = InstanceEvent(
    "expired", Reason("expired", "no heartbeat for 10 s and a grace time of 30 s"), 41, DOWN, True
)
HISTORY: Final = answers.HistoryResult(
    HEADER,
    tuple(
        answers.PastEvent(NOW_MS - ago_ms, event)
        for ago_ms, event in ((500, EXPIRED), (30_500, UNHEALTHY), (7_500_000, REGISTERED))
    ),
)
THEN: Final = answers.HistoryResult(
    HEADER,
    instances=(UP, DOWN),
    unknown=(InstanceName("default", "payment", "payment-0"),),
    as_of_revision=38,
    as_of_ms=NOW_MS - 4_000,
)
EXPLANATION: Final = answers.Explanation(
    HEADER,
    DOWN,
    routable=False,
    findings=(
        answers.Finding("registered", True, "since 2026-01-01T09:55:00.000Z"),
        answers.Finding("heartbeat", False, "none for 14 s; its TTL is 10 s"),
        answers.Finding("selection", False, "DOWN is not healthy"),
    ),
    recent=(UNHEALTHY,),
    verdict="payment-2 gets no requests: it has missed its heartbeats",
)
ACKNOWLEDGED: Final = answers.Acknowledged(
    complete=False,
    acknowledged=2,
    laggards=(answers.Subscriber("cart-7", 0xA2, "n2", 37),),
    silent_members=(0xA3,),
    cannot_acknowledge={"dns": 1, "etcd watch": 2},
    waited_s=5.0,
)
DEREGISTERED: Final = answers.DeregisterResult(HEADER, True, UP, ACKNOWLEDGED)
DRAINED: Final = answers.DrainResult(HEADER, (SET,), None)
SETTINGS: Final = Settings(guard_enabled=False, guard_percent=50, guard_window_s=60)
