"""The small kubectl's commands that read: get and logs.

Tables are the API server's own. Decides how objects are printed otherwise.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence

import click
import yaml

from isthmus.cli import kubectl_target as targets
from isthmus.kube import client as kube_client
from isthmus.kube import kinds

Obj = targets.Obj
_STEP = r"\.([\w-]+)|\[(\d+|\*)\]|\['([^']+)'\]"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@click.command()
@click.argument("words", nargs=-1)
@click.option("--selector", "-l", default="", help="Labels.")
@click.option(
    "--field-selector", "fields", default="", help="Fields, such as status.phase=Running."
)
@click.option("--output", "-o", default="", help="wide, yaml, json, name or jsonpath={...}.")
@click.option("--all-namespaces", "-A", "everywhere", is_flag=True, help="In every namespace.")
@click.option("--no-headers", is_flag=True, help="Rows only.")
@targets.targeted
def get(  # noqa: PLR0913  # a command's options
    words: Sequence[str],
    selector: str,
    fields: str,
    output: str,
    *,
    target: targets.Target,
    everywhere: bool,
    no_headers: bool,
) -> int:
    """Show objects.

    Example: isthmus kubectl get svc istio-eastwestgateway -n istio-system
    """

    async def work(client: kube_client.Client, where: str) -> int:
        wanted = await targets.kinds_and_names(client, words)
        query = {"labelSelector": selector, "fieldSelector": fields}
        where = "" if everywhere else where
        if output in {"", "wide"}:
            tables = [await _tables(client, kind, names, where, query) for kind, names in wanted]
            return _show(tables, wanted, wide=output == "wide", bare=no_headers, spaces=everywhere)
        found: list[Obj] = []
        for kind, names in wanted:
            scope = targets.scope(kind, where=where)
            if names:
                found += [await client.get(kind, name, namespace=scope) for name in names]
            else:
                listed = json.loads(
                    await client.raw("GET", kind.path(namespace=scope), query=query)
                )
                found += [
                    {"apiVersion": kind.api_version, "kind": kind.kind, **each}
                    for each in listed["items"]
                ]
        for each in found:
            each["metadata"].pop("managedFields", None)
        one = len(wanted) == 1 and len(wanted[0][1]) == 1
        whole = found[0] if one else {"apiVersion": "v1", "kind": "List", "items": found}
        if found or output != "name":
            click.echo(printed(whole, found, output))
        return 0

    return target.run(work)


async def _tables(
    client: kube_client.Client,
    kind: kinds.Kind,
    names: Sequence[str],
    where: str,
    query: dict[str, str],
) -> list[Obj]:
    scope = targets.scope(kind, where=where)
    paths = [kind.path(name, namespace=scope) for name in names] or [kind.path(namespace=scope)]
    return [
        json.loads(await client.raw("GET", path, query=query, headers={"Accept": TABLE}))
        for path in paths
    ]


def _show(
    tables: Sequence[Sequence[Obj]],
    wanted: Sequence[tuple[kinds.Kind, list[str]]],
    *,
    wide: bool,
    bare: bool,
    spaces: bool,
) -> int:
    empty = True
    for (kind, _), parts in zip(wanted, tables, strict=True):
        columns = parts[0]["columnDefinitions"]
        shown = [i for i, column in enumerate(columns) if wide or not column["priority"]]
        rows = [_row(row, shown, spaces=spaces) for part in parts for row in part["rows"]]
        if not rows:
            continue
        if not empty:
            click.echo()
        empty = False
        if len(wanted) > 1:
            first = 1 if spaces else 0
            for row in rows:
                row[first] = targets.title(kind, row[first])
        heads = ["NAMESPACE"] * spaces + [columns[i]["name"].upper() for i in shown]
        _aligned(rows if bare else [heads, *rows])
    if empty:
        click.echo("No resources found", err=True)
    return 0


def _row(row: Obj, shown: Sequence[int], *, spaces: bool) -> list[str]:
    first = [(row.get("object") or {}).get("metadata", {}).get("namespace", "")] if spaces else []
    return [*first, *(str(row["cells"][i]) for i in shown)]


def _aligned(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        click.echo("   ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


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
        return "\n".join(_name_of(obj) for obj in each)
    if output.startswith("jsonpath="):
        return json_path(whole, output.removeprefix("jsonpath="))
    raise targets.Misused(
        f"unknown output: `{output}`", hint="wide, yaml, json, name or jsonpath={...}"
    )


def _name_of(obj: Obj) -> str:
    group = str(obj.get("apiVersion", "")).rpartition("/")[0]
    kind = kinds.Kind(group, "", "", str(obj["kind"]))
    return targets.title(kind, str(obj["metadata"]["name"]))


def json_path(obj: object, template: str) -> str:
    r"""Fill in `{.a.b[0].c}`, `{.items[*].a}` and texts such as `{"\n"}`.

    Raises:
        Misused: There is more in it, which only the full kubectl knows (ISM-CLI-030).
    """

    def filled(match: re.Match[str]) -> str:
        if quoted := re.fullmatch(r'\s*"((?:[^"\\]|\\.)*)"\s*', match[1]):
            return str(json.loads(f'"{quoted[1]}"'))
        if not re.fullmatch(f"(?:{_STEP})+", match[1]):
            raise targets.Misused(
                f"cannot read `{{{match[1]}}}`", hint="such as {.status.phase} or {.items[*].kind}"
            )
        found = _at([obj], re.findall(_STEP, match[1]))
        return " ".join(each if isinstance(each, str) else json.dumps(each) for each in found)

    return re.sub(r"\{([^{}]*)\}", filled, template)


def _at(found: list[object], steps: Iterable[tuple[str, str, str]]) -> list[object]:
    for key, index, quoted in steps:
        inner: list[object] = []
        for value in found:
            if index == "*" and isinstance(value, list):
                inner += value
            elif index and isinstance(value, list) and index != "*" and int(index) < len(value):
                inner.append(value[int(index)])
            elif not index and isinstance(value, dict) and (key or quoted) in value:
                inner.append(value[key or quoted])
        found = [value for value in inner if value is not None]
    return found


async def pod_of(client: kube_client.Client, word: str, *, where: str) -> str:
    """Return the pod that `pod`, `pod/name` or `deploy/name` means.

    Raises:
        Misused: Nothing of it runs (ISM-CLI-030).
    """
    if "/" not in word:
        return word
    [(kind, [name])] = await targets.kinds_and_names(client, [word])
    if kind == kinds.POD:
        return name
    owner = await client.get(kind, name, namespace=where)
    selector = (owner.get("spec") or {}).get("selector") or {}
    wanted = selector.get("matchLabels") or selector
    labels = ",".join(f"{key}={value}" for key, value in wanted.items())
    pods = await client.list_(kinds.POD, namespace=where, labels=labels) if labels else []
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    if not running:
        raise targets.Misused(f"`{word}` has no running pod", hint="kubectl get pods")
    return str(running[0]["metadata"]["name"])


@click.command()
@click.argument("pod")
@click.option("--container", "-c", default="", help="Container.")
@click.option("--tail", type=click.IntRange(0), default=None, help="Only the last lines.")
@click.option("--previous", "-p", is_flag=True, help="Of the run before the last restart.")
@targets.targeted
def logs(
    pod: str, container: str, tail: int | None, *, target: targets.Target, previous: bool
) -> int:
    """Print what a container wrote.

    Example: isthmus kubectl logs -n istio-system deploy/istiod
    """

    async def work(client: kube_client.Client, where: str) -> int:
        name = await pod_of(client, pod, where=where)
        found = await client.get(kinds.POD, name, namespace=where)
        query = {
            "container": container or _default_container(found),
            "tailLines": "" if tail is None else str(tail),
            "previous": "true" if previous else "",
        }
        path = kinds.POD.path(name, namespace=where, subresource="log")
        sys.stdout.buffer.write(await client.raw("GET", path, query=query))
        sys.stdout.flush()
        return 0

    return target.run(work)


def _default_container(pod: Obj) -> str:
    annotations = pod["metadata"].get("annotations") or {}
    first = pod["spec"]["containers"][0]["name"]
    return str(annotations.get("kubectl.kubernetes.io/default-container", first))
