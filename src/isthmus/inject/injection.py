"""One pod in, one patch out: the pod as it is to run with its proxy.

Builds objects, never text. The same pod and settings always give the same patch, and a pod that
has its proxy gets none again.

Source: spec sections 5.2 and 5.3.
"""

import copy
import json
from collections.abc import Callable
from typing import Final

from isthmus.inject import containers, patches, probes, requests, shapes, volumes, wishes, workloads
from isthmus.inject.settings import InjectionSettings
from isthmus.inject.shapes import Obj
from isthmus.inject.wishes import Wishes

SPEAKS_TUNNELS: Final = "ISTIO_META_ENABLE_HBONE"
NETWORK: Final = "topology.istio.io/network"
SCRAPE: Final = ("scrape", "path", "port", "scheme")


def injector(settings: Callable[[], InjectionSettings | None]) -> requests.Injector:
    """Return what a webhook calls: `inject` with the settings of the moment."""

    def answer(pod: Obj, *, namespace: str, path: str) -> requests.Injection | None:
        held = settings()
        if held is None:
            return None
        return inject(pod, namespace=namespace, parameters=requests.parameters(path), settings=held)

    return answer


def inject(
    pod: Obj,
    *,
    namespace: str,
    parameters: requests.Parameters,
    settings: InjectionSettings,
) -> requests.Injection:
    """Decide about a pod and return the patch that gives it a proxy.

    Raises:
        InjectionRefused: The pod, or a wish of it, cannot be understood (ISM-INJ-001).
    """
    decision = requests.decide(pod, namespace=namespace, settings=settings)
    if not decision.is_injected:
        return requests.Injection(decision)
    wanted = wishes.read(pod, settings=settings)
    injected = _injected(pod, namespace=namespace, parameters=parameters, wanted=wanted)
    return requests.Injection(decision, tuple(patches.difference(pod, injected)))


def _injected(pod: Obj, *, namespace: str, parameters: requests.Parameters, wanted: Wishes) -> Obj:
    settings = wanted.settings
    result = copy.deepcopy(pod)
    metadata, spec = result.setdefault("metadata", {}), result.setdefault("spec", {})
    own = _own_proxy(shapes.listed(spec, "containers"))
    apps = [each for each in shapes.listed(spec, "containers") if each is not own]
    rewritten = probes.Rewritten(apps, "")
    if settings.rewrites_probes and wanted.is_sidecar:
        rewritten = probes.rewrite(apps, port=settings.status_port)
    labels = shapes.texts(metadata, "labels")
    place = containers.Place(
        cluster=parameters.cluster or settings.cluster,
        network=parameters.network or labels.get(NETWORK) or settings.network,
        workload=workloads.of(pod, namespace=namespace),
        containers=tuple(str(each.get("name", "")) for each in apps),
        ports=_ports(apps),
        probers=rewritten.probers,
        scrape=_scrape(metadata, settings),
    )
    proxy = containers.proxy(wanted, place=place)
    if own is not None:
        proxy = containers.merged(proxy, own)
    proxy = containers.with_variables(proxy, parameters.env)
    _fill_spec(spec, wanted=wanted, apps=rewritten.containers, proxy=proxy)
    _fill_metadata(metadata, wanted=wanted, place=place, overwrites=bool(parameters.network))
    return result


def _own_proxy(listed: list[Obj]) -> Obj | None:
    return next((each for each in listed if each.get("name") == containers.PROXY), None)


def _fill_spec(spec: Obj, *, wanted: Wishes, apps: list[Obj], proxy: Obj) -> None:
    is_sidecar = wanted.is_sidecar
    if is_sidecar and wanted.settings.holds_application:
        spec["containers"] = [proxy, *apps]
    else:
        spec["containers"] = [*apps, proxy]
    if is_sidecar and wanted.interception != "NONE":
        # Last, so that the pod's own init containers still reach the network directly.
        others = _without(shapes.listed(spec, "initContainers"), {containers.INIT})
        spec["initContainers"] = [*others, containers.init(wanted)]
    ours = volumes.all_()
    names = {each.get("name") for each in shapes.listed(spec, "volumes")}
    spec["volumes"] = [
        *shapes.listed(spec, "volumes"),
        *(each for each in ours if each["name"] not in names),
    ]
    if wanted.settings.pull_secrets:
        known = shapes.listed(spec, "imagePullSecrets")
        more = [{"name": name} for name in wanted.settings.pull_secrets]
        spec["imagePullSecrets"] = [*known, *(each for each in more if each not in known)]


def _without(listed: list[Obj], names: set[str]) -> list[Obj]:
    return [each for each in listed if each.get("name") not in names]


def _fill_metadata(
    metadata: Obj, *, wanted: Wishes, place: containers.Place, overwrites: bool
) -> None:
    is_sidecar = wanted.is_sidecar
    labels = dict(shapes.texts(metadata, "labels"))
    if is_sidecar:
        labels.setdefault("security.istio.io/tlsMode", "istio")
        if dict(wanted.settings.proxy_metadata).get(SPEAKS_TUNNELS) == "true":
            labels.setdefault("networking.istio.io/tunnel", "http")
    labels.setdefault("service.istio.io/canonical-name", place.workload.service)
    labels.setdefault("service.istio.io/canonical-revision", place.workload.revision)
    if overwrites:
        labels[NETWORK] = place.network
    elif place.network:
        labels.setdefault(NETWORK, place.network)
    metadata["labels"] = labels
    annotations = dict(shapes.texts(metadata, "annotations"))
    annotations["istio.io/rev"] = wanted.settings.revision_label
    first = place.containers[0] if place.containers else containers.PROXY
    annotations.setdefault("kubectl.kubernetes.io/default-container", first)
    annotations.setdefault("kubectl.kubernetes.io/default-logs-container", first)
    if wanted.settings.merges_metrics:
        annotations |= {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(wanted.settings.status_port),
            "prometheus.io/path": "/stats/prometheus",
        }
    annotations[requests.STATUS] = _status(wanted, is_sidecar=is_sidecar)
    metadata["annotations"] = annotations


def _status(wanted: Wishes, *, is_sidecar: bool) -> str:
    has_init = is_sidecar and wanted.interception != "NONE"
    return json.dumps(
        {
            "initContainers": [containers.INIT] if has_init else None,
            "containers": [containers.PROXY],
            "volumes": [each["name"] for each in volumes.all_()],
            "imagePullSecrets": list(wanted.settings.pull_secrets) or None,
            "revision": wanted.settings.revision_label,
        },
        separators=(",", ":"),
    )


def _ports(apps: list[Obj]) -> tuple[Obj, ...]:
    return tuple(
        {key: port[key] for key in ("name", "containerPort", "protocol") if key in port}
        for each in apps
        for port in shapes.listed(each, "ports", what="container")
    )


def _scrape(metadata: Obj, settings: InjectionSettings) -> str:
    annotations = shapes.texts(metadata, "annotations")
    found = {
        key: annotations[f"prometheus.io/{key}"]
        for key in SCRAPE
        if f"prometheus.io/{key}" in annotations
    }
    is_wanted = settings.merges_metrics and found.get("scrape") == "true"
    return json.dumps(found, separators=(",", ":"), sort_keys=True) if is_wanted else ""
