"""Maintenance procedures of several calls: health, hand over of the lead, clearing alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvstore import errors as catalogue
from kvstore.client import operations
from kvstore.client.errors import KvError, PermissionDeniedError
from kvstore.client.recipes.steps import Program
from kvstore.client.values import AlarmsResult, AlarmType, EndpointHealth

__all__ = ("disarm", "health", "move_leader")


def move_leader(endpoints: Sequence[str], target_id: int, timeout: float | None) -> Program[int]:
    """Find the leader among `endpoints`, have it hand over; returns the id it had."""
    asked: KvError | None = None
    for endpoint in endpoints:
        try:
            status = yield operations.status(endpoint=endpoint, timeout=timeout)
        except KvError as error:
            asked = error
            continue
        if status.leader == status.header.member_id:
            yield operations.move_leader_at(endpoint, target_id, timeout=timeout)
            leader_id: int = status.leader
            return leader_id
    raise KvError(
        "no leader among the endpoints " + ", ".join(endpoints),
        code=catalogue.Code.FAILED_PRECONDITION,
    ) from asked


def disarm(type: AlarmType, member_id: int, timeout: float | None) -> Program[AlarmsResult]:
    """Clear every raised alarm that matches (NONE and 0 match all); returns the cleared ones."""
    raised: AlarmsResult = yield operations.alarms(type=type, timeout=timeout)
    header = raised.header
    cleared = []
    for each in raised.alarms:
        if member_id in (0, each.member_id):
            answer: AlarmsResult = yield operations.alarm(
                each.member_id, each.type, active=False, timeout=timeout
            )
            header = answer.header
            cleared.append(each)
    return AlarmsResult(header, tuple(cleared))


def health(
    endpoint: str, timeout: float | None, clock: Callable[[], float]
) -> Program[EndpointHealth]:
    """Whether a linearizable read works and no alarm is raised, as `etcdctl endpoint health`."""
    start = clock()
    problem = ""
    try:
        # A refusal of the read is an answer all the same: the member and its leader work.
        try:
            yield operations.range(b"health", endpoint=endpoint, timeout=timeout)
        except PermissionDeniedError:
            pass
        took_s = clock() - start
        raised: AlarmsResult = yield operations.alarms(endpoint=endpoint, timeout=timeout)
        if raised.alarms:
            problem = "active alarms: " + ", ".join(each.type.name for each in raised.alarms)
    except PermissionDeniedError:
        pass
    except KvError as error:
        took_s = clock() - start
        problem = error.message
    return EndpointHealth(endpoint, not problem, took_s, problem)
