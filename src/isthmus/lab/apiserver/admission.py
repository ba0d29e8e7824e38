"""Admission: what every write passes before it is stored.

It decides the order: what the cluster itself changes, then mutating webhooks, once more where
they ask for it, then validating ones. It refuses to know how a webhook is called.
"""

import asyncio
import dataclasses

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import copying, errors, identities, labels, matching, mirrors, webhooks
from isthmus.lab.apiserver.values import AdmissionRequest, Obj

_MUTATING = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
_VALIDATING = "validatingwebhookconfigurations.admissionregistration.k8s.io"
_FOREVER = frozenset({"default", "kube-system", "kube-public"})


class Admission:
    """Changes or refuses writes."""

    def __init__(
        self, api: apis.Api, follow: mirrors.Mirrors, *, connect: webhooks.Connect | None = None
    ) -> None:
        self._api = api
        self._identities = identities.Identities(api, follow)
        self._caller = webhooks.Caller(api, connect=connect)

    async def admit(self, request: AdmissionRequest) -> Obj:
        """Return the object to store, or raise why not."""
        namespace_labels = await self._check_namespace(request)
        mutating = self._hearing(_MUTATING, request, namespace_labels)
        request = await self._mutated(request, mutating)
        validating = self._hearing(_VALIDATING, request, namespace_labels)
        await self._validate(request, validating)
        return request.obj

    async def _check_namespace(self, request: AdmissionRequest) -> dict[str, str]:
        """Refuse new objects in namespaces that end; return the namespace's labels."""
        is_namespace = request.resource == "namespaces" and not request.group
        if is_namespace and request.operation == "DELETE" and request.name in _FOREVER:
            raise errors.forbidden(
                f'namespaces "{request.name}" is forbidden: this namespace may not be deleted',
                resource="namespaces",
                name=request.name,
            )
        if is_namespace or not request.namespace:
            return {}
        try:
            found = await self._api.get("namespaces", request.namespace)
        except errors.ApiError:
            if request.operation == "CREATE":
                raise
            return {}
        if request.operation == "CREATE" and "deletionTimestamp" in found["metadata"]:
            raise _terminating(request)
        return dict(labels.labels_of(found))

    def _hearing(
        self, resource: str, request: AdmissionRequest, namespace_labels: dict[str, str]
    ) -> list[Obj]:
        """Return the webhooks that hear of `request`, ordered by their configurations' names."""
        return [
            webhook
            for entry in self._api.state.store.entries(resource)
            for webhook in entry.obj.get("webhooks") or ()
            if matching.hears(webhook, request, namespace_labels)
        ]

    async def _mutated(self, request: AdmissionRequest, hearing: list[Obj]) -> AdmissionRequest:
        request = await self._identities.completed(request)
        again: set[int] = set()
        called: list[int] = []
        touched = False
        for index, webhook in enumerate(hearing):
            changed = await self._called(webhook, request)
            if changed is not request:
                touched = True
                again.update(called)
                request = changed
            if webhook.get("reinvocationPolicy") == "IfNeeded":
                called.append(index)
        if not touched:
            return request
        # Whoever changed the object may have added what the cluster itself completes, such as a
        # container that lacks the account's token.
        completed = await self._identities.completed(request)
        if completed.obj != request.obj:
            again.update(called)
        request = completed
        for index in sorted(again):
            request = await self._called(hearing[index], request)
        return request

    async def _called(self, webhook: Obj, request: AdmissionRequest) -> AdmissionRequest:
        """Return the request as one mutating webhook leaves it; the same one if unchanged."""
        response = await self._asked(webhook, request)
        if response is None:
            return request
        try:
            changed = webhooks.applied(webhook, request, response)
        except webhooks.CallError as error:
            self._tolerate(webhook, error)
            return request
        if changed == request.obj:
            return request
        return dataclasses.replace(request, obj=changed)

    async def _validate(self, request: AdmissionRequest, hearing: list[Obj]) -> None:
        """Ask all validating webhooks at once; the first refusal in their order counts."""
        if not hearing:
            return
        outcomes: dict[int, errors.ApiError] = {}

        async def ask(index: int, webhook: Obj) -> None:
            frozen = dataclasses.replace(request, obj=copying.copied(request.obj))
            try:
                response = await self._asked(webhook, frozen)
            except errors.ApiError as error:
                outcomes[index] = error
                return
            if response is not None and not response.get("allowed"):
                outcomes[index] = webhooks.denial(webhook["name"], response.get("status") or {})

        async with asyncio.TaskGroup() as group:
            for index, webhook in enumerate(hearing):
                group.create_task(ask(index, webhook))
        if outcomes:
            raise outcomes[min(outcomes)]

    async def _asked(self, webhook: Obj, request: AdmissionRequest) -> Obj | None:
        """Return a webhook's response, or None when it fails and that is tolerated."""
        if request.dry_run and not webhooks.supports_dry_run(webhook):
            raise errors.bad_request(
                f'admission webhook "{webhook["name"]}" does not support dry run'
            )
        try:
            return await self._caller.ask(webhook, request)
        except webhooks.CallError as error:
            self._tolerate(webhook, error)
            return None

    def _tolerate(self, webhook: Obj, error: webhooks.CallError) -> None:
        if webhook.get("failurePolicy", "Fail") != "Ignore":
            raise webhooks.failure(webhook["name"], error) from error


def _terminating(request: AdmissionRequest) -> errors.ApiError:
    error = errors.forbidden(
        f'{request.resource} "{request.name}" is forbidden: unable to create new content in'
        f" namespace {request.namespace} because it is being terminated",
        resource=request.resource,
        name=request.name,
        group=request.group,
    )
    error.details["causes"] = [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {request.namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    return error
