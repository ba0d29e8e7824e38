"""What `kubectl get` prints: columns and cells per kind, made by the server.

Kinds without columns of their own show name and age; custom resources show the columns that their
definition names.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.values import Json, Obj


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        priority: 0 for columns that always show, 1 for those of `-o wide`.
        cell: Makes the cell of an object; the second argument is the time.
    """

    name: str
    cell: Callable[[Obj, datetime.datetime], Json]
    priority: int = 0
    type: str = "string"
    format: str = ""


def table(
    objects: Iterable[Obj],
    *,
    columns: tuple[Column, ...],
    meta: Obj,
    include: str,
    now: datetime.datetime,
) -> Obj:
    """Return a Table of `objects`.

    Args:
        objects: In the version that the client asked for.
        columns: From `columns_of`.
        meta: The list's metadata.
        include: `None`, `Metadata` or `Object`: what of each object comes with its row.
        now: For ages.
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": "name" if column.name == "Name" else column.format,
                "description": "",
                "priority": column.priority,
            }
            for column in columns
        ],
        "rows": [_row(obj, columns, include, now) for obj in objects],
    }


def _row(obj: Obj, columns: tuple[Column, ...], include: str, now: datetime.datetime) -> Obj:
    row: Obj = {"cells": [column.cell(obj, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial(obj)
    return row


def partial(obj: Obj) -> Obj:
    """Return an object's metadata alone."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def columns_of(resource: Resource, printer: Iterable[Mapping[str, Json]]) -> tuple[Column, ...]:
    """Return a resource's columns; `printer` are those of its definition, if it is custom."""
    if resource.custom:
        listed = tuple(printer)
        return (_NAME, *(_custom(one) for one in listed)) if listed else (_NAME, _AGE)
    return _COLUMNS.get(resource.key, (_NAME, _AGE))


# Cells.


def _text(path: str, missing: str = "<none>") -> Callable[[Obj, datetime.datetime], Json]:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = _at(obj, path)
        return missing if found in (None, "", [], {}) else str(found)

    return cell


def _number(path: str) -> Callable[[Obj, datetime.datetime], Json]:
    return lambda obj, _: _at(obj, path) or 0


def _count(*paths: str) -> Callable[[Obj, datetime.datetime], Json]:
    return lambda obj, _: sum(len(_at(obj, path) or ()) for path in paths)


def _at(obj: Json, path: str) -> Json:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _age_of(path: str) -> Callable[[Obj, datetime.datetime], Json]:
    return lambda obj, now: _since(_at(obj, path), now)


def _since(text: Json, now: datetime.datetime) -> str:
    moment = _moment(text)
    return "<unknown>" if moment is None else duration((now - moment).total_seconds())


def _moment(text: Json) -> datetime.datetime | None:
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def duration(seconds: float) -> str:
    """Return a span of time as kubectl shows it, such as `5m30s` or `3d4h`."""
    total = max(0, int(seconds))
    minutes, hours, days = total // 60, total // 3600, total // 86_400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y{days % 365}d"


def _selector(path: str) -> Callable[[Obj, datetime.datetime], Json]:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = _at(obj, path) or {}
        labels = (
            found.get("matchLabels", {})
            if "matchLabels" in found or "matchExpressions" in found
            else found
        )
        return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"

    return cell


def _containers(field: str) -> Callable[[Obj, datetime.datetime], Json]:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = _at(obj, "spec.template.spec.containers") or ()
        return ",".join(one.get(field, "") for one in found)

    return cell


def _pod_ready(obj: Obj, _: datetime.datetime) -> Json:
    found = _at(obj, "status.containerStatuses") or ()
    ready = sum(bool(one.get("ready")) for one in found)
    total = len(_at(obj, "spec.containers") or ())
    for one in _sidecars(obj):
        total += 1
        ready += bool(one.get("ready"))
    return f"{ready}/{total}"


def _sidecars(obj: Obj) -> Iterable[Obj]:
    states = {one.get("name"): one for one in _at(obj, "status.initContainerStatuses") or ()}
    for one in _at(obj, "spec.initContainers") or ():
        if one.get("restartPolicy") == "Always":
            yield states.get(one.get("name"), {})


def _pod_status(obj: Obj, _: datetime.datetime) -> Json:
    reason = _at(obj, "status.reason") or _at(obj, "status.phase") or "Unknown"
    starting = _init_reason(obj)
    if starting:
        reason = starting
    else:
        for one in reversed(_at(obj, "status.containerStatuses") or ()):
            reason = _container_reason(one) or reason
    if obj["metadata"].get("deletionTimestamp"):
        return "Unknown" if _at(obj, "status.reason") == "NodeLost" else "Terminating"
    return reason


def _init_reason(obj: Obj) -> str:
    restartable = {
        one.get("name")
        for one in _at(obj, "spec.initContainers") or ()
        if one.get("restartPolicy") == "Always"
    }
    found = _at(obj, "status.initContainerStatuses") or ()
    total = len(_at(obj, "spec.initContainers") or ())
    for index, one in enumerate(found):
        state = one.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        if one.get("name") in restartable and (one.get("started") or one.get("ready")):
            continue
        why = _container_reason(one)
        if why and why not in ("PodInitializing", "Completed"):
            return f"Init:{why}"
        return f"Init:{index}/{total}"
    return ""


def _container_reason(one: Obj) -> str:
    state = one.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting.get("reason"):
        return str(waiting["reason"])
    if ended:
        if ended.get("reason"):
            return str(ended["reason"])
        return (
            f"Signal:{ended['signal']}"
            if ended.get("signal")
            else f"ExitCode:{ended.get('exitCode', 0)}"
        )
    return ""


def _pod_restarts(obj: Obj, now: datetime.datetime) -> Json:
    found = [*(_at(obj, "status.containerStatuses") or ()), *_sidecars(obj)]
    total = sum(one.get("restartCount", 0) for one in found)
    ends = [_at(one, "lastState.terminated.finishedAt") for one in found]
    latest = max((end for end in ends if end), default="")
    return f"{total} ({_since(latest, now)} ago)" if total and latest else str(total)


def _gates(obj: Obj, _: datetime.datetime) -> Json:
    gates = [one.get("conditionType") for one in _at(obj, "spec.readinessGates") or ()]
    met = {
        one["type"] for one in _at(obj, "status.conditions") or () if one.get("status") == "True"
    }
    return f"{len(met & set(gates))}/{len(gates)}" if gates else "<none>"


def _service_external(obj: Obj, _: datetime.datetime) -> Json:
    spec = obj.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return spec.get("externalName", "<none>")
    found = [
        one.get("ip") or one.get("hostname") or ""
        for one in _at(obj, "status.loadBalancer.ingress") or ()
    ]
    found += spec.get("externalIPs") or []
    if found:
        return ",".join(found)
    return "<pending>" if spec.get("type") == "LoadBalancer" else "<none>"


def _service_ports(obj: Obj, _: datetime.datetime) -> Json:
    found = []
    for port in _at(obj, "spec.ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        found.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(found) or "<none>"


def _ready_of(path: str) -> Callable[[Obj, datetime.datetime], Json]:
    return lambda obj, _: f"{_at(obj, 'status.readyReplicas') or 0}/{_at(obj, path) or 0}"


def _job_status(obj: Obj, _: datetime.datetime) -> Json:
    for one in _at(obj, "status.conditions") or ():
        if one.get("status") == "True":
            return one["type"]
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return "Suspended" if _at(obj, "spec.suspend") else "Running"


def _job_completions(obj: Obj, _: datetime.datetime) -> Json:
    wanted = _at(obj, "spec.completions")
    done = _at(obj, "status.succeeded") or 0
    return (
        f"{done}/{wanted}"
        if wanted is not None
        else f"{done}/1 of {_at(obj, 'spec.parallelism') or 0}"
    )


def _job_duration(obj: Obj, now: datetime.datetime) -> Json:
    begun = _moment(_at(obj, "status.startTime"))
    if begun is None:
        return ""
    ended = _moment(_at(obj, "status.completionTime")) or now
    return duration((ended - begun).total_seconds())


def _node_status(obj: Obj, _: datetime.datetime) -> Json:
    ready = [one for one in _at(obj, "status.conditions") or () if one["type"] == "Ready"]
    shown = "Unknown" if not ready else "Ready" if ready[0].get("status") == "True" else "NotReady"
    return shown + ",SchedulingDisabled" if _at(obj, "spec.unschedulable") else shown


def _node_roles(obj: Obj, _: datetime.datetime) -> Json:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    return (
        ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix)))
        or "<none>"
    )


def _node_address(kind: str) -> Callable[[Obj, datetime.datetime], Json]:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = [
            one["address"] for one in _at(obj, "status.addresses") or () if one["type"] == kind
        ]
        return found[0] if found else "<none>"

    return cell


def _endpoints(obj: Obj, _: datetime.datetime) -> Json:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or [{}]
        for address in subset.get("addresses") or ()
    ]
    return _few(found)


def _slice_endpoints(obj: Obj, _: datetime.datetime) -> Json:
    return _few([ip for one in obj.get("endpoints") or () for ip in one.get("addresses") or ()])


def _slice_ports(obj: Obj, _: datetime.datetime) -> Json:
    return _few([str(port.get("port", "*")) for port in obj.get("ports") or ()], "<unset>")


def _few(found: list[str], none: str = "<none>") -> str:
    if len(found) > 3:
        return f"{','.join(found[:3])} + {len(found) - 3} more..."
    return ",".join(found) or none


def _event_object(obj: Obj, _: datetime.datetime) -> Json:
    about = obj.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_seen(obj: Obj, now: datetime.datetime) -> Json:
    for field in ("lastTimestamp", "eventTime", "firstTimestamp"):
        if obj.get(field):
            return _since(obj[field], now)
    return _since(obj["metadata"].get("creationTimestamp"), now)


def _event_source(obj: Obj, _: datetime.datetime) -> Json:
    source = obj.get("source") or {}
    parts = [
        source.get("component") or obj.get("reportingComponent") or "",
        source.get("host") or "",
    ]
    return ", ".join(part for part in parts if part)


def _role(obj: Obj, _: datetime.datetime) -> Json:
    reference = obj.get("roleRef") or {}
    return f"{reference.get('kind')}/{reference.get('name')}"


def _subjects(kind: str) -> Callable[[Obj, datetime.datetime], Json]:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        return ", ".join(
            f"{one['namespace']}/{one['name']}" if one.get("namespace") else str(one.get("name"))
            for one in obj.get("subjects") or ()
            if one.get("kind") == kind
        )

    return cell


def _hosts(obj: Obj, _: datetime.datetime) -> Json:
    return ",".join(one.get("host", "*") for one in _at(obj, "spec.rules") or ()) or "*"


def _custom(printer: Mapping[str, Json]) -> Column:
    steps = _steps(str(printer.get("jsonPath", "")))
    kind = str(printer.get("type", "string"))

    def cell(obj: Obj, now: datetime.datetime) -> Json:
        found = _follow(obj, steps)
        if not found:
            return None if kind != "string" else ""
        if kind == "date":
            return _since(found[0], now)
        if kind in ("integer", "number", "boolean") and not isinstance(found[0], (dict, list)):
            return found[0]
        return ",".join(_plain(one) for one in found)

    return Column(
        str(printer.get("name", "")),
        cell,
        priority=int(printer.get("priority") or 0),
        type=kind,
        format=str(printer.get("format") or ""),
    )


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + " ".join(_plain(one) for one in value) + "]"
    return str(value)


_STEP = re.compile(
    r"\.(?P<name>(?:\\.|[^.\[\]\\])+)|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*[\"'](?P<is>[^\"']*)[\"']\)\]"
    r"|\[(?P<index>-?\d+|\*)\]|\[[\"'](?P<quoted>[^\"']*)[\"']\]"
)


def _steps(path: str) -> tuple[re.Match[str], ...]:
    return tuple(_STEP.finditer(path if path.startswith((".", "[")) else "." + path))


def _follow(obj: Obj, steps: tuple[re.Match[str], ...]) -> list[Json]:
    found: list[Json] = [obj]
    for step in steps:
        found = [item for value in found for item in _step(value, step)]
    return [item for item in found if item is not None]


def _step(value: Json, step: re.Match[str]) -> Iterable[Json]:
    name = step["quoted"] if step["name"] is None else re.sub(r"\\(.)", r"\1", step["name"])
    if name is not None:
        return [value.get(name)] if isinstance(value, dict) else []
    if not isinstance(value, list):
        return []
    if step["key"] is not None:
        return [one for one in value if str(_at(one, step["key"])) == step["is"]]
    if step["index"] == "*":
        return value
    at = int(step["index"])
    return value[at : at + 1] if at >= 0 else value[at:][:1]


_NAME = Column("Name", _text("metadata.name", ""))
_AGE = Column("Age", _age_of("metadata.creationTimestamp"))


def _wide(name: str, cell: Callable[[Obj, datetime.datetime], Json]) -> Column:
    return Column(name, cell, priority=1)


_WORKLOAD = (
    _wide("Containers", _containers("name")),
    _wide("Images", _containers("image")),
    _wide("Selector", _selector("spec.selector")),
)


def _integer(name: str, path: str) -> Column:
    return Column(name, _number(path), type="integer")


_WEBHOOK_COLUMNS = (_NAME, Column("Webhooks", _count("webhooks"), type="integer"), _AGE)
_BINDING_COLUMNS = (
    _NAME,
    Column("Role", _role),
    _AGE,
    _wide("Users", _subjects("User")),
    _wide("Groups", _subjects("Group")),
    _wide("ServiceAccounts", _subjects("ServiceAccount")),
)

_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "pods": (
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        _AGE,
        _wide("IP", _text("status.podIP")),
        _wide("Node", _text("spec.nodeName")),
        _wide("Nominated Node", _text("status.nominatedNodeName")),
        _wide("Readiness Gates", _gates),
    ),
    "services": (
        _NAME,
        Column("Type", _text("spec.type")),
        Column("Cluster-IP", _text("spec.clusterIP")),
        Column("External-IP", _service_external),
        Column("Port(s)", _service_ports),
        _AGE,
        _wide("Selector", _selector("spec.selector")),
    ),
    "deployments.apps": (
        _NAME,
        Column("Ready", _ready_of("spec.replicas")),
        _integer("Up-to-date", "status.updatedReplicas"),
        _integer("Available", "status.availableReplicas"),
        _AGE,
        *_WORKLOAD,
    ),
    "replicasets.apps": (
        _NAME,
        _integer("Desired", "spec.replicas"),
        _integer("Current", "status.replicas"),
        _integer("Ready", "status.readyReplicas"),
        _AGE,
        *_WORKLOAD,
    ),
    "replicationcontrollers": (
        _NAME,
        _integer("Desired", "spec.replicas"),
        _integer("Current", "status.replicas"),
        _integer("Ready", "status.readyReplicas"),
        _AGE,
        *_WORKLOAD,
    ),
    "statefulsets.apps": (_NAME, Column("Ready", _ready_of("spec.replicas")), _AGE, *_WORKLOAD[:2]),
    "daemonsets.apps": (
        _NAME,
        _integer("Desired", "status.desiredNumberScheduled"),
        _integer("Current", "status.currentNumberScheduled"),
        _integer("Ready", "status.numberReady"),
        _integer("Up-to-date", "status.updatedNumberScheduled"),
        _integer("Available", "status.numberAvailable"),
        Column("Node Selector", _selector("spec.template.spec.nodeSelector")),
        _AGE,
        *_WORKLOAD,
    ),
    "jobs.batch": (
        _NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        _AGE,
        *_WORKLOAD,
    ),
    "cronjobs.batch": (
        _NAME,
        Column("Schedule", _text("spec.schedule")),
        Column("Timezone", _text("spec.timeZone")),
        Column("Suspend", lambda obj, _: str(bool(_at(obj, "spec.suspend")))),
        Column("Active", _count("status.active"), type="integer"),
        Column("Last Schedule", _text("status.lastScheduleTime")),
        _AGE,
    ),
    "nodes": (
        _NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _text("status.nodeInfo.kubeletVersion", "")),
        _wide("Internal-IP", _node_address("InternalIP")),
        _wide("External-IP", _node_address("ExternalIP")),
        _wide("OS-Image", _text("status.nodeInfo.osImage", "<unknown>")),
        _wide("Kernel-Version", _text("status.nodeInfo.kernelVersion", "<unknown>")),
        _wide("Container-Runtime", _text("status.nodeInfo.containerRuntimeVersion", "<unknown>")),
    ),
    "namespaces": (_NAME, Column("Status", _text("status.phase", "Active")), _AGE),
    "configmaps": (_NAME, Column("Data", _count("data", "binaryData"), type="integer"), _AGE),
    "secrets": (
        _NAME,
        Column("Type", _text("type", "Opaque")),
        Column("Data", _count("data"), type="integer"),
        _AGE,
    ),
    "serviceaccounts": (_NAME, Column("Secrets", _count("secrets"), type="integer"), _AGE),
    "endpoints": (_NAME, Column("Endpoints", _endpoints), _AGE),
    "endpointslices.discovery.k8s.io": (
        _NAME,
        Column("AddressType", _text("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        _AGE,
    ),
    "events": (
        Column("Last Seen", _event_seen),
        Column("Type", _text("type", "")),
        Column("Reason", _text("reason", "")),
        Column("Object", _event_object),
        _wide("Subobject", _text("involvedObject.fieldPath", "")),
        _wide("Source", _event_source),
        Column("Message", _text("message", "")),
        _wide("First Seen", _age_of("firstTimestamp")),
        _wide("Count", _text("count", "1")),
        _wide("Name", _text("metadata.name", "")),
    ),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOK_COLUMNS,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOK_COLUMNS,
    "customresourcedefinitions.apiextensions.k8s.io": (
        _NAME,
        Column("Created At", _text("metadata.creationTimestamp")),
    ),
    "roles.rbac.authorization.k8s.io": (
        _NAME,
        Column("Created At", _text("metadata.creationTimestamp")),
    ),
    "clusterroles.rbac.authorization.k8s.io": (
        _NAME,
        Column("Created At", _text("metadata.creationTimestamp")),
    ),
    "rolebindings.rbac.authorization.k8s.io": _BINDING_COLUMNS,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING_COLUMNS,
    "leases.coordination.k8s.io": (_NAME, Column("Holder", _text("spec.holderIdentity")), _AGE),
    "ingresses.networking.k8s.io": (
        _NAME,
        Column("Class", _text("spec.ingressClassName")),
        Column("Hosts", _hosts),
        _AGE,
    ),
    "networkpolicies.networking.k8s.io": (
        _NAME,
        Column("Pod-Selector", _selector("spec.podSelector")),
        _AGE,
    ),
    "poddisruptionbudgets.policy": (
        _NAME,
        Column("Min Available", _text("spec.minAvailable", "N/A")),
        Column("Max Unavailable", _text("spec.maxUnavailable", "N/A")),
        _integer("Allowed Disruptions", "status.disruptionsAllowed"),
        _AGE,
    ),
    "horizontalpodautoscalers.autoscaling": (
        _NAME,
        Column(
            "Reference",
            lambda obj, _: (
                f"{_at(obj, 'spec.scaleTargetRef.kind')}/{_at(obj, 'spec.scaleTargetRef.name')}"
            ),
        ),
        _integer("MinPods", "spec.minReplicas"),
        _integer("MaxPods", "spec.maxReplicas"),
        _integer("Replicas", "status.currentReplicas"),
        _AGE,
    ),
}
