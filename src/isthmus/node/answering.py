"""Answers one question for a name: from the control plane's table, or from the pod's own servers.

A name of the table is never said not to exist: kinds of records that the table does not hold are
asked for upstream, and a denial from there becomes an empty answer.

Source: spec section 4.10.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from isthmus.base import dns, errors, logs, metrics
from isthmus.node import names, resolvers

TTL_S = 30
MOST_WAITING = 256
"""Questions that wait for upstream at one time; what comes beyond is told to try again."""

_LOG = logs.Log("isthmus.dns")


class Counters:
    """What is counted of questions, by Istio's own names."""

    def __init__(self, registered: metrics.Metrics) -> None:
        self.requests = registered.counter(
            "istio_agent_dns_requests_total", "Questions for names that the pod asked."
        )
        self.upstream = registered.counter(
            "istio_agent_dns_upstream_requests_total", "Questions that were passed on."
        )
        self.failures = registered.counter(
            "istio_agent_dns_upstream_failures_total", "Questions that no server answered."
        )
        for each in (self.requests, self.upstream, self.failures):
            each.add(0)


@dataclass(slots=True)
class Answering:
    """Answers questions; has no socket of its own.

    Attributes:
        table: What is known; None until the control plane has said it.
    """

    forms: names.Forms
    upstream: resolvers.Upstream
    counters: Counters
    table: names.Names | None = None
    shuffled: random.Random = field(default_factory=random.Random)
    _waiting: int = 0

    def take(self, table: bytes) -> str:
        """Take a new table; return why it cannot be used, or nothing."""
        try:
            self.table = names.read(table, forms=self.forms)
        except errors.IsthmusError as error:
            _LOG.error("table of names refused", reason=error.happened, detail=error.detail)
            return error.happened
        _LOG.debug("table of names taken", size_bytes=len(table))
        return ""

    def at_once(self, message: bytes, *, longest: int | None = None) -> bytes | None:
        """Answer what can be answered without asking anybody; None if it cannot.

        `longest` limits the reply; None leaves it to what the client says of itself.
        """
        self.counters.requests.add()
        try:
            question = dns.question_of(message)
        except dns.MalformedError:
            return dns.refusal(message, code=dns.MALFORMED)
        found = self._found(question)
        if found is None or question.kind not in (dns.A, dns.AAAA, dns.CNAME, dns.ANY):
            return None
        records = list(self._records(question, found))
        return dns.reply(question, records, longest=longest or question.limit)

    async def asked(self, message: bytes, *, by_stream: bool) -> bytes:
        """Have a question answered by somebody else."""
        question = dns.question_of(message)
        if self._waiting >= MOST_WAITING:
            self.counters.failures.add()
            return dns.reply(question, code=dns.FAILED)
        self._waiting += 1
        self.counters.upstream.add()
        try:
            reply = await self.upstream.ask(message, question, by_stream=by_stream)
        except OSError as error:
            self.counters.failures.add()
            _LOG.debug("no server answers", name=question.name, reason=str(error))
            return dns.reply(question, code=dns.FAILED)
        finally:
            self._waiting -= 1
        if dns.code_of(reply) == dns.NO_SUCH_NAME and self._found(question) is not None:
            return dns.with_code(reply, dns.NO_ERROR)
        return reply

    def _found(self, question: dns.Question) -> names.Found | None:
        if self.table is None or not question.is_usual or not question.name:
            return None
        return self.table.find(question.name)

    def _records(self, question: dns.Question, found: names.Found) -> Iterator[dns.Record]:
        if found.host != question.name:
            yield dns.alias_record(question.name, found.host, ttl_s=TTL_S)
        # Clients take the first: those of a service without an address of its own take turns.
        for address in self.shuffled.sample(found.addresses, len(found.addresses)):
            record = dns.address_record(found.host, address, ttl_s=TTL_S)
            if question.kind in (record.kind, dns.ANY):
                yield record
