"""Alarms: raised and cleared through the log, obeyed when later entries are applied.

NOSPACE refuses what may add data (puts, transactions that can put, lease grants; of a batch its
puts). CORRUPT refuses every change of keys and leases. Clearing one is always possible.
"""

from __future__ import annotations

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine.command import CommandKind
from kvstore.machine.draft import Draft
from kvstore.machine.tables import ALARMS, member_id
from kvstore.machine.wire import bytes_field, int_field
from kvstore.pb.rpc_pb2 import AlarmRequest, AlarmType
from kvstore.storage.store import ReadTxn

__all__ = ("change", "load_alarms", "refusal")

_ALARMS_FIELD = 2
_MEMBER_FIELD = 1
_TYPE_FIELD = 2
_ID_BYTES = 8

_REFUSED_BY_CORRUPT = frozenset(
    (
        CommandKind.PUT,
        CommandKind.DELETE_RANGE,
        CommandKind.TXN,
        CommandKind.COMPACT,
        CommandKind.LEASE_GRANT,
        CommandKind.LEASE_REVOKE,
        CommandKind.LEASE_EXPIRE,
        CommandKind.BATCH,
    )
)
_REFUSED_BY_NOSPACE = frozenset((CommandKind.PUT, CommandKind.LEASE_GRANT))


def load_alarms(txn: ReadTxn) -> frozenset[tuple[int, int]]:
    """All alarms of the store as (member id, type)."""
    return frozenset(
        (int.from_bytes(key[:_ID_BYTES]), int.from_bytes(key[_ID_BYTES:], signed=True))
        for key, _ in txn.scan(ALARMS)
    )


def refusal(alarms: frozenset[tuple[int, int]], kind: int) -> EtcdError | None:
    """Why a command is refused whole while `alarms` are up; None if it is not."""
    types = {alarm for _, alarm in alarms}
    if AlarmType.CORRUPT in types and kind in _REFUSED_BY_CORRUPT:
        return errors.CORRUPT
    if AlarmType.NOSPACE in types and kind in _REFUSED_BY_NOSPACE:
        return errors.NO_SPACE
    return None


def change(draft: Draft, request: AlarmRequest) -> bytes:
    """Raises, clears or lists alarms; returns an AlarmResponse without header."""
    alarms = draft.state.alarms
    alarm = (request.memberID, int(request.alarm))
    key = member_id(alarm[0]) + (alarm[1] & 0xFFFFFFFF).to_bytes(4)
    match request.action:
        case AlarmRequest.GET:
            told = sorted(item for item in alarms if request.alarm in (AlarmType.NONE, item[1]))
        case AlarmRequest.ACTIVATE:
            told = [alarm] if request.alarm != AlarmType.NONE else []
            if told and alarm not in alarms:
                draft.txn.put(ALARMS, key, b"")
                draft.state = draft.state._replace(alarms=alarms | {alarm})
        case AlarmRequest.DEACTIVATE:
            told = [alarm] if alarm in alarms else []
            if told:
                draft.txn.delete(ALARMS, key)
                draft.state = draft.state._replace(alarms=alarms - {alarm})
        case _:
            told = []
    return b"".join(
        bytes_field(_ALARMS_FIELD, int_field(_MEMBER_FIELD, number) + int_field(_TYPE_FIELD, kind))
        for number, kind in told
    )
