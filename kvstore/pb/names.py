"""Names of enum values, for people."""

from __future__ import annotations

from kvstore.pb import rpc_pb2

__all__ = ("alarm_name",)


def alarm_name(number: int) -> str:
    """An alarm's name; one that this program does not know stays a number, as with Go's enums.

    A client may raise an alarm of any number, and etcd lets it.
    """
    known = rpc_pb2.AlarmType.values()
    return rpc_pb2.AlarmType.Name(number) if number in known else str(number)  # type: ignore[arg-type]
