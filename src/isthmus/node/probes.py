"""The application's own probes, asked by the agent on behalf of the kubelet.

The kubelet cannot reach an application that accepts only mesh traffic, so the injector points its
probes here. The agent asks from the address that packet rules let pass.

Source: spec section 5.3 (`ISTIO_KUBE_APP_PROBERS`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.base import logs
from isthmus.node import durations, pages

PREFIX = "/app-health/"
SOURCE = "127.0.0.6"
USUAL_DEADLINE_S = 1

_LOG = logs.Log("isthmus.probes")


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of the application.

    Attributes:
        path: What to get; None only to connect.
    """

    host: str
    port: int
    path: str | None
    tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float = USUAL_DEADLINE_S


def of(documents: Mapping[str, object], *, address: str) -> dict[str, Probe]:
    """Read the probes that the injector took from the pod, by the path they are asked under.

    Raises:
        SettingRefused: One of them has a form that is not understood (ISM-NODE-002).
    """
    return {path: _probe(path, document, address) for path, document in documents.items()}


def _probe(path: str, document: object, address: str) -> Probe:
    if isinstance(document, dict):
        deadline_s = float(document.get("timeoutSeconds") or USUAL_DEADLINE_S)
        http = document.get("httpGet")
        tcp = document.get("tcpSocket")
        if isinstance(http, dict) and str(http.get("port", "")).isdigit():
            return Probe(
                host=str(http.get("host") or address),
                port=int(http["port"]),
                path="/" + str(http.get("path") or "").removeprefix("/"),
                tls=http.get("scheme") == "HTTPS",
                headers={
                    str(header["name"]): str(header["value"])
                    for header in http.get("httpHeaders") or ()
                },
                deadline_s=deadline_s,
            )
        if isinstance(tcp, dict) and str(tcp.get("port", "")).isdigit():
            host = str(tcp.get("host") or address)
            return Probe(host=host, port=int(tcp["port"]), path=None, deadline_s=deadline_s)
    raise durations.SettingRefused(
        f"probe is not understood: `{path}`",
        hint="probes with httpGet and tcpSocket are, with the port as a number",
    )


async def asked(probe: Probe) -> pages.Answer:
    """Ask the application; whatever it answers is the answer."""
    try:
        if probe.path is None:
            await pages.connect(
                probe.host, port=probe.port, source=SOURCE, deadline_s=probe.deadline_s
            )
            return pages.Answer(200)
        found = await pages.ask(
            pages.Question(
                probe.host,
                probe.port,
                probe.path,
                headers=probe.headers,
                source=SOURCE,
                tls=probe.tls,
                deadline_s=probe.deadline_s,
            )
        )
    except pages.NoAnswer as error:
        _LOG.debug("application does not answer its probe", port=probe.port, reason=error.detail)
        return pages.Answer(503, error.happened.encode())
    return pages.Answer(found.status)
