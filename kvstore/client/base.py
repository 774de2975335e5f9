"""What both clients are made of: settings, endpoints, channels, token, deadlines, error mapping."""

from __future__ import annotations

import operator
import os
import random as random_module
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from kvstore import errors as catalogue
from kvstore.client.call import Effect, Method, Unary
from kvstore.client.endpoints import Endpoint, Rotation, parse_endpoints
from kvstore.client.errors import ClientClosedError, KvError, Outcome, from_status
from kvstore.client.limits import (
    CONNECT_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    RECONNECT_MAX_S,
)
from kvstore.client.retry import Attempts, blames_endpoint
from kvstore.client.snapshots import SNAPSHOT_PATH
from kvstore.client.values import MembersResult
from kvstore.client.watching import WATCH_PATH
from kvstore.pb import rpc_pb2 as pb

__all__ = ("ClientBase", "Pem", "unary_on", "unknown_if_write")

Pem: TypeAlias = str | Path | bytes | None
"""A PEM document: its bytes, or the path of its file."""

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_serialize = operator.methodcaller("SerializeToString")
_AUTH_STORE_OLD = "etcdserver: revision of auth store is old"
_TOKEN_PROBLEMS = frozenset(
    {catalogue.INVALID_AUTH_TOKEN.message, catalogue.USER_EMPTY.message, _AUTH_STORE_OLD}
)
_REQUIRE_LEADER = ("hasleader", "true")


class ClientBase(ABC):
    """Everything of a client that neither blocks nor awaits."""

    def __init__(
        self,
        endpoints: str | Iterable[str] = "127.0.0.1:2379",
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        ca: Pem = None,
        cert: Pem = None,
        key: Pem = None,
        server_name: str = "",
        token: str = "",
        user: str = "",
        password: str = "",
        shuffle: bool = True,
        channel_options: Sequence[tuple[str, Any]] = (),
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """`endpoints` is a list or a comma-separated text; `timeout` is each call's default.

        TLS is used for `https://` endpoints, and for those without a scheme if any of `ca`,
        `cert`, `key` is given; without `ca` the system's authorities count. `server_name` is the
        name that the server's certificate must bear, if it is not the endpoint's host.
        `user` and `password` fetch a token when the server first asks for one; `token` is one
        already there. `shuffle` spreads clients over the endpoints; without it they all start
        at the first. No connection is made before the first call.
        """
        parsed = list(parse_endpoints(endpoints, secure=any((ca, cert, key))))
        if shuffle:
            parsed.sort(key=lambda _: random())
        self._secure = any((ca, cert, key))
        self._rotation = Rotation(parsed)
        self._timeout_s = timeout
        self._credentials = _tls(ca, cert, key)
        self._user, self._password = user, password
        self._metadata: Metadata = (("token", token),) if token else ()
        self._options = _channel_options(connect_timeout, server_name, channel_options)
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._channels: dict[str, Any] = {}
        self._callables: dict[tuple[str, str], Any] = {}
        self._pinned: dict[str, Endpoint] = {}
        self._closed = False
        self._pid = os.getpid()
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """What the client needs besides; called once, at the end of construction."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints as they were given (or synced)."""
        return tuple(each.text for each in self._rotation.all)

    @property
    def closed(self) -> bool:
        return self._closed

    def set_endpoints(self, endpoints: str | Iterable[str]) -> None:
        """Use these endpoints from now on."""
        self._rotation.replace(parse_endpoints(endpoints, secure=self._secure))

    # Channels and callables: made once, kept until close.

    @abstractmethod
    def _make_channel(self, endpoint: Endpoint) -> Any:
        """A gRPC channel of the client's kind."""

    def _channel(self, endpoint: Endpoint) -> Any:
        with self._lock:
            self._check_usable()
            channel = self._channels.get(endpoint.text)
            if channel is None:
                channel = self._channels[endpoint.text] = self._make_channel(endpoint)
            return channel

    def _unary(self, endpoint: Endpoint, method: Method) -> Any:
        name = (endpoint.text, method.path)
        found = self._callables.get(name)
        if found is None or self._closed or self._pid != os.getpid():
            found = self._callables[name] = unary_on(self._channel(endpoint), method)
        return found

    def _watch_stream(self, endpoint: Endpoint) -> Any:
        return self._channel(endpoint).stream_stream(
            WATCH_PATH,
            request_serializer=_serialize,
            response_deserializer=pb.WatchResponse.FromString,
        )

    def _snapshot_stream(self, endpoint: Endpoint) -> Any:
        return self._channel(endpoint).unary_stream(
            SNAPSHOT_PATH,
            request_serializer=_serialize,
            response_deserializer=pb.SnapshotResponse.FromString,
        )

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed")
        if self._pid != os.getpid():
            raise ClientClosedError(
                f"this client was made in process {self._pid}; make a new one after a fork"
            )

    # Calls.

    def _endpoint_for(self, call: Unary[Any]) -> Endpoint:
        return self._pin(call.endpoint) if call.endpoint else self._rotation.current

    def _pin(self, text: str) -> Endpoint:
        """The endpoint that a caller named; equal texts share a channel."""
        endpoint = self._pinned.get(text)
        if endpoint is None:
            endpoint = self._pinned[text] = Endpoint.parse(text, secure=self._secure)
        return endpoint

    def _attempts(self, call: Unary[Any], now: float, latest: float) -> Attempts:
        timeout_s = call.timeout_s
        if timeout_s is None:
            timeout_s = max(self._timeout_s, call.default_timeout_s)
        return Attempts(
            call.effect,
            min(now + timeout_s, latest),
            len(self._rotation.all),
            self._random,
            single=bool(call.endpoint),
        )

    def _failure(self, status: Any, endpoint: Endpoint, effect: Effect) -> KvError:
        """The typed error of a failed RPC; leaves the endpoint if it is to blame."""
        error = from_status(
            status.code().value[0],
            status.details() or "",
            write=effect is not Effect.READ,
            endpoint=endpoint.text,
        )
        if blames_endpoint(error):
            self._rotation.failed(endpoint)
        return error

    # Identity.

    def _wants_token(self, error: KvError) -> bool:
        return bool(self._user) and error.message in _TOKEN_PROBLEMS

    def _set_token(self, token: str) -> None:
        self._metadata = (("token", token),) if token else ()

    def _stream_metadata(self, require_leader: bool) -> Metadata:
        return (*self._metadata, _REQUIRE_LEADER) if require_leader else self._metadata

    def _take_endpoints(self, members: MembersResult) -> tuple[str, ...]:
        """Replace the endpoints by the client URLs of the voters that are running."""
        urls = [url for each in members.members if not each.is_learner for url in each.client_urls]
        if urls:
            self.set_endpoints(urls)
        return self.endpoints


def unary_on(channel: Any, method: Method) -> Any:
    """The method on a channel of either kind."""
    return channel.unary_unary(
        method.path,
        request_serializer=_serialize,
        response_deserializer=method.response.FromString,
    )


def unknown_if_write(effect: Effect) -> Outcome:
    """The outcome of a call that was cut off."""
    return Outcome.NOT_APPLIED if effect is Effect.READ else Outcome.UNKNOWN


def _tls(ca: Pem, cert: Pem, key: Pem) -> Any:
    if (cert is None) != (key is None):
        raise ValueError("TLS: cert and key must be given together")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(ca),
        private_key=_pem(key),
        certificate_chain=_pem(cert),
    )


def _pem(source: Pem) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return Path(source).read_bytes()


def _channel_options(
    connect_timeout: float, server_name: str, extra: Sequence[tuple[str, Any]]
) -> list[tuple[str, Any]]:
    options: dict[str, Any] = {
        # Answers may be as large as the server likes; requests are bounded by the server.
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        # A connection of our own: closing one client must not touch another one's.
        "grpc.use_local_subchannel_pool": 1,
        # Stores live inside the network; a proxy for the web would only be in the way.
        "grpc.enable_http_proxy": 0,
        "grpc.min_reconnect_backoff_ms": int(connect_timeout * 1000),
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": int(RECONNECT_MAX_S * 1000),
        "grpc.keepalive_time_ms": int(PING_INTERVAL_S * 1000),
        "grpc.keepalive_timeout_ms": int(PING_TIMEOUT_S * 1000),
        # The transport's own pings must not wait longer (their default is a minute), since a
        # keepalive ping is not sent while one of them is unanswered.
        "grpc.http2.ping_timeout_ms": int(PING_TIMEOUT_S * 1000),
        # A watch only listens: pings must go on without data of ours.
        "grpc.http2.max_pings_without_data": 0,
    }
    if server_name:
        options["grpc.ssl_target_name_override"] = server_name
    options.update(extra)
    return list(options.items())
