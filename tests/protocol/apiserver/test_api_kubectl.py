"""What people type, against the real kubectl."""

import shutil

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="this machine has no kubectl; other clients are tested"
)

HELLO = """
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {ports: [{port: 5000, name: http}], selector: {app: hello}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 1
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec: {containers: [{name: hello, image: "hello:v1", ports: [{containerPort: 5000}]}]}
"""

GADGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.demo.io}
spec:
  group: demo.io
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget, shortNames: [gd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


async def test_apply_creates_leaves_alone_and_configures(cluster):
    run = cluster.kubectl
    assert "deployment.apps/hello created" in await run("apply", "-f", "-", given=HELLO)
    again = await run("apply", "-f", "-", given=HELLO)
    assert again.splitlines() == ["service/hello unchanged", "deployment.apps/hello unchanged"]
    changed = HELLO.replace("hello:v1", "hello:v2").replace("5000}]", "5001}]")
    assert "deployment.apps/hello configured" in await run("apply", "-f", "-", given=changed)
    ports = await run("get", "deploy", "hello", "-o", "jsonpath={..containers[0].ports}")
    assert ports == '[{"containerPort":5001,"protocol":"TCP"}]'


async def test_apply_on_the_servers_side_conflicts_and_can_be_forced(cluster):
    run = cluster.kubectl
    apply = ("apply", "--server-side", "-f", "-")
    await run(*apply, given=HELLO)
    changed = HELLO.replace("hello:v1", "hello:v2")
    refused = await run(*apply, "--field-manager=other", given=changed, ok=False)
    assert 'conflict with "kubectl": .spec.template.spec.containers[name="hello"].image' in refused
    forced = await run(*apply, "--field-manager=other", "--force-conflicts", given=changed)
    assert "deployment.apps/hello serverside-applied" in forced


async def test_kubectl_moves_from_the_clients_to_the_servers_side(cluster):
    await cluster.kubectl("apply", "-f", "-", given=HELLO)
    changed = HELLO.replace("hello:v1", "hello:v2")
    moved = await cluster.kubectl("apply", "--server-side", "-f", "-", given=changed)
    assert "deployment.apps/hello serverside-applied" in moved


async def test_a_misspelt_field_is_refused_with_its_path(cluster):
    wrong = HELLO.replace("replicas: 1", "replics: 1")
    assert 'unknown field "spec.replics"' in await cluster.kubectl(
        "apply", "-f", "-", given=wrong, ok=False
    )


async def test_commands_that_speak_protobuf_work(cluster):
    run = cluster.kubectl
    for line in (
        "create namespace team",
        "create sa bob",
        "create configmap c --from-literal=a=b",
        "create secret generic s --from-literal=a=b",
        "create deployment web --image=nginx --replicas=2 --port=80",
        "create job j --image=busybox -- true",
        "create cronjob cj --image=busybox --schedule=@daily",
        "create service clusterip web --tcp=80:8080",
        "create role r --verb=get --resource=pods",
        "create clusterrole cr --verb=get --resource=nodes",
        "create rolebinding rb --role=r --serviceaccount=default:bob",
        "create clusterrolebinding crb --clusterrole=cr --user=ann",
        "create ingress i --rule=a.b/c=web:80",
        "create pdb p --min-available=1 --selector=a=b",
    ):
        assert "created" in await run(*line.split())
    assert await run("create", "token", "bob") == "for-bob"
    assert "admin" in await run("auth", "whoami")
    assert await run("auth", "can-i", "get", "pods") == "yes\n"
    assert await run("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    assert await run("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"


async def test_everyday_commands_work(cluster):
    run = cluster.kubectl
    await run("apply", "-f", "-", given=HELLO)
    for line in (
        "label deploy hello a=b",
        "annotate deploy hello a=b",
        "scale deploy hello --replicas=3",
        "set image deploy/hello hello=hello:v3",
        "rollout restart deploy hello",
        "rollout pause deploy hello",
        "expose deploy hello --name=two --port=80",
        "run p --image=busybox",
        "describe deploy hello",
        "describe svc hello",
        "describe pod p",
        "explain deployment.spec.replicas",
        "api-resources",
        "api-versions",
        "get events",
        "delete pod p",
    ):
        await run(*line.split())
    assert "0/3" in await run("get", "deploy", "-l", "a=b")
    assert "No resources found" in await run("get", "deploy", "-l", "a!=b")


async def test_edit_and_diff_see_what_changes(cluster, tmp_path):
    run = cluster.kubectl
    await run("apply", "-f", "-", given=HELLO)
    assert "image: hello:v9" in await run(
        "diff", "-f", "-", given=HELLO.replace("hello:v1", "hello:v9"), ok=False
    )


async def test_get_all_shows_every_kind_of_the_category(cluster):
    await cluster.kubectl("apply", "-f", "-", given=HELLO)
    shown = await cluster.kubectl("get", "all")
    assert "service/hello" in shown
    assert "deployment.apps/hello" in shown


async def test_a_definition_is_usable_as_soon_as_it_is_established(cluster):
    run = cluster.kubectl
    await run("apply", "-f", "-", given=GADGETS)
    await run("wait", "--for=condition=Established", "crd/gadgets.demo.io", "--timeout=5s")
    gadget = "{apiVersion: demo.io/v1, kind: Gadget, metadata: {name: g}, spec: {size: 3}}"
    assert "gadget.demo.io/g created" in await run("apply", "-f", "-", given=gadget)
    refused = await run("apply", "-f", "-", given=gadget.replace("3", "0"), ok=False)
    assert "spec.size: Invalid value: 0" in refused
    await run("scale", "gd", "g", "--replicas=7")
    assert (await run("get", "gd")).split() == ["NAME", "SIZE", "g", "7"]
    assert "gadget.demo.io/g" in await run("get", "all")


async def test_waiting_for_a_deletion_ends_when_it_is_done(cluster):
    run = cluster.kubectl
    await run("create", "configmap", "c")
    await run("delete", "configmap", "c", "--wait=true")
    await run("wait", "--for=delete", "configmap/c", "--timeout=5s")


async def test_a_namespace_is_deleted_with_what_is_in_it(cluster):
    run = cluster.kubectl
    await run("create", "namespace", "team")
    await run("create", "configmap", "c", "-n", "team")
    await run("delete", "namespace", "team")
    assert await run("get", "configmap", "-A") == "No resources found\n"
