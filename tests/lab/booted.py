"""A lab of a test's own: booted by the command line, used through its API servers."""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from isthmus.kube import access, client, kinds
from isthmus.testing import pace

HELLO = "docker.io/istio/examples-helloworld-v1:1.0"
CURL = "curlimages/curl:8.16.0"
LIMIT_S = pace.patience(20.0)

ORDINARY = 2000
WAYS = ["root", "ordinary"] if os.getuid() == 0 else ["ordinary"]
"""As whom a lab is booted: root runs every test as an ordinary user too."""


class Booted:
    """A running lab, as `uid` (None: whoever runs the tests)."""

    def __init__(self, home: pathlib.Path, *, uid: int | None, name: str = "test") -> None:
        self.home = home
        self.name = name
        self._uid = uid

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "ISTHMUS_LAB_HOME": str(self.home), "HOME": str(self.home)}
        as_other = {"user": self._uid, "group": self._uid, "extra_groups": []} if self._uid else {}
        result = subprocess.run(
            [sys.executable, "-m", "isthmus", "lab", *words],
            env=env,
            text=True,
            capture_output=True,
            timeout=pace.patience(60),
            check=False,
            **as_other,
        )
        assert not check or result.returncode == 0, result.stderr + self.log
        return result

    @property
    def pid(self) -> int:
        return json.loads((self.home / self.name / "lab.json").read_text())["pid"]

    @property
    def log(self) -> str:
        path = self.home / self.name / "lab.log"
        return path.read_text() if path.exists() else ""

    def client(self, cluster: str) -> client.Client:
        path = str(self.home / self.name / "kubeconfig")
        return client.Client(access.from_kubeconfig(path, context=cluster))


@contextlib.contextmanager
def booted_lab(way, topology="primary-remote"):
    uid = ORDINARY if way == "ordinary" and os.getuid() == 0 else None
    # Not pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="isthmus-lab-") as folder:
        home = pathlib.Path(folder)
        if uid:
            os.chown(home, uid, uid)
        lab = Booted(home, uid=uid)
        lab.command("up", str(topology), "--name", lab.name)
        yield lab
        lab.command("down", "--name", lab.name, check=False)


def processes_of(lab: Booted) -> list[int]:
    """Return the lab's processes, found by the folder in their command lines or their parents."""
    parents: dict[int, int] = {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(folder.name)] = int(fields[1])
    found = {lab.pid} & set(parents)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def pod(name: str, *, image: str = CURL, labels: dict[str, str] | None = None, **spec) -> dict:
    """Return a pod with one container; further fields of its spec or, with `c_`, its container."""
    own = {key.removeprefix("c_"): value for key, value in spec.items() if key.startswith("c_")}
    rest = {key: value for key, value in spec.items() if not key.startswith("c_")}
    container = {"name": "main", "image": image, **own}
    if image == CURL:
        container.setdefault("command", ["/bin/sleep", "infinity"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **rest},
    }


def service(name: str, **spec) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 5000}], **spec},
    }


def condition(found: dict, kind: str) -> str:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each["status"] for each in conditions if each["type"] == kind), "")


async def until(question, *, limit_s: float = LIMIT_S):
    """Ask again until the answer is not empty; a test's own deadline."""
    deadline = time.monotonic() + limit_s
    while not (answer := await question()):
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.03)
    return answer


async def connections_closed() -> None:
    """Wait until connections that are being closed are closed: in TLS both sides say goodbye first."""

    async def are_closed():
        return not any(map(_is_ending, list(asyncio.get_running_loop()._transports.values())))

    await until(are_closed)


def _is_ending(transport) -> bool:
    # asyncio tells nobody when the connection below one of TLS is closed.
    secured = getattr(transport.get_protocol(), "_app_transport", None)
    is_closing = transport.is_closing() or (secured is not None and secured.is_closing())
    return is_closing and transport._sock is not None


async def ready(server: client.Client, name: str) -> dict:
    async def question():
        found = await server.find(kinds.POD, name, namespace="default")
        return found if found and condition(found, "Ready") == "True" else None

    return await until(question)


async def start(server: client.Client, manifest: dict) -> dict:
    """Create a pod and wait until it is ready."""
    await server.create(kinds.POD, manifest)
    return await ready(server, manifest["metadata"]["name"])


async def said(server: client.Client, name: str, *argv: str) -> str:
    result = await server.exec("default", name, argv)
    return result.stdout.decode() + result.stderr.decode()


async def greeting(server: client.Client, name: str, host: str) -> str:
    words = ("curl", "-sS", "-m", f"{3 * pace.slowness():.0f}")
    return await said(server, name, *words, f"http://{host}:5000/hello")
