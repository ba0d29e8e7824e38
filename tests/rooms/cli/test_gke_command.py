"""`isthmus gke`, from its arguments to what it prints, with the caller's own credentials."""

import functools
import json
import pathlib
import subprocess
import sys

import click.testing
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fakes import gke_clouds, google_cloud, kube_server
from isthmus.cli import gke, gke_ports
from isthmus.gke import wishes
from isthmus.kube import kinds

UNIVERSE = "cloud.test"
PAGE = pathlib.Path(gke.__file__).resolve().parents[3] / "docs/howto/gke.md"
BEGIN = "<!-- example: kept true by tests/rooms/cli/test_gke_command.py -->\n\n```\n"
END = "```\n\n<!-- end of example -->"
FILE = PAGE.read_text().split("```yaml\n")[1].split("```")[0]


@functools.cache
def account():
    """A service account's key, as the cloud hands it out; the tokens it signs go nowhere else."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project-1",
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": "someone@project-1.iam.gserviceaccount.com",
            "token_uri": "http://127.0.0.1:1/token",
            # Of Google's own universe, the library would ask Google where the account may be used.
            "universe_domain": UNIVERSE,
        }
    )


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """Two private clusters in two regions; whoever asks must show a token."""
    (tmp_path / "account.json").write_text(account())
    (tmp_path / "clusters.yaml").write_text(FILE)
    with google_cloud.GoogleCloud(token="ey") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", UNIVERSE)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        monkeypatch.chdir(tmp_path)
        gke_clouds.two_regions(server)
        yield server


def run(*words, says=""):
    return click.testing.CliRunner().invoke(
        gke.command, [*words, "-f", "clusters.yaml"], input=says, standalone_mode=False
    )


def test_the_example_in_the_docs_is_what_the_plan_prints(cloud):
    text = PAGE.read_text()

    assert text.split(BEGIN)[1].split(END)[0] == run("plan").stdout


def test_no_line_is_wider_than_a_terminal(cloud):
    for words in (["plan"], ["plan", "--gcloud"]):
        own = [line for line in run(*words).stdout.splitlines() if not line.startswith("#   ")]
        assert max(map(len, own)) <= 80


def test_programs_get_the_plan_as_json(cloud):
    document = json.loads(run("plan", "-o", "json").stdout)

    assert [step["action"] for step in document["steps"]].count("createRule") == 4
    assert document["steps"][0]["rule"]["sourceRanges"] == ["10.8.0.0/14"]
    assert document["clusters"][0]["privateEndpoint"] == "172.16.0.2"
    assert len(document["commands"]) == 10


def test_a_script_can_ask_whether_something_is_to_be_changed(cloud):
    assert run("plan", "--exit-code").return_value == 3
    run("apply", "-y")
    assert run("plan", "--exit-code").return_value == 0


def test_without_a_yes_nothing_is_changed(cloud):
    answers = [run("apply", says=says) for says in ("n\n", "")]

    assert [answer.return_value for answer in answers] == [1, 1]
    assert cloud.writes == []


def test_after_a_yes_everything_is_changed_and_the_next_step_told(cloud):
    done = run("apply", says="y\n")

    assert done.return_value == 0
    assert "--server=https://172.16.0.18 |" in done.stdout
    assert "--context=gke_project-1_europe-west1_cluster-2" in done.stdout
    assert "nothing is to be changed" in run("apply").stdout


def test_a_plan_with_problems_is_not_carried_out(cloud):
    pathlib.Path("clusters.yaml").write_text(FILE.replace("ports: [5000]", ""))

    done = run("apply", "-y")

    assert done.exception.code == "ISM-GKE-008"
    assert "nobody knows which ports its pods serve" in done.stderr
    assert cloud.writes == []


def test_the_shell_commands_do_what_apply_does(cloud, tmp_path):
    script = run("plan", "--gcloud").stdout
    said = calls(script, tmp_path)
    run("apply", "-y")

    rule = cloud.state.firewalls["project-1"]["isthmus-cluster-1-webhooks"]
    assert [
        "compute",
        "firewall-rules",
        "create",
        rule["name"],
        "--project=project-1",
        "--network=vpc",
        f"--direction={rule['direction']}",
        f"--priority={rule['priority']}",
        "--allow=tcp:15017",
        f"--source-ranges={rule['sourceRanges'][0]}",
        f"--destination-ranges={rule['destinationRanges'][0]}",
        f"--target-tags={rule['targetTags'][0]}",
        f"--description={rule['description']}",
    ] in said
    assert "--master-authorized-networks=10.0.0.0/24,10.8.0.0/14" in said[4]


def test_the_guides_commands_run_in_a_shell_in_its_order(cloud, tmp_path):
    said = calls(run("plan", "--as-in-guide").stdout, tmp_path)

    verbs = [" ".join(words[:4]) for words in said if "update" in words or "create" in words]
    assert verbs[0] == "compute firewall-rules create istio-multicluster-pods"
    assert (
        verbs[1:]
        == [
            "container clusters update cluster-1",
            "container clusters update cluster-2",
        ]
        * 2
    )
    assert "--allow=tcp,udp,icmp,esp,ah,sctp" in said[4]


def test_the_guides_commands_stand_beside_the_narrow_ones_but_do_not_run(cloud, tmp_path):
    both = run("plan", "--gcloud").stdout
    guide = run("plan", "--as-in-guide").stdout

    assert [f"#   {line}" for line in guide.splitlines()] == both.splitlines()[-guide.count("\n") :]
    assert not any("istio-multicluster-pods" in words for words in calls(both, tmp_path))


def test_a_change_that_takes_too_long_is_no_success(cloud):
    cloud.polls = 1_000_000

    done = run("apply", "-y", "--timeout", "0.1s")

    assert done.exception.code == "ISM-GKE-009"
    assert "not done: enable global access to cluster-2" in done.exception.detail


def calls(script, folder):
    """Run a script with programs that only write down how they were called."""
    log = folder / "calls"
    names = ("gcloud", "kubectl", "istioctl")
    stub = "#!/bin/sh\nprintf '%s\\0' \"$@\" >> {log}; echo >> {log}; echo 10.1.2.3\n"
    for name in names:
        (folder / name).write_text(stub.format(log=log if name == "gcloud" else "/dev/null"))
        (folder / name).chmod(0o755)
    subprocess.run(
        ["bash", "-eu", "-c", script],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        check=True,
        cwd=folder,
    )
    return [line.split("\0")[:-1] for line in log.read_text().splitlines()]


def test_without_the_extra_the_line_that_installs_it_is_told(cloud, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.compute_v1", None)

    error = run("plan").exception

    assert (error.code, error.hint) == ("ISM-GKE-001", "pip install 'isthmus[gke]'")


def test_without_credentials_the_line_that_signs_in_is_told(cloud, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/does/not/exist")

    assert run("plan").exception.code == "ISM-GKE-003"


def test_credentials_never_travel_readably(cloud, monkeypatch):
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", "http://example.com/")

    assert run("plan").exception.code == "ISM-GKE-010"
    assert cloud.requests == []


def test_a_file_that_is_no_yaml_is_refused(cloud):
    pathlib.Path("clusters.yaml").write_text("clusters: &a [*a]")

    assert run("plan").exception.code == "ISM-GKE-002"


def test_the_command_line_starts_without_googles_libraries():
    code = "import sys, isthmus.cli.gke; print([m for m in sys.modules if m.startswith('google.')])"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert "google.cloud" not in told.stdout
    assert "google.auth" not in told.stdout


def service(name, namespace, **spec):
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"selector": {}, **spec}}


def test_ports_are_those_of_the_pods_not_of_their_services():
    found = gke_ports.names_by_port(
        [
            service("web", "shop", selector={"a": "b"}, ports=[{"port": 80, "targetPort": 8080}]),
            service(
                "named", "shop", selector={"a": "b"}, ports=[{"port": 80, "targetPort": "http"}]
            ),
            service("udp", "shop", selector={"a": "b"}, ports=[{"port": 53, "protocol": "UDP"}]),
            service("dns", "kube-system", selector={"a": "b"}, ports=[{"port": 53}]),
            service("outside", "shop", ports=[{"port": 9000}]),
        ],
        [
            {
                "metadata": {
                    "namespace": "shop",
                    "labels": {"kubernetes.io/service-name": "named"},
                },
                "ports": [{"port": 9090, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            },
            {
                "metadata": {
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "kubernetes"},
                },
                "ports": [{"port": 443}],
            },
        ],
    )

    assert found == {8080: {"shop/web"}, 9090: {"shop/named"}}


async def test_a_cluster_is_asked_for_the_ports_that_the_file_does_not_name(tmp_path):
    asked = wishes.wishes_of(
        {
            "clusters": [
                {"name": "one", "project": "project-1", "location": "us-east1", "context": "one"},
                {"name": "two", "project": "project-1", "location": "us-east1", "ports": "7000"},
            ]
        }
    )
    async with kube_server.serving() as server:
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        server.put(kinds.SERVICE, "web", "shop", spec=spec)
        (tmp_path / "config").write_text(
            json.dumps(
                {
                    "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
                    "clusters": [{"name": "one", "cluster": {"server": server.url}}],
                    "users": [{"name": "one", "user": {}}],
                }
            )
        )
        found = await gke_ports.served(asked, kubeconfig=str(tmp_path / "config"))

    assert (found["one"].ports, found["one"].names) == (((8080, 8080),), ((8080, "shop/web"),))
    assert found["two"].ports == ((7000, 7000),)
