"""Asks running control planes and proxies, by running their own request program in their pods.

Goes through the API server of the user's context, so that whoever may run commands in a pod may
ask it, and nobody else; no port is opened for it.

Source: spec sections 2.6 and 9.2.

    IsthmusError
    ├── NobodyAsked
    │   └── NotConnected
    ├── NotUnderstood
    └── Declined
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from isthmus.base import errors
from isthmus.kube import client as kube_client
from isthmus.kube import kinds, problems

CONTROL_PLANE: Final = (
    ("isthmus-discovery",),
    ("python", "-m", "isthmus.runtime"),
    ("pilot-discovery",),
)
"""What answers for a control plane, under the names that its images give it."""

PROXY: Final = (("pilot-agent",), ("python", "-m", "isthmus.node"))
"""What answers for a proxy."""

NOT_FOUND: Final = frozenset({126, 127})
"""Exit codes that say that there is no such program."""


class NobodyAsked(errors.IsthmusError):
    """There is no running pod to ask, or none of them can be asked."""

    code = "ISM-WIRE-002"


class NobodyRuns(NobodyAsked):
    """There is no running pod of a control plane."""


DECLINED: Final = re.compile(r"(?P<happened>.+) \((?P<code>ISM-[A-Z]+-\d{3})\)")
"""How the first line of a page ends that says why there is no other."""

NOT_CONNECTED: Final = "Proxy not connected to this"
"""How a control plane's page begins about a proxy that it does not have."""


class NotUnderstood(errors.IsthmusError):
    """A pod answered with something else than was asked for."""

    code = "ISM-WIRE-003"


class NotConnected(NobodyAsked):
    """A control plane answers, but this proxy is not connected to it."""


class Declined(errors.IsthmusError):
    """A control plane answers that a question cannot be answered as it is put.

    It has the code that the control plane gives.
    """

    code = "ISM-WIRE-005"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one control plane said.

    Attributes:
        istiod: Name of its pod.
        revision: Which revision it is.
        document: Its answer, as JSON says it.
    """

    istiod: str
    revision: str
    document: Any


async def control_planes(client: kube_client.Client, path: str, *, namespace: str) -> list[Answer]:
    """Ask every running control plane in `namespace` for a page.

    Raises:
        NobodyAsked: None is running (ISM-WIRE-002).
        NotUnderstood: One answered with no JSON (ISM-WIRE-003).
    """
    found = []
    for pod in await _running(client, namespace):
        metadata = pod["metadata"]
        document = await asked(
            client, path, namespace=namespace, pod=metadata["name"], programs=CONTROL_PLANE
        )
        labels = metadata.get("labels") or {}
        found.append(Answer(metadata["name"], str(labels.get("istio.io/rev", "")), document))
    return found


async def about_proxy(client: kube_client.Client, path: str, *, namespace: str) -> Any:  # noqa: ANN401  # a JSON document
    """Ask one control plane after the other about a proxy, until one knows it.

    Raises:
        NobodyAsked: None is running, or the proxy is connected to none (ISM-WIRE-002).
        NotUnderstood: One answered with no JSON (ISM-WIRE-003).
        Declined: One says why there is no answer to this.
    """
    refused: NobodyAsked | None = None
    for pod in await _running(client, namespace):
        name = pod["metadata"]["name"]
        try:
            return await asked(client, path, namespace=namespace, pod=name, programs=CONTROL_PLANE)
        except NobodyAsked as error:
            refused = error
    assert refused is not None  # there was at least one to ask
    raise refused


async def _running(client: kube_client.Client, namespace: str) -> list[kube_client.Obj]:
    pods = await client.list_(kinds.POD, namespace=namespace, labels="app=istiod")
    running = [pod for pod in pods if is_running(pod)]
    if not running:
        found, hint = "there is no pod with the label `app=istiod`", "`isthmus install` makes one"
        if pods:
            found = f"{len(pods)} pods with the label `app=istiod`, none of them running"
            hint = f"look at the pods: kubectl get pods -n {namespace} -l app=istiod"
        raise NobodyRuns(
            f"no control plane is running in namespace `{namespace}`",
            detail=found,
            still_working="proxies keep their last configuration",
            hint=f"{hint}; where it runs in another cluster, name that with --context or "
            "--control-plane-context",
        )
    return sorted(running, key=lambda each: str(each["metadata"]["name"]))


async def asked(
    client: kube_client.Client,
    path: str,
    *,
    namespace: str,
    pod: str,
    programs: Sequence[Sequence[str]],
    container: str = "",
) -> Any:  # noqa: ANN401  # a JSON document
    """Ask one pod for a page, through the first of `programs` that it has.

    Raises:
        NobodyAsked: The pod has none of them (ISM-WIRE-002).
        NotUnderstood: It answered with no JSON (ISM-WIRE-003).
    """
    content = await text(
        client, path, namespace=namespace, pod=pod, programs=programs, container=container
    )
    return parsed(content, pod=f"{namespace}/{pod}")


async def text(  # noqa: PLR0913  # each argument is one of the question's own
    client: kube_client.Client,
    path: str,
    *,
    namespace: str,
    pod: str,
    programs: Sequence[Sequence[str]],
    container: str = "",
    method: str = "GET",
) -> str:
    """Ask one pod for a page that need not be JSON.

    Raises:
        NobodyAsked: The pod has none of `programs`, or refuses (ISM-WIRE-002).
        Declined: It says why there is no answer to this.
    """
    reason = ""
    for program in programs:
        argv = [*program, "request", method, path]
        try:
            result = await client.exec(namespace, pod, argv, container=container)
        except problems.ApiError as error:
            reason = error.message
            continue
        if result.code == 0:
            return result.stdout.decode(errors="replace")
        shown = result.stdout.decode(errors="replace").strip()
        _raise_if_told(shown, pod=f"{namespace}/{pod}")
        reason = result.stderr.decode(errors="replace").strip() or shown
        reason = reason or f"exit code {result.code}"
        if result.code not in NOT_FOUND:
            break
    raise NobodyAsked(
        f"cannot ask pod `{namespace}/{pod}`",
        detail=reason[:500],
        hint="check that the pod is running and that you may run commands in it",
    )


def _raise_if_told(shown: str, *, pod: str) -> None:
    """Raise what a control plane tells of its own accord, and not as a program that failed."""
    if shown.startswith(NOT_CONNECTED):
        raise NotConnected(
            f"the proxy is not connected to control plane `{pod}`",
            still_working="a proxy that was connected keeps its last configuration",
            hint="which are: isthmus proxy-status; another cluster's control plane is named with "
            "--control-plane-context",
        )
    first, *rest = shown.splitlines() or [""]
    if told := DECLINED.fullmatch(first):
        hint = rest.pop().removeprefix("hint: ") if rest and rest[-1].startswith("hint: ") else ""
        declined = Declined(told["happened"], detail="\n".join(rest), hint=hint)
        declined.code = told["code"]
        raise declined


def is_running(pod: kube_client.Obj) -> bool:
    """Tell whether commands can run in a pod."""
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def parsed(content: str, *, pod: str) -> Any:  # noqa: ANN401  # a JSON document
    """Return the JSON that a pod answered with.

    Raises:
        NotUnderstood: It is none (ISM-WIRE-003).
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise NotUnderstood(f"pod `{pod}` answered with no JSON", detail=content[:200]) from error
