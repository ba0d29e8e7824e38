"""What the walkthroughs do with kubectl works with the real one and with the small one alike."""

import json

import booted
import kubectls
import pytest

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab():
    with booted.booted_lab("ordinary", "single") as running:
        yield running


@pytest.fixture(scope="module", params=list(kubectls.PROGRAMS))
def space(lab, request, tmp_path_factory):
    """A program, and a namespace of its own with the service hello in it."""
    kubectl = kubectls.Kubectl(request.param, lab, tmp_path_factory.mktemp("home"))
    name = f"by-{request.param}"
    assert kubectl("create", "namespace", name) == f"namespace/{name} created\n"
    kubectl.argv += ["-n", name]
    said = kubectl("apply", "-f", "-", given=kubectls.HELLO)
    assert said == "service/hello created\ndeployment.apps/hello created\n"
    kubectl("rollout", "status", "deploy/hello", "--timeout=300s")
    return kubectl


def test_applying_again_changes_nothing(space):
    again = space("apply", "-f", "-", given=kubectls.HELLO)

    assert again == "service/hello unchanged\ndeployment.apps/hello unchanged\n"


def test_a_table_is_the_servers(space):
    heads, *rows = space("get", "pods", "-l", "app=hello").splitlines()

    assert heads.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [row.split()[1:3] for row in rows] == [["2/2", "Running"]] * 2


def test_a_wide_table_says_where_pods_are(space):
    rows = space("get", "pods", "-o", "wide").splitlines()[1:]

    assert {row.split()[6] for row in rows} == {"cluster1-node1", "cluster1-node2"}


def test_several_kinds_are_named_in_one_answer(space):
    shown = space("get", "deploy,svc")

    assert "deployment.apps/hello" in shown
    assert "service/hello" in shown


def test_names_and_paths_can_be_asked_for(space):
    assert space("get", "deploy", "hello", "-o", "name") == "deployment.apps/hello\n"
    path = "jsonpath={.spec.ports[0].targetPort}"
    assert space("get", "svc", "hello", "-o", path).strip() == "web"
    every = "jsonpath={.items[*].metadata.name}"
    assert space("get", "deploy", "-o", every).strip() == "hello"
    assert json.loads(space("get", "svc", "hello", "-o", "json"))["kind"] == "Service"


def test_every_namespace_at_once(space):
    rows = space("get", "pods", "-A").splitlines()

    assert rows[0].startswith("NAMESPACE")
    assert any(row.startswith("by-") for row in rows[1:])


def test_what_is_not_there_is_said_so(space):
    assert 'pods "none" not found' in space.refused("get", "pods", "none")
    assert "gizmos" in space.refused("get", "gizmos")
    assert "No resources found" in space.attempt("get", "secrets").stderr


def test_a_program_runs_in_a_pod_of_a_deployment(space):
    words = ("exec", "deploy/hello", "-c", "side", "--", "sh", "-c")

    assert space(*words, "echo $HOSTNAME; hostname").startswith("hello-")
    assert space.attempt(*words, "exit 7").returncode == 7
    assert space("exec", "-i", *words[1:], "cat", given="taken\n") == "taken\n"


def test_a_log_is_read_from_its_container(space):
    assert space("logs", "deploy/hello", "-c", "side") == "beside\n"
    assert space("logs", "deploy/hello", "-c", "side", "--tail=0") == ""
    assert "none" in space.refused("logs", "deploy/hello", "-c", "none")


def test_labels_are_set_kept_and_removed(space):
    assert space("label", "svc", "hello", "tier=one") == "service/hello labeled\n"
    assert "one" in space.refused("label", "svc", "hello", "tier=two")
    space("label", "svc", "hello", "tier=two", "--overwrite")
    space("annotate", "svc", "hello", "note=x")
    assert space("get", "svc", "-l", "tier=two", "-o", "name") == "service/hello\n"
    space("label", "svc", "hello", "tier-")
    assert space("get", "svc", "-l", "tier", "-o", "name") == ""


def test_scaling_and_restarting_are_followed_to_their_end(space):
    assert space("scale", "deploy/hello", "--replicas=1") == "deployment.apps/hello scaled\n"
    space("rollout", "restart", "deploy/hello")
    space("rollout", "status", "deploy/hello", "--timeout=300s")
    waited = space("wait", "--for=condition=Available", "deploy/hello", "--timeout=300s")
    assert waited == "deployment.apps/hello condition met\n"
    space("wait", "--for=jsonpath={.status.replicas}=1", "deploy/hello", "--timeout=300s")


def test_a_secret_is_made_of_files_and_texts(space):
    (space.folder / "root-cert.pem").write_text("pem")
    words = ("--from-file=root-cert.pem", "--from-literal=a=b")
    assert space("create", "secret", "generic", "cacerts", *words) == "secret/cacerts created\n"

    made = json.loads(space("get", "secret", "cacerts", "-o", "json"))

    assert made["data"] == {"root-cert.pem": "cGVt", "a": "Yg=="}
    assert "already exists" in space.refused("create", "secret", "generic", "cacerts")
    assert 'secret "cacerts" deleted' in space("delete", "secret", "cacerts")


def test_deleting_waits_for_the_end(space):
    space("create", "configmap", "short", "--from-literal=a=b")
    space("delete", "configmap", "short")

    assert "not found" in space.refused("delete", "configmap", "short")
    assert space("delete", "configmap", "short", "--ignore-not-found") == ""


def test_what_is_no_object_is_refused(space):
    assert "none.yaml" in space.refused("apply", "-f", "none.yaml")
    space.refused("apply", "-f", "-", given="a: [")
    space.refused("apply", "-f", "-", given="just: words")
    wrong = kubectls.HELLO.replace("replicas: 2", "replicas: many")
    assert "replicas" in space.refused("apply", "-f", "-", given=wrong)
