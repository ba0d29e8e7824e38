"""The small kubectl's commands that write: apply, create, label, annotate, patch, scale, delete.

Objects are applied by the server. Decides what is said about it.
"""

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path

import click

from isthmus.base import clock
from isthmus.cli import kubectl_target as targets
from isthmus.kube import apply, kinds
from isthmus.kube import client as kube_client

Obj = targets.Obj
FIELD_MANAGER = "isthmus-kubectl"
_GONE_S, _LOOK_S = 60.0, 0.1
_FILES = click.option("--filename", "-f", "files", multiple=True, help="File, folder, or `-`.")
_SELECTOR = click.option("--selector", "-l", default="", help="Labels: a=b,c=d.")


@click.command("apply")
@_FILES
@_SELECTOR
@targets.targeted
def apply_(files: Sequence[str], selector: str, *, target: targets.Target) -> int:
    """Make objects be as files say.

    Example: isthmus kubectl apply -n sample -f samples/sleep/sleep.yaml
    """

    async def work(client: kube_client.Client, where: str) -> int:
        if not files:
            raise targets.Misused("which files?", hint="such as `apply -f sleep.yaml`")
        found = targets.manifests(files, selector)
        if not found:
            raise targets.Misused("no objects to apply", hint="look at -f and -l")
        for manifest in found:
            kind = await client.kind_of(manifest)
            if kind.namespaced:
                manifest.setdefault("metadata", {}).setdefault("namespace", where)
            for change in await apply.apply(
                client, [manifest], field_manager=FIELD_MANAGER, force=True
            ):
                said = {"create": "created", "change": "configured"}
                outcome = said.get(change.action, change.action)
                click.echo(f"{targets.title(kind, change.name)} {outcome}")
        return 0

    return target.run(work)


@click.command()
@click.argument("words", nargs=-1)
@_FILES
@click.option("--from-file", "from_files", multiple=True, help="[KEY=]FILE, for what holds data.")
@click.option("--from-literal", "literals", multiple=True, help="KEY=VALUE, for what holds data.")
@targets.targeted
def create(
    words: Sequence[str],
    files: Sequence[str],
    from_files: Sequence[str],
    literals: Sequence[str],
    *,
    target: targets.Target,
) -> int:
    """Create objects: from files, or a namespace, service account, secret or ConfigMap.

    Example: isthmus kubectl create secret generic cacerts --from-file=root-cert.pem
    """

    async def work(client: kube_client.Client, where: str) -> int:
        if files:
            made = targets.manifests(files)
        else:
            made = [_generated(words, _contents(from_files, literals))]
        for manifest in made:
            kind = await client.kind_of(manifest)
            if kind.namespaced:
                manifest.setdefault("metadata", {}).setdefault("namespace", where)
            done = await client.create(kind, manifest)
            click.echo(f"{targets.title(kind, done['metadata']['name'])} created")
        return 0

    return target.run(work)


def _generated(words: Sequence[str], contents: dict[str, bytes]) -> Obj:
    match words:
        case ["namespace" | "ns", name]:
            return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        case ["serviceaccount" | "sa", name]:
            return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        case ["secret", "generic", name]:
            encoded = {key: base64.b64encode(value).decode() for key, value in contents.items()}
            return {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "Opaque",
                "metadata": {"name": name},
                "data": encoded,
            }
        case ["configmap" | "cm", name]:
            text = {key: value.decode(errors="replace") for key, value in contents.items()}
            return {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name},
                "data": text,
            }
        case _:
            raise targets.Misused(
                f"cannot create `{' '.join(words)}`",
                hint="namespace, serviceaccount, secret generic or configmap, or use -f",
            )


def _contents(files: Sequence[str], literals: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for word in files:
        key, _, name = word.rpartition("=")
        try:
            found[key or Path(name).name] = Path(name).read_bytes()
        except OSError as error:
            raise targets.Misused(f"cannot read `{name}`", detail=str(error)) from error
    for word in literals:
        key, equals, value = word.partition("=")
        if not equals:
            raise targets.Misused(f"`{word}` is not KEY=VALUE")
        found[key] = value.encode()
    return found


def _metadata_command(part: str, field: str, verb: str) -> click.Command:
    @click.command(part)
    @click.argument("words", nargs=-1)
    @click.option("--overwrite", is_flag=True, help="Replace values that are there.")
    @click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
    @_SELECTOR
    @targets.targeted
    def run(
        words: Sequence[str],
        selector: str,
        *,
        target: targets.Target,
        overwrite: bool,
        everything: bool,
    ) -> int:
        async def work(client: kube_client.Client, where: str) -> int:
            pairs = [word for word in words[1:] if "=" in word or word.endswith("-")]
            rest = [word for word in words if word not in pairs]
            changes = _changes(pairs)
            for kind, name in await targets.chosen(
                client, rest, where=where, selector=selector, everything=everything
            ):
                scope = targets.scope(kind, where=where)
                if not overwrite:
                    found = await client.get(kind, name, namespace=scope)
                    _refuse_overwriting(found["metadata"].get(field) or {}, changes)
                await client.patch(kind, name, {"metadata": {field: changes}}, namespace=scope)
                click.echo(f"{targets.title(kind, name)} {verb}")
            return 0

        return target.run(work)

    run.help = (
        f"Set {field}: KEY=VALUE, or KEY- to remove.\n\n"
        f"Example: isthmus kubectl {part} namespace sample key=value"
    )
    return run


def _changes(pairs: Sequence[str]) -> dict[str, str | None]:
    if not pairs:
        raise targets.Misused("nothing to set", hint="KEY=VALUE, or KEY- to remove")
    split = [pair.partition("=") for pair in pairs]
    return {
        key if equals else key.removesuffix("-"): value if equals else None
        for key, equals, value in split
    }


def _refuse_overwriting(old: dict[str, str], changes: dict[str, str | None]) -> None:
    for key, value in changes.items():
        if value is not None and old.get(key, value) != value:
            raise targets.Misused(
                f"`{key}` already has a value: {old[key]}", hint="use --overwrite to replace it"
            )


label = _metadata_command("label", "labels", "labeled")
annotate = _metadata_command("annotate", "annotations", "annotated")


@click.command()
@click.argument("words", nargs=-1)
@click.option("--patch", "-p", "body", required=True, help="The change, as JSON.")
@click.option(
    "--type", "form", type=click.Choice(["strategic", "merge", "json"]), default="strategic"
)
@targets.targeted
def patch(words: Sequence[str], body: str, form: str, *, target: targets.Target) -> int:
    """Change fields of an object.

    Example: isthmus kubectl patch svc web --type=merge -p '{"spec":{"type":"LoadBalancer"}}'
    """

    async def work(client: kube_client.Client, where: str) -> int:
        try:
            change = json.loads(body)
        except ValueError as error:
            raise targets.Misused("the patch is not JSON", detail=str(error)) from error
        for kind, name in await targets.chosen(client, words, where=where):
            path = kind.path(name, namespace=targets.scope(kind, where=where))
            media = "strategic-merge" if form == "strategic" else f"{form}"
            media = f"application/{'json' if form == 'json' else media}-patch+json"
            await client.raw("PATCH", path, body=change, headers={"Content-Type": media})
            click.echo(f"{targets.title(kind, name)} patched")
        return 0

    return target.run(work)


@click.command()
@click.argument("words", nargs=-1)
@click.option("--replicas", type=click.IntRange(0), required=True, help="How many pods.")
@targets.targeted
def scale(words: Sequence[str], replicas: int, *, target: targets.Target) -> int:
    """Change the number of pods.

    Example: isthmus kubectl scale deploy helloworld-v2 --replicas=0 -n sample
    """

    async def work(client: kube_client.Client, where: str) -> int:
        for kind, name in await targets.chosen(client, words, where=where):
            await client.patch(kind, name, {"spec": {"replicas": replicas}}, namespace=where)
            click.echo(f"{targets.title(kind, name)} scaled")
        return 0

    return target.run(work)


@click.command()
@click.argument("words", nargs=-1)
@_FILES
@_SELECTOR
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--ignore-not-found", "lenient", is_flag=True, help="What is gone is no error.")
@click.option("--wait/--no-wait", "waits", default=True, help="Return once it is gone.")
@targets.targeted
def delete(  # noqa: PLR0913  # a command's options
    words: Sequence[str],
    files: Sequence[str],
    selector: str,
    *,
    target: targets.Target,
    everything: bool,
    lenient: bool,
    waits: bool,
) -> int:
    """Delete objects.

    Example: isthmus kubectl delete secret istio-remote-secret-cluster2 -n istio-system
    """

    async def work(client: kube_client.Client, where: str) -> int:
        for kind, name, scope in await _doomed(
            client, words, files, selector, where, everything=everything
        ):
            found = await client.find(kind, name, namespace=scope)
            if lenient and found is None:
                continue
            await client.delete(kind, name, namespace=scope)
            click.echo(f'{targets.title(kind, "", mark="")} "{name}" deleted')
            if waits:
                await gone(client, kind, name, scope=scope, limit_s=_GONE_S, first=found)
        return 0

    return target.run(work)


async def _doomed(  # the ways to choose objects
    client: kube_client.Client,
    words: Sequence[str],
    files: Sequence[str],
    selector: str,
    where: str,
    *,
    everything: bool,
) -> list[tuple[kinds.Kind, str, str]]:
    if files:
        found = []
        for manifest in targets.manifests(files, selector):
            kind = await client.kind_of(manifest)
            scope = targets.scope(kind, where=manifest["metadata"].get("namespace") or where)
            found.append((kind, str(manifest["metadata"]["name"]), scope))
        return found
    named = await targets.chosen(
        client, words, where=where, selector=selector, everything=everything
    )
    return [(kind, name, targets.scope(kind, where=where)) for kind, name in named]


async def gone(
    client: kube_client.Client,
    kind: kinds.Kind,
    name: str,
    *,
    scope: str,
    limit_s: float,
    first: Obj | None = None,
) -> None:
    """Wait until an object is not there any more, or, after `first`, another one of its name.

    Raises:
        Misused: It still is after `limit_s` seconds.
    """
    try:
        async with asyncio.timeout(limit_s):
            while (found := await client.find(kind, name, namespace=scope)) is not None:
                if first is not None and found["metadata"]["uid"] != first["metadata"]["uid"]:
                    return
                await clock.SystemClock().sleep(_LOOK_S)
    except TimeoutError as error:
        raise targets.Misused(
            f"{targets.title(kind, name)} is still there after {limit_s:g} s",
            hint=f"see its finalizers: kubectl get {kind.plural} {name} -o yaml",
        ) from error
