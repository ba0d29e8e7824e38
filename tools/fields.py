"""Writes docs/reference/fields.md: what becomes of each field of Istio's API, by trying it.

Each field of istio_fields.yaml is put into an object in a mesh of two clusters, which goes through
the real registry, views and resources. The field is

* obeyed, when some proxy is told something else and nothing is found wrong;
* reported, when there is a finding;
* silent, when neither: that would be a lie to its author, and a contract test forbids it.
"""

import copy
import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from isthmus.kube import objects
from isthmus.testing import builders, shapes

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "tools/istio_fields.yaml"
PAGE = ROOT / "docs/reference/fields.md"
BEGIN = "<!-- fields: written by tools/fields.py -->"
END = "<!-- end of fields -->"

TYPES = {
    "Gateway": objects.Gateway,
    "VirtualService": objects.FreeForm,
    "DestinationRule": objects.FreeForm,
    "ServiceEntry": objects.FreeForm,
    "PeerAuthentication": objects.PeerAuthentication,
    "AuthorizationPolicy": objects.FreeForm,
}
SOURCES = {
    "Gateway": "gateways",
    "VirtualService": "virtual_services",
    "DestinationRule": "destination_rules",
    "ServiceEntry": "service_entries",
    "PeerAuthentication": "peer_authentications",
    "AuthorizationPolicy": "authorization_policies",
}
BESIDE = {
    "Gateway": {
        "VirtualService": {
            "hosts": ["shop.example.com", "secure.example.com"],
            "gateways": ["istio-system/subject"],
            "http": [{"route": [{"destination": {"host": "web.default.svc.cluster.local"}}]}],
            "tls": [
                {
                    "match": [{"sniHosts": ["secure.example.com"]}],
                    "route": [{"destination": {"host": "secure.default.svc.cluster.local"}}],
                }
            ],
        }
    },
    "VirtualService": {
        "VirtualService": {
            "http": [{"route": [{"destination": {"host": "other.default.svc.cluster.local"}}]}]
        },
        "DestinationRule": {
            "host": "web",
            "subsets": [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")],
        },
        "Gateway": {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
                *(
                    {
                        "port": {"number": number, "name": f"tls-{number}", "protocol": "TLS"},
                        "hosts": ["*"],
                        "tls": {"mode": "PASSTHROUGH"},
                    }
                    for number in (9443, 9444)
                ),
            ],
        },
    },
}
"""Objects without which those of a kind would have no effect."""

OBEYED, REPORTED, SILENT = "obeyed", "reported", "silent"


@dataclass(frozen=True, slots=True)
class Row:
    """One field: what it is called, and objects without and with it."""

    kind: str
    name: str
    without: dict[str, Any]
    having: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a field, and what its author is told."""

    verdict: str
    said: str = ""


def rows() -> list[Row]:
    """Return all fields."""
    found = []
    for kind, part in yaml.safe_load(ROWS.read_text(encoding="utf-8")).items():
        for name, said in part["fields"].items():
            is_long = isinstance(said, Mapping) and "value" in said and said.keys() <= LONG
            more = said if is_long else {"value": said}
            without = copy.deepcopy(part["base"])
            for path, value in {**more.get("also", {}), **more.get("over", {})}.items():
                put(without, path, value)
            having = copy.deepcopy(without)
            put(having, more.get("at", name), more["value"])
            found.append(Row(kind, name, without, having))
    return found


LONG = {"at", "value", "also", "over"}


def put(spec: dict[str, Any], path: str, value: object) -> None:
    """Write a value at a path such as `servers[].port.number`."""
    place: Any = spec
    *way, last = path.split(".") if "topology" not in path else [path]
    for step in way:
        name, is_list = step.removesuffix("[]"), step.endswith("[]")
        place = place.setdefault(name, [{}] if is_list else {})
        place = place[0] if is_list else place
    place[last] = value


@functools.cache
def mesh_for(kind: str) -> builders.Mesh:
    """Return two joined clusters, with what objects of a kind need beside them."""
    mesh = builders.Mesh()
    for number in (1, 2):
        cluster = mesh.cluster(f"cluster{number}", network=f"network{number}")
        cluster.node(f"node{number}", region=f"region{number}", zone=f"zone{number}")
        shape = shapes.Shape(node=f"node{number}", labels={"version": f"v{number}", "app": "web"})
        ready = [f"10.{number}.0.1"]
        cluster.service("web", ready=ready, ports={"http": 80, "http-b": 81}, shape=shape)
        cluster.service("other", ready=[f"10.{number}.0.2"], ports={"http": 80, "http-b": 81})
        cluster.service("raw", ready=[f"10.{number}.0.3"], ports={"tcp": 9000, "tcp-b": 9001})
        cluster.service("rpc", ready=[f"10.{number}.0.5"], ports={"grpc": 90})
        cluster.service("secure", ready=[f"10.{number}.0.4"], ports={"tls": 443})
        cluster.gateway(external=f"1.1.1.{number}")
        cluster.pod("client", labels={"app": "client"})
        cluster.pod("stranger", namespace="elsewhere", labels={"app": "stranger"})
    mesh.clusters["cluster1"].gateway(
        "istio-ingressgateway",
        external="1.1.1.9",
        labels=builders.INGRESS,
        ports={"http": 80, "http-b": 8080, "tls": 9443, "tls-b": 9444},
    )
    for other, said in BESIDE.get(kind, {}).items():
        namespace = "default" if other == "DestinationRule" else builders.SYSTEM
        write(mesh, other, "shop", said, namespace=namespace)
    mesh.expose_services()
    return mesh


def write(
    mesh: builders.Mesh, kind: str, name: str, spec: Mapping[str, Any], *, namespace: str
) -> None:
    """Put an object in, decoded as the one that an API server sends."""
    document = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    object_ = msgspec.json.decode(json.dumps(document), type=TYPES[kind])
    key = mesh._home(namespace, name)  # noqa: SLF001
    mesh.put(getattr(mesh.sources, SOURCES[kind]), key, object_)


@functools.cache
def watched(kind: str) -> frozenset[str]:
    """Return the proxies that are looked at: one of each sort."""
    sorts = {
        (pod.namespace, pod.name.partition("-")[0], pod.proxy): pod for pod in mesh_for(kind).pods
    }
    return frozenset(pod.connection for pod in sorts.values() if pod.proxy is not None)


def trial(kind: str, spec: Mapping[str, Any]) -> tuple[dict[str, object], set[str]]:
    """Return all that proxies are told, and what is found wrong, with an object in the mesh."""
    mesh = mesh_for(kind)
    namespace = builders.SYSTEM if kind == "Gateway" else "default"
    write(mesh, kind, "subject", spec, namespace=namespace)
    told: dict[str, object] = {
        pod.connection: mesh.snapshot_of(pod)
        for pod in mesh.pods
        if pod.connection in watched(kind)
    }
    said = {
        f"{finding.happened}; {finding.still_working}"
        for node in (mesh.model.findings, mesh.views.findings)
        for finding in mesh.graph.items(node).values()
    }
    return told, said


@functools.cache
def _trial_of(kind: str, spec: str) -> tuple[dict[str, object], set[str]]:
    return trial(kind, json.loads(spec))


def outcome(row: Row) -> Outcome:
    """Try a field."""
    told_without, said_without = _trial_of(row.kind, json.dumps(row.without))
    told_having, said_having = trial(row.kind, row.having)
    said = said_having - said_without
    if said:
        return Outcome(REPORTED, min(said))
    return Outcome(OBEYED if told_without != told_having else SILENT)


def page(text: str, found: list[tuple[Row, Outcome]]) -> str:
    """Return the page brought up to date with what became of each field."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{_tables(found)}\n\n{END}{after}"


def _tables(found: list[tuple[Row, Outcome]]) -> str:
    parts = []
    for kind in TYPES:
        own = [(row, what) for row, what in found if row.kind == kind]
        obeyed = [f"`{row.name}`" for row, what in own if what.verdict == OBEYED]
        lines = [f"### {kind}", "", f"Obeyed: {', '.join(obeyed)}."]
        reported = [
            f"| `{row.name}` | {what.said.replace('|', '/')} |"
            for row, what in own
            if what.verdict == REPORTED
        ]
        if reported:
            lines += ["", "| not obeyed | what its author is told |", "|---|---|", *reported]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> int:
    """Bring the page up to date."""
    found = [(row, outcome(row)) for row in rows()]
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
