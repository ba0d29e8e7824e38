"""Which certificates of others node proxies may have."""

import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId, SpiffeId
from isthmus.runtime import assembly, impersonation
from isthmus.wire import callers

C1, C2 = ClusterId("c1"), ClusterId("c2")
ACCOUNT = ("istio-system", "ztunnel")


class Setting:
    def __init__(self):
        self.mesh = assembly.assemble(
            config_cluster=C1, revision="", system_namespace="istio-system", domain="cluster.local"
        )
        self.judge = impersonation.Judge(self.mesh, node_accounts=[ACCOUNT])
        self.pod("istio-system", "ztunnel-1", account="ztunnel", node="n1")
        self.pod("shop", "web", account="web", node="n1")
        self.pod("shop", "db", account="db", node="n2")
        self.pod("shop", "web", account="other", node="n1", cluster=C2)

    def pod(self, namespace, name, *, account, node, cluster=C1, phase="Running"):
        pod = objects.Pod(
            objects.Metadata(name, namespace=namespace),
            spec=objects.PodSpec(node_name=node, service_account_name=account),
            status=objects.PodStatus(phase=phase),
        )
        with self.mesh.graph.transaction() as transaction:
            transaction.put(self.mesh.sources.pods, ObjectKey(cluster, namespace, name), pod)

    def asked(self, account, *, cluster=C1, caller=ACCOUNT, pod="ztunnel-1"):
        who = callers.Caller(cluster, *caller, pod)
        return self.judge.objection(who, SpiffeId("cluster.local", "shop", account))


@pytest.fixture
def setting():
    return Setting()


def test_a_node_proxy_may_have_those_of_its_own_nodes_pods(setting):
    assert setting.asked("web") == ""


def test_it_may_not_have_those_of_other_nodes_clusters_or_nobody(setting):
    for account in ("db", "other", "nobody"):
        assert "runs on node `n1`" in setting.asked(account)


def test_it_may_not_have_them_when_the_pod_has_ended(setting):
    setting.pod("shop", "web", account="web", node="n1", phase="Succeeded")

    assert "runs on node" in setting.asked("web")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"caller": ("shop", "web"), "pod": "web"}, "none of a node proxy"),
        ({"caller": ("shop", "ztunnel")}, "none of a node proxy"),
        ({"pod": ""}, "bound to no pod"),
        ({"pod": "ztunnel-2"}, "not known yet"),
        ({"cluster": C2}, "not known yet"),
    ],
)
def test_who_is_no_proven_node_proxy_gets_none(setting, changed, reason):
    assert reason in setting.asked("web", **changed)
