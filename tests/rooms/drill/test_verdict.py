"""What a drill holds against the mesh, from what it has seen."""

import dataclasses

import pytest
from drill import page, plan, records, verdict

SIDECAR = records.Proxy("cluster1", "sample/sleep-1")
NEAR = ("outbound|5000||helloworld.sample.svc.cluster.local", "10.10.1.2:5000")
FAR = ("outbound|5000||helloworld.sample.svc.cluster.local", "172.30.0.42:15443")
CALLER = "spiffe://cluster.local/ns/sample/sa/sleep"
FACTS = {
    "machine": {
        "processor": "P", "cores": 2, "memory_gib": 4.0, "kernel": "6", "python": "3.11",
        "envoy": "1.40.0", "user": "root", "load_before": 0.1,
    },
    "date": "2026-01-01T00:00:00+00:00",
    "commit": "abc",
}  # fmt: skip


@pytest.fixture
def record():
    """A drill of three requests in which nothing was wrong."""
    requests = [records.Request("cluster1", f"r-{n}", 10.0 + n, 0.01, 200) for n in range(3)]
    return records.Record(
        seed=1,
        began=0.0,
        ended=100.0,
        requests=requests,
        sent={"cluster1": 3},
        arrivals=[records.Arrival("cluster1", each.id, CALLER) for each in requests],
        owners={"10.10.0.0/16": "cluster1", "172.30.0.42": "cluster2"},
        expected={SIDECAR: frozenset({NEAR, FAR})},
        glances=[records.Glance(SIDECAR, 1.0, frozenset({NEAR, FAR}))],
        memory_phase=(0.0, 90.0),
        seen={SIDECAR: 99.0},
    )


def rules(record):
    return [each.rule for each in verdict.violations(record)]


def test_a_drill_in_which_all_went_well_has_no_violation(record):
    assert rules(record) == []


def test_a_request_without_a_good_answer_is_lost_and_told_with_the_fault(record):
    record.requests[1] = dataclasses.replace(record.requests[1], status=503, body="reset")
    record.faults.append(records.Fault(records.KILL, "cluster2", 9.0, ended=10.5))
    record.flags["r-1"] = "UF"

    [found] = verdict.violations(record)

    assert found.rule == "lost request"
    assert "r-1: status 503" in found.text
    assert "flags UF: reset; during kill of cluster2" in found.text


def test_an_answer_that_nobody_gave_is_a_phantom(record):
    record.arrivals.pop()

    assert rules(record) == ["phantom"]


def test_a_request_that_nobody_accounts_for_is_missed(record):
    record.sent["cluster1"] = 4

    assert rules(record) == ["accounting"]


def test_a_request_may_arrive_twice_only_after_a_failed_try(record):
    record.arrivals.append(record.arrivals[0])
    assert rules(record) == ["duplicate"]

    record.failed_tries[SIDECAR] = 1
    assert rules(record) == []


def test_every_caller_must_have_proved_who_it_is(record):
    record.arrivals[0] = dataclasses.replace(record.arrivals[0], caller="")

    assert rules(record) == ["identity"]


def test_a_proxy_may_lack_a_cluster_only_while_its_own_control_plane_was_told_to(record):
    record.glances.append(records.Glance(SIDECAR, 50.0, frozenset({NEAR})))
    assert rules(record) == ["endpoints shrank"]

    removal = records.Fault(
        records.REMOVAL, "cluster2", 49.0, watcher="cluster1", gone_s=0.5, ended=55.0
    )
    record.faults.append(removal)
    assert rules(record) == []

    removal.watcher = "cluster3"
    assert rules(record) == ["endpoints shrank"]


def test_what_is_near_may_not_go_when_another_cluster_is_removed(record):
    record.glances.append(records.Glance(SIDECAR, 50.0, frozenset({FAR})))
    record.faults.append(
        records.Fault(records.REMOVAL, "cluster2", 49.0, watcher="cluster1", gone_s=0.5, ended=55.0)
    )

    assert rules(record) == ["endpoints shrank"]


@pytest.mark.parametrize("gone_s", [5.1, None])
def test_a_removed_cluster_is_gone_within_five_seconds(record, gone_s):
    record.faults.append(
        records.Fault(
            records.REMOVAL, "cluster2", 49.0, watcher="cluster1", gone_s=gone_s, ended=60.0
        )
    )

    assert rules(record) == ["removal"]


def test_a_fault_from_which_the_mesh_does_not_recover_is_told(record):
    record.faults.append(records.Fault(records.KILL, "cluster2", 49.0))

    assert rules(record) == ["recovery"]


@pytest.mark.parametrize(("whose", "found"), [("cluster1", []), ("cluster2", ["recovery"])])
def test_a_control_plane_need_not_be_back_while_its_own_api_server_fails(record, whose, found):
    record.faults += [
        records.Fault(records.KILL, "cluster1", 10.0, back_s=80.0, ended=90.0),
        records.Fault(records.BLACKOUT, whose, 20.0, ended=50.0),
    ]

    assert rules(record) == found


def test_memory_may_grow_by_five_mebibytes(record):
    def held(growth):
        return [
            records.Holding("cluster1", 7, float(n), 50.0 + growth * (n > 10), 40, 8)
            for n in range(20)
        ]

    record.holdings = held(4.9)
    assert rules(record) == []

    record.holdings = held(5.1)
    assert rules(record) == ["memory"]


@pytest.mark.parametrize(
    ("late", "found"),
    [
        # A credential is taken up at each look but one: both have their watches open.
        ((67, 72, 59, 67, 67), []),
        ((67, 72, 60, 67, 67), ["open files"]),
    ],
)
def test_open_files_count_where_no_credential_is_being_taken_up(record, late, found):
    files = (35, 35, 47, 35, 35, *late)
    record.holdings = [
        records.Holding("cluster1", 7, float(n), 50.0, count, 8) for n, count in enumerate(files)
    ]

    assert rules(record) == found


def test_some_seconds_tell_nothing_of_memory(record):
    readings = (50.0, 50.0, 50.0, 60.0, 60.0, 60.0)
    record.holdings = [
        records.Holding("cluster1", 7, float(n), mib, 40, 8) for n, mib in enumerate(readings)
    ]

    assert rules(record) == []
    assert [growth.mib for growth in verdict.growths(record)] == [10.0]


def test_a_drill_whose_new_credentials_were_not_taken_up_proves_nothing(record):
    record.faults.append(records.Fault(records.ROTATION, "cluster2", 20.0, ended=21.0))
    record.updates = {"cluster1": 0, "cluster2": 0}

    assert rules(record) == ["drill"]


def test_a_proxy_that_could_not_be_looked_at_proves_nothing(record):
    record.gaps_s[SIDECAR] = 20.0
    assert rules(record) == ["drill"]

    record.gaps_s, record.seen = {}, {SIDECAR: 60.0}
    assert rules(record) == ["drill"]


def test_the_table_is_80_columns_wide_and_the_page_has_the_figures(record):
    record.requests[1] = dataclasses.replace(record.requests[1], status=503, body="x " * 200)
    run = page.document(record, plan.SHORT, FACTS)
    old = f"# Title\n\n{page.BEGIN}\nold\n{page.END}\nrest\n"

    lines = list(page.table(run))
    text = page.page(old, run)

    assert all(len(line) <= 80 for line in lines), lines
    assert lines[-1] == "1 violations"
    assert text.startswith("# Title\n\n<!-- figures")
    assert text.endswith("<!-- end of figures -->\nrest\n")
    assert "| requests lost | 1 |" in text
