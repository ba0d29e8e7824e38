"""The containers of a proxy: the one that runs it, and the one that redirects traffic to it.

Names, arguments, variables and mounts are those that Istio's own agent expects, so that its
stock image runs in them.

Source: spec section 5.3.
"""

import json
from dataclasses import dataclass
from typing import Final

from isthmus.inject import shapes, volumes
from isthmus.inject.settings import Resources
from isthmus.inject.shapes import Obj
from isthmus.inject.wishes import ROLES, Wishes
from isthmus.inject.workloads import Workload

PROXY: Final = "istio-proxy"
INIT: Final = "istio-init"
OUTBOUND_PORT, INBOUND_PORT, HEALTH_PORT, METRICS_PORT = 15001, 15006, 15021, 15090
PROXY_USER: Final = 1337


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod is, and what it runs.

    Attributes:
        cluster: As the webhook's path says, else as the settings do.
        network: The same; empty when nobody says.
        ports: Ports of the application's containers, as JSON objects.
        probers: What the agent shall ask in place of the kubelet, as JSON, or empty.
        scrape: Where the application serves metrics, as JSON, or empty.
    """

    cluster: str
    network: str
    workload: Workload
    containers: tuple[str, ...]
    ports: tuple[Obj, ...]
    probers: str
    scrape: str


def init(wishes: Wishes) -> Obj:
    """Return the container that redirects the pod's traffic, before anything else runs."""
    settings = wishes.settings
    kept_out = ",".join(
        part
        for part in (
            str(METRICS_PORT),
            str(HEALTH_PORT),
            settings.exclude_inbound,
            str(settings.status_port),
        )
        if part
    )
    arguments = [
        *("istio-iptables", "-p", str(OUTBOUND_PORT), "-z", str(INBOUND_PORT)),
        *("-u", str(PROXY_USER), "-m", wishes.interception, "-i", settings.include_ranges),
        *("-x", settings.exclude_ranges, "-b", settings.include_inbound, "-d", kept_out),
    ]
    for option, value in (
        ("-q", settings.include_outbound),
        ("-o", settings.exclude_outbound),
        ("-c", wishes.interfaces),
    ):
        arguments += [option, value] if value else []
    return {
        "name": INIT,
        "image": settings.image,
        **_pulled(settings.pull_policy),
        "args": [*arguments, f"--log_output_level={settings.agent_log_level}"],
        # Among them what says whether questions for names are redirected.
        **(
            {"env": [_value(*each) for each in settings.proxy_metadata]}
            if settings.proxy_metadata
            else {}
        ),
        "resources": _resources(settings.init_resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": False,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "runAsUser": 0,
        },
    }


def proxy(wishes: Wishes, *, place: Place) -> Obj:
    """Return the container that runs the proxy."""
    settings = wishes.settings
    is_gateway = not wishes.is_sidecar
    container: Obj = {
        "name": PROXY,
        "image": settings.image,
        **_pulled(settings.pull_policy),
        "args": [
            *("proxy", ROLES[wishes.template]),
            *("--domain", f"$(POD_NAMESPACE).svc.{settings.domain}"),
            f"--proxyLogLevel={settings.log_level}",
            f"--proxyComponentLogLevel={settings.component_log_level}",
            f"--log_output_level={settings.agent_log_level}",
        ],
        "ports": [
            {"containerPort": METRICS_PORT, "protocol": "TCP", "name": "http-envoy-prom"},
        ],
        "env": _variables(wishes, place),
        "resources": _resources(settings.resources),
        "readinessProbe": _probe(
            {"failureThreshold": 30, "initialDelaySeconds": 1, "periodSeconds": 2}
            if is_gateway
            else {"failureThreshold": 4, "periodSeconds": 15}
        ),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": PROXY_USER,
            "runAsNonRoot": True,
            "runAsUser": PROXY_USER,
        },
        "volumeMounts": volumes.mounts(),
    }
    if not is_gateway:
        container["startupProbe"] = _probe({"failureThreshold": 600, "periodSeconds": 1})
    if settings.holds_application and not is_gateway:
        # Kubernetes starts the next container only when this hook has ended.
        container["lifecycle"] = {"postStart": {"exec": {"command": ["pilot-agent", "wait"]}}}
    return container


def merged(ours: Obj, theirs: Obj) -> Obj:
    """Return our proxy with what the pod itself says of it; the pod wins.

    Raises:
        InjectionRefused: What it says is malformed (ISM-INJ-001).
    """
    result = {**ours, **{key: value for key, value in theirs.items() if value is not None}}
    if theirs.get("image", "auto") == "auto":
        result["image"] = ours["image"]
    what = "container `istio-proxy`"
    for key, name in (("env", "name"), ("volumeMounts", "mountPath"), ("ports", "containerPort")):
        said = shapes.listed(theirs, key, what=what)
        names = {each.get(name) for each in said}
        result[key] = [*(each for each in ours[key] if each.get(name) not in names), *said]
    context = shapes.below(theirs, "securityContext", what=what)
    result["securityContext"] = {**ours["securityContext"], **context}
    return result


def with_variables(container: Obj, wanted: tuple[tuple[str, str], ...]) -> Obj:
    """Return a container with variables set, in the place of equal names."""
    values = dict(wanted)
    kept = [each for each in container["env"] if each.get("name") not in values]
    return {**container, "env": [*kept, *(_value(key, text) for key, text in values.items())]}


def _variables(wishes: Wishes, place: Place) -> list[Obj]:
    settings = wishes.settings
    config = json.dumps(dict(wishes.proxy_config), separators=(",", ":"), sort_keys=True)
    ports = json.dumps(place.ports, separators=(",", ":"))
    listed = [
        _value("PILOT_CERT_PROVIDER", "istiod"),
        _value("CA_ADDR", settings.ca_address or settings.own_address),
        _field("POD_NAME", "metadata.name"),
        _field("POD_NAMESPACE", "metadata.namespace"),
        _field("INSTANCE_IP", "status.podIP"),
        _field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        _field("HOST_IP", "status.hostIP"),
        _limit("ISTIO_CPU_LIMIT", "limits.cpu"),
        _value("PROXY_CONFIG", config),
        _value("ISTIO_META_POD_PORTS", ports),
        _value("ISTIO_META_APP_CONTAINERS", ",".join(place.containers)),
        _limit("GOMEMLIMIT", "limits.memory"),
        _limit("GOMAXPROCS", "limits.cpu"),
        _value("ISTIO_META_CLUSTER_ID", place.cluster),
        _field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        _value("ISTIO_META_INTERCEPTION_MODE", wishes.interception),
        *([_value("ISTIO_META_NETWORK", place.network)] if place.network else []),
        _value("ISTIO_META_WORKLOAD_NAME", place.workload.name),
        _value("ISTIO_META_OWNER", place.workload.owner),
        _value("ISTIO_META_MESH_ID", settings.mesh_id or settings.trust_domain),
        _value("TRUST_DOMAIN", settings.trust_domain),
        *([_value("ISTIO_KUBE_APP_PROBERS", place.probers)] if place.probers else []),
        *([_value("ISTIO_PROMETHEUS_ANNOTATIONS", place.scrape)] if place.scrape else []),
    ]
    own = dict(settings.proxy_metadata)
    kept = [each for each in listed if each["name"] not in own]
    return [*kept, *(_value(key, text) for key, text in own.items())]


def _value(name: str, text: str) -> Obj:
    return {"name": name, "value": text}


def _field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _limit(name: str, resource: str) -> Obj:
    return {
        "name": name,
        "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "0"}},
    }


def _probe(pace: Obj) -> Obj:
    return {"httpGet": {"path": "/healthz/ready", "port": HEALTH_PORT}, "timeoutSeconds": 3, **pace}


def _pulled(policy: str) -> Obj:
    return {"imagePullPolicy": policy} if policy else {}


def _resources(wanted: Resources) -> Obj:
    limits = {"cpu": wanted.cpu_limit, "memory": wanted.memory_limit}
    requests = {"cpu": wanted.cpu, "memory": wanted.memory}
    found = {
        kind: {name: quantity for name, quantity in each.items() if quantity}
        for kind, each in (("limits", limits), ("requests", requests))
    }
    return {kind: each for kind, each in found.items() if each}
