"""One point of the grid: a fleet, its API servers, its proxies and the control plane between them."""

import base64
import contextlib
import dataclasses
import datetime
import functools
import ipaddress
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.scale import shapes, subject, truths, workloads
from isthmus.testing import certificates

MIB: Final = 1 << 20
IDLE_S: Final = 5.0
SETTLE_S: Final = 60.0
CHANGES: Final = 20
RATES: Final = (10, 50, 100)

WORKLOADS: Final[Mapping[str, str]] = {
    "singles": "a pod leaves its service and comes back, alone",
    "poisson10": "10 pods of fifty services a second are replaced, at random moments",
    "poisson50": "50 pods a second",
    "poisson100": "100 pods a second",
    "settled100": "the same, after it has gone on for more than a minute",
    "rollout": "1,000 pods of ten services are replaced, 400 a second",
    "node": "a node is lost with all its pods",
    "service": "a service is made and deleted",
    "policy": "a policy of the whole mesh changes",
    "relist": "one API server lists everything anew (410)",
    "unreachable": "one API server answers nothing; changes in others go on",
    "deaf": "one client of a hundred does not read",
    "envoys": "five real Envoys come; a pod is replaced",
    "idle": "nothing happens",
    "restart": "the control plane starts anew; proxies come back with what they have",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured at a point."""

    workloads: Sequence[str] = tuple(WORKLOADS)
    changes: int = CHANGES
    seconds: float = 10.0
    rest_s: float = IDLE_S
    profile: str = ""
    subject: str = ""
    pid: int = 0
    kubeconfigs: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


ACTS: Final[Mapping[str, Callable[[workloads.Field, Plan], workloads.Found]]] = {
    "singles": lambda here, plan: workloads.singles(here, changes=plan.changes),
    **{
        f"poisson{rate}": functools.partial(
            lambda rate, here, plan: workloads.poisson(here, rate=rate, seconds=plan.seconds), rate
        )
        for rate in RATES
    },
    "settled100": lambda here, plan: workloads.settled(here, rate=100, seconds=plan.seconds),
    "rollout": lambda here, _: workloads.rollout(here),
    "node": lambda here, _: workloads.node(here),
    "service": lambda here, _: workloads.service(here),
    "policy": lambda here, _: workloads.policy(here),
    "relist": lambda here, plan: workloads.relist(here, seconds=min(5.0, plan.seconds)),
    "unreachable": lambda here, _: workloads.unreachable(here),
    "deaf": lambda here, plan: workloads.deaf(here, changes=max(2, plan.changes // 4)),
    "envoys": lambda here, _: workloads.envoys(here),
    "idle": lambda here, plan: workloads.idle(here, seconds=plan.seconds),
}


class Point:
    """One fleet of a shape, measured."""

    def __init__(self, folder: Path, shape: shapes.Shape, plan: Plan) -> None:
        self._folder = folder
        self._shape = shape
        self._plan = plan
        self._found: dict[str, Any] = {"shape": dataclasses.asdict(shape)}
        if plan.settings:
            self._found["settings"] = dict(plan.settings)
        _write_authority(folder, shape)

    def measured(self) -> dict[str, Any]:
        """Return all that was found."""
        shape = self._shape.write()
        api = subject.companion("bench.scale.apiserver", shape, str(self._folder))
        place = self._plan.subject or subject.HERE
        with api as servers, subject.companion("bench.scale.clients", shape, place) as clients:
            servers.hear()
            with self._running(clients) as plane:
                self._joined(plane, clients)
                here = workloads.Field(
                    self._shape,
                    plane,
                    servers,
                    clients,
                    self._folder,
                    random.Random(self._shape.seed),
                    range(self._shape.clusters),
                )
                for name in self._plan.workloads:
                    if name != "restart":
                        _say(name)
                        with plane.profiled(self._plan.profile if name == "singles" else ""):
                            self._keep(name, ACTS[name](here, self._plan))
                self._found["peak_mib"] = plane.peak_mib()
                self._compare(here)
            if "restart" in self._plan.workloads and not self._plan.subject:
                _say("restart")
                self._restart(here)
        return self._found

    def _begun(self) -> subject.Subject:
        """Begin the control plane, or tell whoever runs another one where API servers are."""
        if not self._plan.subject:
            return subject.Isthmus(self._folder, self._shape, self._plan.settings)
        folder = Path(self._plan.kubeconfigs)
        folder.mkdir(parents=True, exist_ok=True)
        authority = (self._folder / "api.pem").read_text(encoding="utf-8")
        for number, name in enumerate(self._shape.names):
            _write_kubeconfig(folder / name, self._shape, number, authority=authority)
        _say(f"kubeconfigs are in {folder}; {self._plan.subject} is expected to serve discovery")
        return subject.Subject(self._plan.subject, pid=self._plan.pid)

    @contextlib.contextmanager
    def _running(self, clients: subject.Companion) -> Iterator[subject.Subject]:
        """Run the control plane that clients wait for; show the end of its log if they cannot."""
        plane = clients.subject = self._begun()
        try:
            yield plane
        except BaseException:
            log = self._folder / "subject.log"
            sys.stderr.write(log.read_text(encoding="utf-8")[-3000:] if log.exists() else "")
            raise
        finally:
            clients.subject = None
            plane.stop()

    def _joined(self, plane: subject.Subject, clients: subject.Companion) -> None:
        """Let one proxy come, then all, and note what the control plane holds."""
        _say("start")
        first = clients.ask(act="sync", count=1)["synced_at"][0]
        self._found["cold"] = {"first_s": first - plane.began, "cpu_s": plane.cpu_s()}
        clients.ask(act="rest", seconds=self._plan.rest_s)
        alone, alone_s, began = plane.memory().pss, plane.cpu_s(), time.monotonic()
        _say("join")
        last = clients.ask(act="sync")["synced_at"][-1]
        self._found["join"] = {"all_s": max(0.0, last - began), "cpu_s": plane.cpu_s() - alone_s}
        peak = plane.peak_mib()
        clients.ask(act="rest", seconds=self._plan.rest_s)
        held, endpoints = plane.memory().pss, self._shape.endpoints
        more = max(1, self._shape.clients - 1)
        self._found["memory"] = {
            "alone_mib": alone,
            "pss_mib": held,
            "peak_of_join_mib": peak,
            "proxy_kib": (held - alone) * 1024 / more,
            "alone_per_endpoint_bytes": alone * MIB / endpoints,
        }
        sys.stderr.write(json.dumps({**self._found["memory"], **self._found["join"]}) + "\n")

    def _restart(self, here: workloads.Field) -> None:
        """Start it anew; proxies have what they had, and must learn what happened meanwhile."""
        events, expected = list[list[float]](), 0
        for cluster in range(1 if self._shape.is_flat else self._shape.clusters):
            events.append([0.0, cluster, 0, 0, here.marker()])
            expected += here.told if self._shape.is_flat else here.affected(cluster)
        here.clients.ask(act="track")
        here.servers.ask(act="replace", events=events)
        markers = [shapes.marker(int(one[-1])) for one in events]
        here.clients.ask(act="renew", is_new=False)
        before = here.clients.ask(act="counted")["bytes"]
        with self._running(here.clients) as plane:
            began_ns = int(plane.began * 1e9)
            found = here.clients.ask(
                act="arrivals",
                written=dict.fromkeys(markers, began_ns),
                expected=expected // len(events),
                timeout_s=300.0,
            )
            restarted = {
                "all_s": found["max_ms"] / 1000,
                "half_s": found["p50_ms"] / 1000,
                "missing": found["missing"],
                "bytes_per_proxy": (here.clients.ask(act="counted")["bytes"] - before)
                / self._shape.clients,
                "cpu_s": plane.cpu_s(),
                "peak_mib": plane.peak_mib(),
            }
            self._keep("restart", restarted)
            here.rest(2.0)
            self._compare(here)

    def _keep(self, name: str, found: Mapping[str, Any]) -> None:
        """Keep what was found, unless somebody has not learnt of an event, or should not have."""
        if said := _missing(name, found):
            self._found.setdefault("failed", []).append(said)
            _say(f"no figures: {said}")
        else:
            self._found[name] = found
            _say(f"{name}: {json.dumps(found)}")

    def _compare(self, here: workloads.Field) -> None:
        """Compare what all clients have with what API servers say; nothing counts if it differs.

        Raises:
            RuntimeError: Somebody has not what all should have.
        """
        until = time.monotonic() + SETTLE_S
        while wrong := self._wrong(here):
            if time.monotonic() > until:
                raise RuntimeError(
                    f"{len(wrong)} of {self._shape.proxies} clients have other endpoints than there "
                    f"are, such as {sorted(wrong)[:3]}: no figure counts"
                )
            here.rest(1.0)
        self._found["compared"] = {
            "clients": self._shape.proxies,
            "services": self._shape.services,
        }

    def _wrong(self, here: workloads.Field) -> set[int]:
        """Return the clients that have not what they should."""
        here.rest(1.0)
        truth, sets = here.servers.ask(act="truth")["found"], here.clients.ask(act="sets")["sets"]
        wrong = set[int]()
        for cluster in range(self._shape.clusters):
            own = set(range(cluster, self._shape.proxies, self._shape.clusters))
            wrong |= own - set(sets.get(truths.right(self._shape, truth, cluster), ()))
        return wrong


def _missing(name: str, found: Mapping[str, Any]) -> str:
    """Say how many clients do not know what they should; empty when all is well."""
    for key, value in found.items():
        if isinstance(value, Mapping):
            if said := _missing(f"{name}, {key}", value):
                return said
        elif key in {"lost", "missing"} and value:
            return f"{name}: {value} times a client has not learnt of an event that it should have"
    return ""


def _say(what: str) -> None:
    """Say on standard error what is being measured."""
    sys.stderr.write(f"  {what} ...\n")


def _write_authority(folder: Path, shape: shapes.Shape) -> None:
    """Write the mesh's authority, one certificate for all API servers, and a kubeconfig."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    (folder / "ca").mkdir()
    for name, text in certificates.files(now=now).items():
        (folder / "ca" / name).write_text(text, encoding="utf-8")
    key = ec.generate_private_key(ec.SECP256R1())
    nobody = x509.Name([])
    hosts = [
        x509.IPAddress(ipaddress.ip_address(shapes.place(shape, number)[0]))
        for number in range(shape.clusters)
    ]
    built = (
        x509.CertificateBuilder()
        .subject_name(nobody)
        .issuer_name(nobody)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "api.pem").write_text(pem, encoding="utf-8")
    (folder / "api.key").write_bytes(private)
    _write_kubeconfig(folder / "kubeconfig", shape, 0, authority=pem)


def _write_kubeconfig(path: Path, shape: shapes.Shape, cluster: int, *, authority: str) -> None:
    secret = shapes.remote_secret(shape, cluster, authority=authority)
    path.write_bytes(base64.b64decode(secret["data"][shape.names[cluster]]))
