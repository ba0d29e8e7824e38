"""One proxy, from both sides: what it has itself, and what its control plane wants it to have.

Decides how words of a command line become a pod, and whom to ask about it. The pod's cluster and
the control plane's may be different ones.

Source: spec sections 2.6 and 9.2.
"""

import urllib.parse
from dataclasses import dataclass
from typing import Any, Final

from isthmus.cli import asking, config_dumps, options
from isthmus.kube import client as kube_client
from isthmus.kube import kinds

CONTAINER: Final = "istio-proxy"
DUMP: Final = "/config_dump?include_eds"
CLUSTER_VARIABLE: Final = "ISTIO_META_CLUSTER_ID"
OWNERS: Final = {
    "deploy": "deployments",
    "deployment": "deployments",
    "deployments": "deployments",
    "sts": "statefulsets",
    "statefulset": "statefulsets",
    "ds": "daemonsets",
    "daemonset": "daemonsets",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A pod with a proxy.

    Attributes:
        cluster: Id of its cluster, as its own container says it.
    """

    name: str
    namespace: str
    cluster: str

    @property
    def id(self) -> str:
        """How the control plane names it, in one cluster alone."""
        return ".".join(part for part in (self.name, self.namespace, self.cluster) if part)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: the pod's cluster, and the one in which its control plane runs.

    Attributes:
        home: Context of the control plane; None for the pod's own.
    """

    kubeconfig: str | None
    context: str | None
    home: str | None
    istio_namespace: str
    namespace: str

    def client(self) -> kube_client.Client:
        """Return a connection to the pod's cluster."""
        return kube_client.Client(options.accessed(self.kubeconfig, context=self.context))

    def home_client(self) -> kube_client.Client:
        """Return a connection to the control plane's cluster."""
        context = self.home or self.context
        return kube_client.Client(options.accessed(self.kubeconfig, context=context))

    async def find(self, client: kube_client.Client, words: str) -> Proxy:
        """Return the proxy of `<pod>[.<namespace>]` or `deployment/<name>[.<namespace>]`.

        Raises:
            NobodyAsked: There is no such pod, or it has no proxy (ISM-WIRE-002).
        """
        kind, _, rest = words.rpartition("/")
        name, _, in_name = rest.partition(".")
        namespace = self.namespace or in_name or client.access.namespace or "default"
        plural = OWNERS.get(kind.lower(), "")
        pod = (
            await _first_of(client, plural, name, namespace)
            if plural
            else await client.find(kinds.POD, name, namespace=namespace)
        )
        if pod is None:
            raise asking.NobodyAsked(
                f"there is no pod `{namespace}/{name}`",
                hint=f"which there are: kubectl get pods -n {namespace}; --context names a cluster",
            )
        cluster = cluster_of(pod)
        if cluster is None:
            raise asking.NobodyAsked(
                f"pod `{namespace}/{name}` has no proxy",
                detail=f"none of its containers is called `{CONTAINER}`",
                hint="label its namespace istio-injection=enabled and start the pod again",
            )
        return Proxy(str(pod["metadata"]["name"]), namespace, cluster)

    async def both_sides(self, words: str) -> tuple[config_dumps.Dump, config_dumps.Dump]:
        """Return what the control plane wants of a proxy, and what the proxy has.

        Raises:
            NobodyAsked: There is no such pod, or one of the two does not answer (ISM-WIRE-002).
        """
        async with self.client() as client:
            proxy = await self.find(client, words)
            wanted = dump_of(await self.shown_by_home(proxy, "config_dump"), proxy)
            text = await self.shown_by_proxy(client, proxy, DUMP)
            return wanted, read(text, proxy)

    async def shown_by_proxy(
        self, client: kube_client.Client, proxy: Proxy, path: str, *, method: str = "GET"
    ) -> str:
        """Return a page of the proxy's own."""
        return await asking.text(
            client,
            path,
            namespace=proxy.namespace,
            pod=proxy.name,
            programs=asking.PROXY,
            container=CONTAINER,
            method=method,
        )

    async def shown_by_home(self, proxy: Proxy, page: str, **query: str) -> Any:  # noqa: ANN401  # of JSON
        """Return a page of the control plane about the proxy."""
        said = urllib.parse.urlencode({"proxyID": proxy.id, **query})
        async with self.home_client() as client:
            return await asking.about_proxy(
                client, f"/debug/{page}?{said}", namespace=self.istio_namespace
            )


def cluster_of(pod: kube_client.Obj) -> str | None:
    """Return the id of a pod's cluster as its proxy is told it; None without a proxy."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for container in containers:
        if container.get("name") == CONTAINER:
            said = {one.get("name"): one.get("value", "") for one in container.get("env") or ()}
            return str(said.get(CLUSTER_VARIABLE, ""))
    return None


def dump_of(document: Any, proxy: Proxy) -> config_dumps.Dump:  # noqa: ANN401  # of JSON
    """Read a dump of a proxy.

    Raises:
        NotUnderstood: It is none (ISM-WIRE-003).
    """
    return config_dumps.parse(document, pod=f"{proxy.namespace}/{proxy.name}")


def read(text: str, proxy: Proxy) -> config_dumps.Dump:
    """Read a dump that a proxy wrote.

    Raises:
        NotUnderstood: It is none (ISM-WIRE-003).
    """
    return dump_of(asking.parsed(text, pod=f"{proxy.namespace}/{proxy.name}"), proxy)


async def _first_of(
    client: kube_client.Client, plural: str, name: str, namespace: str
) -> kube_client.Obj | None:
    kind = next(one for one in kinds.KNOWN if one.plural == plural)
    owner = await client.find(kind, name, namespace=namespace)
    labels = ((owner or {}).get("spec") or {}).get("selector", {}).get("matchLabels") or {}
    if not labels:
        return None
    wanted = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = await client.list_(kinds.POD, namespace=namespace, labels=wanted)
    return next((pod for pod in pods if asking.is_running(pod)), None)
