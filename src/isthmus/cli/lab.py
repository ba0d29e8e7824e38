"""`isthmus lab`: small Kubernetes clusters on this machine."""

import json
import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import groups, options, render
from isthmus.lab import orders, starting, state
from isthmus.lab import topology as topologies

if TYPE_CHECKING:
    from isthmus.kube import access, client

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def _plain(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    # It becomes the name of a directory.
    if name is not None and not _PLAIN_NAME.fullmatch(name):
        raise click.BadParameter("use letters, digits, `-` and `_`, at most 40")
    return name


_NAME = click.option("--name", default="lab", show_default=True, callback=_plain, help="Which lab.")
_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


@click.group(cls=groups.Group)
def command() -> None:
    """Small Kubernetes clusters on this machine, without Docker and without root.

    Exit status: 0 success; 1 an error, which is explained; 2 wrong usage.

    Example: isthmus lab up primary-remote
    """


@command.command()
@click.argument("topology", default="primary-remote")
@_NAME
@click.option("--foreground", is_flag=True, help="Stay, and end the lab when interrupted.")
def up(topology: str, name: str, *, foreground: bool) -> None:
    """Start a lab: TOPOLOGY is a built-in name or a YAML file.

    Returns when every API server answers and every node is ready. Built in: single,
    primary-remote and multi-primary (two clusters, two networks), shared-network (two clusters,
    one network), three-clusters (one network), three-networks, ambient and
    external-control-plane (three networks), fifty and twelve (two networks).

    Exit status: 0 it runs; 1 it does not, and nothing of it is left.

    Example: isthmus lab up primary-remote
    """
    began = time.monotonic()
    described = topologies.load(topology)
    place = state.place(name)
    try:
        record = starting.up(described, place=place, tell=lambda step: _progress(began, step))
    except starting.BootError:
        _explain()
        raise

    def tell() -> None:
        render.note(f"lab `{name}` is up after {time.monotonic() - began:.1f} s")
        render.note(f"  export KUBECONFIG={place.kubeconfig}")
        for cluster in described.clusters:
            render.note(f"  kubectl --context {cluster.name} get nodes")

    if foreground:
        _stay(record, place, tell)
    else:
        tell()


def _progress(began: float, step: str) -> None:
    render.note(f"{time.monotonic() - began:5.1f} s  {step}")


def _explain() -> None:
    from isthmus.lab import doctor as doctors  # nobody else needs it

    for check in doctors.examine():
        if not check.good:
            render.problem(f"{check.name}: {check.found}")
            render.note(f"  fix: {check.fix}")


def _stay(record: state.Record, place: state.Place, tell: Callable[[], None]) -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        tell()
        starting.wait(record)
    except KeyboardInterrupt:
        starting.down(place)
        render.note(f"lab `{place.name}` has ended")


@command.command()
@_NAME
def down(name: str) -> None:
    """End a lab; nothing of it is left.

    Exit status: 0 it is gone; 1 there was none.

    Example: isthmus lab down
    """
    began = time.monotonic()
    starting.down(state.place(name))
    render.note(f"lab `{name}` is gone after {(time.monotonic() - began) * 1000:.0f} ms")


@command.command()
@click.option("--name", default=None, callback=_plain, help="Only this lab, which must run.")
@_OUTPUT
def status(name: str | None, output: str) -> None:
    """Show this user's labs and their clusters.

    Exit status: 0, also when there are none; 1 the lab that --name names does not run.

    Example: isthmus lab status -o json
    """
    if name:
        state.place(name).alive()
    places = [state.place(name)] if name else state.all_places()
    labs = [_described(place) for place in places]
    if output == "json":
        render.as_json({"labs": labs})
        return
    rows = [
        (lab["name"], lab["state"], each["name"], each["network"], each["server"], each["api"])
        for lab in labs
        for each in lab["clusters"] or [_NO_CLUSTER]
    ]
    if not rows:
        render.note("no lab is running; start one with `isthmus lab up`")
        return
    render.table(("LAB", "STATE", "CLUSTER", "NETWORK", "API SERVER", "INSIDE"), rows)


_NO_CLUSTER = {"name": "-", "network": "-", "server": "-", "api": "-"}


def _described(place: state.Place) -> dict[str, Any]:
    record = place.read()
    if record is None:
        return {"name": place.name, "state": "gone", "clusters": []}
    topology = topologies.parse(json.loads(record.topology))
    clusters = [
        {
            "name": each.name,
            "network": each.network,
            "server": record.servers[each.name],
            "api": f"https://{each.api_address}:{topologies.API_PORT}",
            "pods": each.pods,
            "services": each.services,
            "nodes": [node.name for node in each.nodes],
        }
        for each in topology.clusters
    ]
    return {
        "name": place.name,
        "state": "running",
        "pid": record.pid,
        "kubeconfig": str(place.kubeconfig),
        "clusters": clusters,
    }


@command.command()
@_NAME
@click.option("--raw", is_flag=True, help="Print the file itself instead of its path.")
def kubeconfig(name: str, *, raw: bool) -> None:
    """Print where a lab's kubeconfig is, or what is in it.

    Its contexts have the names of the clusters.

    Exit status: 0; 1 the lab does not run.

    Example: export KUBECONFIG=$(isthmus lab kubeconfig)
    """
    place = state.place(name)
    place.alive()
    if raw:
        sys.stdout.write(place.kubeconfig.read_text())
    else:
        click.echo(place.kubeconfig)


@command.command(name="exec")
@_NAME
@click.option("-c", "--container", default="", help="Which container; the first by default.")
@click.argument("cluster")
@click.argument("pod")
@click.argument("argv", nargs=-1, required=True)
def exec_(name: str, container: str, cluster: str, pod: str, argv: Sequence[str]) -> int:
    """Run a program in a pod; POD is NAMESPACE/NAME.

    Exit status: the program's own.

    Example: isthmus lab exec cluster1 default/sleep -- curl -sS http://helloworld:5000/hello
    """
    namespace, _, pod_name = pod.rpartition("/")
    reached = _reached(name, cluster)

    async def run() -> "client.ExecResult":
        async with options.client_of(reached) as server:
            return await server.exec(namespace or "default", pod_name, argv, container=container)

    result = options.run(run())
    sys.stdout.buffer.write(result.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(result.stderr)
    return result.code


@command.command()
@_NAME
@click.option("-c", "--container", default="", help="Which container; the first by default.")
@click.argument("cluster", required=False)
@click.argument("pod", required=False)
def logs(name: str, container: str, cluster: str | None, pod: str | None) -> None:
    """Print what a pod wrote, or, without CLUSTER and POD, what the lab's own processes wrote.

    POD is NAMESPACE/NAME.

    Exit status: 0; 1 there is no such lab or pod.

    Example: isthmus lab logs cluster1 default/helloworld-v1-abc
    """
    if cluster is None or pod is None:
        path = state.place(name).log
        if not path.exists():
            state.place(name).alive()
        sys.stdout.write(pathlib.Path(path).read_text())
        return
    namespace, _, pod_name = pod.rpartition("/")
    reached = _reached(name, cluster)

    async def read() -> str:
        async with options.client_of(reached) as server:
            return await server.logs(namespace or "default", pod_name, container)

    sys.stdout.write(options.run(read()))


@command.group(name="api-server", cls=groups.Group)
def api_server() -> None:
    """Make a cluster's API server fail for a while, and work again.

    Pods, nodes and controllers of the cluster go on as if nothing had happened.

    Example: isthmus lab api-server stop --cluster cluster2
    """


_CLUSTERS = click.option(
    "--cluster", "clusters", required=True, multiple=True, help="Which cluster; may be repeated."
)


@api_server.command()
@_NAME
@_CLUSTERS
@click.option(
    "--mode",
    type=click.Choice(["refuse", "hang"]),
    default="refuse",
    show_default=True,
    help="Reset connections, or take them and never answer.",
)
@click.option(
    "--only-inside", is_flag=True, help="Go on serving the kubeconfigs of this machine's users."
)
def stop(name: str, clusters: tuple[str, ...], mode: str, *, only_inside: bool) -> None:
    """Let the API server of a cluster serve nobody; open connections end at once.

    Exit status: 0; 1 the lab does not run, or has no such cluster.

    Example: isthmus lab api-server stop --cluster cluster2 --mode hang
    """
    modes = {"refuse": "refuses", "hang": "hangs"}
    _order(name, clusters, {"mode": modes[mode], "only_inside": only_inside})


@api_server.command()
@_NAME
@_CLUSTERS
def start(name: str, clusters: tuple[str, ...]) -> None:
    """Let the API server of a cluster serve everybody again.

    Exit status: 0; 1 the lab does not run, or has no such cluster.

    Example: isthmus lab api-server start --cluster cluster2
    """
    _order(name, clusters, {"mode": "serves"})


def _order(name: str, clusters: Sequence[str], order: dict[str, object]) -> None:
    place = state.place(name)
    topology = topologies.parse(json.loads(place.alive().topology))
    for cluster in [topology.cluster(each) for each in clusters]:
        said = orders.give(place.orders(cluster.name), order)
        render.note(
            f"API server of `{cluster.name}`: it {said['inside']} inside the lab,"
            f" it {said['outside']} outside"
        )


def _reached(name: str, cluster: str) -> "access.Access":
    place = state.place(name)
    record = place.alive()
    topologies.parse(json.loads(record.topology)).cluster(cluster)
    return options.accessed(str(place.kubeconfig), context=cluster)


@command.command()
@_OUTPUT
def doctor(output: str) -> int:
    """Try what a lab needs on this machine, and name the fix of whatever is missing.

    Exit status: 0 a lab can run here; 1 it cannot.

    Example: isthmus lab doctor
    """
    from isthmus.lab import doctor as doctors  # as above

    checks = doctors.examine()
    good = all(check.good for check in checks)
    if output == "json":
        fields = [
            {"name": each.name, "good": each.good, "found": each.found, "fix": each.fix}
            for each in checks
        ]
        render.as_json({"good": good, "checks": fields})
        return 0 if good else 1
    for check in checks:
        click.echo(f"{'ok  ' if check.good else 'FAIL'}  {check.name}: {check.found}")
        if not check.good:
            click.echo(f"      fix: {check.fix}")
    return 0 if good else 1
