"""What a proxy is configured with, as tables, and what differs from what is wanted."""

import copy
import datetime
import json

import click.testing
import pytest

from isthmus.ca import anchors
from isthmus.cli import (
    asking,
    config_differences,
    config_dumps,
    config_rows,
    main,
    proxies,
    proxy_config,
)
from isthmus.mesh import identities, trust
from isthmus.resources.envoy import secrets, shown
from isthmus.runtime import dumps
from isthmus.testing import builders
from isthmus.testing import certificates as material

NAME = "outbound|80|v1|web.default.svc.cluster.local"


def told():
    """Return the dump of a sidecar that sees one service with a rule and a route of its own."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    west.gateway(external="172.30.0.9")
    mesh.expose_services()
    east.service("web", ready=["10.0.0.1"])
    west.service("web", ready=["10.1.0.1"])
    subset = {"name": "v1", "labels": {"app": "web"}}
    mesh.destination_rule("rule", {"host": "web", "subsets": [subset]})
    route = {"route": [{"destination": {"host": "web", "subset": "v1"}}]}
    mesh.virtual_service("split", {"hosts": ["web"], "http": [route]})
    return dumps.config_dump(mesh.snapshot_of(mesh.proxy("east/client").pod))


@pytest.fixture(scope="module")
def wanted():
    return told()


def run(*words, document, tmp_path):
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(document))
    runner = click.testing.CliRunner()
    result = runner.invoke(main.command, ["pc", *words, "-f", str(file)], catch_exceptions=False)
    return result.output.splitlines()


def cells(line):
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_clusters_are_shown_under_istios_headings_with_the_rule_that_was_obeyed(wanted, tmp_path):
    heading, *rows = run(
        "c", "--fqdn", "web.default", "--subset", "v1", document=wanted, tmp_path=tmp_path
    )

    assert cells(heading) == [
        "SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE",
    ]  # fmt: skip
    assert [cells(row) for row in rows] == [
        ["web.default.svc.cluster.local", "80", "v1", "outbound", "EDS", "rule.default"]
    ]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["clusters", "--direction", "inbound"], 0),
        (["cluster", "--port", "81"], 0),
        (["cluster", "--port", "80"], 2),
        (["listeners", "--port", "15001"], 2),
        (["l", "--type", "tcp", "--address", "10.9.9.9"], 0),
        (["routes", "--name", "81"], 0),
        (["ep", "--cluster", NAME], 2),
        (["ep", "--cluster", NAME, "--status", "draining"], 0),
        (["endpoints", "--address", "172.30.0.9", "--port", "15443"], 2),
    ],
)
def test_filters_leave_what_was_asked_for(wanted, tmp_path, words, count):
    assert len(run(*words, document=wanted, tmp_path=tmp_path)) == 1 + count


def test_every_spelling_of_istios_command_is_understood():
    context = click.Context(proxy_config.command)
    for alias in ("clusters", "c", "ep", "eds", "l", "lds", "r", "s", "b", "o", "a", "log", "all"):
        assert proxy_config.command.get_command(context, alias) is not None, alias


def test_a_route_names_the_virtual_service_and_shortens_the_hosts(wanted, tmp_path):
    _, first, *_ = run("r", "--name", "80", document=wanted, tmp_path=tmp_path)

    assert cells(first) == [
        "80",
        "web.default.svc.cluster.local:80",
        "web.default.svc.cluster.local + 5 more...",
        "/*",
        "split.default",
    ]


def test_listeners_say_what_each_chain_matches_and_where_it_leads(wanted, tmp_path):
    _, *rows = run("l", "--port", "80", document=wanted, tmp_path=tmp_path)

    assert [cells(row)[2:] for row in rows] == [
        ["Trans: raw_buffer; App: http/1.1,h2c", "Route: 80"],
        ["ALL", "PassthroughCluster"],
    ]


def test_what_is_printed_as_json_are_the_resources_themselves(wanted, tmp_path):
    words = ("c", "--fqdn", "web", "--subset", "v1", "-o", "json")
    [one] = json.loads("\n".join(run(*words, document=wanted, tmp_path=tmp_path)))

    assert one["name"] == NAME


NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_a_secret_that_cannot_be_read_is_shown_as_not_valid():
    broken = {"tls_certificate": {"certificate_chain": {"inline_string": "-----BEGIN CERTIFICATE"}}}
    entry = config_dumps.Entry("default", broken)

    assert config_rows.secret(entry, now=NOW)[:4] == ("default", "Cert Chain", "ACTIVE", "false")


@pytest.mark.parametrize("document", [None, [], {}, {"configs": "x"}, "text"])
def test_what_is_no_dump_is_refused_with_a_reason(document):
    with pytest.raises(asking.NotUnderstood):
        config_dumps.parse(document, pod="shop/a")


# --- differences


def as_envoy_shows(document):
    """Return a dump with what Envoy itself adds on its page."""
    shown = copy.deepcopy(document)
    for section in shown["configs"]:
        for entry in section.get("dynamic_endpoint_configs", ()):
            entry["endpoint_config"]["policy"] = {"overprovisioning_factor": 140}
            for group in entry["endpoint_config"].get("endpoints", ()):
                for one in group["lb_endpoints"]:
                    one["endpoint"]["health_check_config"] = {}
        if "dynamic_endpoint_configs" in section:
            other = {"cluster_name": "PassthroughCluster"}
            section["dynamic_endpoint_configs"].append({"endpoint_config": other})
    return shown


def resources(document, field, inner):
    entries = [one for section in document["configs"] for one in section.get(field, ())]
    return {one[inner].get("name") or one[inner].get("cluster_name"): one for one in entries}


def between(wanted, there):
    left, right = (config_dumps.parse(one, pod="p") for one in (wanted, there))
    found = config_differences.between(left, right)
    return found, list(config_differences.summary(found, right))


def test_a_proxy_that_has_what_is_wanted_matches_whatever_envoy_adds(wanted):
    found, lines = between(wanted, as_envoy_shows(wanted))

    assert found == []
    assert [line.partition(" (")[0] for line in lines] == [
        "Clusters Match", "Listeners Match", "Routes Match", "Endpoints Match",
    ]  # fmt: skip


def test_an_endpoint_that_only_one_side_has_is_named_with_its_side(wanted):
    there = as_envoy_shows(wanted)
    assigned = resources(there, "dynamic_endpoint_configs", "endpoint_config")[NAME]
    for group in assigned["endpoint_config"]["endpoints"]:
        for one in group["lb_endpoints"]:
            socket = one["endpoint"]["address"]["socket_address"]
            socket["address"] = socket["address"].replace("10.0.0.1", "10.0.0.99")

    [one], lines = between(wanted, there)

    assert (one.kind, one.name) == ("Endpoints", NAME)
    assert [line.split(" weight")[0] for line in one.lines] == [
        "- 10.0.0.1:80 HEALTHY",
        "+ 10.0.0.99:80 HEALTHY",
    ]
    assert "Endpoints Don't Match: 1" in lines
    assert max(map(len, lines)) <= 80


def test_a_missing_a_surplus_and_a_changed_cluster_are_all_told(wanted):
    there = as_envoy_shows(wanted)
    for section in there["configs"]:
        if "dynamic_active_clusters" in section:
            clusters = section["dynamic_active_clusters"]
            clusters[:] = [one for one in clusters if one["cluster"]["name"] != NAME]
            clusters[0]["cluster"]["connect_timeout"] = "99s"
            surplus = {"name": "outbound|1||old", "type": "EDS"}
            clusters.append({"version_info": "1", "cluster": surplus})

    _, lines = between(wanted, there)

    text = "\n".join(lines)
    assert f"- {NAME}: the proxy has none" in text
    assert "+ outbound|1||old: the control plane wants none" in text
    assert '    connect_timeout\n    - "10s"\n    + "99s"' in text


# --- which pod


def pod(*containers):
    return {"spec": {"containers": list(containers)}}


def test_the_cluster_of_a_pod_is_what_its_proxy_was_told():
    variables = [
        {"name": "POD_NAME", "valueFrom": {}},
        {"name": "ISTIO_META_CLUSTER_ID", "value": "c2"},
    ]
    sidecar = {"name": "istio-proxy", "env": variables}

    assert proxies.cluster_of(pod({"name": "app"}, sidecar)) == "c2"
    assert proxies.cluster_of(pod({"name": "app"})) is None
    assert proxies.Proxy("web-0", "shop", "c2").id == "web-0.shop.c2"


class FakeClient:
    def __init__(self, answers):
        self.answers = answers

    async def list_(self, _kind, *, namespace, labels):
        return [
            {"metadata": {"name": name}, "status": {"phase": "Running"}} for name in self.answers
        ]

    async def exec(self, _namespace, name, argv, *, container=""):
        return self.answers[name]


def answer(code, text):
    return asking.kube_client.ExecResult(text.encode(), b"", code)


async def test_of_several_control_planes_the_one_that_knows_the_proxy_answers():
    client = FakeClient({"istiod-1": answer(1, "not connected"), "istiod-2": answer(0, "{}")})

    assert await asking.about_proxy(client, "/debug/edsz", namespace="istio-system") == {}


async def test_a_proxy_that_no_control_plane_knows_is_refused_in_their_words():
    client = FakeClient({"istiod-1": answer(1, "Proxy not connected")})

    with pytest.raises(asking.NobodyAsked) as refused:
        await asking.about_proxy(client, "/debug/edsz", namespace="istio-system")
    assert "not connected" in refused.value.detail


def test_a_listener_that_only_serves_its_last_calls_is_gone(wanted):
    has = copy.deepcopy(wanted)
    [listeners] = [each for each in has["configs"] if "dynamic_listeners" in each]
    left = copy.deepcopy(listeners["dynamic_listeners"][0])
    left["name"] = left["active_state"]["listener"]["name"] = "10.0.0.9_9000"
    kept = {**left, "draining_state": left["active_state"]}
    listeners["dynamic_listeners"] += [kept]
    assert "10.0.0.9_9000" in config_dumps.parse(has, pod="x").dynamic(config_dumps.LISTENERS)

    del kept["active_state"]

    assert "10.0.0.9_9000" not in config_dumps.parse(has, pod="x").dynamic(config_dumps.LISTENERS)


def test_endpoints_in_full_are_narrowed_as_their_table_is():
    def host(address):
        return {"address": {"socket_address": {"address": address, "port_value": 80}}}

    statuses = {
        "cluster_statuses": [
            {"name": "a", "host_statuses": [host("10.0.0.1"), host("10.0.0.2")]},
            {"name": "b", "host_statuses": [host("10.0.0.3")]},
            {"name": "c"},
        ]
    }
    found = config_rows.narrowed(statuses, lambda row: row[0] == "10.0.0.2:80")

    assert found == {"cluster_statuses": [{"name": "a", "host_statuses": [host("10.0.0.2")]}]}


def test_who_vouches_for_a_trust_domain_has_a_row_for_each():
    anchored = anchors.of([material.intermediate_certificate("b")])
    listed = [trust.Bundle(identities.TrustDomain(name), anchored) for name in ("a.x", "b.x")]
    made = shown.as_document(secrets.bundles("trust-bundles", listed))
    rows = config_rows.secrets(config_dumps.Entry("trust-bundles", made), now=material.NOW)

    assert [row[:4] for row in rows] == [
        ("trust-bundles/a.x", "CA", "ACTIVE", "true"),
        ("trust-bundles/b.x", "CA", "ACTIVE", "true"),
    ]
