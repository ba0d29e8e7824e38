"""A lab's wires, for tests: capture what is on them, and talk from within its networks."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from drill import packets

from isthmus.lab import topology
from isthmus.testing import pace

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PROGRAM = Path(__file__).with_name("inside.py").read_text()
LIMIT_S = pace.patience(60)


class Wires:
    """The wires of the lab that a mesh lives in."""

    def __init__(self, mesh):
        self._mesh = mesh
        place = mesh.environment["ISTHMUS_LAB_HOME"]
        record = json.loads(Path(place, mesh.name, "lab.json").read_text())
        self._pid = record["pid"]
        self._topology = topology.parse(json.loads(record["topology"]))
        self._count = 0

    def api(self, cluster):
        """Return the address of an API server between the clusters."""
        return self._topology.cluster(cluster).api_address

    def node(self, cluster, number):
        """Return the address of a node in its own network."""
        return self._topology.cluster(cluster).nodes[number].address

    def ask(self, task, *, at=""):
        """Do a task in the network where an address lives; return what came of it."""
        with self._begun(task, at=at) as program:
            output, errors = program.communicate(timeout=LIMIT_S)
        assert program.returncode == 0, errors
        return json.loads(output)

    def knock(self, attempts, *, at):
        """Try conversations from the network where an address lives."""
        usual_s = 5.0
        patient = [
            {**one, "timeout": one.get("timeout", usual_s) * pace.slowness()} for one in attempts
        ]
        return self.ask({"do": "knock", "attempts": patient}, at=at)

    @contextlib.contextmanager
    def captured(self, interface="", *, at=""):
        """Yield a list that holds all frames of an interface once the block has ended."""
        self._count += 1
        file = Path(self._mesh.environment["HOME"], f"frames-{self._count}")
        frames = []
        with self._begun(
            {"do": "capture", "interface": interface, "file": str(file)}, at=at
        ) as program:
            try:
                assert program.stdout.readline() == "listening\n", program.stderr.read()
                yield frames
            finally:
                output, errors = program.communicate(timeout=LIMIT_S)
            assert program.returncode == 0, errors
        assert json.loads(output)["dropped"] == 0, "the capture is not complete"
        frames += packets.frames_of(file.read_bytes())
        file.unlink()

    @contextlib.contextmanager
    def _begun(self, task, *, at):
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd="/",
            env=self._mesh.environment,
            user=self._mesh.user,
            group=self._mesh.user,
            extra_groups=None if self._mesh.user is None else [],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with program:
            program.stdin.write(json.dumps({"pid": self._pid, "address": at, **task}) + "\n")
            program.stdin.flush()
            try:
                yield program
            finally:
                program.kill()


def pod_of(mesh, cluster, labels, *, namespace="sample"):
    """Return the pod with these labels, which must be one."""
    (pod,) = mesh.json_of(cluster, f"pods -n {namespace} -l {labels}")["items"]
    return pod
