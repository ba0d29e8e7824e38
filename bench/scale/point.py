"""One point of the grid: a fleet, its API servers, its proxies and the control plane between them."""

import base64
import contextlib
import dataclasses
import datetime
import ipaddress
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.scale import shapes, subject
from isthmus.testing import certificates

PAUSE_S: Final = 0.2
IDLE_S: Final = 8.0
CHECKED: Final = 10
"""So many clients' endpoints are compared with the truth."""

MIB: Final = 1 << 20


class Point:
    """One fleet of a shape, measured."""

    def __init__(self, folder: Path, shape: shapes.Shape) -> None:
        self._folder = folder
        self._shape = shape
        self._found: dict[str, Any] = {"shape": dataclasses.asdict(shape)}
        _write_authority(folder, shape)

    def measured(self, changes: int) -> dict[str, Any]:
        """Return all that was found."""
        shape = self._shape.write()
        api = subject.helper("bench.scale.apiserver", shape, str(self._folder))
        place = f"127.0.0.1:{subject.PORT}"
        with api as servers, subject.helper("bench.scale.clients", shape, place) as clients:
            servers.hear()
            with self._running() as plane:
                self._start("cold", plane, clients.ask(act="sync", count=1)["synced_at"])
                clients.ask(act="rest", seconds=IDLE_S)
                alone = plane.memory()
                self._start("joined", plane, clients.ask(act="sync")["synced_at"])
                clients.ask(act="rest", seconds=IDLE_S)
                self._note_memory(plane, alone.pss)
                self._change(plane, servers, clients, changes)
                self._compare(clients)
            with self._running() as plane:
                self._start("restart", plane, clients.ask(act="drop")["synced_at"])
        return self._found

    @contextlib.contextmanager
    def _running(self) -> Iterator[subject.Subject]:
        plane = subject.Subject(self._folder, self._shape)
        try:
            yield plane
        except BaseException:
            log = (self._folder / "subject.log").read_text(encoding="utf-8")
            sys.stderr.write(log[-3000:])
            raise
        finally:
            plane.stop()

    def _start(self, name: str, plane: subject.Subject, synced: list[float]) -> None:
        self._found[name] = {
            "first_s": synced[0] - plane.began,
            "all_s": synced[-1] - plane.began,
            "cpu_s": plane.cpu_s(),
        }

    def _note_memory(self, plane: subject.Subject, alone_mib: float) -> None:
        held = plane.memory().pss
        more = max(1, self._shape.proxies - 1)
        self._found["memory"] = {
            "alone_mib": alone_mib,
            "pss_mib": held,
            "peak_mib": plane.peak_mib(),
            "proxy_kib": (held - alone_mib) * 1024 / more,
        }

    def _change(
        self, plane: subject.Subject, servers: subject.Helper, clients: subject.Helper, changes: int
    ) -> None:
        """Take a pod out of a service, and bring it back; the latter is what is waited for."""
        draw = random.Random(self._shape.seed)
        everyone = frozenset(range(self._shape.behind))
        delays_ms, used_s, lost = list[float](), 0.0, 0
        for _ in range(changes):
            cluster = draw.randrange(self._shape.clusters)
            service = draw.randrange(self._shape.services)
            pod = draw.randrange(self._shape.behind)
            where = {"cluster": cluster, "service": service}
            affected, marker = self._affected(cluster), shapes.pod(cluster, service, pod)
            servers.ask(**where, ready=sorted(everyone - {pod}))
            # What comes back before it was gone is no change, and nobody is told.
            name = f"outbound|80||{shapes.host(service)}"
            clients.ask(act="lack", marker=marker, name=name, count=self._shape.proxies)
            clients.ask(act="rest", seconds=PAUSE_S)
            before_s = plane.cpu_s()
            written = servers.ask(**where, ready=sorted(everyone))["written_ns"]
            seen = clients.ask(
                act="wait",
                marker=marker,
                count=affected,
                timeout_s=20.0,
            )["seen_ns"]
            clients.ask(act="rest", seconds=PAUSE_S)
            used_s += plane.cpu_s() - before_s
            lost += affected - len(seen)
            delays_ms += [(one - written) / 1e6 for one in seen]
        delays_ms.sort()
        told = sum(self._affected(cluster) for cluster in range(self._shape.clusters))
        self._found["changes"] = {
            "p50_ms": statistics.median(delays_ms),
            "p99_ms": delays_ms[int(len(delays_ms) * 0.99)],
            "max_ms": delays_ms[-1],
            "lost": lost,
            "cpu_ms": used_s / changes * 1000,
            "cpu_us_per_proxy": used_s / changes / (told / self._shape.clusters) * 1e6,
        }

    def _affected(self, cluster: int) -> int:
        """Return how many clients are told of a pod by its own address."""
        if self._shape.is_flat:
            return self._shape.proxies
        return len(range(cluster, self._shape.proxies, self._shape.clusters))

    def _compare(self, clients: subject.Helper) -> None:
        """Compare what clients have at the end with the truth."""
        draw = random.Random(self._shape.seed)
        services = draw.sample(range(self._shape.services), min(self._shape.services, 50))
        names = {f"outbound|80||{shapes.host(one)}": one for one in services}
        clients.ask(act="rest", seconds=1.0)
        held = clients.ask(act="held", clients=CHECKED, clusters=list(names))["held"]
        wrong = [
            (number, name)
            for number, found in enumerate(held)
            for name, service in names.items()
            if found[name] != self._truth(number % self._shape.clusters, service)
        ]
        self._found["wrong"] = wrong

    def _truth(self, cluster: int, service: int) -> list[str]:
        """Return what a proxy in a cluster must know of a service."""
        near = range(self._shape.clusters) if self._shape.is_flat else [cluster]
        far = set(range(self._shape.clusters)) - set(near)
        pods = [
            f"{shapes.pod(one, service, number)} 1"
            for one in near
            for number in range(self._shape.behind)
        ]
        return sorted(pods + [f"{shapes.gateway(one)} {self._shape.behind}" for one in far])


def _write_authority(folder: Path, shape: shapes.Shape) -> None:
    """Write the mesh's authority, one certificate for all API servers, and a kubeconfig."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    (folder / "ca").mkdir()
    for name, text in certificates.files(now=now).items():
        (folder / "ca" / name).write_text(text, encoding="utf-8")
    key = ec.generate_private_key(ec.SECP256R1())
    nobody = x509.Name([])
    hosts = [
        x509.IPAddress(ipaddress.ip_address(shapes.api_server(number)))
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
    secret = shapes.remote_secret(shape.names[0], address=shapes.api_server(0), authority=pem)
    (folder / "kubeconfig").write_bytes(base64.b64decode(secret["data"][shape.names[0]]))
