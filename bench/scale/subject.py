"""The control plane that is measured, as a process of its own on a core of its own."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from bench import usage
from bench.scale import shapes

HERE: Final = "127.0.0.1:15012"
CORES: Final = sorted(os.sched_getaffinity(0))
OWN: Final = {CORES[0]}
"""Where the subject runs."""

OTHERS: Final = set(CORES[1:]) or OWN
"""Where everything else runs."""

LOOK_S: Final = 0.5
"""How often it is looked whether the control plane is there."""

ENDS_S: Final = 10.0
"""How long a program that hears nothing any more may take to end."""


class Ended(Exception):  # noqa: N818  # it is told, not shown
    """The control plane is no more."""


class Subject:
    """A control plane that somebody runs.

    Attributes:
        place: Where it serves discovery.
        began: When it was begun, or told of the fleet, on the monotonic clock.
    """

    def __init__(self, place: str, *, pid: int = 0) -> None:
        self.place = place
        self.began = time.monotonic()
        self._pid = pid

    def cpu_s(self) -> float:
        """Return the CPU time that it has used, with all that it has started; 0 if nobody knows."""
        return usage.exact_cpu_s(self._pid) if self._pid else 0.0

    def memory(self) -> usage.Memory:
        """Return what it holds now.

        Raises:
            Ended: It has.
        """
        if not self._pid:
            return usage.Memory(0.0, 0.0)
        found = [usage.memory(one.pid) for one in usage.below(self._pid)]
        known = [one for one in found if one is not None]
        if not known:
            raise Ended("the control plane has ended; what it said last stands above")
        return usage.Memory(sum(one.pss for one in known), sum(one.private for one in known))

    def peak_mib(self) -> float:
        """Return the most that its processes have held, each at its time."""
        return sum(usage.peak_mib(one.pid) for one in usage.below(self._pid)) if self._pid else 0.0

    @contextlib.contextmanager
    def profiled(self, path: str) -> Iterator[None]:
        """Write where its time goes to a file meanwhile, if there is a `py-spy` on the path."""
        program = shutil.which("py-spy") if path else None
        if program is None:
            yield
            return
        words = [program, "record", "-f", "raw", "-r", "200", "-d", "3600", "-o", path]
        spy = subprocess.Popen(
            [*words, "-p", str(self._pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, OTHERS),
        )
        try:
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            spy.wait()

    @property
    def has_ended(self) -> bool:
        """Whether it is known to run no more."""
        return bool(self._pid) and not Path(f"/proc/{self._pid}").exists()

    def stop(self) -> None:
        """Leave it alone."""


class Isthmus(Subject):
    """This product's control plane, run by us."""

    def __init__(self, folder: Path, shape: shapes.Shape, settings: Mapping[str, str]) -> None:
        environment = {
            **os.environ,
            "POD_NAMESPACE": shapes.SYSTEM,
            "POD_NAME": "istiod-0",
            "CLUSTER_ID": shape.names[0],
            "ROOT_CA_DIR": str(folder / "ca"),
            "ISTHMUS_RUN_DIR": str(folder),
            "KUBECONFIG": str(folder / "kubeconfig"),
            "INJECTION_WEBHOOK_CONFIG_NAME": "",
            # Not what this host happens to send by decides what is measured (0073).
            "ISTHMUS_XDS_CONGESTION_CONTROL": "reno",
            "PILOT_ENABLE_AMBIENT": str(shape.nodes > 0).lower(),
            **settings,
        }
        self._log = (folder / "subject.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "isthmus.runtime", "discovery"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=lambda: os.sched_setaffinity(0, OWN),
        )
        super().__init__(HERE, pid=self._process.pid)

    @property
    @override
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    @override
    def stop(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()


class Companion:
    """A program of this bench beside the subject, spoken to in lines.

    Attributes:
        subject: What it waits for, where nothing it is told can come true without that.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.subject: Subject | None = None

    def ask(self, **asked: object) -> dict[str, Any]:
        """Tell it to do something, and return what it found."""
        self.tell(**asked)
        return self.hear()

    def tell(self, **asked: object) -> None:
        """Tell it to do something; what it found must be heard before the next."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Return the next thing that it says.

        Raises:
            RuntimeError: It has ended.
            Ended: The control plane has.
        """
        assert self._process.stdout is not None
        # Each thing that it is told has one answer, so that nothing of it is read already.
        while not select.select([self._process.stdout], [], [], LOOK_S)[0]:
            if self.subject is not None and self.subject.has_ended:
                self._process.kill()  # It would wait.
                raise Ended("the control plane has ended; what it said last stands above")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a program of this bench has ended; it says why, above")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def has_said(self) -> bool:
        """Say whether what it is to say next is there."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def cpu_s(self) -> float:
        """Return the CPU time that it has used."""
        return usage.exact_cpu_s(self._process.pid)


@contextlib.contextmanager
def companion(module: str, *arguments: str) -> Iterator[Companion]:
    """Run a program of this bench beside the subject."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, OTHERS),
    )
    try:
        yield Companion(process)
    finally:
        _ended(process)


def _ended(process: subprocess.Popen[str]) -> None:
    """End a program by saying nothing any more, so that it can end what it has started."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def pinned() -> Sequence[int]:
    """Return the cores of the subject."""
    return sorted(OWN)
