"""Tokens of a pod's service account: asked for when needed, kept until they get old.

Decides when a token is replaced: after four fifths of its life, as Kubernetes does. Refuses to
know who signs them.
"""

from typing import Any

from isthmus.base import clock
from isthmus.lab.apiserver import api as apis

Obj = dict[str, Any]

RENEW_AT = 0.8
_EARLY_S = 1.0


class Tokens:
    """The tokens of one pod, each bound to it: they end with the pod."""

    def __init__(self, pod: Obj, api: apis.Api, system_clock: clock.Clock) -> None:
        self._pod = pod
        self._api = api
        self._clock = system_clock
        self._kept: dict[tuple[str, int], tuple[str, float]] = {}

    async def issue(self, audience: str, life_s: int) -> str:
        """Return a token that is not old.

        Args:
            audience: Whom it is for; empty for the API server.
            life_s: How many seconds it is to live.
        """
        kept = self._kept.get((audience, life_s))
        moment = self._clock.monotonic()
        if kept is not None and moment < kept[1]:
            return kept[0]
        answer = await self._api.create(
            "serviceaccounts", self._request(audience, life_s), subresource="token"
        )
        token = str(answer["status"]["token"])
        self._kept[audience, life_s] = (token, moment + life_s * RENEW_AT - _EARLY_S)
        return token

    def _request(self, audience: str, life_s: int) -> Obj:
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        bound = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": metadata["namespace"]},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": life_s,
                "boundObjectRef": bound,
            },
        }
