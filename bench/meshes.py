"""A mesh to measure in: booted and joined by the walkthrough's own commands, each of them timed."""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import measures, usage
from isthmus.cli import demo, walkthrough
from isthmus.kube import access, client

NAME: Final = "bench"
AMBIENT: Final = "ambient"
_SAMPLES: Final = Path(__file__).resolve().parents[1] / "samples"
_LIMIT_S: Final = 180


class Mesh:
    """A running lab with a mesh in it.

    Attributes:
        pid: The process below which everything runs.
        steps: How long each step of the walkthrough took, by title.
        first_answer_s: When another cluster answered first, from the lab's start on.
    """

    def __init__(self, folder: Path, *, topology: str = measures.TOPOLOGY) -> None:
        self._folder = folder
        self._walk = demo.TOPOLOGIES[topology]
        self._name = NAME if topology == measures.TOPOLOGY else f"{NAME}-{topology}"
        self._environment = {**demo.environment(folder), "ISTHMUS_LAB_HOME": str(folder / "labs")}
        (folder / "samples").symlink_to(_SAMPLES)
        self.pid = 0
        self.steps: dict[str, float] = {}
        self.first_answer_s = 0.0
        self.boot_s = 0.0
        self.demo_s = 0.0
        self.joining_cpu_s = 0.0

    def boot(self) -> None:
        """Run the whole walkthrough."""
        began = time.monotonic()
        self._run(f"isthmus lab up {self._walk.lab} --name {self._name}")
        self.boot_s = time.monotonic() - began
        self._environment["KUBECONFIG"] = self._run(
            f"isthmus lab kubeconfig --name {self._name}"
        ).strip()
        self.pid = json.loads(self._run("isthmus lab status -o json"))["labs"][0]["pid"]
        title = ""
        for step in self._walk.steps:
            title = step.title or title
            step_began = time.monotonic()
            shown = self._step(step)
            took_s = time.monotonic() - step_began
            self.steps[title] = self.steps.get(title, 0.0) + took_s
            if step.awaited and step.awaited in shown and not self.first_answer_s:
                self.first_answer_s = time.monotonic() - began
                self.joining_cpu_s = usage.cpu_s(self.pid, "control-plane")
        self.demo_s = time.monotonic() - began

    def down(self) -> float:
        """Take the lab down, if it is up; return how long that took."""
        began = time.monotonic()
        self._run(f"isthmus lab down --name {self._name}")
        return time.monotonic() - began

    def client(self, cluster: str) -> client.Client:
        """Return a client of a cluster's API server."""
        reached = access.from_kubeconfig(self._environment["KUBECONFIG"], context=cluster)
        return client.Client(reached)

    def _step(self, step: walkthrough.Step) -> str:
        for name, text in step.files.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        shown = self._run(step.command)
        if step.variable:
            self._environment[step.variable] = shown.strip()
        return shown

    def _run(self, text: str) -> str:
        ended = subprocess.run(
            ["/bin/sh", "-c", text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
        if ended.returncode:
            raise demo.StepFailed(
                f"a step ended with status {ended.returncode}: {text.splitlines()[0]}",
                detail=(ended.stdout + ended.stderr)[-4000:],
                hint="isthmus lab doctor checks this machine",
            )
        return ended.stdout


@contextlib.contextmanager
def ambient() -> Iterator[Mesh]:
    """Boot a mesh without sidecars, to be compared with the other, and take it down."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        mesh = Mesh(Path(folder), topology=AMBIENT)
        try:
            mesh.boot()
            yield mesh
        finally:
            with contextlib.suppress(demo.StepFailed):
                mesh.down()


@contextlib.contextmanager
def booted(results: measures.Results) -> Iterator[Mesh]:
    """Boot a mesh, note how long that took, and take it down whatever happens."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        mesh = Mesh(Path(folder))
        try:
            mesh.boot()
            _note(results, mesh)
            yield mesh
        except BaseException:
            with contextlib.suppress(demo.StepFailed):
                mesh.down()
            raise
        results.add("boot/down", mesh.down())


def _note(results: measures.Results, mesh: Mesh) -> None:
    results.add("boot/lab", mesh.boot_s)
    results.add("boot/first-answer", mesh.first_answer_s)
    results.add("boot/demo", mesh.demo_s)
    results.add("cpu/control-plane/joining", mesh.joining_cpu_s)
    for title, seconds in mesh.steps.items():
        results.add(measures.step_name(title), seconds)
