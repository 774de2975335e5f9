"""Protobuf requests from arguments, shared by plain calls, transactions and watches."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.client.keys import NUL, Key, span, to_bytes
from kvstore.client.values import SortOrder, SortTarget, WatchFilter
from kvstore.pb import rpc_pb2 as pb

__all__ = ("delete_request", "put_request", "range_request", "watch_request")


def range_request(
    key: Key,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: Key = b"",
    limit: int = 0,
    revision: int = 0,
    sort_order: SortOrder = SortOrder.NONE,
    sort_target: SortTarget = SortTarget.KEY,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
) -> pb.RangeRequest:
    """A RangeRequest; see `operations.range` for the meaning of the options."""
    start, end = span(key, prefix=prefix, from_key=from_key, range_end=range_end)
    return pb.RangeRequest(
        key=start,
        range_end=end,
        limit=limit,
        revision=revision,
        sort_order=int(sort_order),  # type: ignore[arg-type]  # the stubs know only their own enum
        sort_target=int(sort_target),  # type: ignore[arg-type]
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )


def put_request(
    key: Key,
    value: Key = b"",
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> pb.PutRequest:
    """A PutRequest; see `operations.put`."""
    return pb.PutRequest(
        key=to_bytes(key),
        value=to_bytes(value),
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


def delete_request(
    key: Key,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: Key = b"",
    prev_kv: bool = False,
) -> pb.DeleteRangeRequest:
    """A DeleteRangeRequest; see `operations.delete`."""
    start, end = span(key, prefix=prefix, from_key=from_key, range_end=range_end)
    return pb.DeleteRangeRequest(key=start, range_end=end, prev_kv=prev_kv)


def watch_request(
    key: Key,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: Key = b"",
    start_revision: int = 0,
    prev_kv: bool = False,
    filters: Iterable[WatchFilter] = (),
    progress_notify: bool = False,
    fragment: bool = False,
) -> pb.WatchCreateRequest:
    """A WatchCreateRequest; see `Client.watch`."""
    start, end = span(key, prefix=prefix, from_key=from_key, range_end=range_end)
    return pb.WatchCreateRequest(
        key=start or NUL,
        range_end=end,
        start_revision=start_revision,
        prev_kv=prev_kv,
        filters=[int(each) for each in filters],  # type: ignore[misc]  # as above
        progress_notify=progress_notify,
        fragment=fragment,
    )
