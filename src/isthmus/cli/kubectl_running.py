"""The small kubectl's commands about what runs: exec, wait and rollout."""

import sys
from collections.abc import Sequence

import click

from isthmus.base import clock
from isthmus.cli import groups
from isthmus.cli import kubectl_reading as reading
from isthmus.cli import kubectl_target as targets
from isthmus.cli import kubectl_writing as writing
from isthmus.kube import client as kube_client
from isthmus.kube import kinds, waiting

Obj = targets.Obj


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("pod")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.option("--container", "-c", default="", help="Container.")
@click.option("--stdin", "-i", is_flag=True, help="Pass standard input on, to its end.")
@click.option("--tty", "-t", is_flag=True, help="Accepted; there is no terminal here.")
@targets.targeted
def exec_(
    pod: str,
    argv: Sequence[str],
    container: str,
    *,
    target: targets.Target,
    stdin: bool,
    tty: bool,
) -> int:
    """Run a command in a pod.

    Example: isthmus kubectl exec -n sample deploy/sleep -- curl -sS helloworld:5000/hello
    """
    del tty

    async def work(client: kube_client.Client, where: str) -> int:
        if not argv:
            raise targets.Misused("which command?", hint="exec POD -- COMMAND")
        name = await reading.pod_of(client, pod, where=where)
        given = sys.stdin.buffer.read() if stdin else None
        ended = await client.exec(
            where,
            name,
            list(argv),
            container=container,
            stdin=given,
            timeout_s=None,
            on_output=_written,
        )
        return ended.code

    return target.run(work)


def _written(channel: int, content: bytes) -> None:
    """Show what a command wrote at once: it may run for long."""
    stream = sys.stdout.buffer if channel == 1 else sys.stderr.buffer
    stream.write(content)
    stream.flush()


@click.command()
@click.argument("words", nargs=-1)
@click.option(
    "--for", "what", required=True, help="condition=NAME[=VALUE], delete or jsonpath={...}=VALUE."
)
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--selector", "-l", default="", help="Labels.")
@click.option("--timeout", default="30s", show_default=True, help="How long at most.")
@targets.targeted
def wait(  # a command's options
    words: Sequence[str],
    what: str,
    selector: str,
    timeout: str,  # an option's name
    *,
    target: targets.Target,
    everything: bool,
) -> int:
    """Wait for a condition.

    Example: isthmus kubectl wait --for=condition=Ready pod --all -n sample
    """

    async def work(client: kube_client.Client, where: str) -> int:
        limit_s = targets.seconds(timeout)
        for kind, name in await targets.chosen(
            client, words, where=where, selector=selector, everything=everything
        ):
            scope = targets.scope(kind, where=where)
            if what == "delete":
                await writing.gone(client, kind, name, scope=scope, limit_s=limit_s)
            else:
                await waiting.until(
                    client,
                    kind,
                    name,
                    namespace=scope,
                    missing=_missing(what),
                    timeout_s=limit_s,
                )
            click.echo(f"{targets.title(kind, name)} condition met")
        return 0

    return target.run(work)


def _missing(what: str) -> waiting.Missing:
    """Return what tells what is still missing.

    Raises:
        Misused: Nothing can be waited for in this way.
    """
    form, _, rest = what.partition("=")
    if form == "condition":
        name, _, value = rest.partition("=")
        return lambda obj: "" if _has(obj, name, value or "True") else f"condition {name}"
    if form == "jsonpath":
        path, _, value = rest.strip("'").rpartition("=")
        return lambda obj: "" if reading.json_path(obj, path) == value else f"{path} is not {value}"
    raise targets.Misused(f"cannot wait for `{what}`", hint="condition=..., delete or jsonpath=...")


def _has(obj: Obj | None, name: str, value: str) -> bool:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
    return any(
        each["type"].lower() == name.lower() and each["status"].lower() == value.lower()
        for each in conditions
    )


@click.group(cls=groups.Group)
def rollout() -> None:
    """Follow or begin a rollout.

    Example: isthmus kubectl rollout status deploy/istiod -n istio-system
    """


@rollout.command()
@click.argument("words", nargs=-1)
@click.option("--timeout", default="10m", show_default=True, help="How long at most.")
@targets.targeted
def status(words: Sequence[str], timeout: str, *, target: targets.Target) -> int:  # an option
    """Wait until every pod is of the newest template and ready.

    Example: isthmus kubectl rollout status deploy/web --timeout=60s
    """

    async def work(client: kube_client.Client, where: str) -> int:
        for kind, name in await targets.chosen(client, words, where=where):
            if kind != kinds.DEPLOYMENT:
                raise targets.Misused(f"only Deployments here, not {kind.plural}")
            await waiting.until(
                client,
                kind,
                name,
                namespace=where,
                missing=waiting.deployment,
                timeout_s=targets.seconds(timeout),
            )
            click.echo(f'deployment "{name}" successfully rolled out')
        return 0

    return target.run(work)


@rollout.command()
@click.argument("words", nargs=-1)
@targets.targeted
def restart(words: Sequence[str], *, target: targets.Target) -> int:
    """Replace every pod.

    Example: isthmus kubectl rollout restart deploy/istiod -n istio-system
    """

    async def work(client: kube_client.Client, where: str) -> int:
        now = clock.SystemClock().now().strftime("%Y-%m-%dT%H:%M:%SZ")
        mark = {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}
        for kind, name in await targets.chosen(client, words, where=where):
            change = {"spec": {"template": {"metadata": mark}}}
            await client.patch(kind, name, change, namespace=where)
            click.echo(f"{targets.title(kind, name)} restarted")
        return 0

    return target.run(work)
