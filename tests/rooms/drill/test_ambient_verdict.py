"""What a drill in ambient mode holds against the mesh, from what it has seen."""

import dataclasses
import json

import pytest
from drill import __main__ as program
from drill import page as pages
from drill.ambient import page, plan, records, verdict

FACTS = {
    "machine": {
        "processor": "P", "cores": 2, "memory_gib": 4.0, "kernel": "6", "python": "3.11",
        "envoy": "1.40.0", "user": "root", "load_before": 0.1,
    },
    "date": "2026-01-01T00:00:00+00:00",
    "commit": "abc",
}  # fmt: skip
OWN, OTHER = "helloworld-v1-a", "helloworld-v2-b"


def request(at, *, by=OWN, **more):
    body = f"Hello version: v1, instance: {by}\n"
    return records.Request(**{
        "client": "cluster1", "at": at, "took_s": 0.01, "status": 200, "body": body, **more
    })  # fmt: skip


@pytest.fixture
def step():
    """The copy of cluster1 goes away at 11; others answer from then on."""
    wire = records.Wire("transit", connections=3, size_bytes=9000)
    places = {"cluster1": frozenset({"cluster2"})}
    return records.Step(
        "copy-away", "own copy to 0", 10.0, since=11.0, places=places, wires=[wire], ended=30.0
    )


@pytest.fixture
def record(step):
    """A drill in which the other cluster answers from 11.2 on, and nothing was wrong."""
    moments = {10.5: OWN, 11.1: OWN, 11.2: OTHER, 20.0: OTHER, 11.4: OTHER}
    requests = [request(at, by=by) for at, by in moments.items()]
    return records.Record(
        rate=50,
        began=0.0,
        ended=40.0,
        requests=requests,
        steps=[step],
        instances={OWN: "cluster1", OTHER: "cluster2"},
        sent={"cluster1": len(requests)},
    )


def rules(record):
    return [each.rule for each in verdict.violations(record)]


def lose(record, number, **more):
    given = {"status": 0, "body": "cut off", **more}
    record.requests[number] = dataclasses.replace(record.requests[number], **given)


def test_a_drill_in_which_all_went_well_has_no_violation_and_tells_what_it_cost(record, step):
    cost = verdict.cost(record, step)

    assert rules(record) == []
    assert (cost.requests, cost.lost, cost.in_flight, cost.holds) == (5, 0, 0, True)
    assert cost.moved_s == pytest.approx(0.21)


def test_a_request_without_a_good_answer_is_lost_and_told_with_what_was_done(record, step):
    lose(record, 2)

    [found] = verdict.violations(record)

    assert found.rule == "lost request"
    assert "cut off; during own copy to 0 (for 1.2 s)" in found.text
    assert not verdict.cost(record, step).holds


@pytest.mark.parametrize(
    ("killed", "is_excused"),
    [((11.205, 11.206), True), ((11.0, 11.19), False), ((11.22, 11.3), False)],
)
def test_only_who_was_on_the_way_when_a_process_was_killed_is_excused(
    record, step, killed, is_excused
):
    lose(record, 2)
    step.killed.append(killed)

    assert (rules(record) == []) == is_excused
    assert verdict.cost(record, step).in_flight == is_excused


@pytest.mark.parametrize("fresh", [False, True])
def test_no_new_connection_is_lost_with_a_process_that_was_asked_to_end(record, step, fresh):
    lose(record, 2, fresh=fresh)
    step.endings.append((11.0, 11.25))

    assert (rules(record) == ["lost request"]) == fresh


def test_others_answer_in_time(record, step):
    record.requests.insert(3, request(17.0))
    record.sent["cluster1"] += 1

    assert rules(record) == ["failover"]
    assert verdict.cost(record, step).moved_s == pytest.approx(9.01)


def test_open_connections_may_stay_where_they_are(record):
    record.requests.insert(3, request(17.0, fresh=False))
    record.sent["cluster1"] += 1

    assert rules(record) == []


def test_nobody_right_ever_answered(record):
    record.requests = record.requests[:2]
    record.sent["cluster1"] = 2

    assert rules(record) == ["failover"]


def test_no_request_takes_longer_than_a_failover_may(record, step):
    record.requests[3] = request(20.0, by=OTHER, took_s=5.2)

    assert rules(record) == ["slow request"]
    assert not verdict.cost(record, step).holds


def test_a_wire_with_something_else_than_tls_is_told(record, step):
    step.wires.append(records.Wire("cluster1 sleep", 1, 10, faults=("'GET /' is readable",)))

    assert rules(record) == ["not TLS"]


def test_what_was_sent_is_accounted_for(record):
    record.sent["cluster1"] = 7
    record.requests[0] = request(10.5, by="a stranger")

    assert rules(record) == ["accounting", "accounting"]


def test_a_drill_that_proves_nothing_fails(record, step):
    step.wires.append(records.Wire("transit", 1, 10, dropped=3))
    assert rules(record) == ["drill"]

    step.ended, step.wires = None, []
    assert rules(record) == ["recovery"]

    record.steps = []
    assert rules(record) == ["drill"]


def test_a_terminal_of_eighty_columns_shows_a_drill(record, step):
    step.text = "something with a name that is longer than its column of the table"
    lines = list(page.table(page.document(record, plan.SHORT, FACTS)))

    assert max(map(len, lines)) <= 80
    assert any(line.endswith("no promise was broken") for line in lines)


def test_the_page_is_what_the_kept_figures_say():
    text = pages.PAGE.read_text(encoding="utf-8")
    kept = json.loads(program.KEPT.read_text(encoding="utf-8"))

    assert kept["violations"] == []
    assert page.page(text, kept) == text


@pytest.mark.parametrize(
    "words",
    [
        "--topology ambient --seed 1",
        "--topology ambient --kills 3",
        "--only copies",
        "--topology ambient --only copys",
        "--silent-s 3",
    ],
)
def test_what_says_nothing_is_refused_before_anything_is_booted(words, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(words.split())

    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
