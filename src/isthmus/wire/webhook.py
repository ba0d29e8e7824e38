"""The webhook that API servers ask about new pods: one review in, one answer out.

Every review that can be read is answered with a review, whatever is in the pod; what a pod gets
is decided by `inject`. The TLS around this is the runtime's.

Source: spec section 5.2; security rules of section 5.5.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from isthmus.base import logs, metrics
from isthmus.inject import requests, shapes
from isthmus.wire import pages

MOST_BYTES: Final = 3 * 1024 * 1024
MOST_LEVELS: Final = 64
GROUP: Final = "admission.k8s.io/"
VERSIONS: Final = (f"{GROUP}v1", f"{GROUP}v1beta1")

_LOG = logs.Log("isthmus.webhook")


class ReviewRefused(Exception):  # noqa: N818  # it is answered with a status, it is no fault of ours
    """What came is no review."""


@dataclass(frozen=True, slots=True)
class Review:
    """What an API server asks.

    Attributes:
        version: The version of the review, which the answer must have too.
        subject: Namespace and name of the pod, as far as it has one yet.
    """

    version: str
    uid: str
    namespace: str
    subject: str
    pod: shapes.Obj


class Counters:
    """What Istio's own metrics count about injection."""

    def __init__(self, registered: metrics.Metrics) -> None:
        count = registered.counter
        self.requests = count("sidecar_injection_requests_total", "Pods that were asked about.")
        self.success = count("sidecar_injection_success_total", "Pods that got a proxy.")
        self.failure = count("sidecar_injection_failure_total", "Pods that could not get one.")
        self.skip = count("sidecar_injection_skip_total", "Pods that need none.")


class Webhook:
    """Answers reviews with what `injector` decides."""

    def __init__(
        self,
        injector: requests.Injector,
        *,
        unready: Callable[[], str] = lambda: "",
        registered: metrics.Metrics | None = None,
    ) -> None:
        self._inject = injector
        self._unready = unready
        self.counters = Counters(registered or metrics.Metrics())

    def application(self) -> web.Application:
        """Return the pages: `/inject` with all below it, and `/ready`."""
        application = web.Application(client_max_size=MOST_BYTES)
        application.router.add_get("/ready", pages.ready_page(self._unready))
        application.router.add_post("/inject", self._review)
        application.router.add_post("/inject/{parameters:.*}", self._review)
        return application

    async def _review(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="send application/json")
        try:
            review = parse(await request.read())
        except ReviewRefused as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response(self.answer(review, path=request.path))

    def answer(self, review: Review, *, path: str) -> dict[str, Any]:
        """Answer one review."""
        self.counters.requests.add()
        try:
            made = self._inject(review.pod, namespace=review.namespace, path=path)
        except shapes.InjectionRefused as error:
            hint = f"; hint: {error.hint}" if error.hint else ""
            return self._refusal(review, f"{error.happened}{hint}")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            # Whatever a pod may hold, its API server must get an answer that names the pod.
            return self._refusal(
                review, f"the pod has a form that no pod has: {type(error).__name__}"
            )
        if made is None:
            return self._refusal(review, "the injector has no settings yet; hint: try again")
        if not made.decision.is_injected:
            self.counters.skip.add()
            return _review(review, {"allowed": True})
        self.counters.success.add()
        _LOG.info("pod gets a proxy", pod=review.subject, rule=made.decision.value)
        patch = base64.b64encode(json.dumps(made.patch).encode()).decode()
        return _review(review, {"allowed": True, "patch": patch, "patchType": "JSONPatch"})

    def _refusal(self, review: Review, reason: str) -> dict[str, Any]:
        self.counters.failure.add()
        _LOG.warning("pod cannot get a proxy", pod=review.subject, reason=reason)
        message = f"error[{shapes.InjectionRefused.code}]: pod `{review.subject}`: {reason}"
        return _review(review, {"allowed": False, "status": {"message": message, "code": 400}})


def application(
    injector: requests.Injector,
    *,
    unready: Callable[[], str] = lambda: "",
    registered: metrics.Metrics | None = None,
) -> web.Application:
    """Return the webhook's pages; `unready` says why it cannot serve yet, or nothing."""
    return Webhook(injector, unready=unready, registered=registered).application()


def parse(content: bytes) -> Review:
    """Read a review.

    Raises:
        ReviewRefused: It is none.
    """
    if not content:
        raise ReviewRefused("no body found")
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ReviewRefused("the body is no JSON") from error
    if not _is_shallow(document):
        raise ReviewRefused(f"the body is nested more than {MOST_LEVELS} levels deep")
    if not isinstance(document, dict) or document.get("apiVersion") not in VERSIONS:
        raise ReviewRefused(f"the body is no AdmissionReview of {' or '.join(VERSIONS)}")
    request = document.get("request")
    if not isinstance(request, dict):
        raise ReviewRefused("the review asks nothing")
    pod = request.get("object")
    pod = pod if isinstance(pod, dict) else {}
    metadata = pod.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace = str(request.get("namespace") or metadata.get("namespace") or "")
    name = request.get("name") or metadata.get("name") or metadata.get("generateName") or "?"
    return Review(
        str(document["apiVersion"]),
        str(request.get("uid") or ""),
        namespace,
        f"{namespace}/{name}"[:320],
        pod,
    )


def _is_shallow(document: object) -> bool:
    level: list[object] = [document]
    for _ in range(MOST_LEVELS):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
        if not below:
            return True
        level = below
    return False


def _review(review: Review, response: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": review.version,
        "kind": "AdmissionReview",
        "response": {"uid": review.uid, **response},
    }
