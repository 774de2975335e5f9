"""Run by the Python of an environment that holds `etcd3`: every family of calls, checked."""

import sys
import threading
import time

import etcd3

host, port = sys.argv[1].rsplit(":", 1)
client = etcd3.client(host=host, port=int(port), timeout=10)

# kv
client.put("greeting", "hello")
assert client.get("greeting")[0] == b"hello"
previous = client.put("greeting", "again", prev_kv=True)
assert previous.prev_kv.value == b"hello"
for number in range(10):
    client.put(f"many/{number}", str(number))
assert [meta.key for _, meta in client.get_prefix("many/", limit=3) or []][:1] in ([], [b"many/0"])
assert len(list(client.get_prefix("many/"))) == 10
assert len(list(client.get_range("many/2", "many/5"))) == 3
assert next(iter(client.get_prefix("many/", sort_order="descend")))[0] == b"9"
assert client.delete("many/0") is True
assert client.delete("many/0") is False
assert client.delete_prefix("many/").deleted == 9
assert client.get("many/1") == (None, None)
assert client.put_if_not_exists("once", "1") is True
assert client.put_if_not_exists("once", "2") is False
assert client.replace("once", "1", "3") is True
assert client.replace("once", "1", "4") is False

# txn
done, answers = client.transaction(
    compare=[client.transactions.value("once") == "3", client.transactions.version("once") > 0],
    success=[client.transactions.put("won", "yes"), client.transactions.get("once")],
    failure=[client.transactions.put("won", "no")],
)
assert done, answers
assert answers[1][0][0] == b"3", answers
assert client.get("won")[0] == b"yes"

# watch
seen = []
arrived = threading.Event()


def note(response):
    seen.extend(response.events)
    if len(seen) >= 3:
        arrived.set()


watch = client.add_watch_callback("watched", note)
client.put("watched", "1")
client.put("watched", "2")
client.delete("watched")
assert arrived.wait(10), seen
assert [type(e).__name__ for e in seen] == ["PutEvent", "PutEvent", "DeleteEvent"], seen
client.cancel_watch(watch)
events, cancel = client.watch_prefix("pre/", start_revision=1)
client.put("pre/x", "old")
assert next(events).key == b"pre/x"
cancel()

# lease
lease = client.lease(20)
client.put("leased", "x", lease=lease)
assert lease.granted_ttl == 20
assert 15 < lease.remaining_ttl <= 20, lease.remaining_ttl
assert lease.keys == [b"leased"], lease.keys
assert next(iter(lease.refresh())).TTL == 20
lease.revoke()
assert client.get("leased") == (None, None)

# lock
order = []
with client.lock("the-lock", ttl=10) as first:
    assert first.is_acquired()
    other = client.lock("the-lock", ttl=10)
    assert other.acquire(timeout=1) is False
    order.append("first")
second = client.lock("the-lock", ttl=10)
assert second.acquire(timeout=5)
order.append("second")
second.release()
assert order == ["first", "second"]

# cluster and maintenance
members = list(client.members)
assert members
assert members[0].name, members
status = client.status()
assert status.leader is not None
assert status.db_size > 0
assert client.hash() is not None
assert list(client.list_alarms()) == []
with open(sys.argv[2], "wb") as file:
    client.snapshot(file)
revision = client.get("won")[1].mod_revision
client.compact(revision)
client.defragment()
refusal = ""
try:
    client.put("", "empty")
except Exception as error:
    refusal = repr(error)
assert "key is not provided" in refusal, refusal
time.sleep(0.1)
print("etcd3: all passed")
