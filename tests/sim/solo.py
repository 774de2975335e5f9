"""A lonely member without an event loop: real files, log, core and machine, driven step by step.

Everything between two calls is one thread's work in a fixed order, so a crash at the n-th disk
operation always finds the same state. What runs is the product's own opening, recovery, log,
core and machine; left out are the asyncio shell, peers and clients, which the cluster's
simulation has.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from kvstore.errors import EtcdError
from kvstore.machine import Machine, View
from kvstore.machine.command import CommandKind
from kvstore.node.bootstrap import open_member
from kvstore.node.config import NodeConfig
from kvstore.node.limits import SNAPSHOT_FILES_KEPT
from kvstore.node.member import MemberCore
from kvstore.node.proposals import RequestIds
from kvstore.node.threads import Report
from kvstore.node.timing import Timing
from kvstore.node.transport import PeerNetwork
from kvstore.storage.layout import Layout
from kvstore.storage.store import Store, TableSpec
from kvstore.storage.wal import WalBatch
from kvstore.watch.hub import WatchHub
from raft.config import Config
from raft.node import RaftNode
from raft.types import Entry, HardState
from tests.sim.disk import DiskSession, VirtualDisk
from tests.sim.store import SimStoreEngine

__all__ = ("Solo", "solo_config")

T = TypeVar("T")

_ELECTION_TICKS: Final = 10
_SWEEP_REVISIONS: Final = 4
"""A sweep takes many transactions, so that crashes fall between them."""
_ANSWERED_WITHIN_TURNS: Final = 10_000
_REQUEST_BYTES: Final = 1 << 20


def solo_config(data_dir: Path, *, segment_bytes: int = 4096) -> NodeConfig:
    """A member that is alone in its cluster, with a log that is cut often."""
    url = ("http://solo:2380",)
    return NodeConfig(
        name="solo",
        data_dir=data_dir,
        listen_peer_urls=url,
        advertise_peer_urls=url,
        advertise_client_urls=("http://solo:2379",),
        initial_cluster={"solo": url},
        snapshot_catchup_entries=20,
        wal_segment_bytes=segment_bytes,
    )


class _Inline:
    """A thread that is done before its caller goes on."""

    def submit(self, job: Callable[[], Any], report: Report) -> None:
        raise AssertionError("nothing here works in the background")

    async def run(self, job: Callable[[], T]) -> T:
        return job()

    async def close(self) -> None:
        """There is no thread."""


class _Held:
    def release(self) -> None:
        """Nobody else wants the directory."""


class _Host:
    """The machine under it (see `kvstore.node.host.Host`)."""

    def __init__(self, disk: VirtualDisk, session: DiskSession) -> None:
        self._disk = disk
        self._session = session

    def disk(self, *, sync: bool) -> DiskSession:
        assert sync, "it always syncs"
        return self._session

    def lock(self, layout: Layout) -> _Held:
        return _Held()

    def boot_id(self) -> str:
        return f"boot {self._disk.boots}"

    def open_store(self, path: Path, tables: Sequence[TableSpec], *, quota_bytes: int) -> Store:
        return SimStoreEngine(self._session).open(path, tables, quota_bytes)

    def worker(self, name: str) -> _Inline:
        return _Inline()

    def wall_s(self) -> float:
        return float(self._disk.operations)

    def below(self, bound: int) -> int:
        return bound // 2


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("it waits for something")


class Solo:
    """One incarnation of the process. Raises what the product raises, and ProcessDied."""

    def __init__(
        self, disk: VirtualDisk, config: NodeConfig, note: Callable[[Entry], None]
    ) -> None:
        """Opens or founds the member; `note` gets every entry that it is about to log."""
        self.disk = disk
        self._note = note
        session = disk.session()
        nobody = cast("PeerNetwork", None)
        host = _Host(disk, session)
        self._opened = _finished(open_member(config, host, _Inline(), nobody))
        self.files = self._opened.files
        self.wal = self._opened.wal
        self.start = self._opened.start
        self.persisted_term = self.start.hard_state.term
        """The term that is certainly on the disk."""
        self.core = self._build_core(config)

    def _build_core(self, config: NodeConfig) -> MemberCore:
        opened, start = self._opened, self.start
        raft = RaftNode(
            Config(opened.member_id, election_ticks=_ELECTION_TICKS, random=lambda n: n // 2),
            hard_state=start.hard_state,
            conf=start.conf,
            snapshot=start.base,
            entries=start.entries,
            applied=opened.machine.applied_index,
        )
        history = _History(opened.machine)
        core = MemberCore(
            member_id=opened.member_id,
            raft=raft,
            encode_log=self._encode,
            hard_state=start.hard_state,
            machine=opened.machine,
            hub=WatchHub(
                history, lambda _: b"", max_response_bytes=_REQUEST_BYTES, random=lambda n: 0
            ),
            timing=Timing(100, _ELECTION_TICKS),
            clock=lambda: 0.0,
            request_ids=RequestIds(opened.member_id, self.disk.operations),
            connected_since=lambda peer: None,
            max_request_bytes=_REQUEST_BYTES,
            catchup_entries=config.snapshot_catchup_entries,
        )
        history.core = core
        return core

    def _encode(self, hard_state: HardState | None, entries: Sequence[Entry]) -> WalBatch:
        for entry in entries:
            self._note(entry)
        return self.wal.encode(hard_state, entries)

    @property
    def machine(self) -> Machine:
        """The present state machine."""
        return self.core.machine

    def view(self) -> View:
        """The last committed state; close it."""
        return self.core.machine.view()

    # ---- running ---------------------------------------------------------------------------

    def lead(self) -> None:
        """Has it elect itself and apply everything that its log holds."""
        self.core.raft.campaign()
        self.settle()
        assert self.core.is_leader, "a lonely member elects itself"

    def settle(self) -> None:
        """Turns until there is nothing left to do."""
        core = self.core
        for _ in range(_ANSWERED_WITHIN_TURNS):
            work = core.turn()
            if work.persist is not None:
                assert work.batch is not None, "nobody sends it snapshots"
                self.wal.write(work.batch, True)
                self.persisted_term = core.hard_state.term
                core.persisted(work.persist)
            busy = core.applier.busy and core.apply_slice()
            core.hub.pump()
            if core.applier.idle:
                core.machine.sweep(_SWEEP_REVISIONS)
            if not (busy or core.has_work or work.persist is not None):
                return
        raise AssertionError("it never comes to rest")

    def write(self, kind: CommandKind, payload: bytes, done: Callable[[], None]) -> None:
        """Proposes a command, carried out by `settle`; `done` is called when it is answered."""

        def answered(_result: Any, error: EtcdError | None) -> None:
            assert error is None, error
            done()

        self.core.write(kind, payload, answered)

    # ---- what the server does beside ---------------------------------------------------------

    def snapshot(self) -> None:
        """Makes a snapshot file and lets go of the log that nobody needs any more."""
        self.files.write_snapshot(self._opened.cluster_id)
        kept = self.files.prune(SNAPSHOT_FILES_KEPT)
        self.wal.release(min(kept).index)

    def defragment(self) -> None:
        """Replaces the store by a compact copy of itself."""
        self.core.pause()
        self.files.copy_store()
        store = self.files.take_next_store()
        self.core.resume(Machine(store, self.files.machine_config))
        self.core.hub.restored()

    def stop(self) -> None:
        """An orderly end."""
        words = self.core.last_words()
        self.core.close()
        if words is not None:
            self.wal.write(words, True)
        self.wal.close()
        self.files.close(clean=True)


class _History:
    """What the watch hub reads from: `core`'s machine once there is a core."""

    def __init__(self, machine: Machine) -> None:
        self._first = machine
        self.core: MemberCore | None = None

    @property
    def _machine(self) -> Machine:
        return self._first if self.core is None else self.core.machine

    @property
    def revision(self) -> int:
        return self._machine.revision

    def view(self) -> View:
        return self._machine.view()
