"""Starts and ends labs, from outside of them.

Decides ports, waits for clusters, writes the kubeconfig. Refuses to know what is inside.

Errors: `state.LabRunsError`, `state.NoLabError`; `BootError` (ISM-LAB-207).
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import yaml

from isthmus.base import errors
from isthmus.lab import state
from isthmus.lab import topology as topologies

LIMIT_S = 120.0
EACH_CLUSTER_S = 4.0
_POLL_S = 0.01


class BootError(errors.IsthmusError):
    """A lab did not come up."""

    code = "ISM-LAB-207"


Tell = Callable[[str], None]
"""Shown how far a lab is."""


def up(topology: topologies.Topology, *, place: state.Place, tell: Tell) -> state.Record:
    """Start a lab and wait until its API servers answer and its nodes are ready.

    Raises:
        state.LabRunsError: One of this name runs.
        BootError: It did not come up; nothing of it is left but its log.
    """
    _refuse_second(place)
    place.make()
    listeners = {each.name: _listener() for each in topology.clusters}
    heard, told = os.pipe()
    try:
        process = _spawn(topology, place, listeners, told)
    finally:
        os.close(told)
    servers = {
        name: f"https://127.0.0.1:{each.getsockname()[1]}" for name, each in listeners.items()
    }
    for each in listeners.values():
        each.close()
    try:
        configs = _wait(heard, process, topology, tell)
        record = _kept(place, process, topology, servers, configs)
    except BootError:
        _abandon(process)
        raise
    except BaseException:
        # Interrupted: nobody will want to read its log.
        _abandon(process)
        place.remove()
        raise
    finally:
        # Not before it can be found: a lab that nobody listens to, and nobody knows, ends.
        os.close(heard)
    # It runs on; nobody here waits for it any more.
    process.returncode = 0
    return record


def _kept(
    place: state.Place,
    process: "subprocess.Popen[bytes]",
    topology: topologies.Topology,
    servers: dict[str, str],
    configs: dict[str, str],
) -> state.Record:
    place.write_private(place.kubeconfig, _merged(list(configs.values())))
    record = state.Record(
        name=place.name,
        pid=process.pid,
        born=state.birth_of(process.pid),
        topology=topologies.to_json(topology),
        servers=servers,
    )
    place.record(record)
    return record


def _abandon(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _refuse_second(place: state.Place) -> None:
    record = place.read()
    if record is not None:
        raise state.LabRunsError(
            f"lab `{place.name}` runs already, as process {record.pid}",
            still_working="the running lab is untouched",
            hint=f"end it with `isthmus lab down --name {place.name}`, or give the new one a --name",
        )


def _listener() -> socket.socket:
    # Bound before the lab has a network of its own, so that it can be reached from here.
    return socket.create_server(("127.0.0.1", 0), backlog=512)


def _spawn(
    topology: topologies.Topology,
    place: state.Place,
    listeners: dict[str, socket.socket],
    told: int,
) -> "subprocess.Popen[bytes]":
    fds = {name: each.fileno() for name, each in listeners.items()}
    argv = [
        sys.executable,
        "-P",
        "-m",
        "isthmus.lab.supervisor",
        f"--folder={place.folder.resolve()}",
        f"--topology={topologies.to_json(topology)}",
        f"--listeners={json.dumps(fds)}",
        f"--progress={told}",
    ]
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(*fds.values(), told),
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)


def _wait(
    heard: int,
    process: "subprocess.Popen[bytes]",
    topology: topologies.Topology,
    tell: Tell,
) -> dict[str, str]:
    configs: dict[str, str] = {}
    limit_s = LIMIT_S + EACH_CLUSTER_S * len(topology.clusters)
    for line in _lines(heard, limit_s):
        if "failed" in line:
            raise _failed(line["failed"])
        if line["step"] == "ready":
            configs[line["cluster"]] = line["kubeconfig"]
        tell(f"{line['cluster']}: {line['step']}" if "cluster" in line else line["step"])
        if len(configs) == len(topology.clusters):
            return {each.name: configs[each.name] for each in topology.clusters}
    process.poll()
    raise _failed("it ended, or did not answer in time")


def _failed(why: str) -> BootError:
    return BootError(
        "the lab did not come up",
        detail=why,
        hint="`isthmus lab doctor` names what is missing; `lab.log` in the lab's folder says more",
    )


def _lines(heard: int, limit_s: float) -> Iterator[dict[str, str]]:
    deadline = time.monotonic() + limit_s
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([heard], [], [], left)
        content = os.read(heard, 65536) if ready else b""
        if not content:
            return
        *whole, rest = (rest + content).split(b"\n")
        for line in whole:
            yield json.loads(line)


def _merged(configs: list[str]) -> str:
    parts = [yaml.safe_load(text) for text in configs]
    merged = {**parts[0]}
    for field in ("clusters", "users", "contexts"):
        merged[field] = [entry for part in parts for entry in part[field]]
    return yaml.safe_dump(merged, sort_keys=False)


def down(place: state.Place, *, limit_s: float = 10.0) -> None:
    """End a lab and wait until nothing of it is left.

    Raises:
        state.NoLabError: It does not run.
    """
    record = place.read()
    if record is None:
        left_over = place.folder.exists()
        place.remove()
        if left_over:
            return
        place.alive()
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    while state.birth_of(record.pid) == record.born:
        if time.monotonic() > deadline:
            os.kill(record.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    place.remove()


def wait(record: state.Record) -> None:
    """Wait until a lab has ended."""
    while state.birth_of(record.pid) == record.born:
        time.sleep(0.2)
