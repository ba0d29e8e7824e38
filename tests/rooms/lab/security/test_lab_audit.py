"""What was asked of the lab's API server is kept: each kind of request once."""

import json

import pytest

from isthmus.lab.apiserver import audit, requests, resources, selectors
from isthmus.lab.apiserver.values import Attributes, User

ALICE = User("alice")


def test_requests_that_differ_only_in_the_pod_are_one_entry():
    log = audit.Audit()
    for name in ("a", "b"):
        log.note(ALICE, Attributes("get", resource="pods", name=name), allowed=True)

    assert log.entries() == (audit.Entry("alice", "get", resource="pods"),)


def test_names_of_secrets_and_refusals_are_entries_of_their_own():
    log = audit.Audit()
    for name in ("a", "b"):
        log.note(ALICE, Attributes("get", resource="secrets", name=name), allowed=name == "a")

    assert [(one.name, one.allowed) for one in log.entries()] == [("a", True), ("b", False)]


def test_entries_are_lines_of_json_that_only_their_owner_reads(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = audit.Audit(path)
    log.note(ALICE, Attributes("get", path="/metrics"), allowed=False)
    log.note(ALICE, Attributes("list", resource="pods"), allowed=True)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["path"], one["resource"]) for one in lines] == [("/metrics", ""), ("", "pods")]
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    log = audit.Audit(tmp_path)
    log.note(ALICE, Attributes("list", resource="pods"), allowed=True)

    assert len(log.entries()) == 1


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ("metadata.name=a", "a"),
        ("metadata.namespace=x,metadata.name==a", "a"),
        ("metadata.name!=a", ""),
        ("status.phase=Running", ""),
        ("", ""),
    ],
)
def test_a_list_of_one_name_is_judged_by_that_name(fields, name):
    assert selectors.name_in(fields) == name


@pytest.mark.parametrize(
    ("verb", "name"), [("list", "a"), ("watch", "a"), ("deletecollection", "")]
)
def test_only_reading_by_name_counts_as_asking_for_one_object(verb, name):
    pods = requests.target(resources.Catalog(), "/api/v1/namespaces/x/pods")

    assert pods.attributes(verb, fields="metadata.name=a").name == name
