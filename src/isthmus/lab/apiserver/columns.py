"""The columns of each built-in kind, as `kubectl get` shows them.

Kinds that are not listed show name and age.
"""

import datetime
from collections.abc import Iterable, Mapping

from isthmus.lab.apiserver import cells, pod_cells, tables
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.values import Json, Obj


def columns_of(
    resource: Resource, printer: Iterable[Mapping[str, Json]]
) -> tuple[tables.Column, ...]:
    """Return a resource's columns; `printer` are those of its definition, if it is custom."""
    if resource.custom:
        listed = tuple(printer)
        return (_NAME, *(tables.custom(one) for one in listed)) if listed else (_NAME, _AGE)
    return _COLUMNS.get(resource.key, (_NAME, _AGE))


def _containers(field: str) -> cells.Cell:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = cells.at(obj, "spec.template.spec.containers") or ()
        return ",".join(one.get(field, "") for one in found)

    return cell


def _service_external(obj: Obj, _: datetime.datetime) -> Json:
    spec = obj.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return spec.get("externalName", "<none>")
    found = [
        one.get("ip") or one.get("hostname") or ""
        for one in cells.at(obj, "status.loadBalancer.ingress") or ()
    ]
    found += spec.get("externalIPs") or []
    if found:
        return ",".join(found)
    return "<pending>" if spec.get("type") == "LoadBalancer" else "<none>"


def _service_ports(obj: Obj, _: datetime.datetime) -> Json:
    found = []
    for port in cells.at(obj, "spec.ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        found.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(found) or "<none>"


def _ready_of(path: str) -> cells.Cell:
    return lambda obj, _: f"{cells.at(obj, 'status.readyReplicas') or 0}/{cells.at(obj, path) or 0}"


def _job_status(obj: Obj, _: datetime.datetime) -> Json:
    found = cells.at(obj, "status.conditions") or ()
    true = {one["type"] for one in found if one.get("status") == "True"}
    for kind in ("Complete", "Failed"):
        if kind in true:
            return kind
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if kind in true:
            return kind
    return "Suspended" if cells.at(obj, "spec.suspend") else "Running"


def _job_completions(obj: Obj, _: datetime.datetime) -> Json:
    wanted = cells.at(obj, "spec.completions")
    done = cells.at(obj, "status.succeeded") or 0
    return (
        f"{done}/{wanted}"
        if wanted is not None
        else f"{done}/1 of {cells.at(obj, 'spec.parallelism') or 0}"
    )


def _job_duration(obj: Obj, now: datetime.datetime) -> Json:
    begun = cells.moment(cells.at(obj, "status.startTime"))
    if begun is None:
        return ""
    ended = cells.moment(cells.at(obj, "status.completionTime")) or now
    return cells.duration((ended - begun).total_seconds())


def _node_status(obj: Obj, _: datetime.datetime) -> Json:
    ready = [one for one in cells.at(obj, "status.conditions") or () if one["type"] == "Ready"]
    shown = "Unknown" if not ready else "Ready" if ready[0].get("status") == "True" else "NotReady"
    return shown + ",SchedulingDisabled" if cells.at(obj, "spec.unschedulable") else shown


def _node_roles(obj: Obj, _: datetime.datetime) -> Json:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    return (
        ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix)))
        or "<none>"
    )


def _node_address(kind: str) -> cells.Cell:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = [
            one["address"] for one in cells.at(obj, "status.addresses") or () if one["type"] == kind
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
    return cells.few(found)


def _slice_endpoints(obj: Obj, _: datetime.datetime) -> Json:
    return cells.few(
        [ip for one in obj.get("endpoints") or () for ip in one.get("addresses") or ()]
    )


def _slice_ports(obj: Obj, _: datetime.datetime) -> Json:
    return cells.few([str(port.get("port", "*")) for port in obj.get("ports") or ()], "<unset>")


def _event_object(obj: Obj, _: datetime.datetime) -> Json:
    about = obj.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_seen(obj: Obj, now: datetime.datetime) -> Json:
    for field in ("lastTimestamp", "eventTime", "firstTimestamp"):
        if obj.get(field):
            return cells.since(obj[field], now)
    return cells.since(obj["metadata"].get("creationTimestamp"), now)


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


def _subjects(kind: str) -> cells.Cell:
    def cell(obj: Obj, _: datetime.datetime) -> Json:
        return ", ".join(
            f"{one['namespace']}/{one['name']}" if one.get("namespace") else str(one.get("name"))
            for one in obj.get("subjects") or ()
            if one.get("kind") == kind
        )

    return cell


def _targets(obj: Obj, _: datetime.datetime) -> Json:
    """Show what an autoscaler aims at; nobody measures here, so that is all that is known."""
    found = []
    for one in cells.at(obj, "spec.metrics") or ():
        aim = cells.at(one, "resource.target") or {}
        share = aim.get("averageUtilization")
        value = f"{share}%" if share is not None else aim.get("averageValue", "<unknown>")
        found.append(f"{cells.at(one, 'resource.name') or one.get('type')}: <unknown>/{value}")
    return ", ".join(found) or "<none>"


def _hosts(obj: Obj, _: datetime.datetime) -> Json:
    return ",".join(one.get("host", "*") for one in cells.at(obj, "spec.rules") or ()) or "*"


_NAME = tables.Column("Name", cells.text("metadata.name", ""))
_AGE = tables.Column("Age", cells.age_of("metadata.creationTimestamp"))


def _wide(name: str, cell: cells.Cell) -> tables.Column:
    return tables.Column(name, cell, priority=1)


_WORKLOAD = (
    _wide("Containers", _containers("name")),
    _wide("Images", _containers("image")),
    _wide("Selector", cells.selector("spec.selector")),
)


def _integer(name: str, path: str) -> tables.Column:
    return tables.Column(name, cells.number(path), type="integer")


_WEBHOOK_COLUMNS = (_NAME, tables.Column("Webhooks", cells.count("webhooks"), type="integer"), _AGE)
_BINDING_COLUMNS = (
    _NAME,
    tables.Column("Role", _role),
    _AGE,
    _wide("Users", _subjects("User")),
    _wide("Groups", _subjects("Group")),
    _wide("ServiceAccounts", _subjects("ServiceAccount")),
)

_COLUMNS: Mapping[str, tuple[tables.Column, ...]] = {
    "pods": (
        _NAME,
        tables.Column("Ready", pod_cells.pod_ready),
        tables.Column("Status", pod_cells.pod_status),
        tables.Column("Restarts", pod_cells.pod_restarts),
        _AGE,
        _wide("IP", cells.text("status.podIP")),
        _wide("Node", cells.text("spec.nodeName")),
        _wide("Nominated Node", cells.text("status.nominatedNodeName")),
        _wide("Readiness Gates", pod_cells.gates),
    ),
    "services": (
        _NAME,
        tables.Column("Type", cells.text("spec.type")),
        tables.Column("Cluster-IP", cells.text("spec.clusterIP")),
        tables.Column("External-IP", _service_external),
        tables.Column("Port(s)", _service_ports),
        _AGE,
        _wide("Selector", cells.selector("spec.selector")),
    ),
    "deployments.apps": (
        _NAME,
        tables.Column("Ready", _ready_of("spec.replicas")),
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
    "statefulsets.apps": (
        _NAME,
        tables.Column("Ready", _ready_of("spec.replicas")),
        _AGE,
        *_WORKLOAD[:2],
    ),
    "daemonsets.apps": (
        _NAME,
        _integer("Desired", "status.desiredNumberScheduled"),
        _integer("Current", "status.currentNumberScheduled"),
        _integer("Ready", "status.numberReady"),
        _integer("Up-to-date", "status.updatedNumberScheduled"),
        _integer("Available", "status.numberAvailable"),
        tables.Column("Node Selector", cells.selector("spec.template.spec.nodeSelector")),
        _AGE,
        *_WORKLOAD,
    ),
    "jobs.batch": (
        _NAME,
        tables.Column("Status", _job_status),
        tables.Column("Completions", _job_completions),
        tables.Column("Duration", _job_duration),
        _AGE,
        *_WORKLOAD,
    ),
    "cronjobs.batch": (
        _NAME,
        tables.Column("Schedule", cells.text("spec.schedule")),
        tables.Column("Timezone", cells.text("spec.timeZone")),
        tables.Column("Suspend", lambda obj, _: str(bool(cells.at(obj, "spec.suspend")))),
        tables.Column("Active", cells.count("status.active"), type="integer"),
        tables.Column("Last Schedule", cells.text("status.lastScheduleTime")),
        _AGE,
    ),
    "nodes": (
        _NAME,
        tables.Column("Status", _node_status),
        tables.Column("Roles", _node_roles),
        _AGE,
        tables.Column("Version", cells.text("status.nodeInfo.kubeletVersion", "")),
        _wide("Internal-IP", _node_address("InternalIP")),
        _wide("External-IP", _node_address("ExternalIP")),
        _wide("OS-Image", cells.text("status.nodeInfo.osImage", "<unknown>")),
        _wide("Kernel-Version", cells.text("status.nodeInfo.kernelVersion", "<unknown>")),
        _wide(
            "Container-Runtime", cells.text("status.nodeInfo.containerRuntimeVersion", "<unknown>")
        ),
    ),
    "namespaces": (_NAME, tables.Column("Status", cells.text("status.phase", "Active")), _AGE),
    "configmaps": (
        _NAME,
        tables.Column("Data", cells.count("data", "binaryData"), type="integer"),
        _AGE,
    ),
    "secrets": (
        _NAME,
        tables.Column("Type", cells.text("type", "Opaque")),
        tables.Column("Data", cells.count("data"), type="integer"),
        _AGE,
    ),
    "serviceaccounts": (
        _NAME,
        tables.Column("Secrets", cells.count("secrets"), type="integer"),
        _AGE,
    ),
    "endpoints": (_NAME, tables.Column("Endpoints", _endpoints), _AGE),
    "endpointslices.discovery.k8s.io": (
        _NAME,
        tables.Column("AddressType", cells.text("addressType")),
        tables.Column("Ports", _slice_ports),
        tables.Column("Endpoints", _slice_endpoints),
        _AGE,
    ),
    "events": (
        tables.Column("Last Seen", _event_seen),
        tables.Column("Type", cells.text("type", "")),
        tables.Column("Reason", cells.text("reason", "")),
        tables.Column("Object", _event_object),
        _wide("Subobject", cells.text("involvedObject.fieldPath", "")),
        _wide("Source", _event_source),
        tables.Column("Message", cells.text("message", "")),
        _wide("First Seen", cells.age_of("firstTimestamp")),
        _wide("Count", cells.text("count", "1")),
        _wide("Name", cells.text("metadata.name", "")),
    ),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOK_COLUMNS,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOK_COLUMNS,
    "customresourcedefinitions.apiextensions.k8s.io": (
        _NAME,
        tables.Column("Created At", cells.text("metadata.creationTimestamp")),
    ),
    "roles.rbac.authorization.k8s.io": (
        _NAME,
        tables.Column("Created At", cells.text("metadata.creationTimestamp")),
    ),
    "clusterroles.rbac.authorization.k8s.io": (
        _NAME,
        tables.Column("Created At", cells.text("metadata.creationTimestamp")),
    ),
    "rolebindings.rbac.authorization.k8s.io": _BINDING_COLUMNS,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING_COLUMNS,
    "leases.coordination.k8s.io": (
        _NAME,
        tables.Column("Holder", cells.text("spec.holderIdentity")),
        _AGE,
    ),
    "ingresses.networking.k8s.io": (
        _NAME,
        tables.Column("Class", cells.text("spec.ingressClassName")),
        tables.Column("Hosts", _hosts),
        _AGE,
    ),
    "networkpolicies.networking.k8s.io": (
        _NAME,
        tables.Column("Pod-Selector", cells.selector("spec.podSelector")),
        _AGE,
    ),
    "poddisruptionbudgets.policy": (
        _NAME,
        tables.Column("Min Available", cells.text("spec.minAvailable", "N/A")),
        tables.Column("Max Unavailable", cells.text("spec.maxUnavailable", "N/A")),
        _integer("Allowed Disruptions", "status.disruptionsAllowed"),
        _AGE,
    ),
    "horizontalpodautoscalers.autoscaling": (
        _NAME,
        tables.Column(
            "Reference",
            lambda obj, _: (
                f"{cells.at(obj, 'spec.scaleTargetRef.kind')}/{cells.at(obj, 'spec.scaleTargetRef.name')}"
            ),
        ),
        tables.Column("Targets", _targets),
        _integer("MinPods", "spec.minReplicas"),
        _integer("MaxPods", "spec.maxReplicas"),
        _integer("Replicas", "status.currentReplicas"),
        _AGE,
    ),
}
