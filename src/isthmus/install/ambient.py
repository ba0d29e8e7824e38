"""The objects of ambient mode on each node: the agent that enrols pods, and the nodes' proxy.

Named and mounted as Istio's, so that its images can run in them. The proxy may enter pods' networks
and nothing else: it is granted nothing at API servers. The agent sees pods and namespaces, and
writes on pods whether they take part.

Source: Istio's charts `istio-cni` and `ztunnel`; spec sections 6.1 and 7.2.
"""

from collections.abc import Mapping, Sequence

from isthmus.install import control_plane, labels
from isthmus.install.control_plane import Manifest
from isthmus.install.options import Options

AGENT, PROXY = "istio-cni-node", "ztunnel"
AGENT_ACCOUNT, AGENT_CONFIG = "istio-cni", "istio-cni-config"
PRIORITY = "system-node-critical"
GRACE_S = 30
DRAIN_S = 5
"""How long connections of a proxy that is replaced may go on."""

EVERYWHERE = [{"effect": "NoSchedule", "operator": "Exists"},
              {"effect": "NoExecute", "operator": "Exists"},
              {"key": "CriticalAddonsOnly", "operator": "Exists"}]  # fmt: skip
SOCKETS = "/var/run/ztunnel"


def agent(options: Options) -> list[Manifest]:
    """Return the objects of the agent that enrols pods."""
    return [
        _account(options, AGENT_ACCOUNT, component="Cni"),
        *_rights(options),
        _agent_config(options),
        _agent_set(options),
    ]


def proxy(options: Options) -> list[Manifest]:
    """Return the objects of the nodes' proxy."""
    return [_account(options, PROXY, component="Ztunnel"), _proxy_set(options)]


def _account(options: Options, name: str, *, component: str) -> Manifest:
    metadata = labels.metadata(options, name, component=component)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


# --- the agent


def _rights(options: Options) -> list[Manifest]:
    name = f"{AGENT_ACCOUNT}{options.suffix}-{options.namespace}"
    metadata = labels.metadata(options, name, component="Cni", namespace="")
    followed = ["get", "list", "watch"]
    rules: list[Manifest] = [
        {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": followed},
        # The mark of those that take part; by the status, nothing else of a pod can be changed.
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch", "update"]},
    ]
    role: Manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata,
        "rules": rules,
    }
    binding: Manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": labels.metadata(options, name, component="Cni", namespace=""),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [
            {"kind": "ServiceAccount", "name": AGENT_ACCOUNT, "namespace": options.namespace}
        ],
    }
    return [role, binding]


def _agent_config(options: Options) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": labels.metadata(options, AGENT_CONFIG, component="Cni"),
        "data": {
            "AMBIENT_ENABLED": "true",
            "AMBIENT_DNS_CAPTURE": "true" if options.nodes.captures_dns else "false",
            "AMBIENT_IPV6": "false",
            "CHAINED_CNI_PLUGIN": "true",
            "EXCLUDE_NAMESPACES": f"kube-system,{options.namespace}",
            "REPAIR_ENABLED": "false",
        },
    }


def _agent_set(options: Options) -> Manifest:
    container: Manifest = {
        "name": "install-cni",
        "image": options.nodes.agent_image,
        "command": ["install-cni"],
        "args": ["--log_output_level=info"],
        "env": [
            *_fields({"NODE_NAME": "spec.nodeName", "KUBERNETES_NODE_NAME": "spec.nodeName"}),
            *_fields({"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}),
        ],
        "envFrom": [{"configMapRef": {"name": AGENT_CONFIG}}],
        "ports": [{"name": "metrics", "containerPort": 15014, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8000}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
        "securityContext": _powers(
            "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_ADMIN", "DAC_OVERRIDE", group=0
        ),
        "volumeMounts": [
            {"name": "cni-bin-dir", "mountPath": "/host/opt/cni/bin"},
            {"name": "cni-host-procfs", "mountPath": "/host/proc", "readOnly": True},
            {"name": "cni-net-dir", "mountPath": "/host/etc/cni/net.d"},
            {"name": "cni-socket-dir", "mountPath": "/var/run/istio-cni"},
            {
                "name": "cni-netns-dir",
                "mountPath": "/host/var/run/netns",
                "mountPropagation": "HostToContainer",
            },
            {"name": "cni-ztunnel-sock-dir", "mountPath": SOCKETS},
        ],
    }
    volumes = [
        _of_node("cni-bin-dir", "/opt/cni/bin"),
        _of_node("cni-host-procfs", "/proc", kind=""),
        _of_node("cni-net-dir", "/etc/cni/net.d"),
        _of_node("cni-socket-dir", "/var/run/istio-cni"),
        _of_node("cni-netns-dir", "/var/run/netns"),
        _of_node("cni-ztunnel-sock-dir", SOCKETS),
    ]
    pod = _pod(AGENT_ACCOUNT, container, volumes) | {"hostNetwork": True}
    update = {"maxUnavailable": 1}
    return _on_each_node(options, AGENT, pod, component="Cni", update=update)


# --- the proxy


def _proxy_set(options: Options) -> Manifest:
    container: Manifest = {
        "name": "istio-proxy",
        "image": options.nodes.proxy_image,
        "args": ["proxy", "ztunnel"],
        "env": _proxy_env(options),
        "ports": [{"name": "ztunnel-stats", "containerPort": 15020, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": 15021},
            "periodSeconds": 2,
        },
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}},
        "securityContext": _powers("NET_ADMIN", "NET_RAW", "SYS_ADMIN", group=1337)
        | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
            {"name": "cni-ztunnel-sock-dir", "mountPath": SOCKETS},
            {"name": "working", "mountPath": "/etc/istio/proxy"},
        ],
    }
    token = {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}
    volumes: list[Manifest] = [
        {
            "name": "istio-token",
            "projected": {"sources": [{"serviceAccountToken": token}]},
        },
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
        _of_node("cni-ztunnel-sock-dir", SOCKETS),
        {"name": "working", "emptyDir": {}},
    ]
    pod = _pod(PROXY, container, volumes)
    # The next one takes new connections before the last one goes.
    update = {"maxSurge": 1, "maxUnavailable": 0}
    return _on_each_node(options, PROXY, pod, component="Ztunnel", update=update)


def _proxy_env(options: Options) -> list[Manifest]:
    address = f"istiod{options.suffix}.{options.namespace}.svc:15012"
    config = control_plane.mesh_config(options)
    aliases = config.get("trustDomainAliases")
    domains = [config["trustDomain"], *(aliases if isinstance(aliases, list) else ())]
    plain = {
        "CA_ADDRESS": address,
        "XDS_ADDRESS": address,
        "ISTIO_META_CLUSTER_ID": options.cluster or "Kubernetes",
        "NETWORK": options.network,
        "TRUST_DOMAIN": ",".join(map(str, domains)),
        "ISTIO_META_DNS_CAPTURE": "true" if options.nodes.captures_dns else "false",
        "INPOD_ENABLED": "true",
        "RUST_LOG": "info",
        "TERMINATION_GRACE_PERIOD_SECONDS": str(DRAIN_S),
        **options.nodes.proxy_env,
    }
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
        "INSTANCE_IP": "status.podIP",
        "SERVICE_ACCOUNT": "spec.serviceAccountName",
    }
    named: list[Manifest] = [{"name": key, "value": value} for key, value in plain.items()]
    return named + _fields(fields)


# --- both


def _on_each_node(
    options: Options, name: str, pod: Manifest, *, component: str, update: Mapping[str, int]
) -> Manifest:
    pod_labels = {
        "app": name,
        "k8s-app": name,
        "istio.io/dataplane-mode": "none",
        "sidecar.istio.io/inject": "false",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": labels.metadata(options, name, component=component, app=name),
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": dict(update)},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {"sidecar.istio.io/inject": "false"},
                },
                "spec": pod,
            },
        },
    }


def _pod(account: str, container: Manifest, volumes: Sequence[Manifest]) -> Manifest:
    return {
        "serviceAccountName": account,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "priorityClassName": PRIORITY,
        "terminationGracePeriodSeconds": GRACE_S,
        "tolerations": [dict(one) for one in EVERYWHERE],
        "containers": [container],
        "volumes": list(volumes),
    }


def _powers(*capabilities: str, group: int) -> Manifest:
    return {
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": list(capabilities)},
        "privileged": False,
        "runAsGroup": group,
        "runAsNonRoot": False,
        "runAsUser": 0,
    }


def _of_node(name: str, path: str, *, kind: str = "DirectoryOrCreate") -> Manifest:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def _fields(paths: dict[str, str]) -> list[Manifest]:
    return [
        {"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in paths.items()
    ]
