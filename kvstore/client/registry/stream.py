"""Where a watch of the registry stands, so that it goes on after a lost member. Pure.

The position never goes back by itself: a member that is behind is left for another one. If all of
them are behind, again and again, the cluster was restored from older data; then its truth counts.
"""

from __future__ import annotations

import operator
from typing import Any

from kvstore.client.errors import DeadlineError, KvError, TooManyRequestsError, UnavailableError
from kvstore.client.registry import convert
from kvstore.client.registry.answers import Update
from kvstore.client.registry.limits import BEHIND_ROUNDS
from kvstore.client.registry.operations import HEARTBEAT_STREAM_PATH, WATCH_PATH
from kvstore.client.registry.values import Selection
from kvstore.errors import Code
from kvstore.pb import registry_pb2 as pb

__all__ = ("Cursor", "heartbeat_stream", "watch_stream")

_serialize = operator.methodcaller("SerializeToString")

_PASSING = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN, Code.ABORTED})
"""How a stream ends when its member or the way to it is gone; anything else is a refusal."""


def watch_stream(channel: Any) -> Any:
    """The watch method on a channel of either kind."""
    return channel.unary_stream(
        WATCH_PATH,
        request_serializer=_serialize,
        response_deserializer=pb.WatchResponse.FromString,
    )


def heartbeat_stream(channel: Any) -> Any:
    """The heartbeat stream on a channel of either kind."""
    return channel.stream_stream(
        HEARTBEAT_STREAM_PATH,
        request_serializer=_serialize,
        response_deserializer=pb.HeartbeatResponse.FromString,
    )


class Cursor:
    """The position of one watch, over as many streams as it takes."""

    def __init__(
        self,
        *,
        namespace: str,
        service: str,
        selection: Selection,
        subscriber: str,
        after_revision: int = 0,
    ) -> None:
        self.namespace = namespace
        self.service = service
        self.subscriber = subscriber
        self.revision = after_revision
        """Everything up to here was told."""
        self._selection = selection
        self._cluster_id = 0
        self._behind = 0

    def request(self) -> Any:
        """What opens the next stream."""
        return pb.WatchRequest(
            service=convert.service_name_to_pb(self.namespace, self.service),
            selection=convert.selection_to_pb(self._selection),
            after_revision=self.revision,
            subscriber_id=self.subscriber,
        )

    def feed(self, message: Any, endpoint: str) -> Update:
        """The update in a response. Raises UnavailableError if the member is to be left."""
        update = convert.update(message, endpoint)
        cluster_id = update.header.cluster_id
        if self._cluster_id not in (0, cluster_id):
            if not update.is_snapshot:
                self.revision = 0
                raise UnavailableError("another cluster answers now", endpoint=endpoint)
        elif update.revision < self.revision:
            raise self._member_behind(endpoint, f"is at revision {update.revision}")
        self._cluster_id = cluster_id
        self.revision = update.revision
        self._behind = 0
        return update

    def failed(self, error: KvError, endpoints: int) -> bool:
        """A stream ended by `error`; False: the request itself was refused."""
        if error.code is Code.OUT_OF_RANGE:
            self._member_behind(error.endpoint, error.message)
            passing = True
        else:
            passing = error.code in _PASSING or isinstance(
                error, (UnavailableError, DeadlineError, TooManyRequestsError)
            )
        if self._behind >= BEHIND_ROUNDS * endpoints:
            self.revision = 0
            self._behind = 0
        return passing

    def _member_behind(self, endpoint: str, how: str) -> UnavailableError:
        self._behind += 1
        return UnavailableError(
            f"the member {how}, this watch at {self.revision} already", endpoint=endpoint
        )
