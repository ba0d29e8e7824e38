"""A client's traffic while something changes: every request is accounted for.

The client is a program in a `sleep` pod. It sends at a constant rate, whatever the answers do.
"""

import contextlib
import json
import secrets
import shlex
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from isthmus.testing import pace

SENDER = Path(__file__).resolve().parents[2] / "drill/sender.py"
LIMIT_S = pace.patience(60.0)
POLL_S = 0.05
RATE = max(10.0, 30 / pace.slowness())
"""Requests a second: a slow machine is to be slow, not overwhelmed."""

ENOUGH = 30
"""So many requests in a row tell who answers: chance misleads once in a thousand million."""


@dataclass(frozen=True)
class Answer:
    """What became of one request, as `sender` says; `at` is when it was sent."""

    number: int
    at: float
    took_s: float
    status: int
    body: str
    fresh: bool

    @property
    def is_lost(self):
        return self.status != 200

    @property
    def version(self):
        return self.body.split("version: ")[1].split(",")[0] if "version: " in self.body else ""

    @property
    def instance(self):
        return self.body.split("instance: ")[1].strip() if "instance: " in self.body else ""


class Traffic:
    """Requests of one client, from start to end."""

    def __init__(self, lab, cluster, host="helloworld.sample"):
        self.answers = []
        self.sent = None
        self._stop = f"/tmp/sender-{secrets.token_hex(4)}"
        program = f"python3 -c {shlex.quote(SENDER.read_text())}"
        inside = f"exec -n sample -c sleep {pod_of(lab, cluster, 'sample', 'sleep')} --"
        self._end = lambda: lab.kubectl(cluster, f"{inside} touch {self._stop}")
        self._process = lab.start(
            f"exec {lab.kubectl_program} --context {cluster} {inside}"
            f" {program} {host} 5000 /hello {self._stop} {RATE} {2 * LIMIT_S}"
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self):
        for line in self._process.stdout:
            said = json.loads(line)
            if "sent" in said:
                self.sent = said["sent"]
            else:
                self.answers.append(Answer(**said))

    def end(self):
        """Send no more, and wait for every answer."""
        self._end()
        self._reading.join(LIMIT_S)
        _, wrote = self._process.communicate(timeout=LIMIT_S)
        assert self._process.returncode == 0, wrote
        assert self.sent == len(self.answers), "requests that are not accounted for"

    def since(self, moment):
        return [each for each in list(self.answers) if each.at >= moment]

    @property
    def lost(self):
        return [each for each in self.answers if each.is_lost]

    def until_answered_by(self, versions, *, limit_s=LIMIT_S, on_new_connections=False):
        """Wait until just these versions answer what is sent from some moment on.

        Connections that are open may stay where they lead to; then only new ones tell.
        """

        def asked():
            return [each for each in list(self.answers) if each.fresh or not on_new_connections]

        def holds():
            found = asked()
            last = [each.version for each in found[-ENOUGH:] if not each.is_lost]
            return len(found) >= have + ENOUGH and set(last) == set(versions)

        have = len(asked())
        until(holds, limit_s=limit_s)

    def goes_on(self, *, requests=50):
        """Wait for so many requests more."""
        have = len(self.answers)
        until(lambda: len(self.answers) >= have + requests)

    def __repr__(self):
        slow = max((each.took_s for each in self.answers), default=0)
        return f"{len(self.answers)} sent, slowest {slow:.2f} s, lost: {self.lost}"


@contextlib.contextmanager
def flowing(lab, *clusters, host="helloworld.sample", by=("v1", "v2")):
    """Have a client in each cluster send while the block runs; all must be accounted for.

    The block begins when just these versions answer.
    """
    clients = [Traffic(lab, cluster, host) for cluster in clusters]
    try:
        for client in clients:
            client.until_answered_by(set(by))
        yield clients if len(clients) > 1 else clients[0]
    finally:
        for client in clients:
            client.end()


def pods_of(lab, cluster, namespace, app):
    """Return the pods of an application, as objects."""
    return lab.json_of(cluster, f"pod -n {namespace} -l app={app}")["items"]


def pod_of(lab, cluster, namespace, app):
    """Return the name of the pod of an application that stays."""
    [name] = [
        pod["metadata"]["name"]
        for pod in pods_of(lab, cluster, namespace, app)
        if "deletionTimestamp" not in pod["metadata"]
    ]
    return name


def is_ready(pod):
    """Whether a pod takes requests, and is to stay."""
    stays = "deletionTimestamp" not in pod["metadata"]
    conditions = pod["status"].get("conditions", ())
    return stays and any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def until(holds, *, limit_s=LIMIT_S):
    """Wait until `holds()`; return what it said."""
    deadline = time.monotonic() + limit_s
    while not (said := _timed(holds)):
        assert time.monotonic() < deadline, "it did not come"
    return said


def _timed(holds):
    """Ask, and then wait for as long as this took: who waits leaves half of the time to others."""
    began = time.monotonic()
    said = holds()
    if not said:
        time.sleep(min(max(POLL_S, time.monotonic() - began), 1.0))
    return said
