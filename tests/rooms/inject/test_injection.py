"""What a pod looks like after it got its proxy."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.inject import injection, patches, requests, shapes, volumes
from isthmus.inject.requests import Decision
from isthmus.inject.settings import InjectionSettings

REMOTE = requests.parameters("/inject/cluster/cluster2/net/network2")
NOWHERE = requests.Parameters()
SETTINGS = InjectionSettings(mesh_id="mesh1", cluster="cluster1", network="network1")


def pod(*, labels=None, annotations=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "helloworld-v1-78b9f5c87f-",
            "labels": {
                "app": "helloworld",
                "version": "v1",
                "pod-template-hash": "78b9f5c87f",
                **(labels or {}),
            },
            "annotations": annotations or {},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "helloworld-v1-78b9f5c87f",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "containers": [
                {
                    "name": "helloworld",
                    "image": "hello",
                    "ports": [{"containerPort": 5000, "name": "http"}],
                }
            ],
            **spec,
        },
    }


def applied(document, patch):
    """Apply a JSON patch, as an API server does."""
    result = {"": copy.deepcopy(document)}
    for operation in patch:
        *way, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")
        ]
        at = result
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if operation["op"] == "remove":
            del at[last]
        elif isinstance(at, list) and operation["op"] == "add":
            at.insert(int(last), operation["value"])
        elif isinstance(at, list):
            at[int(last)] = operation["value"]
        else:
            at[last] = operation["value"]
    return result[""]


def injected(given_pod, *, parameters=NOWHERE, settings=SETTINGS):
    made = injection.inject(given_pod, namespace="sample", parameters=parameters, settings=settings)
    assert made.decision.is_injected
    return applied(given_pod, made.patch)


def container(result, name="istio-proxy", *, of="containers"):
    [found] = [each for each in result["spec"][of] if each["name"] == name]
    return found


def env(result):
    return {each["name"]: each.get("value") for each in container(result)["env"]}


def test_a_pod_gets_its_proxy_its_init_step_and_what_they_need():
    result = injected(pod())

    assert [each["name"] for each in result["spec"]["containers"]] == ["helloworld", "istio-proxy"]
    assert container(result)["args"] == [
        "proxy",
        "sidecar",
        "--domain",
        "$(POD_NAMESPACE).svc.cluster.local",
        "--proxyLogLevel=warning",
        "--proxyComponentLogLevel=misc:error",
        "--log_output_level=default:info",
    ]
    assert container(result, "istio-init", of="initContainers")["args"] == [
        *("istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT"),
        *("-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020"),
        "--log_output_level=default:info",
    ]
    assert [each["name"] for each in result["spec"]["volumes"]] == [
        each["name"] for each in volumes.all_()
    ]


def test_the_proxy_is_told_who_and_where_it_is():
    found = env(injected(pod()))

    assert found["ISTIO_META_CLUSTER_ID"] == "cluster1"
    assert found["ISTIO_META_NETWORK"] == "network1"
    assert found["ISTIO_META_MESH_ID"] == "mesh1"
    assert found["ISTIO_META_WORKLOAD_NAME"] == "helloworld-v1"
    assert found["ISTIO_META_OWNER"] == (
        "kubernetes://apis/apps/v1/namespaces/sample/deployments/helloworld-v1"
    )
    assert found["ISTIO_META_APP_CONTAINERS"] == "helloworld"
    assert json.loads(found["ISTIO_META_POD_PORTS"]) == [{"name": "http", "containerPort": 5000}]
    assert json.loads(found["PROXY_CONFIG"]) == {"meshId": "mesh1"}
    assert found["CA_ADDR"] == "istiod.istio-system.svc:15012"


def test_labels_and_annotations_say_what_was_made():
    metadata = injected(pod())["metadata"]

    assert metadata["labels"] == {
        "app": "helloworld",
        "version": "v1",
        "pod-template-hash": "78b9f5c87f",
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": "helloworld",
        "service.istio.io/canonical-revision": "v1",
        "topology.istio.io/network": "network1",
    }
    assert json.loads(metadata["annotations"].pop("sidecar.istio.io/status")) == {
        "initContainers": ["istio-init"],
        "containers": ["istio-proxy"],
        "volumes": [each["name"] for each in volumes.all_()],
        "imagePullSecrets": None,
        "revision": "default",
    }
    assert metadata["annotations"] == {
        "istio.io/rev": "default",
        "kubectl.kubernetes.io/default-container": "helloworld",
        "kubectl.kubernetes.io/default-logs-container": "helloworld",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "15020",
        "prometheus.io/path": "/stats/prometheus",
    }


def test_the_path_of_the_webhook_names_the_cluster_and_the_network():
    result = injected(pod(labels={"topology.istio.io/network": "other"}), parameters=REMOTE)

    assert env(result)["ISTIO_META_CLUSTER_ID"] == "cluster2"
    assert env(result)["ISTIO_META_NETWORK"] == "network2"
    assert result["metadata"]["labels"]["topology.istio.io/network"] == "network2"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/inject", {}),
        ("/inject/", {}),
        ("/inject/cluster/c/net/n/", {"ISTIO_META_CLUSTER_ID": "c", "ISTIO_META_NETWORK": "n"}),
        ("/inject/cluster/c/odd", {"ISTIO_META_CLUSTER_ID": "c"}),
        ("/inject/extra/a--slash--b", {"EXTRA": "a/b"}),
        ("/inject/:ENV:A=1:ENV:B=x--slash--y", {"A": "1", "B": "x/y"}),
    ],
)
def test_paths_are_read_as_istio_reads_them(path, wanted):
    assert dict(requests.parameters(path).env) == wanted


def test_probes_of_the_application_go_through_the_agent():
    application = {
        "name": "app",
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/r", "port": "web"}, "timeoutSeconds": 7},
        "livenessProbe": {"tcpSocket": {"port": 9}},
        "startupProbe": {"exec": {"command": ["true"]}},
    }
    result = injected(pod(containers=[application]))

    assert container(result, "app")["readinessProbe"] == {
        "httpGet": {"path": "/app-health/app/readyz", "port": 15020},
        "timeoutSeconds": 7,
    }
    assert container(result, "app")["startupProbe"] == application["startupProbe"]
    assert json.loads(env(result)["ISTIO_KUBE_APP_PROBERS"]) == {
        "/app-health/app/readyz": {"httpGet": {"path": "/r", "port": 8080}, "timeoutSeconds": 7},
        "/app-health/app/livez": {"tcpSocket": {"port": 9}},
    }


@pytest.mark.parametrize("port", ["nowhere", None, [1]])
def test_a_probe_whose_port_has_no_number_stays_as_it_is(port):
    probe = {"httpGet": {"path": "/", "port": port}}
    result = injected(pod(containers=[{"name": "app", "livenessProbe": probe}]))

    assert container(result, "app")["livenessProbe"] == probe


def test_a_pod_can_keep_its_own_probes():
    probe = {"httpGet": {"path": "/", "port": 80}}
    wish = {"sidecar.istio.io/rewriteAppHTTPProbers": "false"}
    result = injected(pod(annotations=wish, containers=[{"name": "app", "livenessProbe": probe}]))

    assert container(result, "app")["livenessProbe"] == probe


def test_annotations_choose_what_is_captured():
    result = injected(
        pod(
            annotations={
                "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
                "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.1.0.0/16",
                "traffic.sidecar.istio.io/includeInboundPorts": "80, 81",
                "traffic.sidecar.istio.io/excludeInboundPorts": "9",
                "traffic.sidecar.istio.io/includeOutboundPorts": "1",
                "traffic.sidecar.istio.io/excludeOutboundPorts": "2",
                "traffic.sidecar.istio.io/excludeInterfaces": "eth1",
                "status.sidecar.istio.io/port": "15999",
            }
        )
    )

    assert container(result, "istio-init", of="initContainers")["args"][9:-1] == [
        *("-i", "10.0.0.0/8", "-x", "10.1.0.0/16", "-b", "80,81", "-d", "15090,15021,9,15999"),
        *("-q", "1", "-o", "2", "-c", "eth1"),
    ]


def test_annotations_choose_how_the_proxy_runs():
    proxy = container(
        injected(
            pod(
                annotations={
                    "sidecar.istio.io/proxyImage": "mine:1",
                    "sidecar.istio.io/proxyCPU": "5m",
                    "sidecar.istio.io/proxyMemory": "6Mi",
                    "sidecar.istio.io/logLevel": "debug",
                }
            )
        )
    )

    assert proxy["image"] == "mine:1"
    assert proxy["resources"] == {"requests": {"cpu": "5m", "memory": "6Mi"}}
    assert "--proxyLogLevel=debug" in proxy["args"]


def test_a_pod_can_configure_its_proxy_and_wait_for_it():
    config = "holdApplicationUntilProxyStarts: true\nconcurrency: 3\nproxyMetadata:\n  A: b\n"
    result = injected(pod(annotations={"proxy.istio.io/config": config}))

    assert [each["name"] for each in result["spec"]["containers"]] == ["istio-proxy", "helloworld"]
    assert container(result)["lifecycle"]["postStart"]["exec"]["command"] == ["pilot-agent", "wait"]
    assert env(result)["A"] == "b"
    assert json.loads(env(result)["PROXY_CONFIG"]) == {
        "meshId": "mesh1",
        "concurrency": 3,
        "holdApplicationUntilProxyStarts": True,
        "proxyMetadata": {"A": "b"},
    }


def test_the_redirect_is_told_whether_names_are_captured():
    config = "proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: true\n"
    result = injected(pod(annotations={"proxy.istio.io/config": config}))
    wanted = {"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}

    assert container(result, "istio-init", of="initContainers")["env"] == [wanted]
    assert wanted in container(result)["env"]
    assert "env" not in container(injected(pod()), "istio-init", of="initContainers")


def test_without_interception_there_is_no_init_step():
    result = injected(pod(annotations={"sidecar.istio.io/interceptionMode": "NONE"}))

    assert "initContainers" not in result["spec"]
    assert env(result)["ISTIO_META_INTERCEPTION_MODE"] == "NONE"


def test_the_init_step_comes_after_those_of_the_pod():
    result = injected(pod(initContainers=[{"name": "first"}]))

    assert [each["name"] for each in result["spec"]["initContainers"]] == ["first", "istio-init"]


def test_metrics_of_the_application_are_remembered_for_the_agent():
    result = injected(pod(annotations={"prometheus.io/scrape": "true", "prometheus.io/port": "9"}))

    assert json.loads(env(result)["ISTIO_PROMETHEUS_ANNOTATIONS"]) == {
        "scrape": "true",
        "port": "9",
    }
    assert result["metadata"]["annotations"]["prometheus.io/port"] == "15020"


def test_a_gateway_is_filled_in_and_what_it_says_itself_stands():
    own = {
        "name": "istio-proxy",
        "image": "auto",
        "env": [{"name": "ISTIO_META_REQUESTED_NETWORK_VIEW", "value": "network1"}],
        "ports": [{"containerPort": 15443}],
        "resources": {"requests": {"cpu": "1"}},
        "securityContext": {"runAsUser": 7},
    }
    result = injected(
        pod(
            labels={"sidecar.istio.io/inject": "true"},
            annotations={"inject.istio.io/templates": "gateway"},
            containers=[own],
        )
    )
    proxy = container(result)

    assert len(result["spec"]["containers"]) == 1
    assert "initContainers" not in result["spec"]
    assert proxy["args"][:2] == ["proxy", "router"]
    assert proxy["image"] == SETTINGS.image
    assert env(result)["ISTIO_META_REQUESTED_NETWORK_VIEW"] == "network1"
    assert [port["containerPort"] for port in proxy["ports"]] == [15090, 15443]
    assert proxy["resources"] == {"requests": {"cpu": "1"}}
    assert proxy["securityContext"]["runAsUser"] == 7
    assert proxy["securityContext"]["runAsNonRoot"]
    assert "security.istio.io/tlsMode" not in result["metadata"]["labels"]


def test_a_revision_names_its_own_control_plane():
    result = injected(pod(), settings=InjectionSettings(revision="canary"))

    assert env(result)["CA_ADDR"] == "istiod-canary.istio-system.svc:15012"
    assert json.loads(env(result)["PROXY_CONFIG"])["discoveryAddress"] == (
        "istiod-canary.istio-system.svc:15012"
    )


def test_pull_secrets_of_the_mesh_join_those_of_the_pod():
    settings = InjectionSettings(pull_secrets=("a", "b"))
    result = injected(pod(imagePullSecrets=[{"name": "a"}]), settings=settings)

    assert result["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_a_pod_that_has_its_proxy_gets_none_again():
    made = injection.inject(
        injected(pod()), namespace="sample", parameters=NOWHERE, settings=SETTINGS
    )

    assert made == requests.Injection(Decision.ALREADY)


@pytest.mark.parametrize(
    ("changes", "settings", "namespace", "decision"),
    [
        ({}, {}, "sample", Decision.POLICY),
        ({}, {"policy_enabled": False}, "sample", Decision.NO_POLICY),
        ({"hostNetwork": True}, {}, "sample", Decision.HOST_NETWORK),
        ({}, {}, "kube-system", Decision.NAMESPACE),
        ({"labels": {"sidecar.istio.io/inject": "false"}}, {}, "sample", Decision.REFUSED),
        (
            {
                "labels": {"sidecar.istio.io/inject": "true"},
                "annotations": {"sidecar.istio.io/inject": "false"},
            },
            {"policy_enabled": False},
            "sample",
            Decision.ASKED,
        ),
        ({"annotations": {"sidecar.istio.io/inject": "false"}}, {}, "sample", Decision.REFUSED),
        ({}, {"never": ({"matchLabels": {"app": "helloworld"}},)}, "sample", Decision.NEVER),
        (
            {},
            {
                "policy_enabled": False,
                "always": ({"matchExpressions": [{"key": "app", "operator": "Exists"}]},),
            },
            "sample",
            Decision.SELECTED,
        ),
    ],
)
def test_the_first_rule_that_applies_decides(changes, settings, namespace, decision):
    made = injection.inject(
        pod(**changes),
        namespace=namespace,
        parameters=NOWHERE,
        settings=InjectionSettings(**settings),
    )

    assert made.decision is decision


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ({"key": "a", "operator": "In", "values": ["1"]}, True),
        ({"key": "a", "operator": "In", "values": 1}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "DoesNotExist"}, True),
        ({"key": "b", "operator": "Exists"}, False),
        ({"key": "b", "operator": "Unheard"}, False),
    ],
)
def test_selectors_mean_what_they_mean_in_kubernetes(expression, holds):
    assert requests.selects({"matchExpressions": [expression]}, {"a": "1"}) is holds


def test_an_empty_selector_selects_nothing():
    assert not requests.selects({}, {"a": "1"})


@pytest.mark.parametrize(
    "annotations",
    [
        {"inject.istio.io/templates": "grpc-agent"},
        {"inject.istio.io/templates": "sidecar,gateway"},
        {"traffic.sidecar.istio.io/excludeInboundPorts": "eighty"},
        {"traffic.sidecar.istio.io/excludeInboundPorts": "70000"},
        {"status.sidecar.istio.io/port": "x"},
        {"sidecar.istio.io/interceptionMode": "TPROXY"},
        {"proxy.istio.io/config": "&a [*a]"},
        {"proxy.istio.io/config": "just text"},
        {"proxy.istio.io/config": "proxyMetadata: {a: [b]}"},
        {"proxy.istio.io/config": "proxyMetadata: none"},
        {"sidecar.istio.io/logLevel": 7},
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_with_a_hint(annotations):
    with pytest.raises(shapes.InjectionRefused) as caught:
        injected(pod(annotations=annotations))

    assert caught.value.hint


@pytest.mark.parametrize("containers", ["none", [1], {"a": 1}])
def test_a_malformed_pod_is_refused(containers):
    with pytest.raises(shapes.InjectionRefused):
        injected(pod(containers=containers))


def test_a_bare_pod_is_its_own_workload():
    bare = {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "app"}]}}
    found = env(injected(bare))

    assert found["ISTIO_META_OWNER"] == "kubernetes://apis/v1/namespaces/sample/pods/one"


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("nightly-28412345", "kubernetes://apis/batch/v1/namespaces/sample/cronjobs/nightly"),
        ("once", "kubernetes://apis/batch/v1/namespaces/sample/jobs/once"),
    ],
)
def test_a_job_of_a_cron_job_belongs_to_the_cron_job(name, owner):
    given_pod = pod()
    given_pod["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": name, "controller": True}
    ]

    assert env(injected(given_pod))["ISTIO_META_OWNER"] == owner


named = st.builds(
    lambda name, value: {"name": name, "v": value},
    st.sampled_from(["a", "b", "c", "/~"]),
    st.integers(0, 2),
)
documents = st.recursive(
    st.integers(0, 2) | st.lists(named, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b/c", "~d"]), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=2), documents), st.dictionaries(st.text(max_size=2), documents)
)
def test_a_patch_turns_the_old_into_the_new(old, new):
    assert applied(old, list(patches.difference(old, new))) == new


def test_a_proxy_that_ends_hbone_is_known_by_a_label():
    speaking = dataclasses.replace(SETTINGS, proxy_metadata=(("ISTIO_META_ENABLE_HBONE", "true"),))

    labels = injected(pod(), settings=speaking)["metadata"]["labels"]

    assert labels["networking.istio.io/tunnel"] == "http"
    assert "networking.istio.io/tunnel" not in injected(pod())["metadata"]["labels"]
