"""A cluster of the lab in this process: the real API, controllers and HTTPS, a fake machine.

The fake kubelet runs every pod at once and ends deleted ones; the fake runtime runs programs on
this host and dials its loopback.
"""

import asyncio
import base64
import contextlib
import ssl

from aiohttp import web

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import http, pki, security, streams
from isthmus.lab.controllers import running
from isthmus.testing import pace

POOL = ("172.30.0.100", "172.30.0.101")


class Program:
    """A program on this host."""

    def __init__(self, process):
        self._process = process

    async def read_stdout(self):
        return await self._process.stdout.read(4096)

    async def read_stderr(self):
        return await self._process.stderr.read(4096)

    async def write_stdin(self, data):
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def close_stdin(self):
        self._process.stdin.close()

    async def wait(self):
        return await self._process.wait()

    def resize(self, *, rows, columns):
        self.size = (rows, columns)


class Runtime:
    """Runs programs here, dials here, and shows the logs that a test wrote."""

    def __init__(self):
        self.logs_of = {}
        self.asked = []

    async def exec(self, namespace, pod, container, argv, *, stdin, tty):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
        return Program(process)

    async def logs(self, namespace, pod, container, **asked):
        self.asked.append({"container": container, **asked})
        if (pod, container) not in self.logs_of:
            raise LookupError("the container is waiting to start")
        for line in self.logs_of[pod, container]:
            yield line

    async def dial(self, namespace, pod, port):
        return await asyncio.open_connection("127.0.0.1", port)


class Cluster:
    """One running cluster."""

    def __init__(self, api, secure, authority, nursery, runtime):
        self.api = api
        self.security = secure
        self.authority = authority
        self.nursery = nursery
        self.runtime = runtime
        self.url = ""
        self.balanced = []

    async def on_load_balancer(self, service, address):
        self.balanced.append((service["metadata"]["name"], address))

    async def namespace(self, name, **labels):
        metadata = {"name": name, "labels": labels}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        await self.api.create("namespaces", body)

    async def node(self, name, *, ready=True, zone="z1", **labels):
        metadata = {"name": name, "labels": {"topology.kubernetes.io/zone": zone, **labels}}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}}
        await self.api.create("nodes", node)
        await self.ready(name, ready=ready)

    async def ready(self, node, *, ready=True):
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        patch = {"status": {"conditions": [condition]}}
        await self.api.patch("nodes", node, patch, subresource="status")

    async def until(self, resource, wanted, namespace="default"):
        async with asyncio.timeout(pace.patience(5)), self.api.watch(resource, namespace) as events:
            async for event in events:
                if event.obj and event.type != "DELETED" and wanted(event.obj):
                    return event.obj
        raise AssertionError("the API ended")

    async def until_gone(self, resource, name, namespace="default"):
        async with asyncio.timeout(pace.patience(5)), self.api.watch(resource, namespace) as events:
            async for event in events:
                if event.type == "DELETED" and event.obj["metadata"]["name"] == name:
                    return
                if event.type == "SYNCED" and not await self.exists(resource, name, namespace):
                    return

    async def exists(self, resource, name, namespace="default"):
        try:
            await self.api.get(resource, name, namespace)
        except apis.ApiError:
            return False
        return True

    async def token(self, account="default", namespace="default", **spec):
        found = await self.until(
            "serviceaccounts", lambda each: each["metadata"]["name"] == account, namespace
        )
        answer = await self.api.issue_token(found, {"spec": spec})
        return answer["status"]["token"]

    def tls(self, pair=None):
        context = ssl.create_default_context(cadata=self.authority.ca_pem)
        if pair:
            pki.load_pair(context, pair)
        return context

    async def run_pods(self):
        """Run every pod that has a node; end every pod that is being deleted."""
        addresses = iter(range(1, 250))
        async with self.api.watch("pods") as events:
            async for event in events:
                if event.type in {"SYNCED", "DELETED"}:
                    continue
                await self._keep_pod(event.obj, addresses)

    async def _keep_pod(self, pod, addresses):
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        with contextlib.suppress(apis.ApiError):
            if "deletionTimestamp" in pod["metadata"]:
                await self.api.delete("pods", name, namespace, grace_s=0)
            elif pod["spec"].get("nodeName") and not pod.get("status", {}).get("podIP"):
                status = {
                    "phase": "Running",
                    "podIP": f"10.1.0.{next(addresses)}",
                    "conditions": [{"type": "Ready", "status": "True"}],
                }
                await self.api.patch(
                    "pods", name, {"status": status}, namespace=namespace, subresource="status"
                )

    async def end_pod(self, pod, *, succeeded):
        status = {"phase": "Succeeded" if succeeded else "Failed"}
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        await self.api.patch(
            "pods", name, {"status": status}, namespace=namespace, subresource="status"
        )


@contextlib.asynccontextmanager
async def running_cluster(*, connect=None):
    """Start a cluster without a machine; its HTTPS is served by `served`."""
    api = apis.Api()
    now = clock.SystemClock().now()
    authority = pki.make_cluster_authority("c1", now=now, cluster_ip="10.96.0.1")
    async with tasks.Nursery() as nursery:
        secure = security.ClusterSecurity(
            api, authority=authority, nursery=nursery, connect=connect
        )
        cluster = Cluster(api, secure, authority, nursery, Runtime())
        settings = running.Settings(
            authority=authority,
            signer=secure.signer,
            cluster_ip="10.96.0.1",
            address="172.30.0.3",
            load_balancer_pool=POOL,
            on_load_balancer=cluster.on_load_balancer,
        )
        await running.prepare(api, settings)
        running.run_all(api, nursery, settings)
        yield cluster


@contextlib.asynccontextmanager
async def served(cluster):
    """Serve a cluster over HTTPS on the loopback."""
    relay = streams.PodStreams(cluster.api, cluster.runtime)
    application = http.application(cluster.api, cluster.security, relay)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=pki.server_context(cluster.authority))
    await site.start()
    cluster.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield cluster
    finally:
        await runner.cleanup()


def deployment(name="web", *, replicas=2, image="one", **spec):
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
            **spec,
        },
    }


def pod(name="one", *, namespace="default", **spec):
    containers = [{"name": "main", "image": "one"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"containers": containers, **spec},
    }


def service(name="web", **spec):
    ports = [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def encoded(text):
    return base64.b64encode(text.encode()).decode()
