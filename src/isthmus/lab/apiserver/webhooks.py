"""Admission webhooks: one review, sent over HTTPS, and what its answer means.

It decides how a webhook is reached, trusted and understood, and how a failure is worded. It
refuses to know which webhooks are called: that is `matching` and `admission`.
"""

import asyncio
import base64
import binascii
import json
import ssl
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib import parse

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import backends, errors, patches, relay, reviews
from isthmus.lab.apiserver.values import AdmissionRequest, Obj

Connect = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to an address of the cluster's network."""

_USUAL_TIMEOUT_S = 10
_LARGEST_ANSWER = 16 << 20
_HTTPS = 443


class CallError(Exception):
    """The webhook could not be asked, or did not answer sensibly: its failure policy decides."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a webhook is: `url` as errors show it, `name` as its certificate must say."""

    url: str
    name: str
    host: str
    port: int
    target: str


class Caller:
    """Calls webhooks."""

    def __init__(self, api: apis.Api, *, connect: Connect | None = None) -> None:
        self._api = api
        self._connect = connect or asyncio.open_connection

    async def ask(self, webhook: Obj, request: AdmissionRequest) -> Obj:
        """Send a review and return the webhook's response.

        Raises:
            CallError: There is no sensible answer.
        """
        timeout_s = webhook.get("timeoutSeconds") or _USUAL_TIMEOUT_S
        review = _review(request)
        text = json.dumps(review).encode()
        url = _url(webhook["clientConfig"], timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._post(webhook["clientConfig"], url, text)
        except TimeoutError as error:
            raise _failed(url, "context deadline exceeded") from error
        except (OSError, relay.BrokenAnswerError, backends.NoBackendError) as error:
            raise _failed(url, _why(error)) from error
        return _response(answer, review["request"]["uid"])

    async def _post(self, client: Obj, url: str, text: bytes) -> bytes:
        place = await self._place(client, url)
        try:
            reader, writer = await self._connect(place.host, place.port)
        except OSError as error:
            raise OSError(f"dial tcp {place.host}:{place.port}: {_why(error)}") from error
        try:
            await writer.start_tls(_trust(client), server_hostname=place.name)
            headers = (
                ("Host", parse.urlsplit(url).netloc),
                ("Content-Type", "application/json"),
                ("Accept", "application/json"),
            )
            await relay.send(writer, method="POST", target=place.target, headers=headers, body=text)
            head = await relay.read_head(reader)
            answer = await relay.whole_body(
                reader, head, method="POST", limit_bytes=_LARGEST_ANSWER
            )
        finally:
            writer.close()
        if head.status != 200:
            shown = answer.decode(errors="replace").strip()
            raise CallError(
                f"an error on the server ({json.dumps(shown)}) has prevented the request from"
                f" succeeding"
                if head.status >= 500
                else f"the server rejected our request for an unknown reason: {head.status}"
            )
        return answer

    async def _place(self, client: Obj, url: str) -> _Place:
        parts = parse.urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}"
        host, port = parts.hostname or "", parts.port or _HTTPS
        service = client.get("service")
        if service is None:
            return _Place(url, host, host, port, target)
        backend = await backends.backend_of(
            self._api, namespace=service["namespace"], name=service["name"], port=port
        )
        return _Place(url, host, backend.address, backend.port, target)


def applied(webhook: Obj, request: AdmissionRequest, response: Obj) -> Obj:
    """Return the object after a webhook's patch, or raise its refusal.

    Raises:
        CallError: The patch cannot be applied.
    """
    if not response.get("allowed"):
        raise denial(webhook["name"], response.get("status") or {})
    patch = response.get("patch")
    if not patch:
        return request.obj
    if response.get("patchType") != "JSONPatch":
        raise CallError(f"unsupported patch type {response.get('patchType')!r}")
    try:
        operations = json.loads(base64.b64decode(patch, validate=True))
        changed = patches.operated(request.obj, operations)
    except (ValueError, binascii.Error, errors.ApiError) as error:
        raise CallError(f"unable to apply the patch: {error}") from error
    if not isinstance(changed, dict):
        raise CallError("the patch leaves no object")
    return changed


def denial(name: str, status: Obj) -> errors.ApiError:
    """Word a webhook's refusal."""
    text = f'admission webhook "{name}" denied the request'
    said = status.get("message") or status.get("reason")
    message = f"{text}: {said}" if said else f"{text} without explanation"
    code = max(400, status.get("code") or 0)
    return errors.ApiError(code, status.get("reason") or "", message, details=status.get("details"))


def failure(name: str, error: CallError) -> errors.ApiError:
    """Word the refusal of a write whose webhook fails and must not."""
    text = f'failed calling webhook "{name}": {error}'
    return errors.internal(f"Internal error occurred: {text}")


def supports_dry_run(webhook: Obj) -> bool:
    """Whether the webhook may be asked when nothing is to be written."""
    return webhook.get("sideEffects") in {"None", "NoneOnDryRun"}


def _url(client: Obj, timeout_s: int) -> str:
    service = client.get("service")
    if service is None:
        base = str(client.get("url", ""))
    else:
        port, path = service.get("port") or _HTTPS, (service.get("path") or "").lstrip("/")
        base = f"https://{service['name']}.{service['namespace']}.svc:{port}/{path}"
    return f"{base}{'&' if '?' in base else '?'}timeout={timeout_s}s"


def _trust(client: Obj) -> ssl.SSLContext:
    bundle = client.get("caBundle")
    try:
        pem = base64.b64decode(bundle).decode() if bundle else None
        context = ssl.create_default_context(cadata=pem)
    except (ValueError, ssl.SSLError) as error:
        raise CallError("unable to load root certificates: unable to parse bytes as PEM") from error
    # Newer interpreters refuse certificates that Kubernetes accepts.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _review(request: AdmissionRequest) -> Obj:
    group, version = request.group, request.version
    kind = {"group": group, "version": version, "kind": request.kind}
    resource = {"group": group, "version": version, "resource": request.resource}
    asked: dict[str, Any] = {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "operation": request.operation,
        "userInfo": reviews.user_info(request.user),
        "object": request.obj or None,
        "oldObject": request.old or None,
        "dryRun": request.dry_run,
        "options": request.options or None,
    }
    optional = {
        "name": request.name,
        "namespace": request.namespace,
        "subResource": request.subresource,
        "requestSubResource": request.subresource,
    }
    asked |= {key: value for key, value in optional.items() if value}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}


def _response(answer: bytes, uid: str) -> Obj:
    try:
        review = json.loads(answer)
    except ValueError as error:
        raise CallError(f"received invalid webhook response: {error}") from error
    response = review.get("response") if isinstance(review, dict) else None
    if not isinstance(response, dict):
        raise CallError("webhook response was absent")
    if review.get("apiVersion") != "admission.k8s.io/v1":
        raise CallError(
            "received invalid webhook response: expected webhook response of"
            f" admission.k8s.io/v1, Kind=AdmissionReview, got {review.get('apiVersion')}"
        )
    if response.get("uid") != uid:
        raise CallError(
            f'received invalid webhook response: expected response.uid="{uid}",'
            f' got "{response.get("uid")}"'
        )
    return response


def _failed(url: str, why: str) -> CallError:
    return CallError(f'failed to call webhook: Post "{url}": {why}')


def _why(error: Exception) -> str:
    """Say what went wrong on the way in the words that operators search for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {_certificate_fault(error)}"
    if isinstance(error, ssl.SSLError):
        return f"remote error: tls: {(error.reason or 'handshake failure').lower()}"
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return str(error) or type(error).__name__


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message
    if "mismatch" in said:
        return f"certificate is not valid: {said}"
    if "expired" in said or "not yet valid" in said:
        return f"certificate has expired or is not yet valid: {said}"
    return "certificate signed by unknown authority"
