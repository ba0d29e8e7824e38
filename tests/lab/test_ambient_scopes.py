"""Who gives what to whom: the table of scopes, called in linked clusters, and written down there.

Each row is a Service of its own before the same pods: in cluster1, whose client calls, in cluster2,
or in both. In cluster3 there is none of them.
"""

import json

import pytest
import traffic
import who_answers

pytestmark = pytest.mark.lab

ABSENT, UNSAID, NOTHING = "no Service", "", "unknown"
# Scope here, scope there; who answers by the shared name, and by the Service's own.
TABLE = [
    (UNSAID, UNSAID, NOTHING, "v1"),
    (ABSENT, "global", "v2", NOTHING),
    (UNSAID, "global", "v2", "v1"),
    ("global", "global", "v1 v2", "v1"),
    ("global", ABSENT, "v1", "v1"),
    ("global", UNSAID, "v1", "v1"),
    (ABSENT, "global-only", "v2", "v2"),
    (UNSAID, "global-only", "v2", "v1"),
    ("global-only", UNSAID, "v1", "v1"),
    ("global-only", "global-only", "v1 v2", "v1 v2"),
    ("global", "planet", "v1", "v1"),
]


def name_of(number):
    return f"row{number}"


def services(side):
    """Return the Services of all rows on one side, as one list of objects."""
    rows = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name_of(number),
                "namespace": "sample",
                "labels": {"rows": "scopes"} | ({"solo.io/service-scope": said} if said else {}),
                "annotations": {"networking.istio.io/traffic-distribution": "Any"},
            },
            "spec": {
                "selector": {"app": "helloworld"},
                "ports": [{"name": "http", "port": 5000, "targetPort": 5000}],
            },
        }
        for number, row in enumerate(TABLE)
        if (said := row[side]) != ABSENT
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": rows})


@pytest.fixture(scope="module")
def rows(ambient):
    """The Services of all rows in two of the clusters."""
    for side, cluster in enumerate(("cluster1", "cluster2")):
        ambient.kubectl(cluster, "apply -f -", stdin=services(side))
    yield ambient
    for cluster in ("cluster1", "cluster2"):
        ambient.kubectl(cluster, "-n sample delete services -l rows=scopes --wait=false")


def hosts(domain):
    return [f"{name_of(number)}.sample.{domain}" for number in range(len(TABLE))]


def written(ambient, cluster):
    """Return what is written down of shared services, by host."""
    listed = ambient.json_of(cluster, "serviceentries -n istio-system")["items"]
    return {
        one["spec"]["hosts"][0]: [
            each["value"] for each in one.get("status", {}).get("addresses", ())
        ]
        for one in listed
        if "isthmus.dev/derived-service" in one["metadata"].get("labels", {})
    }


def test_every_row_of_the_table_is_answered_as_it_says(rows):
    wanted = [shared for _, _, shared, _ in TABLE] + [own for *_, own in TABLE]
    every = hosts("mesh.internal") + hosts("svc.cluster.local")

    def answers():
        return [who for _, who in who_answers.asked(rows, "cluster1", every).values()]

    traffic.until(lambda: answers() == wanted)


def test_a_cluster_without_any_of_them_calls_those_that_others_share(rows):
    exporters = [
        [version for version, said in (("v1", here), ("v2", there)) if said.startswith("global")]
        for here, there, *_ in TABLE
    ]
    wanted = [" ".join(found) or NOTHING for found in exporters]

    def answers():
        found = who_answers.asked(rows, "cluster3", hosts("mesh.internal"))
        return [who for _, who in found.values()]

    traffic.until(lambda: answers() == wanted)


def test_addresses_are_those_that_are_written_down(rows):
    shared = {
        host for host, row in zip(hosts("mesh.internal"), TABLE, strict=True) if row[2] != NOTHING
    }

    def is_written():
        found = written(rows, "cluster1")
        return shared <= {host for host, given in found.items() if given}

    traffic.until(is_written)
    down = written(rows, "cluster1")
    told = who_answers.asked(rows, "cluster1", sorted(shared), calls=0)

    assert {host: address for host, (address, _) in told.items()} == {
        host: down[host][0] for host in shared
    }
    assert all(given[0].startswith("240.240.") and given[1].startswith("2001:2:")
               for given in down.values())  # fmt: skip
    assert hosts("mesh.internal")[0] not in down


def test_what_nobody_shares_any_more_is_known_and_written_no_more(rows):
    host = hosts("mesh.internal")[1]
    rows.kubectl("cluster2", f"-n sample label service {name_of(1)} solo.io/service-scope-")

    traffic.until(lambda: host not in written(rows, "cluster1"))
    traffic.until(
        lambda: who_answers.asked(rows, "cluster1", [host], calls=0)[host] == ("", NOTHING)
    )
