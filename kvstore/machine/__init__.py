"""The replicated state machine: MVCC keys, txns, leases, members, alarms."""

from kvstore.machine.apply import ApplyBatch
from kvstore.machine.command import (
    ABSENT,
    ANY_REVISION,
    BatchAction,
    BatchFailure,
    BatchItem,
    BatchOutcome,
    Command,
    CommandError,
    CommandKind,
    batch_payload,
    decode,
    encode,
    expiry_payload,
    member_attributes_payload,
    read_outcomes,
)
from kvstore.machine.config import MachineConfig
from kvstore.machine.draft import Lease
from kvstore.machine.foresight import Foreseen, foresee
from kvstore.machine.hashing import HashAnswer
from kvstore.machine.jobs import Job, run
from kvstore.machine.journal import Cause, JournalRecord
from kvstore.machine.machine import Machine
from kvstore.machine.membership import ConfContext, Member
from kvstore.machine.meta import FormatError
from kvstore.machine.quota import cost_bytes
from kvstore.machine.ranges import RangeAnswer
from kvstore.machine.results import DELETE, PUT, Change, Result
from kvstore.machine.view import View

__all__ = (
    "ABSENT",
    "ANY_REVISION",
    "DELETE",
    "PUT",
    "ApplyBatch",
    "BatchAction",
    "BatchFailure",
    "BatchItem",
    "BatchOutcome",
    "Cause",
    "Change",
    "Command",
    "CommandError",
    "CommandKind",
    "ConfContext",
    "Foreseen",
    "FormatError",
    "HashAnswer",
    "Job",
    "JournalRecord",
    "Lease",
    "Machine",
    "MachineConfig",
    "Member",
    "RangeAnswer",
    "Result",
    "View",
    "batch_payload",
    "cost_bytes",
    "decode",
    "encode",
    "expiry_payload",
    "foresee",
    "member_attributes_payload",
    "read_outcomes",
    "run",
)
