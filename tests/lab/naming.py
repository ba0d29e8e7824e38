"""Servers that only one cluster has, and clients elsewhere that ask for them by name."""

import contextlib
import json

import traffic
import yaml

NAMESPACE = "names"
SERVER, CLIENT = "far", "near"
CAPTURED = {"ISTIO_META_DNS_CAPTURE": "true"}
ALLOCATED = {**CAPTURED, "ISTIO_META_DNS_AUTO_ALLOCATE": "true"}
PORT = 5000
HTTP, TCP = {"name": "http", "port": 80}, {"name": "tcp-raw", "port": 9000}
SAME, PLAIN = {"name": "tcp-same", "port": PORT}, {"name": "http", "port": PORT}


def workload(name, image, *, kind="Deployment", metadata=None, **container):
    """Return a Deployment or StatefulSet of one pod that runs as an account of its own name."""
    config = {"proxy.istio.io/config": yaml.safe_dump({"proxyMetadata": metadata or {}})}
    template = {
        "metadata": {"labels": {"app": name}, "annotations": config},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": name, "image": image, **container}],
        },
    }
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    made = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    return [account, made]


def service(*ports, name=SERVER, app=SERVER, **spec):
    body = {
        "selector": {"app": app},
        "ports": [{"targetPort": PORT, **port} for port in ports],
        **spec,
    }
    return [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}]


def entry(host, *ports):
    """Return a ServiceEntry for the server's pods, wherever they are."""
    spec = {
        "hosts": [host],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [
            {
                "number": port["port"],
                "name": port["name"],
                "protocol": port["name"].partition("-")[0].upper(),
                "targetPort": PORT,
            }
            for port in ports
        ],
        "workloadSelector": {"labels": {"app": SERVER}},
    }
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": SERVER},
        "spec": spec,
    }


def server(**more):
    image = "docker.io/istio/examples-helloworld-v2"
    return workload(SERVER, image, ports=[{"containerPort": PORT}], **more)


def client(metadata):
    return workload(
        CLIENT, "curlimages/curl", metadata=metadata, command=["/bin/sleep", "infinity"]
    )


@contextlib.contextmanager
def there(lab, objects):
    """Have objects in a namespace of their own, by cluster, and all their pods ready."""
    for cluster, wanted in objects.items():
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}},
        }
        apply(lab, cluster, [namespace])
        apply(lab, cluster, wanted)
    try:
        for cluster in objects:
            traffic.until(lambda cluster=cluster: all_ready(lab, cluster))
        yield
    finally:
        for cluster in objects:
            lab.kubectl(cluster, f"delete namespace {NAMESPACE} --wait=false")
        for cluster in objects:
            traffic.until(lambda cluster=cluster: is_gone(lab, cluster))


def apply(lab, cluster, objects):
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    where = "" if objects[0]["kind"] == "Namespace" else f"-n {NAMESPACE}"
    lab.kubectl(cluster, f"apply {where} -f -", stdin=json.dumps(listed))


def all_ready(lab, cluster):
    pods = lab.json_of(cluster, f"pods -n {NAMESPACE}")["items"]
    return bool(pods) and all(traffic.is_ready(pod) for pod in pods)


def is_gone(lab, cluster):
    return lab.attempt(
        f"{lab.kubectl_program} --context {cluster} get namespace {NAMESPACE}"
    ).returncode


def called(lab, url, *, cluster="cluster1", mark=""):
    """Call a URL as the client does; return curl's exit code and what it was told."""
    header = f"-H 'x-isthmus-verify: {mark}'" if mark else ""
    ended = lab.attempt(
        f"{lab.kubectl_program} --context {cluster} exec -n {NAMESPACE} -c {CLIENT}"
        f" deploy/{CLIENT} -- curl -sS -m 20 {header} {url}"
    )
    return ended.returncode, ended.stdout + ended.stderr


def arrivals(lab, cluster, mark, *, of=f"deploy/{SERVER}", at_least=1):
    """Return what the server's proxy logged of calls with a mark; it does so a moment later."""

    def logged():
        log = lab.kubectl(cluster, f"logs -n {NAMESPACE} {of} -c istio-proxy")
        lines = [json.loads(line) for line in log.splitlines() if '"isthmus_verify"' in line]
        found = [line for line in lines if line["isthmus_verify"] == mark]
        return found if len(found) >= at_least else []

    return traffic.until(logged)
