"""Roles and bindings: what a user may do.

It decides whether rules allow a request, and words a refusal. It refuses to know where the roles
are kept: they come in as `Roles`.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Attributes, Obj, User

MASTERS = "system:masters"
"""The group that may do everything, whatever the roles say."""

_ACCOUNTS = "system:serviceaccount:"


class Roles(Protocol):
    """Where roles and bindings are looked up."""

    def role(self, kind: str, name: str, namespace: str) -> Obj | None:
        """Return a Role of `namespace` or a ClusterRole."""

    def bindings(self, namespace: str) -> Iterable[Obj]:
        """Yield the RoleBindings of `namespace`; for an empty one the ClusterRoleBindings."""


def is_allowed(user: User, attributes: Attributes, roles: Roles) -> bool:
    """Whether some rule that is bound to `user` allows the request."""
    if MASTERS in user.groups:
        return True
    return any(covers(rule, attributes) for rule in rules_of(user, attributes.namespace, roles))


def rules_of(user: User, namespace: str, roles: Roles) -> Iterator[Obj]:
    """Yield every rule that is bound to `user`, in the cluster and in `namespace`."""
    for scope in ("", namespace) if namespace else ("",):
        for binding in roles.bindings(scope):
            if not any(_is_subject(each, user, scope) for each in binding.get("subjects") or ()):
                continue
            reference = binding["roleRef"]
            role = roles.role(reference["kind"], reference["name"], scope)
            yield from (role or {}).get("rules") or ()


def covers(rule: Obj, attributes: Attributes) -> bool:
    """Whether one rule allows the request."""
    if not _has(rule.get("verbs"), attributes.verb):
        return False
    if not attributes.is_resource:
        return _covers_path(rule.get("nonResourceURLs") or (), attributes.path)
    if not _has(rule.get("apiGroups"), attributes.group):
        return False
    if not _covers_resource(rule.get("resources") or (), attributes):
        return False
    names = rule.get("resourceNames")
    return not names or attributes.name in names


def refusal(user: User, attributes: Attributes) -> errors.ApiError:
    """Word a refusal as Kubernetes does."""
    verb = attributes.verb
    if not attributes.is_resource:
        text = f'User "{user.name}" cannot {verb} path "{attributes.path}"'
        return errors.forbidden(f"forbidden: {text}")
    resource, group, name = attributes.resource, attributes.group, attributes.name
    full = f"{resource}/{attributes.subresource}" if attributes.subresource else resource
    where = (
        f'in the namespace "{attributes.namespace}"'
        if attributes.namespace
        else "at the cluster scope"
    )
    subject = f"{resource}.{group}" if group else resource
    named = f' "{name}"' if name else ""
    text = (
        f'{subject}{named} is forbidden: User "{user.name}" cannot {verb} resource "{full}"'
        f' in API group "{group}" {where}'
    )
    return errors.forbidden(text, resource=resource, name=name, group=group)


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    found = values or ()
    return "*" in found or wanted in found


def _covers_path(paths: Iterable[str], wanted: str) -> bool:
    return any(
        path == wanted or (path.endswith("*") and wanted.startswith(path[:-1])) for path in paths
    )


def _covers_resource(resources: Iterable[str], attributes: Attributes) -> bool:
    sub = attributes.subresource
    full = f"{attributes.resource}/{sub}" if sub else attributes.resource
    known = {"*", full, f"*/{sub}"} if sub else {"*", full}
    return any(each in known for each in resources)


def _is_subject(subject: Obj, user: User, namespace: str) -> bool:
    match subject["kind"]:
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            home = subject.get("namespace") or namespace
            return f"{_ACCOUNTS}{home}:{subject['name']}" == user.name
        case _:
            return False
