"""`isthmus kubectl`: the few verbs of kubectl that the walkthroughs use.

For machines that have no kubectl. It decides nothing of its own: tables are the API server's, and
objects are applied by the server.
"""

import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from isthmus.base import errors
from isthmus.cli import options
from isthmus.kube import apply, kinds, waiting
from isthmus.kube import client as kube_client

Obj = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
FIELD_MANAGER = "isthmus-kubectl"
SHORT = {
    "po": "pods",
    "svc": "services",
    "ns": "namespaces",
    "deploy": "deployments",
    "cm": "configmaps",
    "sa": "serviceaccounts",
    "no": "nodes",
    "ep": "endpoints",
}


class Misused(errors.IsthmusError):
    """A command line that this small kubectl does not know."""

    code = "ISM-CLI-030"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--context", default=None, help="Context in the kubeconfig.")
@click.option("--kubeconfig", default=None, help="Kubeconfig file.")
@click.option("--namespace", "-n", default="", help="Namespace.")
@click.pass_context
def command(
    ctx: click.Context, context: str | None, kubeconfig: str | None, namespace: str
) -> None:
    """Do what the walkthroughs do with kubectl, on a machine that has none.

    Example: isthmus kubectl --context cluster1 get pods -n sample
    """
    ctx.obj = {"context": context, "kubeconfig": kubeconfig, "namespace": namespace}


def _target(run: Callable[..., object]) -> Callable[..., object]:
    for option in (
        click.option("--context", default=None, help="Context in the kubeconfig."),
        click.option("--kubeconfig", default=None, help="Kubeconfig file."),
        click.option("--namespace", "-n", default="", help="Namespace."),
    ):
        run = option(run)
    return run


def _with_client(
    context: str | None,
    kubeconfig: str | None,
    namespace: str,
    work: Callable[[kube_client.Client, str], Awaitable[int]],
) -> int:
    shared = click.get_current_context().find_object(dict) or {}
    access = options.accessed(
        kubeconfig or shared.get("kubeconfig"), context=context or shared.get("context")
    )
    where = namespace or shared.get("namespace") or access.namespace or "default"

    async def run() -> int:
        async with kube_client.Client(access) as client:
            return await work(client, where)

    return options.run(run())


def kind_named(name: str) -> kinds.Kind:
    """Return the kind that a user calls `name`.

    Raises:
        Misused: None of ours is called so (ISM-CLI-030).
    """
    wanted = SHORT.get(name.lower(), name.lower())
    for kind in kinds.KNOWN:
        if wanted in {kind.plural, kind.kind.lower(), f"{kind.plural}.{kind.group}"}:
            return kind
    raise Misused(f"unknown kind: `{name}`", hint="the full kubectl knows every kind")


def _kind_and_names(words: Sequence[str]) -> tuple[kinds.Kind, list[str]]:
    if words and "/" in words[0]:
        return kind_named(words[0].partition("/")[0]), [w.partition("/")[2] for w in words]
    if not words:
        raise Misused("which kind of objects?", hint="such as `get pods`")
    return kind_named(words[0]), list(words[1:])


def _namespaced(kind: kinds.Kind, namespace: str) -> str:
    return namespace if kind.namespaced else ""


@command.command()
@click.argument("words", nargs=-1)
@click.option("--selector", "-l", default="", help="Labels.")
@click.option("--output", "-o", default="", help="yaml, json, name or jsonpath={...}.")
@_target
def get(  # a command's options
    words: Sequence[str],
    selector: str,
    output: str,
    context: str | None,
    kubeconfig: str | None,
    namespace: str,
) -> int:
    """Show objects.

    Example: isthmus kubectl get svc istio-eastwestgateway -n istio-system
    """

    async def work(client: kube_client.Client, where: str) -> int:
        kind, names = _kind_and_names(words)
        where = _namespaced(kind, where)
        if not output:
            return await _show_table(client, kind, where, names, selector)
        if names:
            found = [await client.get(kind, name, namespace=where) for name in names]
        else:
            found = await client.list_(kind, namespace=where, labels=selector)
        whole = found[0] if len(names) == 1 else {"kind": "List", "items": found}
        click.echo(printed(whole, found, output))
        return 0

    return _with_client(context, kubeconfig, namespace, work)


async def _show_table(
    client: kube_client.Client, kind: kinds.Kind, where: str, names: Sequence[str], selector: str
) -> int:
    fields = f"metadata.name={names[0]}" if len(names) == 1 else ""
    answer = await client.raw(
        "GET",
        kind.path(namespace=where),
        query={"labelSelector": selector, "fieldSelector": fields},
        headers={"Accept": TABLE},
    )
    table = json.loads(answer)
    shown = [i for i, column in enumerate(table["columnDefinitions"]) if not column["priority"]]
    rows = [[str(row["cells"][i]) for i in shown] for row in table["rows"]]
    heads = [table["columnDefinitions"][i]["name"].upper() for i in shown]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    if not rows:
        click.echo(f"no {kind.plural} found", err=True)
        return 1 if names else 0
    for row in [heads, *rows]:
        click.echo("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return 0


def printed(whole: Obj, each: Iterable[Obj], output: str) -> str:
    """Return objects in the form that `-o` names.

    Raises:
        Misused: The form is unknown (ISM-CLI-030).
    """
    if output == "json":
        return json.dumps(whole, indent=4)
    if output == "yaml":
        return yaml.safe_dump(whole, sort_keys=True).rstrip()
    if output == "name":
        return "\n".join(f"{o['kind'].lower()}/{o['metadata']['name']}" for o in each)
    if output.startswith("jsonpath="):
        return json_path(whole, output.removeprefix("jsonpath="))
    raise Misused(f"unknown output: `{output}`", hint="yaml, json, name or jsonpath={...}")


def json_path(obj: object, template: str) -> str:
    """Fill in `{.a.b[0].c}`; anything more is the full kubectl's."""

    def found(match: re.Match[str]) -> str:
        value: object = obj
        for key, index, quoted in re.findall(r"\.([\w-]+)|\[(\d+)\]|\['([^']+)'\]", match[1]):
            if index:
                value = value[int(index)] if isinstance(value, list) else None
            else:
                value = value.get(key or quoted) if isinstance(value, dict) else None
            if value is None:
                return ""
        return value if isinstance(value, str) else json.dumps(value)

    return re.sub(r"\{([^{}]*)\}", found, template)


@command.command("apply")
@click.option("--filename", "-f", "files", multiple=True, required=True, help="File, or `-`.")
@click.option("--selector", "-l", default="", help="Only objects with these labels: a=b,c=d.")
@_target
def apply_(
    files: Sequence[str],
    selector: str,
    context: str | None,
    kubeconfig: str | None,
    namespace: str,
) -> int:
    """Make objects be as files say.

    Example: isthmus kubectl apply -n sample -f samples/sleep/sleep.yaml
    """

    async def work(client: kube_client.Client, where: str) -> int:
        for manifest in _manifests(files, selector):
            kind = await client.kind_of(manifest)
            if kind.namespaced:
                manifest["metadata"].setdefault("namespace", where)
            done = await apply.apply(client, [manifest], field_manager=FIELD_MANAGER, force=True)
            for change in done:
                words = {"create": "created", "change": "configured"}
                outcome = words.get(change.action, change.action)
                click.echo(f"{kind.kind.lower()}/{change.name} {outcome}")
        return 0

    return _with_client(context, kubeconfig, namespace, work)


def _manifests(files: Sequence[str], selector: str) -> list[Obj]:
    wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
    found: list[Obj] = []
    for name in files:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        try:
            found += [document for document in yaml.safe_load_all(text) if document]
        except yaml.YAMLError as error:
            raise Misused(f"`{name}` is not YAML", detail=str(error)) from error
    return [
        manifest
        for manifest in found
        if wanted.items() <= (manifest["metadata"].get("labels") or {}).items()
    ]


@command.command()
@click.argument("kind")
@click.argument("name")
@_target
def create(
    kind: str, name: str, context: str | None, kubeconfig: str | None, namespace: str
) -> int:
    """Create a namespace.

    Example: isthmus kubectl create namespace sample
    """

    async def work(client: kube_client.Client, where: str) -> int:
        del where
        if kind_named(kind) != kinds.NAMESPACE:
            raise Misused(f"only namespaces are created here, not `{kind}`", hint="use apply -f")
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await client.create(kinds.NAMESPACE, body)
        click.echo(f"namespace/{name} created")
        return 0

    return _with_client(context, kubeconfig, namespace, work)


def _metadata_command(part: str, verb: str) -> click.Command:
    @click.command(part)
    @click.argument("words", nargs=-1)
    @click.option("--overwrite", is_flag=True, help="Accepted; values are always replaced.")
    @_target
    def run(
        words: Sequence[str],
        context: str | None,
        kubeconfig: str | None,
        namespace: str,
        *,
        overwrite: bool,
    ) -> int:
        del overwrite

        async def work(client: kube_client.Client, where: str) -> int:
            pairs = [word for word in words if "=" in word or word.endswith("-")]
            kind, names = _kind_and_names([word for word in words if word not in pairs])
            changes = {
                pair.removesuffix("-").partition("=")[0]: (
                    pair.partition("=")[2] if "=" in pair else None
                )
                for pair in pairs
            }
            for name in names:
                await client.patch(
                    kind,
                    name,
                    {"metadata": {f"{part}s" if part == "label" else "annotations": changes}},
                    namespace=_namespaced(kind, where),
                )
                click.echo(f"{kind.kind.lower()}/{name} {verb}")
            return 0

        return _with_client(context, kubeconfig, namespace, work)

    run.help = (
        f"Set {part}s: KEY=VALUE, or KEY- to remove.\n\n"
        f"Example: isthmus kubectl {part} namespace sample key=value"
    )
    return run


command.add_command(_metadata_command("label", "labeled"))
command.add_command(_metadata_command("annotate", "annotated"))


@command.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("pod")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.option("--container", "-c", default="", help="Container.")
@_target
def exec_(  # a command's options
    pod: str,
    argv: Sequence[str],
    container: str,
    context: str | None,
    kubeconfig: str | None,
    namespace: str,
) -> int:
    """Run a command in a pod.

    Example: isthmus kubectl exec -n sample deploy/sleep -- curl -sS helloworld:5000/hello
    """

    async def work(client: kube_client.Client, where: str) -> int:
        name = await _pod_of(client, pod, where)
        ended = await client.exec(where, name, list(argv), container=container)
        sys.stdout.buffer.write(ended.stdout)
        sys.stderr.buffer.write(ended.stderr)
        return ended.code

    return _with_client(context, kubeconfig, namespace, work)


async def _pod_of(client: kube_client.Client, word: str, where: str) -> str:
    if "/" not in word:
        return word
    kind, names = _kind_and_names([word])
    if kind == kinds.POD:
        return names[0]
    owner = await client.get(kind, names[0], namespace=where)
    chosen = owner["spec"]["selector"].get("matchLabels") or owner["spec"]["selector"]
    labels = ",".join(f"{key}={value}" for key, value in chosen.items())
    pods = await client.list_(kinds.POD, namespace=where, labels=labels)
    running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
    if not running:
        raise Misused(f"`{word}` has no running pod", hint="kubectl get pods")
    return str(running[0]["metadata"]["name"])


@command.command()
@click.argument("words", nargs=-1)
@click.option("--for", "condition", required=True, help="condition=NAME.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--selector", "-l", default="", help="Labels.")
@click.option("--timeout", default="30s", show_default=True, help="How long at most.")
@_target
def wait(  # noqa: PLR0913  # a command's options
    words: Sequence[str],
    condition: str,
    selector: str,
    timeout: str,  # an option's name
    context: str | None,
    kubeconfig: str | None,
    namespace: str,
    *,
    everything: bool,
) -> int:
    """Wait for a condition.

    Example: isthmus kubectl wait --for=condition=Ready pod --all -n sample
    """
    wanted = condition.partition("=")[2].partition("=")[0]

    def missing(obj: Obj | None) -> str:
        listed = ((obj or {}).get("status") or {}).get("conditions") or []
        good = any(c["type"] == wanted and c["status"] == "True" for c in listed)
        return "" if good else f"condition {wanted} is not met"

    async def work(client: kube_client.Client, where: str) -> int:
        kind, names = _kind_and_names(words)
        where = _namespaced(kind, where)
        if everything or selector:
            found = await client.list_(kind, namespace=where, labels=selector)
            names = [obj["metadata"]["name"] for obj in found]
        for name in names:
            await waiting.until(
                client,
                kind,
                name,
                namespace=where,
                missing=missing,
                timeout_s=float(timeout.rstrip("s")),
            )
            click.echo(f"{kind.kind.lower()}/{name} condition met")
        return 0

    return _with_client(context, kubeconfig, namespace, work)


@command.command()
@click.argument("words", nargs=-1)
@click.option("--replicas", type=int, required=True, help="How many pods.")
@_target
def scale(
    words: Sequence[str],
    replicas: int,
    context: str | None,
    kubeconfig: str | None,
    namespace: str,
) -> int:
    """Change the number of pods.

    Example: isthmus kubectl scale deploy helloworld-v2 --replicas=0 -n sample
    """

    async def work(client: kube_client.Client, where: str) -> int:
        kind, names = _kind_and_names(words)
        for name in names:
            await client.patch(kind, name, {"spec": {"replicas": replicas}}, namespace=where)
            click.echo(f"{kind.kind.lower()}/{name} scaled")
        return 0

    return _with_client(context, kubeconfig, namespace, work)


@command.command()
@click.argument("words", nargs=-1)
@_target
def delete(
    words: Sequence[str], context: str | None, kubeconfig: str | None, namespace: str
) -> int:
    """Delete objects.

    Example: isthmus kubectl delete secret istio-remote-secret-cluster2 -n istio-system
    """

    async def work(client: kube_client.Client, where: str) -> int:
        kind, names = _kind_and_names(words)
        for name in names:
            await client.delete(kind, name, namespace=_namespaced(kind, where))
            click.echo(f"{kind.kind.lower()} {name} deleted")
        return 0

    return _with_client(context, kubeconfig, namespace, work)
