"""`isthmus rotate-remote-secret`."""

import asyncio
import dataclasses
import sys
import time
from typing import Final

import click

from isthmus.base import errors
from isthmus.cli import asking, remote_clusters, render
from isthmus.fleet import linking, rotating, tokens
from isthmus.kube import access, apply, client, kinds

POLL_S: Final = 0.5
TIMEOUT_S: Final = 60.0
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def seconds(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Read a duration such as `24h`; a token's is 10 minutes to 24 hours."""
    if text is None:
        return None
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if not number.isdecimal() or unit is None or len(number) > 6:
        raise click.BadParameter("write it as 24h, 90m or 3600s")
    found = int(number) * unit
    if not tokens.SHORTEST_S <= found <= tokens.LONGEST_S:
        raise click.BadParameter("a token lives at least 10m and at most 24h")
    return found


@click.command()
@click.option("--name", default="", help="Id of the cluster; default: UID of kube-system.")
@click.option("--context", default=None, help="Context of the remote cluster.")
@click.option(
    "--to-context",
    "primaries",
    multiple=True,
    help="Context of a primary cluster: write the secret there, and revoke the older token. "
    "May be repeated.",
)
@click.option(
    "--duration", default="24h", show_default=True, callback=seconds, help="How long it lives."
)
@click.option(
    "--renew/--no-renew", default=True, show_default=True, help="Let control planes renew it."
)
@click.option(
    "--revoke-long-lived",
    is_flag=True,
    help="Also delete the token without an end that the secret held before.",
)
@click.option("--timeout", default="60s", show_default=True, help="How long to wait for primaries.")
@click.option("--server", default="", help="Address of the API server for the kubeconfig.")
@click.option("--tls-server-name", default="", help="Name that its certificate must bear.")
@click.option("--service-account", default="", help="Account whose token goes in.")
@click.option("--namespace", "-n", default="", help="Namespace of account and secret.")
@click.option("--istioNamespace", "-i", "istio_namespace", default="istio-system")
@click.option("--kubeconfig", "-c", default=None, help="Kubeconfig file.")
def command(  # noqa: PLR0913  # each is an option of its own
    name: str,
    context: str | None,
    primaries: tuple[str, ...],
    duration: int,
    timeout: str,
    server: str,
    tls_server_name: str,
    service_account: str,
    namespace: str,
    istio_namespace: str,
    kubeconfig: str | None,
    *,
    renew: bool,
    revoke_long_lived: bool,
) -> None:
    """Replace a cluster's credential by a short-lived one that can be revoked.

    Without --to-context it prints the remote secret, and what lets the control plane renew it,
    for `kubectl apply`. With it, the secret is written into each primary cluster; once every
    control plane there follows the cluster with the new token, the older one is revoked.

    Exit status: 0; 1 something failed: then the older token still works.

    Example: isthmus rotate-remote-secret --context=cluster2 --name=cluster2 --to-context=cluster1
    """
    wanted = linking.Request(
        name=name,
        namespace=namespace or istio_namespace,
        server=server.rstrip("/"),
        tls_server_name=tls_server_name,
        service_account=service_account,
    )
    life = rotating.Life(duration, renews=renew)
    patience = int(timeout.removesuffix("s")) if timeout.removesuffix("s").isdecimal() else 0
    reached_by = access.from_kubeconfig(kubeconfig, context=context)
    for warning in reached_by.warnings:
        render.note(f"warning: {warning}")
    if not primaries:
        text = asyncio.run(printed(reached_by, wanted, life))
        if sys.stdout.isatty():
            render.note("warning: what follows holds a credential; do not leave it on the screen")
        click.echo(text, nl=False)
        return
    for primary in primaries:
        target = access.from_kubeconfig(kubeconfig, context=primary)
        work = _Rotation(wanted, life, patience or TIMEOUT_S, revokes_long_lived=revoke_long_lived)
        asyncio.run(work.run(reached_by, target))


async def printed(reached_by: access.Access, wanted: linking.Request, life: rotating.Life) -> str:
    """Return the secret as text, with the role that lets the control plane renew it."""
    async with client.Client(reached_by) as remote:
        made = await rotating.remote_secret(remote, wanted, life, on_note=render.note)
    grants = (
        rotating.writing_grant(made.cluster, made.secret, accounts=["istiod"])
        if life.renews
        else []
    )
    if grants:
        render.note(f"grants there: `istiod` may update secret `{made.secret['metadata']['name']}`")
    return linking.text_of(made.secret, *grants)


class _Rotation:
    """Rotates the token that one primary holds: new one in, confirmed, old one out."""

    def __init__(
        self,
        wanted: linking.Request,
        life: rotating.Life,
        timeout_s: float,
        *,
        revokes_long_lived: bool,
    ) -> None:
        self._wanted = wanted
        self._life = life
        self._timeout_s = timeout_s
        self._revokes_long_lived = revokes_long_lived

    async def run(self, reached_by: access.Access, target: access.Access) -> None:
        async with client.Client(reached_by) as remote, client.Client(target) as primary:
            uid = str((await primary.get(kinds.NAMESPACE, "kube-system"))["metadata"]["uid"])
            life = dataclasses.replace(self._life, primary=uid)
            made = await rotating.remote_secret(remote, self._wanted, life, on_note=render.note)
            namespace = self._wanted.namespace
            before = await rotating.holder_of(primary, made.cluster, namespace=namespace)
            old = rotating.token_in(before, made.cluster)
            stored = await rotating.exchange(primary, made, instead_of=before)
            if life.renews:
                await self._grant(primary, made, stored)
            digest = rotating.digest_of(stored, made.cluster)
            waited_s = await self._confirmed(primary, made, digest)
            render.note(
                f"{target.name}: `{made.cluster}` is followed with a token that ends at"
                f" {rotating.shown(made.token.expires)} (confirmed after {waited_s:.1f} s)"
            )
            for name in await rotating.revoke(remote, made, old, life, namespace=namespace):
                render.note(f"revoked: the token bound to secret `{name}`")
            await self._without_end(remote, old)

    async def _grant(self, primary: client.Client, made: rotating.Made, stored: client.Obj) -> None:
        namespace = self._wanted.namespace
        pods = await primary.list_(kinds.POD, namespace=namespace, labels="app=istiod")
        accounts = {pod["spec"].get("serviceAccountName", "istiod") for pod in pods} or {"istiod"}
        grants = rotating.writing_grant(made.cluster, stored, accounts=sorted(accounts))
        await apply.apply(primary, grants, force=True)
        render.note(
            f"granted in `{primary.access.name}`: {', '.join(f'`{one}`' for one in sorted(accounts))}"
            f" may update secret `{stored['metadata']['name']}`"
        )

    async def _confirmed(self, primary: client.Client, made: rotating.Made, digest: str) -> float:
        began = time.monotonic()
        lacks = ""
        while True:
            try:
                answers = await asking.control_planes(
                    primary, remote_clusters.PAGE, namespace=self._wanted.namespace
                )
                lacks = _lacking(answers, made.cluster, digest)
            except errors.IsthmusError as error:
                lacks = error.happened
            waited_s = time.monotonic() - began
            if not lacks:
                return waited_s
            if waited_s > self._timeout_s:
                raise rotating.RotationUnfinished(
                    f"the new token of `{made.cluster}` is not confirmed"
                    f" after {self._timeout_s:g} s",
                    detail=lacks,
                    still_working="the older token was not revoked; both work",
                    hint="see `isthmus remote-clusters`, then run the same command again",
                )
            await asyncio.sleep(POLL_S)

    async def _without_end(self, remote: client.Client, old: tokens.Token) -> None:
        if old.expires is not None or not old.secret:
            return
        if self._revokes_long_lived:
            await rotating.forget(remote, old.secret, namespace=self._wanted.namespace)
            render.note(f"revoked: the token without an end in secret `{old.secret}`")
            return
        render.note(
            f"note: the token without an end in secret `{old.secret}` still works, for whoever else"
            " uses it; --revoke-long-lived deletes it"
        )


def _lacking(answers: list[asking.Answer], cluster: str, digest: str) -> str:
    """Say which control plane does not follow the cluster with the new token yet."""
    for answer in answers:
        row = next((one for one in answer.document if one.get("id") == cluster), None)
        if row is None:
            return f"{answer.istiod} does not know the cluster"
        if row.get("syncStatus") == "closed":
            continue  # Disabled: nobody follows it with any token.
        if row.get("kubeconfigDigest") != digest:
            return f"{answer.istiod}: {row.get('error') or 'still uses the older token'}"
    return ""
