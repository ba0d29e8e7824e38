"""Finds out who calls: the API server of the caller's own cluster reviews its token.

A caller names its cluster; the token must then convince that cluster's API server. There is no
trying of other clusters. Answers are kept for a short time, by the token's digest; of those who
come at once, each API server is asked about a few at a time.

Source: spec section 1.3.1; security rule CA-4.

    IsthmusError
    └── NobodyJudges      the caller should come again, with the same proof
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from typing_extensions import override

from isthmus.base import clock, errors, logs
from isthmus.mesh import identities
from isthmus.mesh.identities import ClusterId
from isthmus.wire import callers

_LOG = logs.Log("isthmus.authentication")

KEEP_S = 60.0
KEEP_REFUSAL_S = 5.0
KEPT_ANSWERS = 10_000
DEADLINE_S = 3.0
WAIT_S = 8.0
"""How long a caller waits, with those before it: many come at once when we have started anew."""
AT_ONCE = 32
ACCOUNT_PARTS = 4
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"

Review = Callable[[ClusterId, str, Sequence[str]], Awaitable[Mapping[str, object]]]
"""Asks a cluster about a token: cluster, token, audiences to the TokenReview's `status`.

Raises `KeyError` when the cluster is not known.
"""


class NobodyJudges(errors.IsthmusError):
    """The API server of the caller's cluster does not answer, so that nothing is proven or refuted."""

    code = "ISM-RUN-003"


class TokenAuthenticator(callers.Authenticator):
    """Proves callers by TokenReview, or by a certificate that the mesh's own CA has signed."""

    def __init__(
        self,
        review: Review,
        *,
        own_cluster: ClusterId,
        known_clusters: Callable[[], Sequence[ClusterId]],
        audiences: Sequence[str],
        system_clock: clock.Clock,
        sole_domain: Callable[[], identities.TrustDomain | None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            review: Asks a cluster about a token.
            own_cluster: Where we run.
            known_clusters: Whose tokens can be reviewed.
            audiences: For whom a token must be.
            system_clock: Time.
            sole_domain: Gives the trust domain of which every identity is of our own cluster;
                None when there is none such.
        """
        self._sole_domain = sole_domain
        self._review = review
        self._own_cluster = own_cluster
        self._known_clusters = known_clusters
        self._audiences = tuple(audiences)
        self._clock = system_clock
        self._answers: OrderedDict[bytes, tuple[float, callers.Caller | str]] = OrderedDict()
        self._turns: dict[ClusterId, asyncio.Semaphore] = {}

    @override
    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        if credentials.token:
            return await self._by_token(credentials)
        if len(credentials.peer_identities) == 1:
            return self._by_certificate(credentials)
        raise callers.CallerRefused(
            "the caller showed neither a token nor a certificate with one identity",
            hint="proxies send the token of their service account with audience `istio-ca`",
        )

    def _by_certificate(self, credentials: callers.Credentials) -> callers.Caller:
        domain = self._sole_domain() if len(self._known_clusters()) == 1 else None
        if domain is None:
            # Clusters share a root: a certificate does not say which one it is from.
            raise callers.CallerRefused(
                "a certificate alone does not prove which cluster the caller is in",
                hint="send the token of the service account as well",
            )
        cluster = self._own_cluster
        try:
            spiffe_id = identities.parse_spiffe_id(credentials.peer_identities[0])
        except identities.IdentityMalformed as error:
            raise callers.CallerRefused("the certificate names no workload") from error
        if spiffe_id.trust_domain != domain:
            raise callers.CallerRefused(
                f"the certificate is of trust domain `{spiffe_id.trust_domain[:100]}`, which is "
                "not ours",
            )
        return callers.Caller(cluster, spiffe_id.namespace, spiffe_id.service_account)

    def _cluster_of(self, credentials: callers.Credentials) -> ClusterId:
        claimed = ClusterId(credentials.claimed_cluster)
        known = self._known_clusters()
        if claimed in known:
            return claimed
        if not claimed and len(known) == 1:
            return self._own_cluster
        raise callers.CallerRefused(
            f"the caller says it is in cluster `{claimed[:63]}`, which is not known here",
            detail=f"known clusters: {', '.join(sorted(known))}",
            hint="attach it: isthmus create-remote-secret --name CLUSTER | kubectl apply -f -",
        )

    async def _by_token(self, credentials: callers.Credentials) -> callers.Caller:
        cluster = self._cluster_of(credentials)
        digest = hashlib.sha256(f"{cluster}\0{credentials.token}".encode()).digest()
        kept = self._kept(digest) or await self._asked(cluster, credentials.token, digest)
        if isinstance(kept, str):
            raise callers.CallerRefused(kept, detail=f"cluster `{cluster}`")
        return kept

    def _kept(self, digest: bytes) -> callers.Caller | str | None:
        until, answer = self._answers.get(digest, (0.0, None))
        return answer if self._clock.monotonic() < until else None

    def _keep(self, digest: bytes, answer: callers.Caller | str) -> None:
        keep_s = KEEP_REFUSAL_S if isinstance(answer, str) else KEEP_S
        now = self._clock.monotonic()
        self._answers[digest] = (now + keep_s, answer)
        # Of those that came first most are over.
        while len(self._answers) > KEPT_ANSWERS or next(iter(self._answers.values()))[0] <= now:
            self._answers.popitem(last=False)

    async def _asked(self, cluster: ClusterId, token: str, digest: bytes) -> callers.Caller | str:
        turn = self._turns.setdefault(cluster, asyncio.Semaphore(AT_ONCE))
        try:
            async with asyncio.timeout(WAIT_S), turn, asyncio.timeout(DEADLINE_S):
                kept = self._kept(digest)  # Somebody with the same token may have been before us.
                if kept is not None:
                    return kept
                status = await self._review(cluster, token, self._audiences)
        except (errors.IsthmusError, TimeoutError, KeyError) as error:
            # Not kept: the API server may answer the next time.
            _LOG.warning("token review failed", cluster=cluster, error=type(error).__name__)
            raise NobodyJudges(
                f"cluster `{cluster}` could not be asked about the caller's token",
                still_working="proxies keep the configuration and certificates that they have",
                hint=f"see why with `isthmus remote-clusters`: `{cluster}` does not answer",
            ) from error
        answer = caller_of(cluster, status, self._audiences)
        self._keep(digest, answer)
        return answer


def caller_of(
    cluster: ClusterId, status: Mapping[str, object], audiences: Sequence[str]
) -> callers.Caller | str:
    """Return who a TokenReview's status proves, or why it proves nobody."""
    if status.get("error") or status.get("authenticated") is not True:
        return "the API server did not accept the caller's token"
    reviewed = status.get("audiences")
    if not isinstance(reviewed, list) or not set(reviewed) & set(audiences):
        return "the caller's token is for another audience"
    user = status.get("user")
    if not isinstance(user, Mapping):
        return "the API server named no user for the caller's token"
    groups = user.get("groups")
    parts = str(user.get("username", "")).split(":")
    if (
        not isinstance(groups, list)
        or "system:serviceaccounts" not in groups
        or len(parts) != ACCOUNT_PARTS
        or parts[:2] != ["system", "serviceaccount"]
    ):
        return "the caller's token is not of a service account"
    extra = user.get("extra")
    extra = extra if isinstance(extra, Mapping) else {}
    return callers.Caller(
        cluster, parts[2], parts[3], pod=_first(extra, POD_NAME), pod_uid=_first(extra, POD_UID)
    )


def _first(extra: Mapping[str, object], key: str) -> str:
    values = extra.get(key)
    return str(values[0]) if isinstance(values, list) and values else ""
