"""What agents of a node need: its files, its network, and the networks of its pods."""

import booted
import pytest
import pytest_asyncio

from isthmus.kube import kinds

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

AGENT = "istio/install-cni:test"
NETNS = "/host/var/run/netns"
ENTER = f"""
import os, socket, sys
from isthmus.base import namespaces
fd = os.open(f"{NETNS}/{{sys.argv[1]}}", os.O_RDONLY)
with namespaces.entered(fd):
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect(("10.0.0.1", 9))
print(link.getsockname()[0])
"""


@pytest.fixture(scope="module", params=booted.WAYS)
def lab(request):
    with booted.booted_lab(request.param, "single") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(lab):
    async with lab.client("cluster1") as found:
        yield found
    await booted.connections_closed()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(server):
    return [each["metadata"]["name"] for each in await server.list_(kinds.NODE)]


def agent(name, node, **spec):
    """Return a pod that may enter networks and sees its node's files."""
    places = {"data": "/var/lib/data", "netns": "/var/run/netns"}
    mounts = [
        {"name": "data", "mountPath": "/data"},
        {"name": "netns", "mountPath": NETNS, "mountPropagation": "HostToContainer"},
    ]
    made = booted.pod(
        name,
        image=AGENT,
        nodeName=node,
        volumes=[{"name": each, "hostPath": {"path": path}} for each, path in places.items()],
        c_command=["/bin/sleep", "infinity"],
        c_volumeMounts=mounts,
        c_securityContext={"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN", "NET_ADMIN"]}},
        **spec,
    )
    made["spec"]["containers"][0]["securityContext"]["runAsUser"] = 0
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watcher(server, nodes):
    """An agent that runs before the pods that it looks at."""
    await booted.start(server, agent("watcher", nodes[0]))
    return "watcher"


async def test_pods_of_a_node_share_its_files_and_those_of_others_do_not(server, nodes, watcher):
    await booted.start(server, agent("beside", nodes[0]))
    await booted.start(server, agent("elsewhere", nodes[1]))

    await booted.said(server, watcher, "sh", "-c", "echo here > /data/word")

    assert await booted.said(server, "beside", "cat", "/data/word") == "here\n"
    assert "No such file" in await booted.said(server, "elsewhere", "cat", "/data/word")


async def test_a_pods_network_appears_can_be_entered_and_vanishes(server, nodes, watcher):
    made = await booted.start(server, booted.pod("visited", nodeName=nodes[0]))
    uid = made["metadata"]["uid"]

    assert uid in (await booted.said(server, watcher, "ls", NETNS)).split()
    inside = await booted.said(server, watcher, "python", "-c", ENTER, uid)
    assert inside.strip() == made["status"]["podIP"]

    await server.delete(kinds.POD, "visited", namespace="default")

    async def vanished():
        return uid not in (await booted.said(server, watcher, "ls", NETNS)).split()

    assert await booted.until(vanished)


async def test_a_pod_can_live_in_its_nodes_network(server, nodes):
    probe = {"httpGet": {"path": "/health", "port": 5000}, "periodSeconds": 1}
    manifest = booted.pod(
        "host", image=booted.HELLO, hostNetwork=True, nodeName=nodes[0], c_readinessProbe=probe
    )
    made = await booted.start(server, manifest)
    await booted.start(server, booted.pod("caller"))

    assert made["status"]["podIP"] == made["status"]["hostIP"]
    assert "Hello" in await booted.greeting(server, "caller", made["status"]["hostIP"])
    await server.create(kinds.SERVICE, booted.service("host"))

    async def by_name():
        return "Hello" in await booted.greeting(server, "host", "host")

    assert await booted.until(by_name)


async def test_other_programs_never_get_such_power(server, nodes):
    asked = {"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}}
    await booted.start(server, booted.pod("meek", nodeName=nodes[0], c_securityContext=asked))

    said = await booted.said(server, "meek", "sh", "-c", "mount -t tmpfs none /mnt || echo refused")

    assert "refused" in said


async def test_the_lab_complains_of_nothing(lab):
    assert '"level":"error"' not in lab.log
    assert "Traceback" not in lab.log
