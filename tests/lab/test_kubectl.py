"""A lab as people see it who use kubectl: what only the real program asks of a server."""

import os
import pty
import re
import select
import subprocess
import time
import urllib.request

import booted
import kubectls
import pytest

from isthmus.testing import pace

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab():
    with booted.booted_lab("ordinary", "single") as running:
        yield running


@pytest.fixture(scope="module")
def kubectl(lab, tmp_path_factory):
    program = kubectls.Kubectl("kubectl", lab, tmp_path_factory.mktemp("home"))
    program("apply", "-f", "-", given=kubectls.HELLO)
    program("run", "tool", "--image=curlimages/curl", "--", "sleep", "infinity")
    program("rollout", "status", "deploy/hello", "--timeout=300s")
    program("wait", "--for=condition=Ready", "pod/tool", "--timeout=300s")
    return program


def events_of(described):
    return described[described.index("Events:") :]


def test_describing_a_deployment_tells_how_it_was_scaled(kubectl):
    told = events_of(kubectl("describe", "deploy", "hello"))

    assert re.search(r"ScalingReplicaSet .* deployment-controller .* from 0 to 2", told)
    assert "SuccessfulCreate" in events_of(kubectl("describe", "rs", "-l", "app=hello"))


def test_events_are_listed_as_they_happened(kubectl):
    name = kubectl("get", "pods", "-l", "app=hello", "-o", "name").split()[0]
    told = events_of(kubectl("describe", name))

    reasons = [line.split()[1] for line in told.splitlines()[3:] if line.strip()]
    assert reasons[:4] == ["Scheduled", "Pulled", "Created", "Started"]


REFUSING = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: nobody}
webhooks:
- name: nobody.example.com
  clientConfig: {service: {name: nobody, namespace: default}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  namespaceSelector: {matchLabels: {refused: "yes"}}
  admissionReviewVersions: [v1]
  sideEffects: None
"""


def test_pods_that_admission_refuses_are_told_of_where_people_look(kubectl):
    kubectl("apply", "-f", "-", given=REFUSING)
    kubectl("create", "namespace", "guarded")
    kubectl("label", "namespace", "guarded", "refused=yes")
    kubectl("create", "deployment", "web", "--image=busybox", "-n", "guarded")

    kubectl("wait", "--for=condition=ReplicaFailure", "deploy/web", "-n", "guarded")
    told = events_of(kubectl("describe", "rs", "-n", "guarded"))

    assert re.search(r"Warning +FailedCreate .*nobody\.example\.com", told)
    kubectl("delete", "validatingwebhookconfiguration", "nobody")
    kubectl("rollout", "status", "deploy/web", "-n", "guarded", "--timeout=300s")
    kubectl("delete", "namespace", "guarded")


def test_finished_jobs_say_how_they_ended(kubectl):
    kubectl("create", "job", "good", "--image=busybox", "--", "echo", "done")
    kubectl("wait", "--for=condition=complete", "job/good", "--timeout=300s")

    assert kubectl("get", "job", "good", "--no-headers").split()[1:3] == ["Complete", "1/1"]
    assert "Job completed" in kubectl("describe", "job", "good")
    assert kubectl("logs", "job/good") == "done\n"
    kubectl("delete", "job", "good")


def test_fields_are_selected_by_or_refused(kubectl):
    running = "status.phase=Running,metadata.name=tool"

    assert kubectl("get", "pods", f"--field-selector={running}", "-o", "name") == "pod/tool\n"
    assert "field label not supported: spec.foo" in kubectl.refused(
        "get", "pods", "--field-selector=spec.foo=x"
    )


def test_an_unknown_kind_is_called_so(kubectl):
    unknown = '{"apiVersion": "v2", "kind": "Nope", "metadata": {"name": "x"}}'

    assert 'no matches for kind "Nope"' in kubectl.refused("apply", "-f", "-", given=unknown)


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.color}]
    schema:
      openAPIV3Schema:
        type: object
        description: A thing that one can turn
        properties: {spec: {type: object, properties: {color: {type: string}}}}
"""


def test_custom_resources_are_explained_and_selected_as_their_definition_says(kubectl):
    kubectl("apply", "-f", "-", given=CRD)
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
    for color in ("red", "blue"):
        body = f"{{apiVersion: example.com/v1, kind: Widget, metadata: {{name: {color}}}, "
        kubectl("apply", "-f", "-", given=f"{body}spec: {{color: {color}}}}}")

    assert "A thing that one can turn" in kubectl("explain", "widget")
    found = kubectl("get", "widgets", "--field-selector=spec.color=red", "-o", "name")
    assert found == "widget.example.com/red\n"
    kubectl("delete", "crd", "widgets.example.com")


def test_input_of_a_pod_that_is_run_reaches_it(kubectl):
    words = ("run", "echo", "--image=busybox", "--restart=Never", "--rm", "-i", "--command")

    assert "given words" in kubectl(*words, "--", "cat", given="given words\n")


def test_a_program_that_ends_at_once_has_still_been_heard(kubectl):
    words = ("run", "brief", "--image=busybox", "--restart=Never", "--rm", "-i", "--command")

    assert "brief words" in kubectl(*words, "--", "echo", "brief words")


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "-it", "tool", "--", "sh"),
        ("run", "typed", "--image=busybox", "--restart=Never", "--rm", "-it", "--", "sh"),
    ],
    ids=["exec", "run"],
)
def test_a_terminal_has_our_size_and_takes_what_is_typed(kubectl, words):
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=theirs, check=True)
    shell = subprocess.Popen(
        [*kubectl.argv, *words],
        env=kubectl.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown_until(ours, b"# ", b"$ ")
        os.write(ours, b"stty size; exit 3\n")
        shown = shown_until(ours, b"33 99")
        assert b"33 99" in shown
        assert shell.wait(timeout=pace.patience(20)) == 3
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def shown_until(terminal, *wanted):
    """Return what a terminal shows, up to one of the wanted texts."""
    shown = b""
    deadline = time.monotonic() + pace.patience(20)
    while not any(each in shown for each in wanted):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
    return shown


def test_files_are_copied_both_ways(kubectl):
    content = os.urandom(300_000)
    (kubectl.folder / "there").write_bytes(content)
    kubectl("cp", "there", "tool:/tmp/here")
    kubectl("cp", "tool:/tmp/here", "back")

    assert (kubectl.folder / "back").read_bytes() == content


def test_ports_are_forwarded_for_many_connections(kubectl):
    forwarding = kubectl.start("port-forward", "svc/hello", ":80")
    try:
        port = re.search(r"127\.0\.0\.1:(\d+) -> 5000", forwarding.stdout.readline())[1]
        for _ in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello", timeout=10) as answer:
                assert answer.read().startswith(b"Hello version: v1")
    finally:
        forwarding.terminate()
        forwarding.communicate()


def test_a_watch_shows_what_happens(kubectl):
    watching = kubectl.start("get", "configmap", "--watch-only", "-o", "name")
    try:
        # A watch that begins late misses nothing that is repeated.
        for number in range(20):
            kubectl("create", "configmap", f"seen-{number}")
            if select.select([watching.stdout], [], [], 0.3)[0]:
                break
        assert watching.stdout.readline().startswith("configmap/seen-")
    finally:
        watching.kill()
        watching.communicate()


def test_a_node_is_drained_and_taken_back(kubectl):
    kubectl("drain", "cluster1-node1", "--force", "--ignore-daemonsets", "--timeout=300s")
    kubectl("rollout", "status", "deploy/hello", "--timeout=300s")
    nodes = kubectl("get", "pods", "-l", "app=hello", "-o", "jsonpath={..spec.nodeName}")
    kubectl("uncordon", "cluster1-node1")

    assert set(nodes.split()) == {"cluster1-node2"}
    kubectl("delete", "pod", "tool", "--ignore-not-found", "--now")


def test_the_client_and_the_server_are_of_one_age(kubectl):
    assert "WARNING" not in kubectl.attempt("version").stderr
    kubelet = kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.kubeletVersion}")
    assert f"Server Version: {kubelet}" in kubectl("version")


def test_what_is_not_there_has_an_error_of_one_line(kubectl):
    for words in (
        ("top", "pods"),
        ("get", "gizmos"),
        ("logs", "none"),
        ("exec", "none", "--", "ls"),
    ):
        said = kubectl.refused(*words)
        assert said.lower().startswith("error")
        assert len(said.splitlines()) == 1
