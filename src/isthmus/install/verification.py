"""What real requests between clusters have shown, and what is wrong when they have not.

Decides from observations alone; it sends nothing.

    Observations (answers, log lines of proxies, gateways' addresses) → Report
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from isthmus.base import errors

HEADER = "x-isthmus-verify"
"""Requests with this header leave a line in the log of each proxy on their way."""

MARK = "isthmus_verify"
OK = 200
ENOUGH = 16
"""Requests from which on it means something that a cluster has answered none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that a client got; `status` 0 when there was none."""

    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Passage:
    """What one proxy logged of one request."""

    request: str
    is_source: bool
    upstream: str = ""
    peer: str = ""
    sni: str = ""
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """A pod that may answer."""

    cluster: str
    pod: str
    version: str
    address: str


@dataclass(frozen=True, slots=True)
class Observation:
    """All that was seen of the requests from one cluster.

    Attributes:
        passages: What the client's own proxy logged.
        arrivals: By pod, what the proxies of destinations logged.
        plaintext: By gateway address, whether it answered a request in plain text.
        fault: Why nothing could be sent; empty when something was.
        prefers_near: Whether other clusters answer only when the own one cannot.
    """

    source: str
    answers: tuple[Answer, ...] = ()
    passages: tuple[Passage, ...] = ()
    arrivals: tuple[tuple[str, Passage], ...] = ()
    plaintext: tuple[tuple[str, bool], ...] = ()
    fault: str = ""
    hint: str = ""
    prefers_near: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Requests from one cluster that one pod has answered.

    Attributes:
        cluster: Empty for answers of pods that nobody has named a cluster of.
    """

    source: str
    cluster: str
    version: str
    pod: str
    answers: int
    share: float
    path: str
    callers: tuple[str, ...]
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; it is well when there are no findings."""

    rows: tuple[Row, ...]
    findings: tuple[errors.Finding, ...]
    requests: int
    refused_plaintext: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether every request was answered as it should be."""
        return not self.findings

    @property
    def elsewhere(self) -> int:
        """How many requests were answered by pods that nobody looked at."""
        return sum(row.answers for row in self.rows if not row.cluster)


def passage_of(line: str, nonce: str) -> Passage | None:
    """Read a proxy's log line about one of our requests; None when it is about something else."""
    if MARK not in line:
        return None
    try:
        entry = json.loads(line[line.index("{") :])
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get(MARK) != nonce:
        return None
    return Passage(
        request=_text(entry, "request_id"),
        is_source=entry.get("reporter") == "source",
        upstream=_text(entry, "upstream_host"),
        peer=_text(entry, "peer"),
        sni=_text(entry, "requested_server_name"),
        tls=_text(entry, "tls_version"),
    )


def _text(entry: Mapping[str, object], key: str) -> str:
    value = entry.get(key)
    return "" if value in {None, "-"} else str(value)


def report(
    observations: Sequence[Observation],
    *,
    destinations: Sequence[Destination],
    gateways: Mapping[str, str],
) -> Report:
    """Judge what was seen.

    Args:
        observations: What was seen, one from each cluster.
        destinations: The pods that may answer.
        gateways: External address of each east-west gateway, and its cluster.
    """
    rows: list[Row] = []
    findings: list[errors.Finding] = []
    for seen in observations:
        if seen.fault:
            findings.append(errors.Finding("ISM-CLI-010", seen.source, seen.fault, hint=seen.hint))
            continue
        own = _rows(seen, destinations, gateways)
        rows += own
        findings += _findings(seen, own, destinations)
    refused = {
        address
        for seen in observations
        for address, was_answered in seen.plaintext
        if not was_answered
    }
    return Report(
        tuple(rows),
        tuple(findings),
        sum(len(seen.answers) for seen in observations),
        tuple(sorted(refused)),
    )


def _rows(
    seen: Observation, destinations: Sequence[Destination], gateways: Mapping[str, str]
) -> list[Row]:
    upstreams = {passage.request: passage.upstream for passage in seen.passages}
    rows = []
    for destination in destinations:
        count = sum(1 for answer in seen.answers if destination.pod in answer.body)
        if not count:
            continue
        arrivals = [passage for pod, passage in seen.arrivals if pod == destination.pod]
        paths = Counter(_path(upstreams.get(p.request, ""), gateways) for p in arrivals)
        rows.append(
            Row(
                source=seen.source,
                cluster=destination.cluster,
                version=destination.version,
                pod=destination.pod,
                answers=count,
                share=count / max(1, len(seen.answers)),
                path=paths.most_common(1)[0][0] if paths else "not seen",
                callers=tuple(sorted({passage.peer or "nobody" for passage in arrivals})),
                encrypted=bool(arrivals) and all(passage.tls for passage in arrivals),
            )
        )
    others = sum(1 for answer in seen.answers if answer.status == OK) - sum(
        row.answers for row in rows
    )
    return [*rows, _elsewhere(seen, others)] if others > 0 else rows


def _elsewhere(seen: Observation, count: int) -> Row:
    share = count / len(seen.answers)
    return Row(seen.source, "", "", "elsewhere", count, share, "not seen", (), encrypted=False)


def _path(upstream: str, gateways: Mapping[str, str]) -> str:
    address = upstream.rpartition(":")[0]
    if not address:
        return "not seen"
    return f"gateway {upstream}" if address in gateways else "direct"


def _findings(
    seen: Observation, rows: Sequence[Row], destinations: Sequence[Destination]
) -> Iterator[errors.Finding]:
    failures = Counter(answer.status for answer in seen.answers if answer.status != OK)
    for status, count in sorted(failures.items()):
        yield _failed(seen, status, count)
    answered = {row.cluster for row in rows}
    expected = {destination.cluster for destination in destinations}
    # Balancing is by chance: few requests may well all go to one cluster.
    # Where nobody answers, what is wrong has been said already.
    is_telling = bool(answered) and len(seen.answers) >= ENOUGH and not seen.prefers_near
    silent = expected - answered if is_telling else set[str]()
    for cluster in sorted(silent):
        yield errors.Finding(
            "ISM-CLI-012",
            seen.source,
            f"no answer came from `{cluster}`, which has ready pods of the service",
            hint=(
                "isthmus remote-clusters shows whether it is watched; "
                "kubectl -n istio-system get svc istio-eastwestgateway, whether its "
                "gateway has an address; expose-services.yaml must be applied"
            ),
        )
    for row in rows:
        if row.cluster and not row.encrypted:
            yield errors.Finding(
                "ISM-CLI-013",
                seen.source,
                f"requests reach `{row.pod}` in `{row.cluster}` without proof of mutual TLS",
                hint="check that the pod has a proxy: isthmus proxy-status",
            )
    for address, was_answered in seen.plaintext:
        if was_answered:
            yield errors.Finding(
                "ISM-CLI-014",
                seen.source,
                f"the gateway at {address} answered a request in plain text",
                hint="no server of a Gateway on port 15443 may be other than AUTO_PASSTHROUGH",
            )


def _failed(seen: Observation, status: int, count: int) -> errors.Finding:
    reasons = {
        0: (
            "got no answer",
            "a destination is out of reach, or the name is not known there: isthmus findings; "
            "kubectl get svc in that cluster",
        ),
        503: (
            "were answered 503 by the proxy",
            "different roots or no healthy endpoint: isthmus proxy-status, "
            "kubectl logs of container istio-proxy",
        ),
    }
    happened, hint = reasons.get(status, (f"were answered {status}", "see the client proxy's log"))
    example = next((a.body for a in seen.answers if a.status == status and a.body), "")
    return errors.Finding(
        "ISM-CLI-011",
        seen.source,
        f"{count} of {len(seen.answers)} requests {happened}"
        + (f": {example.strip()[:120]}" if example else ""),
        hint=hint,
    )
