"""Reads IstioOperator files and `--set` flags into one checked document.

Decides which fields exist and names the one that does not; knows nothing of what they cause.

Source: spec section 6.1.

    IsthmusError
    └── OptionsRefused
"""

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence

import yaml

from isthmus.base import errors

Tree = dict[str, object]
"""A document as YAML gives it."""

API_VERSION = "install.istio.io/v1alpha1"
KIND = "IstioOperator"

SPEC_FIELDS = {
    "profile", "revision", "hub", "tag", "namespace", "meshConfig", "components", "values",
    "unvalidatedValues", "installPackagePath", "compatibilityVersion",
}  # fmt: skip

COMPONENTS = {"base", "pilot", "cni", "ztunnel", "istiodRemote", "ingressGateways",
              "egressGateways"}  # fmt: skip

COMPONENT_FIELDS = {"enabled", "namespace", "hub", "tag", "k8s", "name", "label"}

K8S_FIELDS = {
    "env", "resources", "service", "serviceAnnotations", "podAnnotations", "replicaCount",
    "nodeSelector", "tolerations", "affinity", "hpaSpec", "strategy", "overlays",
    "imagePullPolicy", "priorityClassName", "readinessProbe", "securityContext",
}  # fmt: skip

ANYTHING: Mapping[str, object] = {}
"""Marks a value whose inside is free."""

VALUES: Mapping[str, object] = {
    "profile": None,
    "hub": None,
    "tag": None,
    "revision": None,
    "defaultRevision": None,
    "meshConfig": ANYTHING,
    "base": ANYTHING,
    "cni": ANYTHING,
    "ztunnel": ANYTHING,
    "platforms": ANYTHING,
    "telemetry": ANYTHING,
    "gateways": ANYTHING,
    "sidecarInjectorWebhook": ANYTHING,
    "istio_cni": ANYTHING,
    "ownerName": None,
    "compatibilityVersion": None,
    "experimental": ANYTHING,
    "pilot": {
        "env": ANYTHING,
        "resources": ANYTHING,
        "image": None,
        "hub": None,
        "tag": None,
        "replicaCount": None,
        "autoscaleEnabled": None,
        "autoscaleMin": None,
        "autoscaleMax": None,
        "traceSampling": None,
        "nodeSelector": ANYTHING,
        "tolerations": None,
        "affinity": ANYTHING,
        "podAnnotations": ANYTHING,
        "podLabels": ANYTHING,
        "deploymentLabels": ANYTHING,
        "serviceAnnotations": ANYTHING,
        "cni": ANYTHING,
        "enabled": None,
    },
    "istiodRemote": {
        "enabled": None,
        "injectionPath": None,
        "injectionURL": None,
        "injectionCABundle": None,
        "enabledLocalInjectorIstiod": None,
    },
    "global": {
        "meshID": None,
        "network": None,
        "hub": None,
        "tag": None,
        "multiCluster": {"clusterName": None, "enabled": None},
        "meshNetworks": ANYTHING,
        "remotePilotAddress": None,
        "externalIstiod": None,
        "configCluster": None,
        "istioNamespace": None,
        "caAddress": None,
        "pilotCertProvider": None,
        "imagePullPolicy": None,
        "imagePullSecrets": None,
        "logging": ANYTHING,
        "logAsJson": None,
        "proxy": ANYTHING,
        "proxy_init": ANYTHING,
        "sds": ANYTHING,
        "sts": ANYTHING,
        "platform": None,
        "priorityClassName": None,
        "defaultPodDisruptionBudget": ANYTHING,
        "defaultNodeSelector": ANYTHING,
        "defaultResources": ANYTHING,
        "defaultTolerations": None,
        "mountMtlsCerts": None,
        "omitSidecarInjectorConfigMap": None,
        "operatorManageWebhooks": None,
        "autoscalingv2API": None,
        "networkPolicy": ANYTHING,
        "waypoint": ANYTHING,
        "variant": None,
        "trustBundleName": None,
        "certSigners": None,
        "ipFamilies": None,
        "ipFamilyPolicy": None,
        "nativeNftables": None,
        "resourceScope": None,
    },
}
"""Helm values that exist; None is a leaf. What is none of these is a typing mistake."""


class OptionsRefused(errors.IsthmusError):
    """An installation file or flag cannot be understood."""

    code = "ISM-INST-001"


def read(texts: Iterable[tuple[str, str]], *, flags: Sequence[str] = ()) -> Tree:
    """Merge IstioOperator documents and `path=value` flags, later over earlier, into one spec.

    Args:
        texts: Pairs of a file's name, for messages, and its text.
        flags: As `--set` takes them, below `spec`.

    Raises:
        OptionsRefused: A document is broken or names a field that does not exist
            (ISM-INST-001).
    """
    spec: Tree = {}
    for name, text in texts:
        for document in _documents(name, text):
            spec = merged(spec, _spec_of(name, document))
    for flag in flags:
        spec = merged(spec, _flag(flag))
    check(spec)
    return spec


def merged(base: Tree, over: Mapping[str, object]) -> Tree:
    """Return `base` with `over` laid on it; lists of named parts merge by name."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            result[key] = merged(old, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def check(spec: Mapping[str, object]) -> None:
    """Refuse fields that do not exist, with the nearest one that does.

    Raises:
        OptionsRefused: With the path of the field (ISM-INST-001).
    """
    _known("spec", spec, SPEC_FIELDS)
    components = _mapping("spec.components", spec.get("components"))
    _known("spec.components", components, COMPONENTS)
    for name, component in components.items():
        for part in component if isinstance(component, list) else [component]:
            path = f"spec.components.{name}"
            tree = _mapping(path, part)
            _known(path, tree, COMPONENT_FIELDS)
            _known(f"{path}.k8s", _mapping(f"{path}.k8s", tree.get("k8s")), K8S_FIELDS)
    _check_values("spec.values", _mapping("spec.values", spec.get("values")), VALUES)
    _mapping("spec.meshConfig", spec.get("meshConfig"))


def _check_values(path: str, values: Mapping[str, object], known: Mapping[str, object]) -> None:
    _known(path, values, known, hint="or put it below `spec.unvalidatedValues`")
    for key, inside in known.items():
        if isinstance(inside, Mapping) and key in values:
            below = _mapping(f"{path}.{key}", values[key])
            if inside:
                _check_values(f"{path}.{key}", below, inside)


def _known(path: str, tree: Mapping[str, object], known: Iterable[str], *, hint: str = "") -> None:
    names = sorted(known)
    for key in tree:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            advice = [f"did you mean `{near[0]}`?"] if near else []
            raise OptionsRefused(
                f"unknown field: `{path}.{key}`",
                still_working="nothing was changed in the cluster",
                hint=" ".join([*advice, hint or f"known here: {', '.join(names)}"]),
            )


def _documents(name: str, text: str) -> list[Mapping[str, object]]:
    try:
        loaded = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, RecursionError) as error:
        raise OptionsRefused(
            f"`{name}` is not YAML",
            detail=str(error),
            still_working="nothing was changed in the cluster",
            hint="check indentation at the line that is named above",
        ) from error
    for document in loaded:
        if not isinstance(document, Mapping):
            raise OptionsRefused(f"`{name}` holds no object but: {str(document)[:60]}")
    return loaded


def _spec_of(name: str, document: Mapping[str, object]) -> Mapping[str, object]:
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind != KIND or version != API_VERSION:
        raise OptionsRefused(
            f"`{name}` is of kind `{kind}` in `{version}`, not {KIND} in {API_VERSION}",
            still_working="nothing was changed in the cluster",
            hint="apply other objects with `kubectl apply`",
        )
    _known(name, document, {"apiVersion", "kind", "metadata", "spec", "status"})
    return _mapping(f"{name}: spec", document.get("spec"))


def _mapping(path: str, value: object) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionsRefused(
            f"`{path}` must hold fields, but is: `{str(value)[:60]}`",
            still_working="nothing was changed in the cluster",
        )
    return value


def _flag(flag: str) -> Tree:
    path, separator, text = flag.partition("=")
    if not separator or not path:
        raise OptionsRefused(
            f"`--set` wants path=value, but got: `{flag}`",
            hint="such as `--set values.global.network=network1`",
        )
    value: object = yaml.safe_load(text) if text else ""
    if path.startswith(("values.pilot.env.", "meshConfig.defaultConfig.proxyMetadata.")):
        # Environment variables are texts: `true` must not become a boolean.
        value = text
    for part in reversed(_split(path)):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _split(path: str) -> list[str]:
    parts = path.replace("\\.", "\0").split(".")
    return [part.replace("\0", ".") for part in parts]
