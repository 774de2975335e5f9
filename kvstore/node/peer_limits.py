"""Every bound of the traffic between members, in one place."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ANSWERS_UNREAD_BYTES_MAX",
    "CALLS_PENDING_MAX",
    "CALLS_SERVED_MAX",
    "CHUNK_BYTES",
    "CHUNKS_UNWRITTEN_BYTES_MAX",
    "DIAL_TIMEOUT_S",
    "FRAME_BYTES_MAX",
    "FRAME_BYTES_TARGET",
    "HANDSHAKE_BYTES_MAX",
    "INBOUND_CONNECTIONS_MAX",
    "MESSAGES_QUEUED_BYTES_MAX",
    "MESSAGES_QUEUED_MAX",
    "PING_S",
    "PING_TIMEOUT_S",
    "QUERY_TIMEOUT_S",
    "RECONNECT_MAX_S",
    "RECONNECT_MIN_S",
    "REFUSALS_REMEMBERED_MAX",
    "SNAPSHOT_BYTES_PER_S",
    "SNAPSHOT_IDLE_S",
    "SNAPSHOT_STILL_BUSY_S",
    "SOCKET_BUFFER_BYTES",
    "STRANGERS_MAX",
)

HANDSHAKE_BYTES_MAX: Final = 4096
"""A frame of somebody who has not proved yet to be a member."""

FRAME_BYTES_MAX: Final = 64 * 1024**2
"""No frame is larger; one that claims to be ends its connection."""

FRAME_BYTES_TARGET: Final = 4 * 1024**2
"""Messages that leave together are cut into frames of about this size."""

MESSAGES_QUEUED_MAX: Final = 4096
MESSAGES_QUEUED_BYTES_MAX: Final = 64 * 1024**2
"""Messages to one peer that wait for the network; more are dropped, and Raft repeats them."""

SOCKET_BUFFER_BYTES: Final = 1024**2
"""Bytes handed to the socket and not sent yet, from which messages wait in the queue instead."""

CALLS_PENDING_MAX: Final = 4096
"""Questions to one peer that wait for their answers."""

CALLS_SERVED_MAX: Final = 1024
"""Questions of one peer that are being worked on."""

ANSWERS_UNREAD_BYTES_MAX: Final = 64 * 1024**2
"""Answers that a peer does not read, at which its connection is cut."""

INBOUND_CONNECTIONS_MAX: Final = 256
"""Connections that others hold to this member, members or not."""

STRANGERS_MAX: Final = 16
"""Members of this cluster whose joining this member has not heard of yet."""

REFUSALS_REMEMBERED_MAX: Final = 256
"""Refusals that were logged and are not logged again; the memory is wiped when it is full."""

DIAL_TIMEOUT_S: Final = 5.0
"""For connecting and shaking hands, on either side."""

QUERY_TIMEOUT_S: Final = 5.0
"""For asking a member about its cluster."""

RECONNECT_MIN_S: Final = 0.05
RECONNECT_MAX_S: Final = 1.0
"""Pause before dialling again: doubled each time, and shortened by up to half at random."""

PING_S: Final = 2.0
"""How often the round trip to each peer is measured."""

PING_TIMEOUT_S: Final = 5.0
"""A peer that leaves a ping unanswered for so long is dialled anew."""

CHUNK_BYTES: Final = 256 * 1024
"""A piece of a snapshot file on the wire."""

CHUNKS_UNWRITTEN_BYTES_MAX: Final = 8 * 1024**2
"""Received pieces that wait for the disk; the socket is left unread while there are more."""

SNAPSHOT_BYTES_PER_S: Final = 128 * 1024**2
"""How fast a snapshot is sent at most, so that writes find room beside it."""

SNAPSHOT_IDLE_S: Final = 15.0
"""A snapshot transfer that stands still for so long has failed."""

SNAPSHOT_STILL_BUSY_S: Final = 3.0
"""How often a receiver says that it is still checking what it got."""
