"""The objects of a control plane in its own cluster, named as Istio's.

Source: spec section 6.2. What it may do is in `rights`.
"""

import json

import yaml

from isthmus.install import labels, operator, rights, webhook
from isthmus.install.options import Options

Manifest = dict[str, object]

PORTS = (
    ("https-dns", 15012, 15012),
    ("https-webhook", 443, 15017),
    ("http-monitoring", 15014, 15014),
)
PEERING = ("https-peering", 15013, 15013)
"""Where control planes of linked clusters are told; there only where links are followed."""
KUBECONFIG_SECRET = "istio-kubeconfig"
"""Leads to the cluster that the mesh is configured in, if that is another one."""
KUBECONFIG_FOLDER = "/var/run/secrets/remote"
ISSUERS_ROOTS, EXTRA = "pilot-jwks-extra-cacerts", "extracacerts"
"""The ConfigMap of certificates of those whose keys of tokens are fetched, and its volume."""


def objects(options: Options) -> list[Manifest]:
    """Return the control plane's objects in the order in which they should come to be."""
    name = f"istiod{options.suffix}"
    return [
        *(account_outside(options, name) if options.runs_outside else account(options, name)),
        mesh_config_map(options),
        injector_config_map(options),
        *([_issuers_roots(options)] if options.issuers_roots else []),
        _service(options, name),
        _deployment(options, name),
        _disruption_budget(options, name),
        *([_autoscaler(options, name)] if options.autoscaled else []),
        *([webhook.manifest(options)] if options.brings_webhook else ()),
    ]


def account(options: Options, name: str) -> list[Manifest]:
    """Return the control plane's account where its mesh is configured, with its rights."""
    shared = rights.shared() if options.writes_addresses else []
    recalled = rights.recalled(is_linked=options.links_clusters)
    return [
        _service_account(options, name),
        *_cluster_roles(options, name),
        *_own(options, name, rights.own() + recalled + shared),
    ]


def account_outside(options: Options, name: str) -> list[Manifest]:
    """Return its account where it only runs: it reads its own namespace there."""
    return [_service_account(options, name), *_own(options, name, rights.own())]


def mesh_config(options: Options) -> operator.Tree:
    """Return the MeshConfig that the ConfigMap holds: defaults below what was given."""
    default_config: operator.Tree = {
        "discoveryAddress": f"istiod{options.suffix}.{options.namespace}.svc:15012",
        "proxyMetadata": {},
        "tracing": {},
    }
    if options.mesh_id:
        default_config["meshId"] = options.mesh_id
    base: operator.Tree = {
        "defaultConfig": default_config,
        "enablePrometheusMerge": True,
        "rootNamespace": options.namespace,
        "trustDomain": "cluster.local",
    }
    return operator.merged(base, options.mesh_config)


def mesh_config_map(options: Options) -> Manifest:
    """Return ConfigMap `istio`: the mesh's settings and its networks, as YAML texts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": labels.metadata(options, f"istio{options.suffix}", component="Pilot"),
        "data": {
            "mesh": yaml.safe_dump(mesh_config(options), sort_keys=True),
            "meshNetworks": yaml.safe_dump({"networks": options.mesh_networks}, sort_keys=True),
        },
    }


def injector_values(options: Options) -> operator.Tree:
    """Return what the injector needs to know, in the shape of Istio's values."""
    own: operator.Tree = {
        "global": {
            "istioNamespace": options.namespace,
            "meshID": options.mesh_id,
            "multiCluster": {"clusterName": options.cluster},
            "network": options.network,
            "proxy": {"image": options.proxy_image},
        },
        "revision": options.revision,
        # `istioctl analyze` wants an answer; only labels call for a proxy here.
        "sidecarInjectorWebhook": {"enableNamespacesByDefault": False},
    }
    return operator.merged(operator.merged({}, options.values), own)


def injector_config_map(options: Options) -> Manifest:
    """Return ConfigMap `istio-sidecar-injector`: policy and values; there are no templates."""
    config = {"policy": "enabled", "defaultTemplates": ["sidecar"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": labels.metadata(
            options, f"istio-sidecar-injector{options.suffix}", component="Pilot"
        ),
        "data": {
            "config": yaml.safe_dump(config, sort_keys=True),
            "values": json.dumps(injector_values(options), indent=2, sort_keys=True),
        },
    }


def _issuers_roots(options: Options) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": labels.metadata(options, f"{ISSUERS_ROOTS}{options.suffix}", component="Pilot"),
        "data": {"extra.pem": options.issuers_roots},
    }


def _service_account(options: Options, name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": labels.metadata(options, name, component="Pilot"),
    }


def _cluster_roles(options: Options, name: str) -> list[Manifest]:
    cluster_name = f"istiod-clusterrole{options.suffix}-{options.namespace}"
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": labels.metadata(options, cluster_name, component="Pilot", namespace=""),
            "rules": [
                *rights.followed(),
                *rights.configured(),
                *rights.kept(),
                *(rights.run() if options.runs_gateways else ()),
                *(rights.given() if options.writes_addresses else ()),
                *(rights.linked() if options.links_clusters else ()),
            ],
        },
        _binding(options, "ClusterRole", cluster_name, name),
    ]


def _own(options: Options, name: str, rules: list[rights.Rule]) -> list[Manifest]:
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": labels.metadata(options, name, component="Pilot"),
            "rules": rules,
        },
        _binding(options, "Role", name, name),
    ]


def _binding(options: Options, kind: str, role: str, account: str) -> Manifest:
    namespace = "" if kind == "ClusterRole" else options.namespace
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": labels.metadata(options, role, component="Pilot", namespace=namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [
            {"kind": "ServiceAccount", "name": account, "namespace": options.namespace},
        ],
    }


def _service(options: Options, name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(
            options, name, component="Pilot", app="istiod", extra={"istio": "pilot"}
        ),
        "spec": {
            "selector": {"app": "istiod"} | _selected_revision(options),
            "ports": [
                {"name": port, "port": number, "targetPort": target, "protocol": "TCP"}
                for port, number, target in _ports(options)
            ],
        },
    }


def _ports(options: Options) -> tuple[tuple[str, int, int], ...]:
    return (*PORTS, PEERING) if options.links_clusters else PORTS


def _selected_revision(options: Options) -> dict[str, str]:
    return {"istio.io/rev": options.revision} if options.suffix else {"istio": "pilot"}


def environment(options: Options) -> dict[str, str]:
    """Return the plain environment of the control plane; what was given wins."""
    return {
        "REVISION": options.revision_label,
        "PILOT_CERT_PROVIDER": "istiod",
        "CLUSTER_ID": options.cluster or "Kubernetes",
        "EXTERNAL_ISTIOD": "false",
        "KUBECONFIG": f"{KUBECONFIG_FOLDER}/config",
        "CA_TRUSTED_NODE_ACCOUNTS": f"{options.namespace}/ztunnel",
        **options.pilot_env,
    }


def _env(options: Options) -> list[Manifest]:
    plain: list[Manifest] = [
        {"name": key, "value": value} for key, value in environment(options).items()
    ]
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "SERVICE_ACCOUNT": "spec.serviceAccountName",
    }
    return plain + [
        {"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for key, path in fields.items()
    ]


def _container(options: Options) -> Manifest:
    resources = options.pilot_resources or {"requests": {"cpu": "100m", "memory": "256Mi"}}
    return {
        "name": "discovery",
        "image": options.pilot_image,
        "args": ["discovery", "--domain", "cluster.local", "--log_output_level=default:info"],
        "env": _env(options),
        "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "grpc-tls", "containerPort": 15012, "protocol": "TCP"},
            {"name": "monitoring", "containerPort": 15014, "protocol": "TCP"},
            {"name": "webhook", "containerPort": 15017, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": 8080},
            "initialDelaySeconds": 1,
            "periodSeconds": 3,
            "timeoutSeconds": 5,
        },
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [
            {"name": "cacerts", "mountPath": "/etc/cacerts", "readOnly": True},
            {"name": "istio-kubeconfig", "mountPath": KUBECONFIG_FOLDER, "readOnly": True},
            {"name": "local-certs", "mountPath": "/var/run/secrets/istio-dns"},
            {"name": "run", "mountPath": "/run/isthmus"},
            *([{"name": EXTRA, "mountPath": "/cacerts"}] if options.issuers_roots else []),
        ],
    }


def _deployment(options: Options, name: str) -> Manifest:
    # As in Istio: pods of a revision must not be selected by the default one's Service.
    role = "istiod" if options.suffix else "pilot"
    pod_labels = {"app": "istiod", "istio": role, "istio.io/rev": options.revision_label}
    selector = {"app": "istiod"} | _selected_revision(options)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels.metadata(
            options, name, component="Pilot", app="istiod", extra={"istio": "pilot"}
        ),
        "spec": {
            "replicas": options.pilot_replicas,
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": {**pod_labels, "sidecar.istio.io/inject": "false"},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "15014"},
                },
                "spec": {
                    "serviceAccountName": name,
                    "securityContext": {"fsGroup": 1337, "runAsUser": 1337, "runAsGroup": 1337},
                    "containers": [_container(options)],
                    "volumes": [
                        {
                            "name": "cacerts",
                            "secret": {"secretName": "cacerts", "optional": True},
                        },
                        {
                            "name": "istio-kubeconfig",
                            "secret": {"secretName": KUBECONFIG_SECRET, "optional": True},
                        },
                        {"name": "local-certs", "emptyDir": {"medium": "Memory"}},
                        {"name": "run", "emptyDir": {"medium": "Memory"}},
                        *_more_volumes(options),
                    ],
                },
            },
        },
    }


def _more_volumes(options: Options) -> list[Manifest]:
    named = {"name": f"{ISSUERS_ROOTS}{options.suffix}"}
    return [{"name": EXTRA, "configMap": named}] if options.issuers_roots else []


def _disruption_budget(options: Options, name: str) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": labels.metadata(options, name, component="Pilot", app="istiod"),
        "spec": {
            "minAvailable": 1,
            "selector": {"matchLabels": {"app": "istiod"} | _selected_revision(options)},
        },
    }


def _autoscaler(options: Options, name: str) -> Manifest:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": labels.metadata(options, name, component="Pilot", app="istiod"),
        "spec": {
            "minReplicas": options.pilot_replicas,
            "maxReplicas": max(5, options.pilot_replicas),
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 80},
                    },
                }
            ],
        },
    }
