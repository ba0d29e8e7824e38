"""What is to be installed, as values: one checked document becomes named choices.

Decides what a profile and its values mean; knows nothing of the objects that follow.

Source: spec sections 6.1 to 6.4.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.base import version
from isthmus.install import operator
from isthmus.install.operator import OptionsRefused, Tree

PROFILES: Mapping[str, Tree] = {
    "default": {"base": True, "pilot": True, "ingress": True, "egress": False},
    "ambient": {"base": True, "pilot": True, "ingress": False, "egress": False, "nodes": True},
    "demo": {"base": True, "pilot": True, "ingress": True, "egress": True},
    "minimal": {"base": True, "pilot": True, "ingress": False, "egress": False},
    "remote": {"base": True, "pilot": True, "ingress": False, "egress": False},
    "empty": {"base": False, "pilot": False, "ingress": False, "egress": False},
}

PROFILE_ENV: Mapping[str, Mapping[str, str]] = {
    # Gateways are what other networks reach an ambient mesh by.
    "ambient": {
        "PILOT_ENABLE_AMBIENT": "true",
        "PILOT_ENABLE_GATEWAY_API": "true",
        "PILOT_ENABLE_IP_AUTOALLOCATE": "true",
    },
}
PROFILE_CONFIG: Mapping[str, Tree] = {
    "ambient": {
        # Pods with sidecars talk to those without as well.
        "defaultConfig": {"proxyMetadata": {"ISTIO_META_ENABLE_HBONE": "true"}},
        "serviceScopeConfigs": [
            {
                "servicesSelector": {
                    "matchExpressions": [
                        {"key": "istio.io/global", "operator": "In", "values": ["true"]}
                    ]
                },
                "scope": "GLOBAL",
            }
        ],
    },
}
"""What profiles say beside which components there are."""

PROXY_HUB = "docker.io/istio"
PILOT_IMAGE = "docker.io/isthmus/pilot"
SYSTEM_NAMESPACE = "istio-system"
REMOTE_DISCOVERY = "istiod-remote"
"""The Service by which proxies reach another cluster's control plane, beside one of their own."""


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a gateway's Service."""

    name: str
    port: int
    target_port: int
    protocol: str = "TCP"


INGRESS_PORTS = (
    Port("status-port", 15021, 15021),
    Port("http2", 80, 8080),
    Port("https", 443, 8443),
)
PASSING_PORT = Port("tls", 15443, 15443)
EXPANSION_PORT = Port("tcp-istiod", 15012, 15012)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: a Deployment of proxies and the Service before it."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    ports: tuple[Port, ...] = INGRESS_PORTS
    env: Mapping[str, str] = field(default_factory=dict)
    service_type: str = "LoadBalancer"
    service_annotations: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    replicas: int = 1
    resources: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Nodes:
    """What each node has of ambient mode.

    Attributes:
        agent: Whether it has the agent that enrols pods.
        proxy: Whether it has a proxy for them.
        proxy_env: Environment of that proxy, over its defaults.
        captures_dns: Whether it answers their questions for names.
    """

    agent: bool = False
    proxy: bool = False
    agent_image: str = f"{PROXY_HUB}/install-cni:{version.PROXY_VERSION}"
    proxy_image: str = f"{PROXY_HUB}/ztunnel:{version.PROXY_VERSION}"
    proxy_env: Mapping[str, str] = field(default_factory=dict)
    captures_dns: bool = True


@dataclass(frozen=True, slots=True)
class Options:
    """All that the manifests depend on.

    Attributes:
        remote: Whether the control plane is in another cluster (profile `remote`).
        cluster: Id of this cluster; empty leaves it to the injection path.
        pilot_env: Environment of the control plane, over its defaults.
        issuers_roots: Certificates, as PEM, by which those are believed whose keys of tokens are fetched.
        remote_address: Where the control plane is reached, for `remote`. Otherwise only proxies'
            configuration comes from there, while a control plane here injects and signs.
        mesh_config: MeshConfig fields that were given.
        mesh_networks: MeshNetworks' `networks` that were given.
        expands_mesh: Whether the ingress gateway leads to the control plane.
        strict: Whether workloads accept nothing but mutual TLS.
        is_config_cluster: Whether a control plane elsewhere is configured from here (with `remote`).
        shares_mesh_config: Whether its settings may be completed here (with `remote`).
        brings_webhook: Whether the injection webhook is among the objects.
        nodes: What each node has of ambient mode.
        spec: The document that all this was read from.
    """

    profile: str = "default"
    revision: str = ""
    namespace: str = SYSTEM_NAMESPACE
    base: bool = True
    pilot: bool = True
    remote: bool = False
    gateways: tuple[Gateway, ...] = ()
    cluster: str = ""
    network: str = ""
    mesh_id: str = ""
    proxy_image: str = f"{PROXY_HUB}/proxyv2:{version.PROXY_VERSION}"
    pilot_image: str = f"{PILOT_IMAGE}:{version.VERSION}"
    pilot_env: Mapping[str, str] = field(default_factory=dict)
    pilot_replicas: int = 1
    pilot_resources: Mapping[str, object] = field(default_factory=dict)
    issuers_roots: str = ""
    autoscaled: bool = True
    remote_address: str = ""
    injection_path: str = "/inject"
    injection_url: str = ""
    injection_ca_bundle: str = ""
    mesh_config: Tree = field(default_factory=dict)
    mesh_networks: Tree = field(default_factory=dict)
    expands_mesh: bool = False
    strict: bool = False
    is_config_cluster: bool = False
    shares_mesh_config: bool = False
    brings_webhook: bool = True
    nodes: Nodes = field(default_factory=Nodes)
    values: Tree = field(default_factory=dict)
    spec: Tree = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """What names of objects end with: nothing, or the revision."""
        return f"-{self.revision}" if self.revision else ""

    @property
    def revision_label(self) -> str:
        """The value of `istio.io/rev`."""
        return self.revision or "default"

    @property
    def runs_outside(self) -> bool:
        """Whether the control plane's mesh is configured in another cluster than its own."""
        return self.pilot_env.get("LOCAL_CLUSTER_SECRET_WATCHER") == "true"

    @property
    def links_clusters(self) -> bool:
        """Whether the control plane talks to those of linked clusters."""
        said = self.pilot_env.get("ENABLE_PEERING_DISCOVERY", "")
        return said.lower() in {"true", "1"}

    @property
    def runs_gateways(self) -> bool:
        """Whether the control plane obeys and runs Gateways of the Gateway API."""
        return self.pilot_env.get("PILOT_ENABLE_GATEWAY_API") == "true"

    @property
    def writes_addresses(self) -> bool:
        """Whether the control plane writes addresses of its making into ServiceEntries."""
        return self.pilot_env.get("PILOT_ENABLE_IP_AUTOALLOCATE") == "true"


def of_spec(spec: Tree) -> Options:
    """Say what a checked spec asks for.

    Raises:
        OptionsRefused: A profile does not exist or values contradict each other
            (ISM-INST-001).
    """
    values = operator.merged(_tree(spec, "values"), _tree(spec, "unvalidatedValues"))
    profile = str(spec.get("profile") or values.get("profile") or "default")
    if profile not in PROFILES:
        raise OptionsRefused(
            f"unknown profile: `{profile}`",
            still_working="nothing was changed in the cluster",
            hint=f"profiles: {', '.join(PROFILES)}",
        )
    globals_ = _tree(values, "global")
    remote = _tree(values, "istiodRemote")
    pilot = _tree(values, "pilot")
    namespace = str(spec.get("namespace") or globals_.get("istioNamespace") or SYSTEM_NAMESPACE)
    is_remote = profile == "remote" or remote.get("enabled") is True
    injects_here = remote.get("enabledLocalInjectorIstiod") is True
    address = _remote_address(globals_, is_needed=is_remote and not remote.get("injectionURL"))
    is_remote = is_remote and not injects_here
    components = _tree(spec, "components")
    return Options(
        profile=profile,
        revision=_revision(spec, values),
        namespace=namespace,
        base=_enabled(components, "base", PROFILES[profile]["base"] is True),
        pilot=_enabled(components, "pilot", PROFILES[profile]["pilot"] is True),
        remote=is_remote,
        gateways=_gateways(components, profile, namespace, values),
        cluster=str(_tree(globals_, "multiCluster").get("clusterName") or ""),
        network=str(globals_.get("network") or ""),
        mesh_id=str(globals_.get("meshID") or ""),
        proxy_image=_proxy_image(spec, globals_),
        pilot_image=_pilot_image(pilot),
        pilot_env={**_profile_env(profile, values), **_pilot_env(components, pilot, globals_)},
        pilot_replicas=_number(pilot, "replicaCount", 1),
        pilot_resources=_tree(pilot, "resources"),
        issuers_roots=str(pilot.get("jwksResolverExtraRootCA") or ""),
        autoscaled=pilot.get("autoscaleEnabled", True) is True,
        remote_address=address,
        injection_path=str(remote.get("injectionPath") or "/inject"),
        injection_url=str(remote.get("injectionURL") or ""),
        injection_ca_bundle=str(remote.get("injectionCABundle") or ""),
        mesh_config=_mesh_config(spec, values, namespace, is_remote=is_remote),
        mesh_networks=_tree(globals_, "meshNetworks"),
        expands_mesh=_tree(globals_, "meshExpansion").get("enabled") is True,
        strict=_tree(globals_, "mtls").get("enabled") is True,
        is_config_cluster=is_remote and globals_.get("configCluster") is True,
        shares_mesh_config=is_remote and pilot.get("configMap") is True,
        brings_webhook=globals_.get("operatorManageWebhooks") is not True,
        nodes=_nodes(spec, values, profile),
        values=values,
        spec=spec,
    )


def _profile_env(profile: str, values: Tree) -> dict[str, str]:
    """Return the environment of the control plane that a profile and platforms stand for."""
    peers = _tree(_tree(values, "platforms"), "peering").get("enabled") is True
    found = {"ENABLE_PEERING_DISCOVERY": "true"} if peers else {}
    return dict(PROFILE_ENV.get(profile, {})) | found


def _nodes(spec: Tree, values: Tree, profile: str) -> Nodes:
    components, globals_ = _tree(spec, "components"), _tree(values, "global")
    cni, ztunnel = _tree(values, "cni"), _tree(values, "ztunnel")
    usual = PROFILES[profile].get("nodes") is True
    return Nodes(
        agent=_enabled(components, "cni", usual),
        proxy=_enabled(components, "ztunnel", usual),
        agent_image=_node_image("install-cni", cni, spec, globals_),
        proxy_image=_node_image("ztunnel", ztunnel, spec, globals_),
        proxy_env={key: _text(value) for key, value in _tree(ztunnel, "env").items()},
        captures_dns=_tree(cni, "ambient").get("dnsCapture", True) is True,
    )


def _node_image(name: str, chart: Tree, spec: Tree, globals_: Tree) -> str:
    image = str(chart.get("image") or name)
    if "/" in image:
        return image
    hub = str(chart.get("hub") or spec.get("hub") or globals_.get("hub") or PROXY_HUB)
    tag = str(chart.get("tag") or spec.get("tag") or globals_.get("tag") or version.PROXY_VERSION)
    return f"{hub}/{image}:{tag}"


def _mesh_config(spec: Tree, values: Tree, namespace: str, *, is_remote: bool) -> Tree:
    profile = str(spec.get("profile") or values.get("profile") or "")
    usual = operator.merged(PROFILE_CONFIG.get(profile, {}), _tree(values, "meshConfig"))
    given = operator.merged(usual, _tree(spec, "meshConfig"))
    if is_remote or not _tree(values, "global").get("remotePilotAddress"):
        return given
    address = f"{REMOTE_DISCOVERY}.{namespace}.svc:15012"
    return operator.merged({"defaultConfig": {"discoveryAddress": address}}, given)


def _revision(spec: Tree, values: Tree) -> str:
    # The default revision may be named; its objects are the same as without.
    revision = str(spec.get("revision") or values.get("revision") or "")
    return "" if revision == "default" else revision


def _tree(tree: Mapping[str, object], key: str) -> Tree:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _number(tree: Mapping[str, object], key: str, default: int) -> int:
    value = tree.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _enabled(components: Tree, name: str, default: bool) -> bool:
    enabled = _tree(components, name).get("enabled")
    return enabled if isinstance(enabled, bool) else default


def _proxy_image(spec: Tree, globals_: Tree) -> str:
    image = str(_tree(globals_, "proxy").get("image") or "proxyv2")
    if "/" in image:
        return image
    hub = str(spec.get("hub") or globals_.get("hub") or PROXY_HUB)
    tag = str(spec.get("tag") or globals_.get("tag") or version.PROXY_VERSION)
    return f"{hub}/{image}:{tag}"


def _pilot_image(pilot: Tree) -> str:
    image = str(pilot.get("image") or "")
    if "/" in image:
        return image
    hub = str(pilot.get("hub") or PILOT_IMAGE.rpartition("/")[0])
    return f"{hub}/{image or 'pilot'}:{pilot.get('tag') or version.VERSION}"


def _pilot_env(components: Tree, pilot: Tree, globals_: Tree) -> Mapping[str, str]:
    env = {str(key): _text(value) for key, value in _tree(pilot, "env").items()}
    for entry in _list(_tree(_tree(components, "pilot"), "k8s").get("env")):
        env[str(entry.get("name"))] = _text(entry.get("value"))
    if globals_.get("externalIstiod") is True:
        env.setdefault("EXTERNAL_ISTIOD", "true")
    return env


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _list(value: object) -> list[Tree]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _remote_address(globals_: Tree, *, is_needed: bool) -> str:
    address = str(globals_.get("remotePilotAddress") or "")
    if is_needed and not address:
        raise OptionsRefused(
            "profile `remote` needs `values.global.remotePilotAddress`",
            still_working="nothing was changed in the cluster",
            hint=(
                "set it to the external address of the primary cluster's east-west gateway: "
                "kubectl -n istio-system get svc istio-eastwestgateway"
            ),
        )
    return address


def _gateways(components: Tree, profile: str, namespace: str, values: Tree) -> tuple[Gateway, ...]:
    gateways: dict[str, Tree] = {}
    for kind, key in (("ingress", "ingressGateways"), ("egress", "egressGateways")):
        listed = _list(components.get(key))
        if PROFILES[profile][kind] is True:
            listed = [_built_in(f"istio-{kind}gateway", values), *listed]
        for part in listed:
            name = str(part.get("name") or f"istio-{kind}gateway")
            gateways[name] = operator.merged(gateways.get(name, {"kind": kind}), part)
    return tuple(
        _gateway(name, part, namespace, values)
        for name, part in gateways.items()
        if part.get("enabled", True) is True
    )


def _built_in(name: str, values: Tree) -> Tree:
    """Return a profile's gateway, with what older charts say of it below `values.gateways`."""
    chart = _tree(values, "gateways")
    own = _tree(chart, name)
    enabled = chart.get("enabled", True) is True and own.get("enabled", True) is True
    env = [{"name": key, "value": value} for key, value in _tree(own, "env").items()]
    return {"name": name, "enabled": enabled, **({"k8s": {"env": env}} if env else {})}


def _usual_ports(name: str, values: Tree) -> tuple[Port, ...]:
    """Return the ports of a gateway that names none: what other clusters need goes with them."""
    globals_ = _tree(values, "global")
    expands = _tree(globals_, "meshExpansion").get("enabled") is True
    joined = expands or globals_.get("meshNetworks") or globals_.get("remotePilotAddress")
    if name != "istio-ingressgateway" or not joined:
        return INGRESS_PORTS
    return (*INGRESS_PORTS, PASSING_PORT, *((EXPANSION_PORT,) if expands else ()))


def _gateway(name: str, part: Tree, namespace: str, values: Tree) -> Gateway:
    k8s = _tree(part, "k8s")
    service = _tree(k8s, "service")
    ports = tuple(_port(name, port) for port in _list(service.get("ports")))
    short = name.removeprefix("istio-")
    labels = {"app": name, "istio": short} | {
        key: str(value) for key, value in _tree(part, "label").items()
    }
    env = {str(e.get("name")): _text(e.get("value")) for e in _list(k8s.get("env"))}
    return Gateway(
        name=name,
        namespace=str(part.get("namespace") or namespace),
        labels=labels,
        ports=ports or _usual_ports(name, values),
        env=env,
        service_type=str(service.get("type") or "LoadBalancer"),
        service_annotations={k: str(v) for k, v in _tree(k8s, "serviceAnnotations").items()},
        pod_annotations={k: str(v) for k, v in _tree(k8s, "podAnnotations").items()},
        replicas=_number(k8s, "replicaCount", 1),
        resources=_tree(k8s, "resources"),
    )


def _port(gateway: str, port: Tree) -> Port:
    number = _number(port, "port", 0)
    if not 0 < number < 1 << 16:
        raise OptionsRefused(
            f"gateway `{gateway}` has a port without a number between 1 and 65535: {port}",
            still_working="nothing was changed in the cluster",
        )
    name = str(port.get("name") or f"port-{number}")
    return Port(name, number, _number(port, "targetPort", number), str(port.get("protocol", "TCP")))
