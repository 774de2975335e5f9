"""From the bytes of a question to those of its answer: reads, looks into the cache, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from kvstore.gateways.dns.answers import Answers
from kvstore.gateways.dns.cache import Cache, Kept
from kvstore.gateways.dns.counts import Counts
from kvstore.gateways.dns.limits import (
    TCP_BYTES_MAX,
    UDP_BYTES_MAX,
    UDP_BYTES_PLAIN,
    UNREAD_MAX,
    WAITING_MAX,
)
from kvstore.gateways.dns.names import Asked, What, read_name
from kvstore.gateways.dns.reverse import ReverseIndex, Run
from kvstore.gateways.dns.settings import DnsSettings
from kvstore.gateways.dns.wire import (
    Finished,
    Malformed,
    Query,
    error_answer,
    read_plain,
    read_query,
    refuse,
)
from kvstore.registry.catalog import Catalog
from kvstore.registry.names import ServiceName

__all__ = ("Later", "Responder")

_NOT_DONE_HERE = frozenset((RdataType.AXFR, RdataType.IXFR, RdataType.MAILA, RdataType.MAILB))
_FIXED = frozenset((What.NOTHING, What.BRANCH, What.VERSION, What.ADDRESS, What.NAME_SERVER))
"""Their answers never change: resolvers that append search domains ask for such names all day."""
_ALWAYS = -1
"""In the place of the revision as of which an answer holds."""


class Later:
    """The service that is asked for was not read yet: ask again when it was."""

    def __init__(self, service: ServiceName) -> None:
        self.service = service


class Responder:
    """Answers questions, whatever way they came."""

    def __init__(self, settings: DnsSettings, catalog: Catalog, run: Run, counts: Counts) -> None:
        self._settings = settings
        self._catalog = catalog
        self._run = run
        self._counts = counts
        self._reverse = ReverseIndex(catalog, run)
        self._answers = Answers(settings, catalog, self._reverse.find)
        self._cache = Cache()
        self._refusals = Cache()
        """Apart: whoever asks for ever other names that do not exist displaces no answers."""
        self._turn = 0
        self._waiting: dict[ServiceName, list[Callable[[], None]]] = {}
        self._waiters = 0

    def start(self) -> None:
        """Follows the catalog from now on."""
        self._reverse.start()

    def stop(self) -> None:
        """Ends that."""
        self._reverse.stop()
        self._waiting.clear()

    @property
    def cached(self) -> int:
        """Answers that are kept."""
        return len(self._cache) + len(self._refusals)

    def respond(self, message: bytes, *, udp: bool) -> bytes | Later | None:
        """The answer to a message; None if it gets none."""
        query = read_plain(message)
        if query is None:
            read = read_query(message)
            if read is None:
                self._counts.drops["no question"] += 1
                return None
            if isinstance(read, Malformed):
                self._counts.rcodes[read.rcode] += 1
                return error_answer(read)
            if read.bad_version:
                return self._refused(read, Rcode.BADVERS)
            query = read
        question = query.question.lower()
        kept = self._cache.get(question) or self._refusals.get(question)
        if kept is not None and kept.revision in (_ALWAYS, self._revision(kept.basis)):
            self._counts.hits += 1
            finished = kept.finished
        else:
            made = self._make(query, question)
            if not isinstance(made, Finished):
                return made
            finished = made
        return self._send(query, finished, udp=udp)

    def _send(self, query: Query, finished: Finished, *, udp: bool) -> bytes:
        question = query.question
        counts = self._counts
        counts.types[question[-4] << 8 | question[-3]] += 1
        counts.rcodes[finished.rcode] += 1
        if not udp:
            limit = TCP_BYTES_MAX
        elif query.edns:
            limit = min(query.edns, UDP_BYTES_MAX)
        else:
            limit = UDP_BYTES_PLAIN
        answer = finished.message(query, limit)
        if answer[2] & 2:
            counts.truncated += 1
        return answer

    def _revision(self, basis: ServiceName | None) -> int:
        if basis is None:
            return self._catalog.revision
        return self._catalog.service_revision(basis)

    # ---- what is not in the cache ----------------------------------------------------------

    def _make(self, query: Query, question: bytes) -> Finished | Later | bytes:
        """A new answer; bytes: a refusal that is not kept."""
        name = question[: query.name_bytes]
        kind, of_class = question[-4] << 8 | question[-3], question[-2] << 8 | question[-1]
        if kind in _NOT_DONE_HERE:
            return self._refused(query, Rcode.NOTIMP)
        if kind == RdataType.OPT:
            return self._refused(query, Rcode.FORMERR)
        asked = self._read(name)
        if asked is None or of_class not in (RdataClass.IN, RdataClass.ANY):
            return self._refused(query, Rcode.REFUSED)
        if not self._catalog.ready or (asked.what is What.REVERSE and not self._reverse.complete):
            return self._refused(query, Rcode.SERVFAIL)
        if asked.service is not None and self._unread(asked.service) > UNREAD_MAX:
            return Later(asked.service)
        revision = _ALWAYS if asked.what in _FIXED else self._revision(asked.service)
        self._turn += 1
        answer = self._answers.answer(asked, name, kind, self._turn)
        finished = Finished(answer, name)
        if not answer.once:
            cache, other = self._cache, self._refusals
            if not answer.groups:
                cache, other = other, cache
            other.drop(question)
            cache.put(question, Kept(finished, answer.basis, revision))
        return finished

    def _refused(self, query: Query, rcode: Rcode) -> bytes:
        self._counts.types[query.question[-4] << 8 | query.question[-3]] += 1
        self._counts.rcodes[rcode] += 1
        return refuse(query, rcode)

    def _read(self, name: bytes) -> Asked | None:
        """What a name asks for; None outside of our zones."""
        labels: list[bytes] = []
        at = 0
        zones = self._settings.zones
        while True:
            zone = zones.get(name[at:])
            if zone is not None:
                return read_name(zone, labels, name)
            length = name[at]
            if not length:
                return None
            labels.append(name[at + 1 : at + 1 + length])
            at += 1 + length

    # ---- large services that nobody has read yet -------------------------------------------

    def _unread(self, name: ServiceName) -> int:
        service = self._catalog.service(name)
        if service is None or len(service.entries) <= UNREAD_MAX:
            return 0
        return sum(not entry.is_read for entry in service.entries.values())

    def when_read(self, later: Later, then: Callable[[], None]) -> bool:
        """Calls `then` once the service was read; False if too many wait already."""
        if self._waiters >= WAITING_MAX:
            self._counts.drops["waiting"] += 1
            return False
        self._waiters += 1
        waiting = self._waiting.get(later.service)
        if waiting is not None:
            waiting.append(then)
            return True
        self._waiting[later.service] = [then]
        self._run(self._read_service(later.service))
        return True

    def _read_service(self, name: ServiceName) -> Iterator[None]:
        service = self._catalog.service(name)
        for entry in list(service.entries.values()) if service is not None else ():
            if not entry.is_read:
                _ = entry.instance
                yield
        for then in self._waiting.pop(name, ()):
            self._waiters -= 1
            then()
            yield
