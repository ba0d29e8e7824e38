import aiohttp
import pytest

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import rbac
from isthmus.lab.apiserver.values import Attributes, User

_GROUP = "rbac.authorization.k8s.io"
_ALICE = User("alice", groups=("team",))


class _Roles:
    def __init__(self):
        self._roles = {}
        self._bindings = {}

    def role(self, kind, name, namespace):
        return self._roles.get((kind, name, namespace if kind == "Role" else ""))

    def bindings(self, namespace):
        return self._bindings.get(namespace, [])

    def bind(self, subject, *rules, kind="ClusterRole", namespace=""):
        name = f"role{len(self._roles)}"
        self._roles[kind, name, namespace if kind == "Role" else ""] = {"rules": rules}
        binding = {"roleRef": {"kind": kind, "name": name}, "subjects": [subject]}
        self._bindings.setdefault(namespace, []).append(binding)
        return self


def _rule(resource, *verbs, group="", **more):
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs), **more}


def _user(name="alice"):
    return {"kind": "User", "name": name}


def _get(resource="pods", **more):
    return Attributes("get", version="v1", resource=resource, **more)


def test_without_a_role_nothing_is_allowed_except_to_masters():
    assert not rbac.is_allowed(_ALICE, _get(), _Roles())
    assert rbac.is_allowed(User("x", groups=("system:masters",)), _get(), _Roles())


def test_a_cluster_binding_counts_everywhere_a_binding_in_its_namespace():
    wide = _Roles().bind(_user(), _rule("pods", "get"))
    near = _Roles().bind(_user(), _rule("pods", "get"), namespace="a")

    assert rbac.is_allowed(_ALICE, _get(namespace="b"), wide)
    assert rbac.is_allowed(_ALICE, _get(namespace="a"), near)
    assert not rbac.is_allowed(_ALICE, _get(namespace="b"), near)
    assert not rbac.is_allowed(_ALICE, _get(), near)


def test_a_subresource_needs_its_own_rule():
    roles = _Roles().bind(_user(), _rule("pods", "get"))
    logs = _Roles().bind(_user(), _rule("*/log", "get"))

    assert not rbac.is_allowed(_ALICE, _get(subresource="log"), roles)
    assert rbac.is_allowed(_ALICE, _get(subresource="log"), logs)


def test_resource_names_narrow_a_rule():
    roles = _Roles().bind(_user(), _rule("secrets", "get", resourceNames=["mine"]))

    assert rbac.is_allowed(_ALICE, _get("secrets", name="mine"), roles)
    assert not rbac.is_allowed(_ALICE, _get("secrets", name="other"), roles)
    assert not rbac.is_allowed(_ALICE, _get("secrets"), roles)


def test_groups_and_accounts_are_subjects_too():
    account = {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"}
    roles = _Roles().bind({"kind": "Group", "name": "team"}, _rule("pods", "get"))
    roles.bind(account, _rule("nodes", "get"))
    bot = User("system:serviceaccount:ci:bot")

    assert rbac.is_allowed(_ALICE, _get(), roles)
    assert rbac.is_allowed(bot, _get("nodes"), roles)
    assert not rbac.is_allowed(bot, _get(), roles)


@pytest.mark.parametrize(
    ("allowed", "path", "answer"),
    [
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/etcd", False),
        ("/apis/*", "/apis/apps", True),
        ("*", "/x", True),
    ],
)
def test_paths_match_exactly_or_by_a_star_at_the_end(allowed, path, answer):
    roles = _Roles().bind(_user(), {"nonResourceURLs": [allowed], "verbs": ["get"]})

    assert rbac.is_allowed(_ALICE, Attributes("get", path=path), roles) is answer


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            Attributes("list", version="v1", resource="pods", namespace="default"),
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the'
            ' namespace "default"',
        ),
        (
            Attributes("get", "apps", "v1", "deployments", "scale", "default", "web"),
            'deployments.apps "web" is forbidden: User "alice" cannot get resource'
            ' "deployments/scale" in API group "apps" in the namespace "default"',
        ),
        (
            Attributes("list", version="v1", resource="nodes"),
            'nodes is forbidden: User "alice" cannot list resource "nodes" in API group ""'
            " at the cluster scope",
        ),
        (Attributes("get", path="/x"), 'forbidden: User "alice" cannot get path "/x"'),
    ],
)
def test_a_refusal_is_worded_as_kubernetes_does(attributes, message):
    assert rbac.refusal(_ALICE, attributes).message == message


async def _bind(cluster, role, *, user):
    binding = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": "default"},
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": _GROUP}],
    }
    await cluster.api.create(f"rolebindings.{_GROUP}", binding)
    await cluster.until(f"rolebindings.{_GROUP}", lambda b: b["metadata"]["name"] == role)


async def test_view_shows_objects_but_no_secrets(cluster):
    await _bind(cluster, "view", user="alice")

    await cluster.security.authorize(_ALICE, _get(namespace="default"))

    with pytest.raises(apis.ApiError) as caught:
        await cluster.security.authorize(_ALICE, _get("secrets", namespace="default"))
    assert caught.value.code == 403


async def test_an_access_review_answers_for_others(cluster):
    await _bind(cluster, "edit", user="alice")
    review = {
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "alice",
            "resourceAttributes": {
                "verb": "create",
                "resource": "pods",
                "namespace": "default",
            },
        },
    }

    answer = await cluster.api.review(apis.SYSTEM, review)

    assert answer["status"]["allowed"] is True
    review["spec"]["resourceAttributes"]["namespace"] = "kube-system"
    assert (await cluster.api.review(apis.SYSTEM, review))["status"]["allowed"] is False


async def test_a_user_sees_their_own_rules(cluster):
    await _bind(cluster, "view", user="alice")
    review = {"kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}}

    status = (await cluster.api.review(_ALICE, review))["status"]

    assert any("pods" in rule["resources"] for rule in status["resourceRules"])


async def test_only_who_may_can_speak_for_others(front):
    pair = front.authority.client("alice", now=front.security.accounts._clock.now())
    headers = {"Impersonate-User": "bob"}
    url = f"{front.url}/api/v1/namespaces/default/pods"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=front.tls(pair), headers=headers) as answer:
            mallory = (answer.status, (await answer.json())["message"])
        admin = front.tls(front.authority.admin)
        async with session.get(url, ssl=admin, headers=headers) as answer:
            bob = (answer.status, (await answer.json())["message"])

    assert mallory[0] == 403
    assert 'User "alice" cannot impersonate resource "users"' in mallory[1]
    assert bob[0] == 403
    assert 'User "bob" cannot list resource "pods"' in bob[1]
