"""Two Python clients that nobody here wrote."""

import asyncio

import kubernetes_asyncio
import lightkube
import lightkube.config.kubeconfig
import pytest
from kubernetes_asyncio import watch
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap

from isthmus.testing import pace


@pytest.fixture
async def core(cluster):
    await kubernetes_asyncio.config.load_kube_config(config_file=cluster.kubeconfig)
    async with kubernetes_asyncio.client.ApiClient() as made:
        yield kubernetes_asyncio.client.CoreV1Api(made)


def config(name, **data):
    return {"metadata": {"name": name}, "data": data}


async def test_kubernetes_asyncio_creates_lists_and_deletes(core):
    await core.create_namespaced_config_map("default", config("a", x="1"))
    found = await core.list_namespaced_config_map("default")
    assert [(one.metadata.name, one.data) for one in found.items] == [("a", {"x": "1"})]
    await core.delete_namespaced_config_map("a", "default")
    assert (await core.list_namespaced_config_map("default")).items == []


async def test_kubernetes_asyncio_patches(core):
    await core.create_namespaced_config_map("default", config("a", x="1"))
    made = await core.patch_namespaced_config_map("a", "default", {"data": {"y": "2"}})
    assert made.data == {"x": "1", "y": "2"}


async def test_kubernetes_asyncio_sees_errors_as_they_are(core):
    with pytest.raises(kubernetes_asyncio.client.ApiException) as caught:
        await core.read_namespaced_config_map("none", "default")
    assert (caught.value.status, "NotFound" in caught.value.body) == (404, True)


async def test_kubernetes_asyncio_watches_from_a_list(core):
    at = (await core.list_namespaced_config_map("default")).metadata.resource_version
    seen = []
    async with asyncio.timeout(pace.patience(10)), watch.Watch() as watching:
        stream = watching.stream(
            core.list_namespaced_config_map, "default", resource_version=at, timeout_seconds=5
        )
        await core.create_namespaced_config_map("default", config("a"))
        await core.delete_namespaced_config_map("a", "default")
        async for event in stream:
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 2:
                break
    assert seen == [("ADDED", "a"), ("DELETED", "a")]


async def test_kubernetes_asyncio_lists_in_pieces(core):
    for name in "abc":
        await core.create_namespaced_config_map("default", config(name))
    first = await core.list_namespaced_config_map("default", limit=2)
    rest = await core.list_namespaced_config_map("default", _continue=first.metadata._continue)
    assert [one.metadata.name for one in (*first.items, *rest.items)] == ["a", "b", "c"]


@pytest.fixture
async def light(cluster):
    kubeconfig = lightkube.config.kubeconfig.KubeConfig.from_file(cluster.kubeconfig)
    made = lightkube.AsyncClient(config=kubeconfig, field_manager="light")
    yield made
    await made.close()


def deployment(image="hello:1"):
    labels = {"app": "hello"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels),
        spec=PodSpec(containers=[Container(name="main", image=image)]),
    )
    return Deployment(
        metadata=ObjectMeta(name="hello", namespace="default"),
        spec=DeploymentSpec(selector=LabelSelector(matchLabels=labels), template=template),
    )


async def test_lightkube_applies_on_the_servers_side(light):
    await light.apply(deployment())
    made = await light.apply(deployment("hello:2"))
    assert made.spec.template.spec.containers[0].image == "hello:2"
    assert made.metadata.managedFields[0].manager == "light"


async def test_lightkube_lists_replaces_and_deletes(light):
    made = await light.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
    made.data = {"x": "1"}
    await light.replace(made)
    assert [one.data async for one in light.list(ConfigMap)] == [{"x": "1"}]
    await light.delete(ConfigMap, "a")
    assert [one async for one in light.list(ConfigMap)] == []


async def test_lightkube_watches(light):
    await light.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
    async with asyncio.timeout(pace.patience(10)):
        async for kind, obj in light.watch(ConfigMap, namespace="default"):
            assert (kind, obj.metadata.name) == ("ADDED", "a")
            break
