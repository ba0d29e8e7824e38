"""What a kind demands beyond its schema: names, labels, references that must fit, fixed fields.

Only what a user would notice is checked; the rest is taken as it comes.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from isthmus.lab.apiserver import crds
from isthmus.lab.apiserver.errors import Cause
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.validation import DUPLICATE, NOT_SUPPORTED, REQUIRED
from isthmus.lab.apiserver.values import Json, Obj

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII
)
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_KEY_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", re.ASCII)
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+", re.ASCII)

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'example.com', regex used for"
    f" validation is '{_SUBDOMAIN.pattern}')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    " start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for"
    f" validation is '{_LABEL.pattern}')"
)


def findings(resource: Resource, obj: Obj) -> Iterator[Cause]:
    """Yield what is wrong with an object to be stored."""
    yield from _meta(resource, obj["metadata"])
    check = _CHECKS.get(resource.key)
    if check is not None:
        yield from check(obj)


def change_findings(resource: Resource, old: Obj, new: Obj) -> Iterator[Cause]:
    """Yield what may not be changed from `old` to `new`."""
    for path in _FIXED.get(resource.key, ()):
        before, after = _at(old, path), _at(new, path)
        if before not in (None, "", {}) and before != after:
            yield Cause(path, f"Invalid value: {_brief(after)}: field is immutable")
    if resource.key == "services":
        yield from _service_change(old, new)
    if resource.key == "pods":
        yield from _pod_change(old, new)
    if resource.key in ("configmaps", "secrets") and old.get("immutable"):
        for field in ("data", "binaryData", "immutable"):
            if old.get(field) != new.get(field):
                yield Cause(
                    field,
                    "Forbidden: field is immutable when `immutable` is set",
                    "FieldValueForbidden",
                )


def is_label(text: str) -> bool:
    """Say whether `text` is an RFC 1123 label."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Say whether `text` is an RFC 1123 subdomain."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def _meta(resource: Resource, meta: Obj) -> Iterator[Cause]:
    name = meta.get("name") or ""
    if not name:
        yield Cause("metadata.name", "Required value: name or generateName is required", REQUIRED)
    else:
        yield from _name(resource, name)
    for key, value in (meta.get("labels") or {}).items():
        if not _is_key(key):
            yield Cause(
                "metadata.labels",
                f"Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            )
        if not isinstance(value, str) or len(value) > 63 or not _VALUE.fullmatch(value):
            yield Cause(
                "metadata.labels",
                f"Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            )
    for key in meta.get("annotations") or {}:
        if not _is_key(key.lower()):
            yield Cause(
                "metadata.annotations",
                f"Invalid value: \"{key}\": name part must be no more than 63 characters of alphanumerics, '-', '_' or '.'",
            )


def _name(resource: Resource, name: str) -> Iterator[Cause]:
    if resource.group == "rbac.authorization.k8s.io":
        if "/" in name or "%" in name or name in (".", ".."):
            yield Cause("metadata.name", f"Invalid value: \"{name}\": may not contain '/' or '%'")
    elif resource.key == "services":
        if len(name) > 63 or not _SERVICE.fullmatch(name):
            yield Cause(
                "metadata.name",
                f'Invalid value: "{name}": a DNS-1035 label must consist of lower case alphanumeric'
                " characters or '-', start with an alphabetic character, and end with an"
                " alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation"
                f" is '{_SERVICE.pattern}')",
            )
    elif resource.key == "namespaces":
        if not is_label(name):
            yield Cause("metadata.name", f'Invalid value: "{name}": {_LABEL_TEXT}')
    elif not is_subdomain(name):
        yield Cause("metadata.name", f'Invalid value: "{name}": {_SUBDOMAIN_TEXT}')


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not is_subdomain(prefix):
        return False
    return len(name) <= 63 and _KEY_NAME.fullmatch(name) is not None


def _pod(obj: Obj) -> Iterator[Cause]:
    yield from _pod_spec(obj.get("spec") or {}, "spec")


def _pod_spec(spec: Obj, path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield Cause(f"{path}.containers", "Required value", REQUIRED)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, one in enumerate(spec.get(group) or ()):
            where = f"{path}.{group}[{index}]"
            yield from _container(one, where)
            if one.get("name") in names:
                yield Cause(f"{where}.name", f'Duplicate value: "{one.get("name")}"', DUPLICATE)
            names.add(one.get("name", ""))
    yield from _mounts(spec, path)


def _mounts(spec: Obj, path: str) -> Iterator[Cause]:
    volumes = {one.get("name") for one in spec.get("volumes") or ()}
    for group in ("initContainers", "containers"):
        for index, one in enumerate(spec.get(group) or ()):
            for at, mount in enumerate(one.get("volumeMounts") or ()):
                if mount.get("name") not in volumes:
                    where = f"{path}.{group}[{index}].volumeMounts[{at}].name"
                    yield Cause(
                        where, f'Not found: "{mount.get("name", "")}"', "FieldValueNotFound"
                    )


def _container(one: Obj, path: str) -> Iterator[Cause]:
    name = one.get("name") or ""
    if not name:
        yield Cause(f"{path}.name", "Required value", REQUIRED)
    elif not is_label(name):
        yield Cause(f"{path}.name", f'Invalid value: "{name}": {_LABEL_TEXT}')
    if not one.get("image"):
        yield Cause(f"{path}.image", "Required value", REQUIRED)
    for index, port in enumerate(one.get("ports") or ()):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number < 65_536:
            yield Cause(
                f"{path}.ports[{index}].containerPort",
                f"Invalid value: {number}: must be between 1 and 65535, inclusive",
            )


def _workload(obj: Obj) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    template = spec.get("template") or {}
    selector = spec.get("selector")
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector:
        yield Cause("spec.selector", "Required value", REQUIRED)
    elif not _selects(selector, labels):
        yield Cause(
            "spec.template.metadata.labels",
            f"Invalid value: {_brief(labels)}: `selector` does not match template `labels`",
        )
    replicas = spec.get("replicas", 0)
    if isinstance(replicas, int) and replicas < 0:
        yield Cause(
            "spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0"
        )
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")


def _selects(selector: Obj, labels: Obj) -> bool:
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression(one, labels) for one in selector.get("matchExpressions") or ())


def _expression(one: Obj, labels: Obj) -> bool:
    key, values = one.get("key", ""), one.get("values") or ()
    match one.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def _job(obj: Obj) -> Iterator[Cause]:
    spec = (obj.get("spec") or {}).get("template", {}).get("spec") or {}
    if spec.get("restartPolicy") not in ("OnFailure", "Never"):
        yield Cause(
            "spec.template.spec.restartPolicy",
            f'Required value: valid values: "OnFailure", "Never" (was "{spec.get("restartPolicy", "")}")',
            REQUIRED,
        )
    yield from _pod_spec(spec, "spec.template.spec")


def _service(obj: Obj) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        known = ", ".join(f'"{one}"' for one in kinds)
        yield Cause(
            "spec.type",
            f'Unsupported value: "{spec.get("type")}": supported values: {known}',
            NOT_SUPPORTED,
        )
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        yield Cause("spec.externalName", "Required value", REQUIRED)
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield Cause("spec.ports", "Required value", REQUIRED)
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        number = port.get("port")
        if not isinstance(number, int) or not 0 < number < 65_536:
            yield Cause(
                f"{where}.port", f"Invalid value: {number}: must be between 1 and 65535, inclusive"
            )
        if len(ports) > 1 and not port.get("name"):
            yield Cause(f"{where}.name", "Required value", REQUIRED)
    names = [port.get("name") for port in ports if port.get("name")]
    for name in {name for name in names if names.count(name) > 1}:
        yield Cause("spec.ports", f'Duplicate value: "{name}"', DUPLICATE)


def _service_change(old: Obj, new: Obj) -> Iterator[Cause]:
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if "ExternalName" in (before.get("type"), after.get("type")):
        return
    if before.get("clusterIP") and before["clusterIP"] != after.get("clusterIP"):
        yield Cause(
            "spec.clusterIPs[0]",
            f"Invalid value: {_brief(after.get('clusterIPs'))}: may not change once set",
        )


_POD_MUTABLE = (
    "tolerations",
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "ephemeralContainers",
    "schedulingGates",
)


def _pod_change(old: Obj, new: Obj) -> Iterator[Cause]:
    before, after = _frozen_spec(old), _frozen_spec(new)
    if not before.get("nodeName"):
        # Only a scheduler sets it; the lab lets it do so without the binding subresource, too.
        after.pop("nodeName", None)
    if before != after:
        yield Cause(
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
            " additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to"
            " be set to 1 if it was previously negative)",
            "FieldValueForbidden",
        )


def _frozen_spec(pod: Obj) -> Obj:
    spec = {key: value for key, value in (pod.get("spec") or {}).items() if key not in _POD_MUTABLE}
    for group in ("containers", "initContainers"):
        spec[group] = [
            {key: value for key, value in one.items() if key != "image"}
            for one in spec.get(group) or ()
        ]
    return spec


def _data_keys(obj: Obj) -> Iterator[Cause]:
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (obj.get(field) or {}).items():
            size += len(key) + len(value or "")
            if len(key) > 253 or not _DATA_KEY.fullmatch(key):
                yield Cause(
                    f"{field}[{key}]",
                    f"Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                )
    if size > 1_048_576 * (2 if "type" in obj else 1):
        yield Cause("data", "Too long: may not be more than 1048576 bytes", "FieldValueTooLong")


def _role_binding(obj: Obj) -> Iterator[Cause]:
    reference = obj.get("roleRef") or {}
    if not reference.get("name"):
        yield Cause("roleRef.name", "Required value", REQUIRED)
    if reference.get("kind") not in ("Role", "ClusterRole"):
        yield Cause(
            "roleRef.kind",
            f'Unsupported value: "{reference.get("kind", "")}": supported values: "Role", "ClusterRole"',
            NOT_SUPPORTED,
        )
    for index, subject in enumerate(obj.get("subjects") or ()):
        if not subject.get("name"):
            yield Cause(f"subjects[{index}].name", "Required value", REQUIRED)
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            yield Cause(f"subjects[{index}].namespace", "Required value", REQUIRED)


def _endpoint_slice(obj: Obj) -> Iterator[Cause]:
    if obj.get("addressType") not in ("IPv4", "IPv6", "FQDN"):
        yield Cause(
            "addressType",
            f'Unsupported value: "{obj.get("addressType", "")}": supported values: "FQDN", "IPv4", "IPv6"',
            NOT_SUPPORTED,
        )
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        if not endpoint.get("addresses"):
            yield Cause(
                f"endpoints[{index}].addresses",
                "Required value: must contain at least 1 address",
                REQUIRED,
            )


def _webhooks(obj: Obj) -> Iterator[Cause]:
    for index, hook in enumerate(obj.get("webhooks") or ()):
        where = f"webhooks[{index}]"
        if str(hook.get("name", "")).count(".") < 2:
            yield Cause(
                f"{where}.name",
                f'Invalid value: "{hook.get("name", "")}": should be a domain with at least three segments separated by dots',
            )
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            yield Cause(
                f"{where}.sideEffects",
                f'Unsupported value: "{hook.get("sideEffects", "")}": supported values: "None", "NoneOnDryRun"',
                NOT_SUPPORTED,
            )
        config = hook.get("clientConfig") or {}
        if bool(config.get("url")) == bool(config.get("service")):
            yield Cause(
                f"{where}.clientConfig",
                "Required value: exactly one of url or service is required",
                REQUIRED,
            )


_CHECKS: Mapping[str, Callable[[Obj], Iterator[Cause]]] = {
    "pods": _pod,
    "services": _service,
    "configmaps": _data_keys,
    "secrets": _data_keys,
    "deployments.apps": _workload,
    "replicasets.apps": _workload,
    "daemonsets.apps": _workload,
    "statefulsets.apps": _workload,
    "jobs.batch": _job,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "rolebindings.rbac.authorization.k8s.io": _role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _role_binding,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    crds.KEY: crds.findings,
}

_FIXED: Mapping[str, tuple[str, ...]] = {
    "deployments.apps": ("spec.selector",),
    "replicasets.apps": ("spec.selector",),
    "daemonsets.apps": ("spec.selector",),
    "statefulsets.apps": ("spec.selector", "spec.serviceName", "spec.podManagementPolicy"),
    "jobs.batch": ("spec.selector", "spec.completionMode", "spec.template"),
    "secrets": ("type",),
    "endpointslices.discovery.k8s.io": ("addressType",),
    "rolebindings.rbac.authorization.k8s.io": ("roleRef",),
    "clusterrolebindings.rbac.authorization.k8s.io": ("roleRef",),
    crds.KEY: ("spec.group", "spec.scope", "spec.names.plural", "spec.names.kind"),
}


def _at(obj: Obj, path: str) -> Json:
    value: Json = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _brief(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."
