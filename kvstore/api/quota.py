"""The space quota at the door: raises the NOSPACE alarm and refuses what would add data."""

from __future__ import annotations

from typing import Any

from kvstore.api.facade import Node, Write
from kvstore.errors import NO_SPACE, EtcdError
from kvstore.pb import rpc_pb2

__all__ = ("Quota",)


class Quota:
    """Checks requests that add data, before they are replicated."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._raising = False

    def check(self, cost_bytes: int) -> None:
        """Raises NO_SPACE when `cost_bytes` more do not fit, and has the alarm raised.

        The alarm makes every member refuse; it is proposed by one request at a time.
        """
        if not cost_bytes or not self._node.over_quota(cost_bytes):
            return
        if not self._raising:
            self._raising = True
            alarm = rpc_pb2.AlarmRequest(
                action=rpc_pb2.AlarmRequest.ACTIVATE,
                memberID=self._node.member_id,
                alarm=rpc_pb2.NOSPACE,
            )
            self._node.write(Write.ALARM, alarm.SerializeToString(), self._raised)
        raise NO_SPACE

    def _raised(self, _answer: Any, _error: EtcdError | None) -> None:
        # Failed or not: the next request over the quota proposes it again, which is harmless.
        self._raising = False
