"""One server process: starts the member and its front doors, waits, and takes them down in order.

The order is the point. Ports that are taken are found before the data directory is touched. The
client port opens once there is a leader, or after a while without one. HTTP follows: who is told by
/health or /readyz that all is well finds the client port open. On the way out the front doors close
before the member does, and the member hands leadership over.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kvstore import __version__
from kvstore.api.services.registration import Api, build_api
from kvstore.gateways.dns.server import DnsServer
from kvstore.gateways.http.app import make_app
from kvstore.gateways.http.collectors import HealthCollector, NodeCollector, OsCollector
from kvstore.gateways.http.health import HealthChecks
from kvstore.gateways.http.server import HttpServer
from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig
from kvstore.node.errors import (
    BadConfiguration,
    DataDirUnusable,
    ForeignDataDir,
    StartupError,
    StopKind,
    StopReason,
)
from kvstore.node.node import Node
from kvstore.node.peers import TcpNetwork
from kvstore.registry.registry import Registry
from kvstore.serving.binding import bind_all, socket_address
from kvstore.serving.config import ServerConfig
from kvstore.serving.dns import DnsSockets, bind_dns
from kvstore.serving.exits import ExitCode, ServerStopError
from kvstore.serving.logging import LogWriter
from kvstore.serving.readings import NodeReadings
from kvstore.serving.transports import Front, choose_transport, load_transport, open_front
from kvstore.serving.urls import ListenUrl, parse_listen
from kvstore.serving.versions import PROTOCOL_VERSION
from kvstore.storage.errors import (
    DirectoryLocked,
    DiskFailed,
    SnapshotCorrupt,
    StorageError,
    StoreCorrupt,
    StoreFailed,
    StoreFull,
    WalCorrupt,
    WalMissing,
)

__all__ = ("READY_LINE", "MakeNode", "over_tcp", "run")

_LOG = logging.getLogger(__name__)

READY_LINE = "ready to serve client requests"
"""Logged once, when the client port answers; scripts and tests wait for it."""

CALL_GRACE_S = 1.0
"""How long calls under way may take to finish when the server stops."""
STOP_LIMIT_S = 20.0
"""An orderly stop that takes longer is given up."""
READY_POLL_S = 0.02
GC_THRESHOLDS = (50_000, 20, 100)
"""Collections are rarer than Python's default: nearly everything here is freed by counting, and
what lives long is frozen out of their sight after the start."""

T = TypeVar("T")
_STARTUP_CODES: tuple[tuple[tuple[type[BaseException], ...], ExitCode], ...] = (
    ((DirectoryLocked,), ExitCode.DATA_DIR),
    (
        (WalCorrupt, WalMissing, SnapshotCorrupt, StoreCorrupt, DataDirUnusable),
        ExitCode.CORRUPT,
    ),
    ((DiskFailed, StoreFailed, StoreFull), ExitCode.DISK_FAILED),
    ((ForeignDataDir,), ExitCode.OTHER_CLUSTER),
    ((OSError,), ExitCode.FAILED),
    ((BadConfiguration,), ExitCode.USAGE),
)
"""Causes of a failed start, the most telling first, and their exit codes."""

MakeNode = Callable[[NodeConfig, Metrics], Node]


def over_tcp(config: NodeConfig, metrics: Metrics) -> Node:
    """A node that reaches its peers as a server does."""
    return Node(config, metrics, network=TcpNetwork())


async def run(config: ServerConfig, log: LogWriter, make_node: MakeNode = over_tcp) -> int:
    """Runs the server until it is told or has to stop; returns the exit code."""
    _raise_file_limit()
    asked = asyncio.Event()
    _listen_for_signals(asked, log)
    if config.stop_on_stdin_eof:
        _listen_for_eof(asked)
    server = _Server(config, make_node)
    try:
        if await _until(server.start(), asked):
            _collect_garbage()
            gc.set_threshold(*GC_THRESHOLDS)
            reason = await _until(server.node.wait_stopped(), asked)
            code = _judge(reason)
        else:
            code = ExitCode.STOPPED
    except ServerStopError as stop:
        _LOG.error("%s", stop.sentence, extra={"exit_code": int(stop.code)})
        code = stop.code
    except Exception:
        _LOG.exception("stopping because of an unexpected error; please report it")
        code = ExitCode.FAILED
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            await server.stop(grace_s=0.0 if code is ExitCode.DISK_FAILED else CALL_GRACE_S)
    except TimeoutError:
        _LOG.error("stopping took more than %g s and was given up", STOP_LIMIT_S)
        code = code or ExitCode.FAILED
    except StorageError as error:
        _LOG.error("what was written last may not be on disk: %s", error)
        code = code or ExitCode.DISK_FAILED
    except Exception:
        _LOG.exception("stopping failed")
        code = code or ExitCode.FAILED
    _LOG.info("stopped", extra={"exit_code": int(code)})
    return code


class _Server:
    """The parts of a running server, in the order of their start."""

    def __init__(self, config: ServerConfig, make_node: MakeNode) -> None:
        self._config = config
        self._metrics = Metrics()
        self.node = make_node(config.node, self._metrics)
        self._api: Api | None = None
        self._registry: Registry | None = None
        self._http: list[HttpServer] = []
        self._dns: DnsServer | None = None
        self._front: Front | None = None
        self._node_started = False
        self._opened = contextlib.ExitStack()

    async def start(self) -> bool:
        """Brings everything up; raises ServerStopError. True for `_until`."""
        config = self._config
        transport = choose_transport(config.grpc.transport)
        self._announce(transport)
        load_transport(transport)
        _collect_garbage()
        self._check_ports()
        http_sockets = self._bind(config.http_urls, "listen-client-http-urls")
        metrics_sockets = self._bind(config.metrics_urls, "listen-metrics-urls")
        dns_sockets = self._bind_dns()
        _prepare_directory(config.node.data_dir)
        await self._start_node()
        self._node_started = True
        self._registry = Registry(self.node, config.check_networks)
        self._registry.start()
        self._api = build_api(self.node, self._registry.service)
        await self._wait_for_leader()
        plain, measurements = self._make_http(self._api)
        http1 = await plain.prepare()
        self._front = await open_front(
            config.grpc,
            config.client_urls,
            self._api.table,
            http1 if config.http_on_client_urls else None,
        )
        if config.dns.addresses:
            self._dns = DnsServer(config.dns.settings, self._registry.catalog)
            self._metrics.registry.register(self._dns.collector())
            await self._dns.start(dns_sockets.udp, dns_sockets.tcp)
            # Who asks by DNS hears of a change, but can never acknowledge it.
            self._registry.service.subscribers.deaf["dns"] = lambda _service: 1
        await plain.start(http_sockets)
        await measurements.prepare()
        await measurements.start(metrics_sockets)
        _LOG.info(
            READY_LINE,
            extra={
                "addresses": self._front.addresses,
                "http": [socket_address(each) for each in http_sockets],
                "dns": [socket_address(each) for each in dns_sockets.udp],
                "transport": self._front.kind,
                "has_leader": bool(self.node.leader_id),
            },
        )
        return True

    def _bind(self, urls: Sequence[ListenUrl], flag: str) -> list[socket.socket]:
        sockets = bind_all(urls, flag)
        for each in sockets:
            self._opened.callback(each.close)
        return sockets

    def _bind_dns(self) -> DnsSockets:
        bound = bind_dns(self._config.dns.addresses)
        for each in (*bound.udp, *bound.tcp):
            self._opened.callback(each.close)
        return bound

    def _make_http(self, api: Api) -> tuple[HttpServer, HttpServer]:
        """A server of all HTTP endpoints, and one of those for measurements."""
        config = self._config
        readings = NodeReadings(self.node)
        for collector in (
            api.collector,
            NodeCollector(readings),
            HealthCollector(self._metrics),
            OsCollector(),
        ):
            self._metrics.registry.register(collector)
        request_s = 5.0 + 2 * config.node.election_ms / 1000
        checks = HealthChecks(readings, self._metrics, request_s)
        plain, measurements = (
            HttpServer(
                make_app(
                    readings,
                    self._metrics,
                    checks,
                    hosts=config.host_whitelist,
                    origins=config.cors,
                    with_version=with_version,
                )
            )
            for with_version in (True, False)
        )
        self._http += plain, measurements
        return plain, measurements

    async def stop(self, *, grace_s: float) -> None:
        """Takes down whatever is up, front doors first."""
        if self._api is not None:
            self._api.health.set_serving(False)
        if self._dns is not None:
            await self._dns.stop()
        if self._registry is not None:
            # Who watches is told at once, and goes on at another member.
            self._registry.service.close()
        if self._front is not None:
            await self._front.stop(grace_s)
        if self._registry is not None:
            await self._registry.stop()
        if self._node_started:
            await self.node.stop()
        for server in self._http:
            await server.stop()
        self._opened.close()

    def _announce(self, transport: str) -> None:
        config = self._config
        _LOG.info(
            "starting",
            extra={
                "version": __version__,
                "protocol_version": PROTOCOL_VERSION,
                "python": platform.python_version(),
                "event_loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
                "transport": transport,
                "member": config.node.name,
                "data_dir": str(config.node.data_dir),
                "listen_peer_urls": list(config.node.listen_peer_urls),
                "listen_client_urls": [url.text for url in config.client_urls],
                "initial_cluster_state": config.node.initial_cluster_state,
            },
        )
        for note in config.notes:
            _LOG.warning("%s", note)

    def _check_ports(self) -> None:
        """Tries the gRPC and peer ports: better to fail here than after joining the cluster."""
        peer_urls = [parse_listen(url) for url in self._config.node.listen_peer_urls]
        for urls, flag in (
            (self._config.client_urls, "listen-client-urls"),
            (peer_urls, "listen-peer-urls"),
        ):
            for bound in bind_all([url for url in urls if not url.is_unix], flag):
                bound.close()

    async def _start_node(self) -> None:
        try:
            await self.node.start()
        except (StartupError, StorageError) as error:
            raise ServerStopError(_startup_code(error), str(error)) from error
        except OSError as error:
            peers = ", ".join(self._config.node.listen_peer_urls)
            raise ServerStopError(
                ExitCode.FAILED,
                f"cannot listen for members at {peers}: {error.strerror or error} "
                "(--listen-peer-urls)",
            ) from error

    async def _wait_for_leader(self) -> None:
        """Waits while no leader is known, but not for ever: local reads work without one."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.ready_timeout_s
        while not self.node.leader_id:
            if self.node.stopped:
                reason = await self.node.wait_stopped()
                raise ServerStopError(_judge(reason), reason.message)
            if loop.time() >= end:
                _LOG.warning(
                    "no leader after %g s: serving anyway; writes and linearizable reads will "
                    "fail until more members are up",
                    self._config.ready_timeout_s,
                )
                return
            await asyncio.sleep(READY_POLL_S)


def _prepare_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        sentence = f"the data directory {path} is a file; name a directory by --data-dir"
        raise ServerStopError(ExitCode.DATA_DIR, sentence) from None
    except OSError as error:
        raise ServerStopError(
            ExitCode.DATA_DIR,
            f"cannot create the data directory {path}: {error.strerror}; "
            "name a writable place by --data-dir",
        ) from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ServerStopError(
            ExitCode.DATA_DIR,
            f"the data directory {path} is not writable for this user; change its owner or "
            "name another one by --data-dir",
        )
    if path.stat().st_mode & 0o077:
        _LOG.warning(
            "other users of this machine can look into the data directory; chmod 700 keeps them out"
        )


def _startup_code(error: BaseException) -> ExitCode:
    """The exit code of a member that cannot start, by what lies behind its error."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    for kinds, code in _STARTUP_CODES:
        if any(isinstance(each, kinds) for each in causes):
            return code
    return ExitCode.FAILED


def _judge(reason: StopReason | None) -> ExitCode:
    """Says why the member stopped, and what the exit code is; None is a request to stop."""
    if reason is None:
        return ExitCode.STOPPED
    code = {
        StopKind.ASKED: ExitCode.STOPPED,
        StopKind.REMOVED: ExitCode.STOPPED,
        StopKind.DISK: ExitCode.DISK_FAILED,
        StopKind.STORE: ExitCode.CORRUPT,
        StopKind.BUG: ExitCode.FAILED,
    }[reason.kind]
    level = logging.ERROR if code else logging.WARNING
    _LOG.log(level, "%s", reason.message, extra={"exit_code": int(code)})
    return code


async def _until(work: Coroutine[Any, Any, T], asked: asyncio.Event) -> T | None:
    """The outcome of `work`, or None when `asked` was set first; `work` is then cancelled."""
    working = asyncio.ensure_future(work)
    asking = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((working, asking), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        asking.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


def _listen_for_signals(asked: asyncio.Event, log: LogWriter) -> None:
    """SIGTERM and SIGINT ask for an orderly stop; the second one ends the process."""

    def received(number: signal.Signals) -> None:
        if asked.is_set():
            _LOG.error("ended at once by a second %s", number.name)
            log.stop(wait_s=0.5)
            os._exit(128 + number)
        _LOG.info("stopping, as asked by %s; once more ends it at once", number.name)
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)


def _listen_for_eof(asked: asyncio.Event) -> None:
    """Asks for a stop once standard input ends, as it does when its writer dies in any way."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(asked.set)

    threading.Thread(target=wait, name="stdin-watch", daemon=True).start()


def _raise_file_limit() -> None:
    """As many open files as the system lets us have: each client connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems refuse "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_garbage() -> None:
    """Takes what is left for good out of the collector's sight; the next time costs only the rest.

    First before the member runs: to go through all that was imported takes 30 ms and more, for
    which the loop of a running member should not be held.
    """
    gc.collect()
    gc.freeze()
