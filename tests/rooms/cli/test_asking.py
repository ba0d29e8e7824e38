"""Commands that ask running control planes and proxies."""

import datetime
import json
from dataclasses import dataclass, field

import click.testing
import pytest

from isthmus.cli import asking, bootstrap, proxy_status, remote_clusters, version
from isthmus.kube import client as kube_client
from isthmus.kube import problems
from isthmus.wire import debugging

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LEDS = "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint"


def pod(name, *, phase="Running", **metadata):
    return {
        "metadata": {"name": name, "labels": {"istio.io/rev": "default"}, **metadata},
        "status": {"phase": phase},
    }


@dataclass
class FakeClient:
    pods: list = field(default_factory=lambda: [pod("istiod-1")])
    programs: dict = field(default_factory=dict)
    heard: list = field(default_factory=list)

    async def list_(self, _kind, *, namespace, labels):
        assert (namespace, labels) == ("istio-system", "app=istiod")
        return self.pods

    async def exec(self, namespace, name, argv, *, container=""):
        self.heard.append((namespace, name, tuple(argv), container))
        answer = self.programs.get(argv[0])
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return kube_client.ExecResult(b"", b"no such program", 127)
        return answer


def said(document, code=0):
    return kube_client.ExecResult(json.dumps(document).encode(), b"went wrong", code)


async def ask(client):
    return await asking.control_planes(client, "/debug/syncz", namespace="istio-system")


async def test_every_running_control_plane_is_asked():
    client = FakeClient(
        [
            pod("istiod-2"),
            pod("istiod-1"),
            pod("istiod-3", phase="Pending"),
            pod("istiod-4", deletionTimestamp="now"),
        ],
        {"isthmus-discovery": said([])},
    )

    assert [each.istiod for each in await ask(client)] == ["istiod-1", "istiod-2"]
    assert client.heard[0] == (
        "istio-system",
        "istiod-1",
        ("isthmus-discovery", "request", "GET", "/debug/syncz"),
        "",
    )


async def test_the_program_may_have_another_name():
    client = FakeClient(
        programs={
            "isthmus-discovery": problems.ApiError(500, "", "no such program"),
            "pilot-discovery": said([1]),
        }
    )

    assert [each.document for each in await ask(client)] == [[1]]


async def test_a_control_plane_that_cannot_be_asked_is_named_with_its_reason():
    client = FakeClient(programs={"isthmus-discovery": said([], code=1)})

    with pytest.raises(asking.NobodyAsked, match="istio-system/istiod-1") as caught:
        await ask(client)

    assert caught.value.detail == "went wrong"


async def test_without_a_running_control_plane_the_hint_says_where_to_look():
    with pytest.raises(asking.NobodyAsked) as caught:
        await ask(FakeClient([pod("istiod-1", phase="Pending")]))

    assert "kubectl get pods" in caught.value.hint


async def test_where_no_control_plane_was_installed_the_hint_says_how():
    with pytest.raises(asking.NobodyRuns) as caught:
        await ask(FakeClient([]))

    assert "isthmus install" in caught.value.hint


async def test_an_answer_that_is_no_json_is_shown():
    odd = kube_client.ExecResult(b"<html>", b"", 0)
    with pytest.raises(asking.NotUnderstood) as caught:
        await ask(FakeClient(programs={"isthmus-discovery": odd}))

    assert caught.value.detail == "<html>"


def status(proxy="sleep.sample", **changes):
    return {
        "proxy": proxy,
        "cluster_id": "cluster1",
        "istio_version": "1.30.3",
        "cluster_sent": "1-a",
        "cluster_acked": "1-a",
        "endpoint_sent": "3-c",
        "endpoint_acked": "2-b",
        "resources": {
            EDS: {"sent": "3-c", "acked": "2-b", "sentTime": "2026-01-01T11:58:00+00:00"},
            CDS: {"sent": "1-a", "acked": "1-a", "sentTime": "2026-01-01T11:59:50+00:00"},
        },
        **changes,
    }


def answer(*statuses):
    return asking.Answer("istiod-1", "default", list(statuses))


def test_proxy_status_lists_what_each_proxy_is_subscribed_to():
    [found] = proxy_status.matching([answer(status())], namespace="")

    assert proxy_status.summary(found) == (
        "sleep.sample",
        "cluster1",
        "istiod-1",
        "1.30.3",
        "2 (CDS,EDS)",
    )


def test_proxy_status_can_show_a_column_for_each_type():
    [found] = proxy_status.matching([answer(status())], namespace="")

    assert proxy_status.columns(found, now=NOW) == (
        *("sleep.sample", "cluster1"),
        *("SYNCED (10s)", "IGNORED", "STALE (2m)", "IGNORED", "IGNORED"),
        *("istiod-1", "1.30.3"),
    )


def test_endpoints_told_one_by_one_count_among_endpoints():
    said = status(endpoint_acked="3-c")
    said["resources"][LEDS] = {"sent": "5-e", "acked": "4-d"}
    [found] = proxy_status.matching([answer(said)], namespace="")

    assert proxy_status.summary(found)[-1] == "3 (CDS,EDS,LEDS)"
    assert proxy_status.columns(found, now=NOW)[4] == "STALE"
    said["resources"][LEDS]["acked"] = "5-e"
    assert proxy_status.columns(found, now=NOW)[4] == "SYNCED (2m)"


@pytest.mark.parametrize(
    ("sent", "resource", "shown"),
    [
        ("", {"sent": ""}, "NOT SENT"),
        ("1", {"lastError": "odd"}, "ERROR"),
        ("1", {"sentTime": "2025-12-30T12:00:00+00:00"}, "SYNCED (2d)"),
        ("1", {"sentTime": "2026-01-01T09:00:00+00:00"}, "SYNCED (3h)"),
        ("1", {}, "SYNCED"),
    ],
)
def test_a_cell_says_how_far_a_proxy_has_come(sent, resource, shown):
    assert proxy_status.cell(sent, sent, resource, NOW) == shown


@pytest.mark.parametrize(
    ("namespace", "found"),
    [("", ["a.default", "b.sample"]), ("sample", ["b.sample"]), ("c", [])],
)
def test_proxy_status_keeps_to_a_namespace(namespace, found):
    answers = [answer(status("b.sample"), status("a.default"))]

    listed = proxy_status.matching(answers, namespace=namespace)
    assert [each["proxy"] for each in listed] == found


def told(text):
    return kube_client.ExecResult(text.encode(), b"", 1)


async def test_what_a_control_plane_says_of_a_question_is_no_failure_to_ask():
    text = "service `web` has no port 1 (ISM-VIEW-020)\nits ports: 80\nhint: name one\n"
    with pytest.raises(asking.Declined) as caught:
        await ask(FakeClient(programs={"isthmus-discovery": told(text)}))

    assert caught.value.code == "ISM-VIEW-020"
    assert caught.value.happened == "service `web` has no port 1"
    assert (caught.value.detail, caught.value.hint) == ("its ports: 80", "name one")


async def test_a_proxy_is_looked_for_at_every_control_plane():
    client = FakeClient(
        [pod("istiod-1"), pod("istiod-2")],
        {"isthmus-discovery": told(debugging.NOT_CONNECTED)},
    )
    with pytest.raises(asking.NotConnected, match="istiod-2") as caught:
        await asking.about_proxy(client, "/debug/edsz?proxyID=a.b", namespace="istio-system")

    assert "isthmus proxy-status" in caught.value.hint
    assert [name for _, name, *_ in client.heard] == ["istiod-1", "istiod-2"]


def test_remote_clusters_prints_what_each_control_plane_watches():
    clusters = [
        {"id": "cluster1", "secretName": "", "syncStatus": "synced", "ageSeconds": 0.4},
        {
            "id": "cluster2",
            "secretName": "istio-system/istio-remote-secret-cluster2",
            "syncStatus": "timeout",
            "ageSeconds": 63.2,
            "error": "no answer",
        },
    ]
    answers = [answer(*clusters)]

    assert remote_clusters.rows(answers, is_wide=False) == [
        ("cluster1", "", "synced", "istiod-1", "default"),
        (
            "cluster2",
            "istio-system/istio-remote-secret-cluster2",
            "timeout",
            "istiod-1",
            "default",
        ),
    ]
    assert remote_clusters.rows(answers, is_wide=True)[1][-2:] == ("63s", "no answer")
    assert remote_clusters.document(answers)[1]["istiod"] == "istiod-1"


@pytest.mark.parametrize(
    ("cluster", "shown"),
    [
        ({"ageSeconds": 0.0, "syncStatus": "linked"}, "0s"),
        ({"ageSeconds": 121.0, "syncStatus": "not heard"}, "2m"),
        ({"ageSeconds": None, "syncStatus": "not heard"}, "never"),
        ({"ageSeconds": None, "syncStatus": "timeout"}, "never"),
        ({"ageSeconds": None, "syncStatus": "closed"}, "-"),
        ({"syncStatus": "synced"}, "-"),
    ],
)
def test_a_cluster_that_was_never_heard_has_no_age(cluster, shown):
    [row] = remote_clusters.rows([answer(cluster)], is_wide=True)
    assert row[-2] == shown


def test_bootstrap_is_found_in_what_envoy_shows():
    document = {"configs": [{"@type": "other"}, {"@type": bootstrap.BOOTSTRAP, "bootstrap": {}}]}

    assert bootstrap.bootstrap_of(document, pod="sample/sleep") == {}


@pytest.mark.parametrize("document", [[], {}, {"configs": []}])
def test_a_proxy_that_shows_no_bootstrap_is_an_error(document):
    with pytest.raises(asking.NotUnderstood, match="sample/sleep"):
        bootstrap.bootstrap_of(document, pod="sample/sleep")


@pytest.mark.parametrize("module", [bootstrap, proxy_status, remote_clusters])
def test_commands_share_their_options(module):
    result = click.testing.CliRunner().invoke(module.command, ["--help"])

    assert result.exit_code == 0
    for option in ("--context", "--kubeconfig", "--istioNamespace"):
        assert option in result.output


def test_versions_are_told_as_istios_command_line_tells_them():
    proxies = {"a.shop.c1": "1.30.3", "a.shop.c2": "1.30.3", "b.shop.c1": "1.29.0"}
    told = [*version.lines({"controlPlanes": {"istiod-1": "0.1.0"}, "proxies": proxies})]

    assert told == [
        "control plane version: 0.1.0",
        "data plane version: 1.29.0 (1 proxies), 1.30.3 (2 proxies)",
    ]
    assert [*version.lines({})] == []


def test_the_version_is_told_where_there_is_no_cluster(tmp_path):
    result = click.testing.CliRunner().invoke(
        version.command, ["--kubeconfig", str(tmp_path / "none")]
    )

    assert result.exit_code == 0
    assert result.stdout.startswith("client version: ")
    assert "no control plane answers" in result.stderr
