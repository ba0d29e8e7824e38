"""What a new pod gets to prove who it is: an account and a token's volume.

It decides what is added to a pod's spec. It refuses to know how the volume is filled.
"""

import dataclasses
import random

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import copying, errors, mirrors
from isthmus.lab.apiserver.values import AdmissionRequest, Obj

_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_TOKEN_LIFE_S = 3607
_PATIENCE_S = 2.0


class Identities:
    """Completes pods with their accounts."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors) -> None:
        self._objects = api.state.store
        self._accounts = follow.of("serviceaccounts")

    async def completed(self, request: AdmissionRequest) -> AdmissionRequest:
        """Return `request` with account and token volume, if it makes a pod."""
        is_pod = request.resource == "pods" and not request.group and not request.subresource
        if not is_pod or request.operation != "CREATE":
            return request
        obj = copying.copied(request.obj)
        spec = obj["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(name, request)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = copying.copied_value(account["imagePullSecrets"])
        if _automounts(spec, account):
            _mount(spec)
        return dataclasses.replace(request, obj=obj)

    async def _account(self, name: str, request: AdmissionRequest) -> Obj:
        """Return the account; that of a brand-new namespace may be a moment late."""
        entry = self._objects.get("serviceaccounts", name=name, namespace=request.namespace)
        found = entry.obj if entry else None
        if found is None and name == "default":
            found = await self._accounts.wait_for(name, request.namespace, deadline_s=_PATIENCE_S)
        if found is None:
            pod = request.name or request.obj["metadata"].get("generateName", "")
            raise errors.forbidden(
                f'pods "{pod}" is forbidden: error looking up service account'
                f' {request.namespace}/{name}: serviceaccount "{name}" not found',
                resource="pods",
                name=pod,
            )
        return found


def _automounts(spec: Obj, account: Obj) -> bool:
    wish = spec.get("automountServiceAccountToken")
    if wish is None:
        wish = account.get("automountServiceAccountToken")
    return wish is not False


def _mount(spec: Obj) -> None:
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    lacking = [
        each
        for each in containers
        if all(mount["mountPath"] != _MOUNT_PATH for mount in each.get("volumeMounts") or ())
    ]
    if not lacking:
        return
    volumes = spec.setdefault("volumes", [])
    name = next((each["name"] for each in volumes if each["name"].startswith(_PREFIX)), "")
    if not name:
        name = _PREFIX + "".join(random.choices(_ALPHABET, k=5))
        volumes.append(_volume(name))
    for each in lacking:
        mount = {"name": name, "readOnly": True, "mountPath": _MOUNT_PATH}
        each.setdefault("volumeMounts", []).append(mount)


def _volume(name: str) -> Obj:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_LIFE_S, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]
    return {"name": name, "projected": {"defaultMode": 420, "sources": sources}}
