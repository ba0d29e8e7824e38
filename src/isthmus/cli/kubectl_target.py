"""What every command of the small kubectl shares: which cluster, which kind, which objects.

Decides how words of a command line become kinds and names; an unknown kind is looked up at the
API server. Refuses to know what is done with them.
"""

import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from isthmus.base import errors
from isthmus.cli import options
from isthmus.kube import client as kube_client
from isthmus.kube import kinds

Obj = dict[str, Any]
Work = Callable[[kube_client.Client, str], Awaitable[int]]
SHORT = {
    "po": "pods",
    "svc": "services",
    "ns": "namespaces",
    "deploy": "deployments",
    "rs": "replicasets",
    "ds": "daemonsets",
    "sts": "statefulsets",
    "cm": "configmaps",
    "sa": "serviceaccounts",
    "no": "nodes",
    "ep": "endpoints",
    "ev": "events",
    "crd": "customresourcedefinitions",
}


class Misused(errors.IsthmusError):
    """A command line that this small kubectl does not know."""

    code = "ISM-CLI-030"


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster and namespace a command is about."""

    context: str | None
    kubeconfig: str | None
    namespace: str

    def run(self, work: Work) -> int:
        """Do `work` with a client and the namespace that is meant."""
        access = options.accessed(self.kubeconfig, context=self.context)
        where = self.namespace or access.namespace or "default"

        async def connected() -> int:
            async with kube_client.Client(access) as client:
                return await work(client, where)

        return options.run(connected())


def targeted(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that choose the cluster, as one argument `target`."""

    @functools.wraps(command)
    def call(
        *words: object, context: str | None, kubeconfig: str | None, namespace: str, **more: object
    ) -> int:
        before = click.get_current_context().find_object(Target)
        target = Target(
            context or (before.context if before else None),
            kubeconfig or (before.kubeconfig if before else None),
            namespace or (before.namespace if before else ""),
        )
        return command(*words, target=target, **more)

    found: Callable[..., int] = call
    for option in (
        click.option("--context", default=None, help="Context in the kubeconfig."),
        click.option("--kubeconfig", default=None, help="Kubeconfig file."),
        click.option("--namespace", "-n", default="", help="Namespace."),
    ):
        found = option(found)
    return found


async def kind_named(client: kube_client.Client, name: str) -> kinds.Kind:
    """Return the kind that a user calls `name`.

    Raises:
        Misused: The server has none of that name (ISM-CLI-030).
    """
    wanted = SHORT.get(name.lower(), name.lower())
    for kind in kinds.KNOWN:
        if wanted in {kind.plural, kind.kind.lower(), kind.title}:
            return kind
    async for item, kind in _served(client):
        names = {kind.plural, kind.kind.lower(), kind.title, *(item.get("shortNames") or ())}
        if wanted in names:
            return kind
    raise Misused(f"the server has no kind of objects called `{name}`")


async def _served(client: kube_client.Client) -> AsyncIterator[tuple[Obj, kinds.Kind]]:
    groups = json.loads(await client.raw("GET", "/apis"))["groups"]
    for version in ["v1", *(each["preferredVersion"]["groupVersion"] for each in groups)]:
        group, _, served = version.rpartition("/")
        root = kinds.Kind(group, served, "", "").root
        for item in json.loads(await client.raw("GET", root))["resources"]:
            if "/" not in item["name"]:
                yield (
                    item,
                    kinds.Kind(
                        group, served, item["name"], item["kind"], namespaced=item["namespaced"]
                    ),
                )


async def kinds_and_names(
    client: kube_client.Client, words: Sequence[str]
) -> list[tuple[kinds.Kind, list[str]]]:
    """Read `pods`, `pods,svc`, `pod one two` or `deploy/one svc/two`.

    Raises:
        Misused: No kind is named, or there is none of that name.
    """
    if not words:
        raise Misused("which kind of objects?", hint="such as `get pods`")
    if "/" in words[0]:
        pairs = [word.partition("/") for word in words]
        return [(await kind_named(client, kind), [name]) for kind, _, name in pairs]
    return [(await kind_named(client, kind), list(words[1:])) for kind in words[0].split(",")]


async def chosen(  # the ways to choose objects
    client: kube_client.Client,
    words: Sequence[str],
    *,
    where: str,
    selector: str = "",
    everything: bool = False,
) -> list[tuple[kinds.Kind, str]]:
    """Return kind and name of the objects that words, labels or `--all` mean."""
    found: list[tuple[kinds.Kind, str]] = []
    for kind, names in await kinds_and_names(client, words):
        if not names and (selector or everything):
            listed = await client.list_(kind, namespace=scope(kind, where=where), labels=selector)
            names = [each["metadata"]["name"] for each in listed]
        elif not names:
            raise Misused(f"which of the {kind.plural}?", hint="name them, or use -l or --all")
        found += [(kind, name) for name in names]
    return found


def scope(kind: kinds.Kind, *, where: str) -> str:
    """Return the namespace for a kind: none for what lies in no namespace."""
    return where if kind.namespaced else ""


def title(kind: kinds.Kind, name: str, *, mark: str = "/") -> str:
    """Name an object as kubectl does: `deployment.apps/web`."""
    singular = f"{kind.kind.lower()}.{kind.group}" if kind.group else kind.kind.lower()
    return f"{singular}{mark}{name}"


def seconds(text: str) -> float:
    """Read a duration such as `30s` or `2m`.

    Raises:
        Misused: It is none.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError as error:
        raise Misused(f"`{text}` is no duration", hint="such as 30s or 2m") from error


def manifests(files: Sequence[str], selector: str = "") -> list[Obj]:
    """Read the objects in files, `-` for standard input, folders with all their YAML.

    Raises:
        Misused: A file cannot be read, is not YAML, or holds something that is no object.
    """
    wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
    found = [each for name in files for each in _documents(name)]
    return [
        each
        for each in found
        if wanted.items() <= ((each.get("metadata") or {}).get("labels") or {}).items()
    ]


def _documents(name: str) -> list[Obj]:
    if name != "-" and Path(name).is_dir():
        inside = sorted(each for each in Path(name).iterdir() if each.suffix in _SUFFIXES)
        return [document for each in inside for document in _documents(str(each))]
    try:
        with click.open_file(name, encoding="utf-8") as file:
            documents = [each for each in yaml.safe_load_all(file) if each]
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"cannot read `{name}`", detail=str(error)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Misused(f"`{name}` is not YAML", detail=str(error)) from error
    flat: list[Obj] = []
    for each in documents:
        if not isinstance(each, dict) or not each.get("kind"):
            raise Misused(f"`{name}` holds something that is no object", detail=str(each)[:200])
        flat += each.get("items") or [] if each["kind"] == "List" else [each]
    return flat


_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
