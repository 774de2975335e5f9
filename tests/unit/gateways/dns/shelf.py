"""A catalog that is filled by hand, and questions to a responder that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dns.message
import dns.rrset

from kvstore.gateways.dns.counts import Counts
from kvstore.gateways.dns.responder import Later, Responder
from kvstore.gateways.dns.settings import make_settings
from kvstore.registry.catalog import Delta, Entry, Service, Subscription, Told
from kvstore.registry.model import Instance, encode
from kvstore.registry.names import DEFAULT_NAMESPACE, InstanceName, ServiceName

__all__ = ("Desk", "Shelf", "instance")


def instance(id_: str = "payment-1", address: str = "10.0.1.6", **fields: Any) -> Instance:
    more: dict[str, Any] = {
        "namespace": "default",
        "service": "payment",
        "ports": {"http": 8080},
        "ttl_s": 30,
        **fields,
    }
    return Instance(id=id_, address=address, **more)


class Shelf:
    """Stands in for `kvstore.registry.catalog.Catalog`."""

    def __init__(self, *instances: Instance) -> None:
        self.services: dict[ServiceName, Service] = {}
        self.revision = 1
        self.ready = True
        self.namespaces = {DEFAULT_NAMESPACE}
        self._subscriptions: dict[Subscription, None] = {}
        self.put(*instances)

    def put(self, *instances: Instance) -> None:
        self.write(*((each.name, encode(each)) for each in instances))

    def write(self, *values: tuple[InstanceName, bytes]) -> None:
        """Values as they are stored."""
        deltas = []
        self.revision += 1
        for name, value in values:
            service = self.services.setdefault(name.of, Service(name.of))
            after = Entry(name, value, self.revision, 0)
            deltas.append(Delta(self.revision, service.entries.get(name.id), after, None))
            service.entries[name.id] = after
            service.revision = self.revision
        self._tell(deltas)

    def remove(self, name: InstanceName) -> None:
        self.revision += 1
        service = self.services[name.of]
        before = service.entries.pop(name.id)
        service.revision = self.revision
        if not service.entries:
            del self.services[name.of]
        self._tell([Delta(self.revision, before, None, None)])

    def replace(self) -> None:
        """Everything may have changed."""
        self._tell(None)

    def _tell(self, deltas: list[Delta] | None) -> None:
        for each in list(self._subscriptions):
            each.told(deltas)

    def service(self, name: ServiceName) -> Service | None:
        return self.services.get(name)

    def service_revision(self, name: ServiceName) -> int:
        service = self.services.get(name)
        return service.revision if service is not None else self.revision

    def entry(self, name: InstanceName) -> Entry | None:
        service = self.services.get(name.of)
        return service.entries.get(name.id) if service is not None else None

    def has_namespace(self, namespace: str) -> bool:
        return namespace in self.namespaces

    def subscribe(self, told: Told, service: ServiceName | None = None) -> Subscription:
        subscription = Subscription(told, self._subscriptions)
        self._subscriptions[subscription] = None
        return subscription


class Desk:
    """A responder over a shelf; longer work is done when it is asked for."""

    def __init__(self, shelf: Shelf, **settings: Any) -> None:
        self.shelf = shelf
        self.counts = Counts()
        self.works: list[Iterator[None]] = []
        more: Mapping[str, Any] = {"ttl_s": 5, "consul_domain": "consul", **settings}
        made = make_settings(
            more.get("zone", "kv.local"), **{k: more[k] for k in more if k != "zone"}
        )
        self.responder = Responder(made, shelf, self.works.append, self.counts)  # type: ignore[arg-type]
        self.responder.start()
        self.work()

    def work(self) -> None:
        """Does all that was put off."""
        while self.works:
            for _ in self.works.pop(0):
                pass

    def send(self, message: bytes, *, udp: bool = True) -> bytes | None:
        """A message and its answer, as bytes."""
        answer = self.responder.respond(message, udp=udp)
        if isinstance(answer, Later):
            assert self.responder.when_read(answer, lambda: None)
            self.work()
            answer = self.responder.respond(message, udp=udp)
        assert not isinstance(answer, Later)
        return answer

    def ask(self, name: str, kind: str = "A", *, udp: bool = False, **how: Any) -> Any:
        """A question, and what dnspython reads in its answer."""
        query = dns.message.make_query(name, kind, **how)
        wire = self.send(query.to_wire(), udp=udp)
        assert wire is not None
        answer = dns.message.from_wire(wire)
        assert query.is_response(answer)
        return answer

    def text(self, question: str, **how: Any) -> str:
        """`<name> <type>` as people read the answer; records in order of their text."""
        name, _, kind = question.partition(" ")
        answer = self.ask(name, kind or "A", **how)
        lines = [dns.rcode.to_text(answer.rcode())]
        for title, section in (
            ("", answer.answer),
            ("authority ", answer.authority),
            ("additional ", answer.additional),
        ):
            lines += sorted(f"{title}{line}" for each in section for line in str(each).split("\n"))
        return "\n".join(lines)
