"""What an injector knows apart from the pod: images, addresses, names of the mesh.

Filled from the ConfigMap `istio-sidecar-injector` (`values` and `config`, in the shape of
Istio's) and the mesh's settings; whatever is absent there has Istio's default.

Source: spec sections 5.2 and 5.3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.base import version
from isthmus.inject.shapes import Obj
from isthmus.mesh import settings as mesh_settings

DEFAULT_HUB: Final = "docker.io/istio"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one container may use, as Kubernetes quantities; empty leaves it open."""

    cpu: str = "100m"
    memory: str = "128Mi"
    cpu_limit: str = "2000m"
    memory_limit: str = "1024Mi"


@dataclass(frozen=True, slots=True)
class InjectionSettings:
    """Everything that is the same for all pods of one injector.

    Attributes:
        image: The proxy's image, complete with registry and tag.
        network: Network of pods of this cluster; the webhook's path may name another.
        cluster: Cluster of pods of this cluster; the webhook's path may name another.
        discovery_address: Where proxies get their configuration; empty for the usual one.
        ca_address: Where proxies get their certificates; empty for the usual one.
        revision: Of this control plane; empty for the default one.
        proxy_metadata: Variables for every proxy.
        proxy_config: The mesh's `defaultConfig`, without the metadata.
        policy_enabled: Whether pods that say nothing are injected.
        never: Label selectors of pods that are never injected unless they ask for it.
        always: Label selectors of pods that are injected although the policy says no.
        rewrites_probes: Whether the application's probes go through the agent.
    """

    image: str = f"{DEFAULT_HUB}/proxyv2:{version.PROXY_VERSION}"
    network: str = ""
    cluster: str = "Kubernetes"
    mesh_id: str = ""
    trust_domain: str = "cluster.local"
    discovery_address: str = ""
    ca_address: str = ""
    revision: str = ""
    namespace: str = "istio-system"
    domain: str = "cluster.local"
    proxy_metadata: tuple[tuple[str, str], ...] = ()
    proxy_config: tuple[tuple[str, str | int | bool], ...] = ()
    resources: Resources = Resources()
    init_resources: Resources = Resources()
    policy_enabled: bool = True
    never: tuple[Obj, ...] = ()
    always: tuple[Obj, ...] = ()
    rewrites_probes: bool = True
    merges_metrics: bool = True
    holds_application: bool = False
    log_level: str = "warning"
    component_log_level: str = "misc:error"
    agent_log_level: str = "default:info"
    status_port: int = 15020
    include_ranges: str = "*"
    exclude_ranges: str = ""
    include_inbound: str = "*"
    exclude_inbound: str = ""
    include_outbound: str = ""
    exclude_outbound: str = ""
    pull_policy: str = ""
    pull_secrets: tuple[str, ...] = ()

    @property
    def revision_label(self) -> str:
        """What pods say in `istio.io/rev`."""
        return self.revision or "default"

    @property
    def own_address(self) -> str:
        """Host and port of the control plane in the pod's cluster."""
        suffix = f"-{self.revision}" if self.revision else ""
        return f"istiod{suffix}.{self.namespace}.svc:15012"


def read(
    values: Mapping[str, object],
    *,
    config: Mapping[str, object],
    mesh: mesh_settings.MeshSettings,
    default_config: Mapping[str, object] | None = None,
) -> InjectionSettings:
    """Read settings from parsed `values` and `config`, the mesh, and its `defaultConfig`."""
    found = _Tree(values)
    proxy = found.below("global", "proxy")
    defaults = _Tree(default_config or {})
    own = InjectionSettings()
    return InjectionSettings(
        image=_image(found),
        network=found.text("global", "network"),
        cluster=found.text("global", "multiCluster", "clusterName") or own.cluster,
        mesh_id=found.text("global", "meshID") or mesh.mesh_id,
        trust_domain=str(mesh.trust_domain),
        discovery_address=defaults.text("discoveryAddress"),
        ca_address=found.text("global", "caAddress"),
        revision=_revision(found.text("revision")),
        namespace=found.text("global", "istioNamespace") or own.namespace,
        domain=proxy.text("clusterDomain") or mesh.domain,
        proxy_metadata=tuple(
            sorted(
                (key, _variable(value))
                for key, value in defaults.below("proxyMetadata").tree.items()
            )
        ),
        proxy_config=tuple(
            (key, value)
            for key, value in sorted(defaults.tree.items())
            if isinstance(value, str | int | bool)
        ),
        resources=_resources(proxy.below("resources")),
        init_resources=_resources(found.below("global", "proxy_init", "resources")),
        policy_enabled=str(config.get("policy") or "enabled") != "disabled",
        never=_objects(config.get("neverInjectSelector")),
        always=_objects(config.get("alwaysInjectSelector")),
        rewrites_probes=found.flag("sidecarInjectorWebhook", "rewriteAppHTTPProbe", default=True),
        merges_metrics=_Tree(values).flag("meshConfig", "enablePrometheusMerge", default=True),
        holds_application=defaults.flag("holdApplicationUntilProxyStarts", default=False),
        log_level=proxy.text("logLevel") or own.log_level,
        component_log_level=proxy.text("componentLogLevel") or own.component_log_level,
        agent_log_level=found.text("global", "logging", "level") or own.agent_log_level,
        status_port=proxy.number("statusPort") or own.status_port,
        include_ranges=proxy.text("includeIPRanges") or own.include_ranges,
        exclude_ranges=proxy.text("excludeIPRanges"),
        include_inbound=proxy.text("includeInboundPorts") or own.include_inbound,
        exclude_inbound=proxy.text("excludeInboundPorts"),
        include_outbound=proxy.text("includeOutboundPorts"),
        exclude_outbound=proxy.text("excludeOutboundPorts"),
        pull_policy=found.text("global", "imagePullPolicy"),
        pull_secrets=_texts(found.below("global").tree.get("imagePullSecrets")),
    )


@dataclass(frozen=True, slots=True)
class _Tree:
    tree: Mapping[str, object]

    def below(self, *path: str) -> "_Tree":
        found: object = self.tree
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return _Tree(found if isinstance(found, Mapping) else {})

    def text(self, *path: str) -> str:
        value = self.below(*path[:-1]).tree.get(path[-1])
        return str(value) if isinstance(value, str | int | float) else ""

    def number(self, *path: str) -> int:
        text = self.text(*path)
        return int(text) if text.isdecimal() else 0

    def flag(self, *path: str, default: bool) -> bool:
        value = self.below(*path[:-1]).tree.get(path[-1])
        return default if value is None else str(value).lower() == "true"


def _revision(text: str) -> str:
    # The default revision may be named; its objects bear no suffix all the same.
    return "" if text == "default" else text


def _image(values: _Tree) -> str:
    image = values.text("global", "proxy", "image") or "proxyv2"
    if "/" in image:
        return image
    hub = values.text("global", "hub") or DEFAULT_HUB
    return f"{hub}/{image}:{values.text('global', 'tag') or version.PROXY_VERSION}"


def _variable(value: object) -> str:
    # YAML without quotes makes a boolean of what is a variable's text.
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resources(tree: _Tree) -> Resources:
    own = Resources()
    return Resources(
        cpu=tree.text("requests", "cpu") or own.cpu,
        memory=tree.text("requests", "memory") or own.memory,
        cpu_limit=tree.text("limits", "cpu") or own.cpu_limit,
        memory_limit=tree.text("limits", "memory") or own.memory_limit,
    )


def _objects(value: object) -> tuple[Obj, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(_with_words(each) for each in value if isinstance(each, Mapping))


def _with_words(tree: Mapping[object, object]) -> Obj:
    """Make text of all keys, as Kubernetes does: YAML without quotes makes numbers of some."""
    return {
        _variable(key): _with_words(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(each for each in value if isinstance(each, str))
