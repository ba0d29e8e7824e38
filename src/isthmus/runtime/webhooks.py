"""Keeps the bundle by which API servers verify our injector, in one cluster's webhooks.

Only webhooks of our revision whose name says that they are injectors are touched, by
compare-and-swap, and only when the bundle differs. What somebody else has put there is replaced
only while the caller may: two control planes must not fight over it.

Source: spec section 5.5.
"""

import base64
from collections.abc import Callable, Mapping, Sequence

from isthmus.base import clock, tasks
from isthmus.kube import client, informer, kinds, objects
from isthmus.runtime import reconciling

SUFFIX = "sidecar-injector.istio.io"
LABEL = "istio.io/rev"
MANAGER = "isthmus-discovery"


class ClientConfig(objects.Part, frozen=True):
    """How an API server reaches a webhook."""

    ca_bundle: str = ""


class Webhook(objects.Part, frozen=True):
    """One webhook of a configuration."""

    name: str = ""
    client_config: ClientConfig = ClientConfig()


class Configuration(objects.Object, frozen=True):
    """`admissionregistration.k8s.io/v1` MutatingWebhookConfiguration."""

    webhooks: tuple[Webhook, ...] | None = ()


class WebhookBundles:
    """Keeps one cluster's webhook bundles."""

    def __init__(
        self,
        writes: client.Client,
        *,
        revision: str,
        bundle: Callable[[], str],
        may_replace: Callable[[], bool] = lambda: True,
        system_clock: clock.Clock | None = None,
    ) -> None:
        """Prepare.

        Args:
            writes: The cluster.
            revision: Value of the label of our configurations.
            bundle: The roots as PEM; empty while there are none, then nothing is written.
            may_replace: Whether a bundle that is there already may be replaced by ours.
            system_clock: Time.
        """
        self._writes = writes
        self._bundle = bundle
        self._may_replace = may_replace
        self._clock = system_clock or clock.SystemClock()
        self._queue: reconciling.Reconciler[str] = reconciling.Reconciler(
            "webhook bundles", self._reconcile, system_clock=self._clock
        )
        self._configurations: informer.Informer[Configuration] = informer.Informer(
            writes,
            kinds.MUTATING_WEBHOOK,
            Configuration,
            on_batch=self._on_batch,
            labels=f"{LABEL}={revision}",
            system_clock=self._clock,
        )

    def bundle_changed(self) -> None:
        """Look at every configuration again."""
        self._queue.mark(*(name for _, name in self._configurations.items))

    async def run(self) -> None:
        """Keep the bundles until cancelled."""
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            _ = nursery.keep("follow webhooks", self._configurations.run)
            await self._queue.run()

    def _on_batch(self, changes: Mapping[informer.Key, Configuration | None]) -> None:
        self._queue.mark(*(name for (_, name), value in changes.items() if value is not None))

    async def _reconcile(self, name: str) -> bool:
        bundle = base64.b64encode(self._bundle().encode()).decode()
        seen = self._configurations.items.get(("", name))
        if seen is None or not bundle:
            return False
        if not self._is_ours_to_write(
            [one.client_config.ca_bundle for one in seen.webhooks or () if _injects(one.name)],
            bundle,
        ):
            return False
        stored = await self._writes.find(kinds.MUTATING_WEBHOOK, name)
        configs = [
            one.setdefault("clientConfig", {})
            for one in (stored or {}).get("webhooks") or []
            if _injects(str(one.get("name", "")))
        ]
        # What we saw may be older than what is there.
        present = [str(one.get("caBundle") or "") for one in configs]
        if stored is None or not self._is_ours_to_write(present, bundle):
            return False
        for one in configs:
            one["caBundle"] = bundle
        await self._writes.update(kinds.MUTATING_WEBHOOK, stored, field_manager=MANAGER)
        return True

    def _is_ours_to_write(self, present: Sequence[str], bundle: str) -> bool:
        foreign = any(one not in ("", bundle) for one in present)
        return any(one != bundle for one in present) and (not foreign or self._may_replace())


def _injects(name: str) -> bool:
    return name.endswith(SUFFIX)
