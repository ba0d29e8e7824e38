"""Which pods reach one another follows from the topology alone."""

import asyncio
import json

import booted
import pytest

from isthmus.kube import kinds

pytestmark = pytest.mark.lab

OVERLAPPING = {
    "clusters": [
        {"name": "cluster1", "network": "n1", "nodes": 1, "pods": "10.10.0.0/16"},
        {"name": "cluster2", "network": "n2", "nodes": 1, "pods": "10.10.0.0/16"},
    ]
}


async def pair(lab):
    """Start a server in cluster2 and a client in cluster1; return what the client is told."""
    async with lab.client("cluster1") as one, lab.client("cluster2") as two:
        async with asyncio.TaskGroup() as group:
            probe = {"tcpSocket": {"port": 5000}}
            far = booted.pod("far", image=booted.HELLO, c_readinessProbe=probe)
            started = group.create_task(booted.start(two, far))
            group.create_task(booted.start(one, booted.pod("near")))
        ip = started.result()["status"]["podIP"]
        answer = await booted.greeting(one, "near", ip)
        own = (await one.get(kinds.POD, "near", namespace="default"))["status"]["podIP"]
    await booted.connections_closed()
    return ip, own, answer


async def test_clusters_on_one_network_reach_each_others_pods():
    with booted.booted_lab(booted.WAYS[0], "shared-network") as lab:
        _, _, answer = await pair(lab)

    assert "instance: far" in answer


async def test_networks_may_use_the_same_addresses(tmp_path):
    description = tmp_path / "overlapping.yaml"
    description.write_text(json.dumps(OVERLAPPING))

    with booted.booted_lab(booted.WAYS[0], description) as lab:
        theirs, own, answer = await pair(lab)

    assert theirs == own
    assert "instance: far" not in answer


def test_commands_reach_into_pods_and_explain_what_they_cannot():
    with booted.booted_lab(booted.WAYS[0], "single") as lab:
        status = json.loads(lab.command("status", "-o", "json").stdout)
        raw = lab.command("kubeconfig", "--raw", "--name", lab.name).stdout
        wrong = lab.command(
            *("exec", "--name", lab.name, "nowhere", "default/x", "--", "ls"), check=False
        )

    assert status["labs"][0]["clusters"][0]["name"] == "cluster1"
    assert "current-context: cluster1" in raw
    assert wrong.returncode == 1
    assert "cluster1" in wrong.stderr
