"""A mesh of two clusters in a lab, made by the demo's own steps, for stories about traffic.

Commands run as a user would type them: the same programs, the same kubeconfig.
"""

import atexit
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from tools import guides

from isthmus.testing import pace

ROOT = Path(__file__).resolve().parents[2]
ORDINARY = 2000
"""A user without a name, a home or any rights."""


class CommandFailedError(AssertionError):
    """A command ended with a failure that nobody expected."""


class MeshLab:
    """A lab with a mesh in it."""

    def __init__(self, *, as_ordinary_user: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="isthmus-story-"))
        self.folder.chmod(0o755)
        self.user = ORDINARY if as_ordinary_user and os.geteuid() == 0 else None
        self.name = "story"
        self.took_s = float("inf")
        home = self.folder / "home"
        home.mkdir()
        places = [ROOT / "src", Path(sysconfig.get_path("purelib"))]
        if self.user is not None:
            os.chown(home, self.user, self.user)
            places = [readable(place) for place in places]
        programs = self.folder / "bin"
        programs.mkdir()
        python = os.path.realpath(sys.executable)
        for name in ("isthmus", "istioctl"):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {python} -m isthmus "$@"\n')
            program.chmod(0o755)
        self.environment = {
            "HOME": str(home),
            "ISTHMUS_LAB_HOME": str(home / "labs"),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(home),
        }

    def boot(self, topology="primary-remote", *, clusters=None) -> None:
        """Run the demo's steps, and stay."""
        words = f"--name {self.name} --topology {topology}"
        words += f" --clusters {clusters}" if clusters else ""
        began = time.monotonic()
        self.run(f"isthmus demo --keep {words}", timeout=400)
        self.took_s = time.monotonic() - began
        self._use_kubeconfig()

    def boot_by_guide(self, topology, rows, *, swaps, after="") -> None:
        """Boot clusters, type what our page says to a guide's lines, then some more."""
        began = time.monotonic()
        self.boot_clusters(topology)
        self.follow(rows, swaps, after=after)
        self.took_s = time.monotonic() - began

    def follow(self, rows, swaps, *, after=""):
        """Type what our page says to a guide's lines, in a folder with the samples of a release.

        `swaps` are lines, or parts of lines, in place of which others are typed: a guide tells
        its readers to put their own names in.
        """
        folder = Path(self.environment["HOME"], "release")
        folder.mkdir()
        if self.user is not None:
            os.chown(folder, self.user, self.user)
        (folder / "samples").symlink_to(ROOT / "samples")
        typed = guides.script(rows, swaps)
        return self.run(f"set -e\ncd {folder}\n{typed}{after}", timeout=300)

    def boot_clusters(self, topology) -> None:
        """Boot clusters without anything in them."""
        self.run(f"isthmus lab up {topology} --name {self.name}")
        self._use_kubeconfig()

    def _use_kubeconfig(self) -> None:
        found = self.run(f"isthmus lab kubeconfig --name {self.name}")
        self.environment["KUBECONFIG"] = found.strip()

    def close(self) -> None:
        """Take the lab down and remove all that was written; once is enough."""
        if not self.folder.exists():
            return
        self.run(f"isthmus lab down --name {self.name}")
        shutil.rmtree(self.folder)

    def attempt(self, command, *, timeout=120, stdin=""):
        """Run a shell command; return how it ended."""
        return subprocess.run(
            ["/bin/sh", "-c", command],
            **self._person(),
            input=stdin,
            capture_output=True,
            timeout=pace.patience(timeout),
            check=False,
        )

    def start(self, command):
        """Start a shell command whose standard streams are pipes."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(["/bin/sh", "-c", command], **self._person(), **pipes)

    def _person(self):
        return {
            "cwd": self.environment["HOME"],
            "env": self.environment,
            "user": self.user,
            "group": self.user,
            "extra_groups": None if self.user is None else [],
            "text": True,
        }

    def run(self, command, *, timeout=120, stdin=""):
        """Run a shell command that must succeed; return what it wrote to standard output."""
        ended = self.attempt(command, timeout=timeout, stdin=stdin)
        if ended.returncode:
            raise CommandFailedError(f"{command}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout

    def json(self, command, **more):
        """Run a command that prints JSON; return the document."""
        return json.loads(self.run(command, **more))

    def kubectl(self, cluster, words, **more):
        """Run kubectl, or our small one where there is none, against a cluster."""
        return self.run(f"{self.kubectl_program} --context {cluster} {words}", **more)

    def json_of(self, cluster, words):
        """Return the objects that kubectl's words after `get` name."""
        return json.loads(self.kubectl(cluster, f"get {words} -o json"))

    @property
    def kubectl_program(self):
        """What stands for kubectl on this machine."""
        return "kubectl" if shutil.which("kubectl") else "isthmus kubectl"


@contextlib.contextmanager
def joined(topology, *, clusters=None):
    """Yield a lab of an ordinary user that was joined by the demo's steps."""
    lab = MeshLab(as_ordinary_user=True)
    try:
        lab.boot(topology, clusters=clusters)
        yield lab
    finally:
        lab.close()


@functools.cache
def readable(place):
    """Return `place`, or a copy that every user can read where `place` cannot be read by all."""
    if all(parent.stat().st_mode & 0o001 for parent in [place, *place.parents]):
        return place
    # One for all labs of a session: libraries are large.
    copies = Path(tempfile.mkdtemp(prefix="isthmus-copy-"))
    copies.chmod(0o755)
    atexit.register(shutil.rmtree, copies)
    target = copies / place.name
    shutil.copytree(place, target, symlinks=True)
    return target
