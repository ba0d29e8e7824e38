"""What the annex knows and answers.

It works with what it was told last and with nothing else, and asks nobody.

Source: spec sections 1.4 and 5.2; docs/decisions/0044.
"""

import datetime
from dataclasses import dataclass, field

from isthmus.base import clock, errors, logs, metrics
from isthmus.ca import authority as authorities
from isthmus.ca import signing
from isthmus.inject import injection
from isthmus.runtime.annex import messages
from isthmus.wire import notary, tls, webhook

_LOG = logs.Log("isthmus.annex")

Totals = tuple[int, int, int, int]


@dataclass(slots=True)
class Works:
    """The annex's whole state.

    Attributes:
        serving: What the webhook is served with; None while it cannot be.
        hook: Answers API servers.
    """

    clock: clock.Clock
    serving: tls.Serving | None = None
    hook: webhook.Webhook = field(init=False)
    _state: messages.State | None = None
    _authority: authorities.Authority | None = None
    _counted: Totals = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        self.hook = webhook.Webhook(
            injection.injector(lambda: self._state.injection if self._state else None),
            unready=lambda: self._state.unready if self._state else "nothing is known yet",
        )

    def take(self, state: messages.State) -> None:
        """Work with another state from now on."""
        before, self._state = self._state, state
        if before is None or state.authority != before.authority:
            self._authority = self._loaded(state)
        if state.chain_pem and (before is None or state.chain_pem != before.chain_pem):
            self._show(state)

    def sign(self, asked: messages.Sign) -> messages.Signed:
        """Sign, or say why not."""
        outcome = notary.Notary(lambda: self._authority, self.clock, self._limits()).sign(
            asked.wanted
        )
        if isinstance(outcome, notary.Unsigned):
            return messages.Signed(asked.number, (), outcome)
        return messages.Signed(asked.number, outcome.chain)

    def counted(self) -> messages.Counted | None:
        """Return what was counted since the last time; None if that is nothing."""
        own = self.hook.counters
        now = (_total(own.requests), _total(own.success), _total(own.failure), _total(own.skip))
        since = [new - old for new, old in zip(now, self._counted, strict=True)]
        self._counted = now
        return messages.Counted(*since) if any(since) else None

    def _limits(self) -> signing.Lifetimes:
        if self._state is None:
            return signing.Lifetimes()
        return signing.Lifetimes(
            datetime.timedelta(seconds=self._state.usual_s),
            datetime.timedelta(seconds=self._state.longest_s),
        )

    def _loaded(self, state: messages.State) -> authorities.Authority | None:
        if not state.authority:
            return None
        try:
            return authorities.load(state.authority, now=self.clock.now())
        except errors.IsthmusError as error:
            # It was found to be good before it was told; only time can have changed that.
            _LOG.error("certificate authority cannot be used", reason=error.happened)
            return None

    def _show(self, state: messages.State) -> None:
        shown = tls.Certificate(
            chain_pem=state.chain_pem,
            key_pem=state.key_pem,
            roots_pem="",
            renew_at=self.clock.now(),
        )
        if self.serving is None:
            self.serving = tls.Serving(shown)
        else:
            self.serving.replace(shown)


def _total(counter: metrics.Metric) -> int:
    return int(sum(counter.values.values()))
