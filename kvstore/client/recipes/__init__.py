"""Procedures of several calls, written once for both clients; one recipe a module.

`steps` says what a program is, `line` is the fair queue that most recipes stand on, `holder` what
is common to everything that is held on a lease. See docs/recipes.md for the recipes themselves.
"""

from kvstore.client.recipes.barrier import BarrierRecipe
from kvstore.client.recipes.counter import CounterRecipe, Number
from kvstore.client.recipes.double_barrier import DoubleBarrierRecipe
from kvstore.client.recipes.election import LeadershipRecipe, current_leader
from kvstore.client.recipes.entries import PRIORITY_DEFAULT
from kvstore.client.recipes.holder import HolderRecipe
from kvstore.client.recipes.line import (
    Claim,
    Contender,
    claim,
    contenders,
    enqueue,
    leader,
    line_prefix,
    proclaim,
    queue_key,
    resign,
    wait_turn,
)
from kvstore.client.recipes.lock import ExclusiveRecipe, LockRecipe
from kvstore.client.recipes.locking_queue import LockingQueueRecipe
from kvstore.client.recipes.maintenance import disarm, health, move_leader
from kvstore.client.recipes.partitioner import PartitionerRecipe, PartitionState
from kvstore.client.recipes.party import PartyRecipe
from kvstore.client.recipes.queue import QueueRecipe
from kvstore.client.recipes.rwlock import ReadLockRecipe, WriteLockRecipe
from kvstore.client.recipes.semaphore import SemaphoreRecipe
from kvstore.client.recipes.shares import Division, divide
from kvstore.client.recipes.steps import (
    UNLIMITED,
    Bounded,
    Grant,
    Idle,
    Limits,
    Program,
    Revoke,
    Step,
    WaitChange,
    WaitDeleted,
)
from kvstore.client.recipes.tree import Tree, TreeChange, TreeEvent, read_tree

__all__ = (
    "PRIORITY_DEFAULT",
    "UNLIMITED",
    "BarrierRecipe",
    "Bounded",
    "Claim",
    "Contender",
    "CounterRecipe",
    "Division",
    "DoubleBarrierRecipe",
    "ExclusiveRecipe",
    "Grant",
    "HolderRecipe",
    "Idle",
    "LeadershipRecipe",
    "Limits",
    "LockRecipe",
    "LockingQueueRecipe",
    "Number",
    "PartitionState",
    "PartitionerRecipe",
    "PartyRecipe",
    "Program",
    "QueueRecipe",
    "ReadLockRecipe",
    "Revoke",
    "SemaphoreRecipe",
    "Step",
    "Tree",
    "TreeChange",
    "TreeEvent",
    "WaitChange",
    "WaitDeleted",
    "WriteLockRecipe",
    "claim",
    "contenders",
    "current_leader",
    "disarm",
    "divide",
    "enqueue",
    "health",
    "leader",
    "line_prefix",
    "move_leader",
    "proclaim",
    "queue_key",
    "read_tree",
    "resign",
    "wait_turn",
)
