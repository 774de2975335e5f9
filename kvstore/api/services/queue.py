"""The waiting line that locks and elections share: keys under a prefix, oldest first.

A participant's key is `<name>/` and its lease id in hexadecimal. Whoever's key has the lowest
create revision is at the front. Clients of etcd queue by the same keys without these services,
so names and order are part of the contract.
"""

from __future__ import annotations

from contextlib import aclosing

from kvstore.api.keys import Keys
from kvstore.errors import COMPACTED, EtcdError
from kvstore.pb import kv_pb2, rpc_pb2

__all__ = ("created_at", "leaving", "oldest", "participant", "prefix_end", "wait_for_turn")


def participant(name: bytes, lease_id: int) -> bytes:
    """The key of one participant; the lease id as Go prints it, without padding."""
    return b"%s/%x" % (name, lease_id)


def prefix_end(prefix: bytes) -> bytes:
    """The range end that covers every key under a prefix that ends in "/"."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def oldest(prefix: bytes) -> rpc_pb2.RangeRequest:
    """Reads the key at the front of the line."""
    return rpc_pb2.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=rpc_pb2.RangeRequest.ASCEND,
        sort_target=rpc_pb2.RangeRequest.CREATE,
    )


def created_at(key: bytes, revision: int) -> rpc_pb2.Compare:
    """The guard "this key was created at this revision" (0: does not exist)."""
    return rpc_pb2.Compare(
        key=key,
        target=rpc_pb2.Compare.CREATE,
        result=rpc_pb2.Compare.EQUAL,
        create_revision=revision,
    )


def leaving(key: bytes, revision: int) -> rpc_pb2.TxnRequest:
    """Deletes a participant's key if it is still the one created at this revision."""
    request = rpc_pb2.TxnRequest(compare=[created_at(key, revision)])
    request.success.add().request_delete_range.key = key
    return request


async def wait_for_turn(keys: Keys, prefix: bytes, my_revision: int) -> rpc_pb2.ResponseHeader:
    """Returns when no key under the prefix is older than mine; the header of that finding.

    Waits for the one right in front of me each time, so that one release wakes one participant.
    """
    while True:
        response = await keys.range(
            rpc_pb2.RangeRequest(
                key=prefix,
                range_end=prefix_end(prefix),
                limit=1,
                sort_order=rpc_pb2.RangeRequest.DESCEND,
                sort_target=rpc_pb2.RangeRequest.CREATE,
                max_create_revision=my_revision - 1,
            )
        )
        if not response.kvs:
            return response.header
        await _wait_deleted(keys, response.kvs[0].key, response.header.revision)


async def _wait_deleted(keys: Keys, key: bytes, revision: int) -> None:
    try:
        async with aclosing(keys.watch(key, b"", revision)) as events:
            async for _, event in events:
                if event.type == kv_pb2.Event.DELETE:
                    return
    except EtcdError as error:
        if error != COMPACTED:
            raise
        # History moved on under the watch; reading the line again tells what became of the key.
