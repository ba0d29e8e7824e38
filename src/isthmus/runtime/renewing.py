"""Renews the short-lived tokens in remote secrets before anybody must think of it.

At half of a token's life the leader asks that cluster for another one, with the token that it
still holds, bound to the same object; and writes it into the remote secret, if that is unchanged.
From there it is a rotation like any other. Only secrets that say so are renewed; a failure is a
finding, and tried again.

Source: security rule RS-3; docs/decisions/0011-who-renews-a-remote-token.md.
"""

import base64
import hashlib
from collections.abc import Callable

from isthmus.base import clock, errors, logs
from isthmus.fleet import members, rotating, supervisor, tokens
from isthmus.kube import client, kinds

_LOG = logs.Log("isthmus.renewing")
LOOK_S = 30.0
NOT_RENEWED = "ISM-FLEET-019"


class Renewal:
    """Renews tokens while we lead."""

    def __init__(self, fleet: supervisor.Supervisor, *, system_clock: clock.Clock) -> None:
        self._fleet = fleet
        self._clock = system_clock
        self._failures: dict[str, errors.Finding] = {}

    def findings(self) -> list[errors.Finding]:
        """Name the tokens that could not be renewed."""
        return [found for _, found in sorted(self._failures.items())]

    async def run(self, _: client.Client, may_write: Callable[[], bool]) -> None:
        """Renew until cancelled; to be run by the leader only."""
        try:
            while True:
                await self._look(may_write)
                await self._clock.sleep(LOOK_S)
        finally:
            self._failures.clear()

    async def _look(self, may_write: Callable[[], bool]) -> None:
        links = self._fleet.links()
        followed = {link.cluster for link in links}
        for cluster in [one for one in self._failures if one not in followed]:
            del self._failures[cluster]
        for link in links:
            token = tokens.read(link.wanted.reached_by.token)
            if not (token.secret and tokens.is_due(token, now=self._clock.now())):
                self._failures.pop(link.cluster, None)
                continue
            try:
                renewed = await self._renew(link, token, may_write)
            except errors.IsthmusError as error:
                self._failed(link, error)
                continue
            self._failures.pop(link.cluster, None)
            if renewed is not None:
                _LOG.info(
                    "token renewed",
                    cluster=link.cluster,
                    secret=link.wanted.secret,
                    expires=rotating.shown(renewed.expires),
                )

    def _failed(self, link: members.Link, error: errors.IsthmusError) -> None:
        _LOG.warning("token not renewed", cluster=link.cluster, error=error.happened)
        self._failures[link.cluster] = errors.Finding(
            NOT_RENEWED,
            f"Secret {link.wanted.secret}, key {link.cluster}",
            f"its token could not be renewed: {error.happened}",
            still_working="the present token, until it ends",
            hint=error.hint
            or "`isthmus rotate-remote-secret` makes a new one and grants what renewing needs",
        )

    async def _renew(
        self, link: members.Link, token: tokens.Token, may_write: Callable[[], bool]
    ) -> tokens.Token | None:
        """Return what the new token says; None if this secret is not ours to renew."""
        namespace, _, name = link.wanted.secret.partition("/")
        writes = self._fleet.keeper
        found = await writes.list_(
            kinds.SECRET, namespace=namespace, fields=f"metadata.name={name}"
        )
        stored = found[0] if found else None
        if stored is None or not _is_ours(stored, link):
            return None
        text = await link.generation.client.token_request(
            token.namespace,
            token.account,
            seconds=max(tokens.SHORTEST_S, round(token.life_s)),
            bound_to={
                "kind": "Secret",
                "apiVersion": "v1",
                "name": token.secret,
                "uid": token.secret_uid,
            },
        )
        fresh = tokens.read(text)
        if not may_write():
            return None
        await writes.update(kinds.SECRET, _with(stored, link, text, fresh))
        return fresh


def _is_ours(stored: client.Obj, link: members.Link) -> bool:
    annotations = stored["metadata"].get("annotations") or {}
    content = base64.b64decode((stored.get("data") or {}).get(link.cluster, ""))
    is_ours: bool = annotations.get(rotating.RENEW) == "true"
    return is_ours and hashlib.sha256(content).hexdigest() == link.wanted.digest


def _with(stored: client.Obj, link: members.Link, text: str, fresh: tokens.Token) -> client.Obj:
    """Return the secret with another token in the same kubeconfig; its version is kept."""
    old = base64.b64decode(stored["data"][link.cluster]).decode()
    new = old.replace(link.wanted.reached_by.token, text)
    metadata = stored["metadata"]
    annotations = {**metadata["annotations"], **rotating.annotations(fresh, renews=True)}
    return {
        **stored,
        "metadata": {**metadata, "annotations": annotations},
        "data": {**stored["data"], link.cluster: base64.b64encode(new.encode()).decode()},
    }
