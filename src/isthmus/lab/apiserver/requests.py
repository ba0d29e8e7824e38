"""What a URL, its parameters and its headers ask for: parsed once, before anything is done."""

from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.lab.apiserver import deletion, errors, selectors
from isthmus.lab.apiserver.resources import Catalog, Resource
from isthmus.lab.apiserver.state import Options
from isthmus.lab.apiserver.values import Attributes, Obj, User

Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What a path points at.

    Attributes:
        rest: What follows a subresource, such as the path to proxy.
        watches: Whether the path has the old `watch/` prefix.
    """

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watches: bool = False

    def attributes(self, verb: str, *, fields: str = "") -> Attributes:
        """Return what authorization is to judge.

        To list or watch by name is to ask for the object of that name, which a role may grant.
        """
        one = self.resource
        by_name = selectors.name_in(fields) if verb in ("list", "watch") else ""
        return Attributes(
            verb,
            group=one.group,
            version=one.version,
            resource=one.plural,
            subresource=self.subresource,
            namespace=self.namespace,
            name=self.name or by_name,
        )


_WITH_SUBRESOURCE = 3


def target(catalog: Catalog, path: str) -> Target:
    """Return what `path` points at, or raise 404."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise errors.no_resource()
    watches = rest[0] == "watch" and len(rest) > 1
    if watches:
        rest = rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = catalog.find(group=group, version=version, plural=rest[0])
    if resource is None or (namespace and not resource.namespaced):
        raise errors.no_resource()
    found = Target(
        resource,
        namespace,
        rest[1] if len(rest) > 1 else "",
        rest[2] if len(rest) > 2 else "",
        "/".join(rest[3:]),
        watches=watches,
    )
    if found.name and resource.namespaced and not namespace:
        raise errors.no_resource()
    if found.subresource and found.subresource not in resource.subresources:
        raise errors.no_resource()
    if len(rest) > _WITH_SUBRESOURCE and found.subresource != "proxy":
        raise errors.no_resource()
    return found


_VERBS = {"PUT": "update", "PATCH": "patch", "POST": "create"}


def verb(method: str, found: Target, *, watches: bool) -> str:
    """Return the verb that authorization judges."""
    if method in ("GET", "HEAD"):
        return "watch" if watches else "get" if found.name else "list"
    if method == "DELETE":
        return "delete" if found.name else "deletecollection"
    if method not in _VERBS:
        raise errors.no_method()
    return _VERBS[method]


def options(query: Query, *, user: User, agent: str, found: Target, patch: str = "") -> Options:
    """Return how a write is to be made."""
    manager = query.get("fieldManager", "")
    if patch == "apply" and not manager:
        raise errors.bad_request(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for'
            " apply patch"
        )
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise errors.bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    return Options(
        user=user,
        subresource=found.subresource,
        dry_run=_dry_run(query.get("dryRun", "")),
        manager=manager or agent.partition("/")[0] or "unknown",
        validation=validation,
        force=selectors.go_bool(query.get("force")),
    )


def _dry_run(text: str) -> bool:
    if text not in ("", "All"):
        raise errors.bad_request(f'dryRun: Unsupported value: "{text}": supported values: "All"')
    return text == "All"


def how(query: Query, body: Obj, made: Options) -> deletion.How:
    """Return how to delete, from the body or the older parameters."""
    wanted = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphans = body.get("orphanDependents", query.get("orphanDependents"))
    if orphans is not None and not propagation:
        yes = orphans if isinstance(orphans, bool) else selectors.go_bool(orphans)
        propagation = deletion.ORPHAN if yes else deletion.BACKGROUND
    known = (deletion.BACKGROUND, deletion.FOREGROUND, deletion.ORPHAN)
    if propagation and propagation not in known:
        raise errors.bad_request(f'propagationPolicy: Unsupported value: "{propagation}"')
    dry = made.dry_run or bool(body.get("dryRun"))
    return deletion.How(
        grace_s=None if grace is None else number(str(grace), "gracePeriodSeconds"),
        propagation=propagation or deletion.BACKGROUND,
        uid=wanted.get("uid") or "",
        revision=wanted.get("resourceVersion") or "",
        options=Options(user=made.user, dry_run=dry),
    )


def number(text: str, name: str) -> int:
    """Read a whole number that is not negative, or raise 400."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise errors.bad_request(f'{name}: Invalid value: "{text}": must be a whole number')
    return int(text)


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a client wants objects.

    Attributes:
        kind: `Table`, `PartialObjectMetadata`, `PartialObjectMetadataList`,
            `APIGroupDiscoveryList`, or empty for the objects themselves.
    """

    kind: str = ""
    media: str = "application/json"


_FORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList")
_PLAIN = ("application/json", "application/*", "*/*", "")


def form(accept: str) -> Form:
    """Return the first form of an Accept header that is served, or raise 406."""
    for part in accept.split(","):
        media, _, rest = part.strip().partition(";")
        given = dict(one.strip().partition("=")[::2] for one in rest.split(";"))
        if media.strip() not in _PLAIN:
            continue
        kind = given.get("as", "")
        if not kind:
            return Form()
        if kind in _FORMS and given.get("v") in ("v1", "v2"):
            return Form(kind, f"application/json;g={given.get('g', '')};v={given['v']};as={kind}")
    raise errors.ApiError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json,"
        " application/json;as=Table;v=v1;g=meta.k8s.io",
    )
