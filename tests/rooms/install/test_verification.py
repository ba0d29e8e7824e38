"""What is made of the answers and log lines of real requests."""

import json

from isthmus.install import verification as v

GATEWAYS = {"172.30.0.12": "cluster2"}
PODS = (
    v.Destination("cluster1", "hello-v1-a", "v1", "10.1.0.5"),
    v.Destination("cluster2", "hello-v2-b", "v2", "10.2.0.5"),
)


def answer(pod, status=200):
    return v.Answer(status, f"Hello version: v, instance: {pod}")


def seen(pods, *, peer="spiffe://td/ns/sample/sa/sleep", tls="TLSv1.3", upstreams=None, **more):
    upstreams = upstreams or {"hello-v1-a": "10.1.0.5:5000", "hello-v2-b": "172.30.0.12:15443"}
    return v.Observation(
        "cluster1",
        tuple(answer(pod) for pod in pods),
        tuple(v.Passage(str(i), True, upstream=upstreams[pod]) for i, pod in enumerate(pods)),
        tuple((pod, v.Passage(str(i), False, peer=peer, tls=tls)) for i, pod in enumerate(pods)),
        **more,
    )


def judged(*observations):
    return v.report(observations, destinations=PODS, gateways=GATEWAYS)


def codes(report):
    return [found.code for found in report.findings]


def test_answers_from_both_clusters_over_mutual_tls_are_well():
    report = judged(seen(["hello-v1-a", "hello-v2-b"]))

    assert report.is_well
    assert [(row.cluster, row.share, row.path) for row in report.rows] == [
        ("cluster1", 0.5, "direct"),
        ("cluster2", 0.5, "gateway 172.30.0.12:15443"),
    ]
    assert report.rows[1].callers == ("spiffe://td/ns/sample/sa/sleep",)


def test_a_cluster_with_ready_pods_that_never_answers_is_a_finding():
    assert codes(judged(seen(["hello-v1-a"] * 16))) == ["ISM-CLI-012"]


def test_where_nobody_answers_that_is_all_that_is_said():
    silent = v.Observation("cluster1", (v.Answer(0, "curl: (6) Could not resolve host"),) * 16)
    report = judged(silent)

    assert codes(report) == ["ISM-CLI-011"]
    assert "got no answer: curl: (6) Could not resolve host" in report.findings[0].happened


def test_answers_of_clusters_that_nobody_named_are_shown_as_such():
    answers = (answer("hello-v1-a"), answer("hello-v3-c"), answer("hello-v3-c"))
    report = judged(v.Observation("cluster1", answers, (), ()))

    assert [(row.pod, row.cluster, row.answers) for row in report.rows][1:] == [
        ("elsewhere", "", 2)
    ]
    assert report.elsewhere == 2


def test_few_requests_prove_nothing_about_a_cluster_that_answered_none():
    assert judged(seen(["hello-v1-a"] * 15)).is_well


def test_an_answer_without_proof_of_encryption_is_a_finding():
    assert "ISM-CLI-013" in codes(judged(seen(["hello-v1-a", "hello-v2-b"], tls="")))


def test_a_gateway_that_answers_plain_text_is_a_finding():
    report = judged(seen(["hello-v1-a", "hello-v2-b"], plaintext=(("172.30.0.12", True),)))

    assert codes(report) == ["ISM-CLI-014"]


def test_failed_requests_are_counted_by_status():
    observation = seen(["hello-v1-a", "hello-v2-b"])
    failed = v.Observation(
        "cluster1",
        (*observation.answers, answer("", 503), answer("", 503)),
        observation.passages,
        observation.arrivals,
    )

    report = judged(failed)

    assert codes(report) == ["ISM-CLI-011"]
    assert "2 of 4 requests" in report.findings[0].happened


def test_a_log_line_counts_only_with_our_own_mark():
    line = json.dumps(
        {"isthmus_verify": "n1", "reporter": "destination", "peer": "spiffe://x", "request_id": "r"}
    )

    assert v.passage_of(line, "n1") == v.Passage("r", False, peer="spiffe://x")
    assert v.passage_of(line, "n2") is None
    assert v.passage_of("isthmus_verify {broken", "n1") is None
    assert v.passage_of("another line", "n1") is None
