"""The values that Kubernetes fills in, where clients and informers see them.

Only kinds that the lab runs or that clients read back are here; storage-only kinds keep what
they are given. Addresses are chosen elsewhere.
"""

from collections.abc import Callable, Mapping

from isthmus.lab.apiserver.values import Obj


def fill(key: str, obj: Obj) -> None:
    """Set the missing defaults of `obj`, whose resource is `key`, in place."""
    filler = _FILLERS.get(key)
    if filler is not None:
        filler(obj)


def _pod(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("serviceAccountName"):
        _set(spec, serviceAccount="default")
    _set(spec, enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0)
    pod_spec(spec)


def pod_spec(spec: Obj) -> None:
    """Set the defaults of a pod's spec in place, as in every template."""
    _set(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        terminationGracePeriodSeconds=30,
    )
    spec.setdefault("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(group) or ():
            _container(one)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(one: Obj) -> None:
    image = one.get("image", "")
    tag = image.rpartition("/")[2].partition(":")[2]
    policy = "Always" if image and "@" not in image and tag in ("", "latest") else "IfNotPresent"
    _set(
        one,
        imagePullPolicy=policy,
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    one.setdefault("resources", {})
    for port in one.get("ports") or ():
        _set(port, protocol="TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if one.get(name):
            _probe(one[name])
    for when in ("postStart", "preStop"):
        action = (one.get("lifecycle") or {}).get(when) or {}
        if action.get("httpGet"):
            _set(action["httpGet"], scheme="HTTP", path="/")
    for variable in one.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            _set(reference, apiVersion="v1")
    _requests(one["resources"])


def _requests(resources: Obj) -> None:
    """Limits without requests are requests too."""
    for name, amount in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, amount)


def _probe(probe: Obj) -> None:
    _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if probe.get("httpGet"):
        _set(probe["httpGet"], scheme="HTTP", path="/")
    if probe.get("grpc"):
        _set(probe["grpc"], service="")


def _volume(volume: Obj) -> None:
    for kind in ("configMap", "secret", "projected", "downwardAPI"):
        if volume.get(kind) is not None:
            _set(volume[kind], defaultMode=420)
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken"):
            _set(source["serviceAccountToken"], expirationSeconds=3600)
        _field_refs(source.get("downwardAPI"))
    _field_refs(volume.get("downwardAPI"))
    if volume.get("hostPath"):
        _set(volume["hostPath"], type="")


def _field_refs(source: Obj | None) -> None:
    for item in (source or {}).get("items") or ():
        if item.get("fieldRef"):
            _set(item["fieldRef"], apiVersion="v1")


def _template(spec: Obj) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec(template.setdefault("spec", {}))


def _deployment(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        _set(rolling, maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replicated(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1)
    _template(spec)


def _replication_controller(obj: Obj) -> None:
    _replicated(obj)
    spec = obj["spec"]
    labels = spec["template"]["metadata"].get("labels")
    if labels and not spec.get("selector"):
        spec["selector"] = dict(labels)


def _daemon_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, revisionHistoryLimit=10)
    strategy = spec.setdefault("updateStrategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        _set(rolling, maxUnavailable=1, maxSurge=0)
    _template(spec)


def _stateful_set(obj: Obj) -> None:
    _replicated(obj)
    spec = obj["spec"]
    _set(spec, podManagementPolicy="OrderedReady", revisionHistoryLimit=10, serviceName="")
    _set(spec.setdefault("updateStrategy", {}), type="RollingUpdate")


def _job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        _set(spec, completions=1)
    _set(
        spec,
        parallelism=1,
        backoffLimit=6,
        completionMode="NonIndexed",
        suspend=False,
        podReplacementPolicy="TerminatingOrFailed",
    )
    _template(spec)


def _cron_job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(
        spec,
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )


def _service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None")
    external = spec["type"] == "ExternalName"
    if not external:
        _set(spec, internalTrafficPolicy="Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _set(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)
    if spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        _set(client, timeoutSeconds=10_800)
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP")
        if port.get("targetPort") in (None, "", 0) and "port" in port:
            port["targetPort"] = port["port"]


def _secret(obj: Obj) -> None:
    _set(obj, type="Opaque")


def _namespace(obj: Obj) -> None:
    labels = obj["metadata"].setdefault("labels", {})
    if obj["metadata"].get("name"):
        labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])


def _endpoints(obj: Obj) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            _set(port, protocol="TCP")


def _endpoint_slice(obj: Obj) -> None:
    for port in obj.get("ports") or ():
        _set(port, protocol="TCP", name="")


def _role_binding(obj: Obj) -> None:
    reference = obj.get("roleRef") or {}
    if reference:
        _set(reference, apiGroup="rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            _set(subject, apiGroup="rbac.authorization.k8s.io")


def _webhooks(obj: Obj) -> None:
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for hook in obj.get("webhooks") or ():
        _set(hook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        if mutating:
            _set(hook, reinvocationPolicy="Never")
        for rule in hook.get("rules") or ():
            _set(rule, scope="*")
        service = (hook.get("clientConfig") or {}).get("service")
        if service:
            _set(service, port=443)


def _crd(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    _set(names, singular=kind.lower(), listKind=f"{kind}List")
    _set(spec.setdefault("conversion", {}), strategy="None")


def _network_policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _hpa(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), minReplicas=1)


def _set(target: Obj, **values: object) -> None:
    for name, value in values.items():
        if target.get(name) in (None, "") and value is not None:
            target[name] = value


_FILLERS: Mapping[str, Callable[[Obj], None]] = {
    "pods": _pod,
    "services": _service,
    "secrets": _secret,
    "namespaces": _namespace,
    "endpoints": _endpoints,
    "replicationcontrollers": _replication_controller,
    "deployments.apps": _deployment,
    "replicasets.apps": _replicated,
    "daemonsets.apps": _daemon_set,
    "statefulsets.apps": _stateful_set,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "rolebindings.rbac.authorization.k8s.io": _role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _role_binding,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "customresourcedefinitions.apiextensions.k8s.io": _crd,
    "networkpolicies.networking.k8s.io": _network_policy,
    "horizontalpodautoscalers.autoscaling": _hpa,
}
