"""`isthmus multicluster trust`: tells clusters who signs for the trust domains of the others.

IsthmusError
└── SignerUnknown
"""

import base64
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click
import yaml

from isthmus.base import clock, errors
from isthmus.ca import authority, listing, pem
from isthmus.cli import options as cli_options
from isthmus.cli import render
from isthmus.kube import apply, kinds
from isthmus.kube import client as kube_client
from isthmus.mesh import settings, trust
from isthmus.mesh.identities import ClusterId, TrustDomain
from isthmus.registry import documents

MANAGER: Final = "isthmus-trust"


class SignerUnknown(errors.IsthmusError):
    """Nobody signs in a cluster, or it cannot be told who."""

    code = "ISM-CLI-060"


@click.command()
@cli_options.cluster
@click.option("--contexts", default="", help="Several contexts, with commas between.")
@click.option(
    "--next",
    "next_",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    help="A certificate that will sign soon in the cluster of --context.",
)
@click.option("--generate", is_flag=True, help="Print the ConfigMap, and change nothing.")
def command(  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    contexts: str,
    next_: pathlib.Path | None,
    *,
    generate: bool,
) -> None:
    """List in each cluster who signs for the trust domain of each.

    Identities of a trust domain are believed only if they are signed by what is listed for it. New
    certificates are added; the ConfigMap isthmus-trust-CLUSTER is removed by hand.

    Exit status: 0; 1 something failed.

    Before a new intermediate signs in cluster1, list it everywhere:
    isthmus multicluster trust --context cluster1 --contexts=cluster1,cluster2
    --next certs/cluster1/ca-cert.pem

    Example: isthmus multicluster trust --contexts=cluster1,cluster2
    """
    several = [one.strip() for one in contexts.split(",") if one.strip()]
    named: list[str | None] = [*several] or [context]
    soon = pem.certificates(next_.read_text(), file=str(next_))[:1] if next_ else ()

    async def read_one(one: str | None) -> listing.Signer:
        async with kube_client.Client(cli_options.accessed(kubeconfig, context=one)) as client:
            found = await signer_of(client, istio_namespace)
        return listing.with_next(found, soon) if one == context or not several else found

    async def list_all(
        one: str | None, own: listing.Signer, signers: Iterable[listing.Signer]
    ) -> None:
        async with kube_client.Client(cli_options.accessed(kubeconfig, context=one)) as client:
            labelled = listing.namespace(own, namespace=istio_namespace)
            changes = [
                *await apply.apply(client, [labelled], field_manager=MANAGER),
                *await listed(client, signers, namespace=istio_namespace),
            ]
            for change in changes:
                if change.action != "unchanged":
                    render.note(f"{_title(client)}: {change.title}: {change.action}")

    signers = [cli_options.run(read_one(one)) for one in named]
    if generate:
        found = [listing.manifest(one, namespace=istio_namespace) for one in signers]
        click.echo(yaml.safe_dump_all(found, sort_keys=False), nl=False)
        return
    for one, signer in zip(named, signers, strict=True):
        cli_options.run(list_all(one, signer, signers))
    for signer in signers:
        click.echo(f"✔ `{signer.domain}` is believed by what signs in cluster `{signer.cluster}`")


async def signer_of(client: kube_client.Client, namespace: str) -> listing.Signer:
    """Return who signs in a cluster, with what it lists for itself.

    Raises:
        SignerUnknown: It cannot be told (ISM-CLI-060).
    """
    secret = await client.find(kinds.SECRET, trust.SECRET, namespace=namespace) or {}
    held: Mapping[str, str] = secret.get("data") or {}
    names = (authority.TLS_CERTIFICATE, authority.CERTIFICATE)
    name = next((one for one in names if held.get(one)), "")
    values = await values_of(client, namespace)
    cluster = str(((values.get("global") or {}).get("multiCluster") or {}).get("clusterName") or "")
    if not name or not cluster:
        raise SignerUnknown(
            f"it cannot be told who signs in {_title(client)}",
            detail=f"Secret {namespace}/{trust.SECRET} is missing or empty"
            if not name
            else f"ConfigMap {namespace}/istio-sidecar-injector names no cluster",
            hint="`isthmus ca push` installs an authority, `isthmus install` the control plane",
        )
    chain = pem.certificates(base64.b64decode(held[name]).decode(errors="replace"), file=name)
    found = listing.Signer(ClusterId(cluster), await domain_of(client, namespace), chain[:1])
    return listing.with_listed(
        found,
        await client.find(kinds.CONFIG_MAP, listing.name_of(found.cluster), namespace=namespace),
        now=clock.SystemClock().now(),
    )


async def manifests(client: kube_client.Client, *, namespace: str) -> list[dict[str, Any]]:
    """Return what lists who signs in a cluster with a trust domain of its own; else nothing."""
    if await domain_of(client, namespace) == settings.DEFAULT_TRUST_DOMAIN:
        return []
    found = await _signers(client, namespace=namespace)
    return [listing.manifest(one, namespace=namespace) for one in found]


async def _signers(*clients: kube_client.Client, namespace: str) -> list[listing.Signer]:
    """Return who signs in clusters, as far as it can be told; warn of the others."""
    found = []
    for client in clients:
        try:
            found.append(await signer_of(client, namespace))
        except SignerUnknown as error:
            render.note(f"warning: {error.happened}: {error.detail}; list it by hand")
    return found


async def list_pair(one: kube_client.Client, other: kube_client.Client, *, namespace: str) -> None:
    """List in each of two clusters who signs in both, if their trust domains are not the same.

    Clusters that share one are believed by the root that they share: a list would shut others out
    that share it, too.

    It is not for clusters where it cannot be told who signs; a warning says so.
    """
    signers = await _signers(one, other, namespace=namespace)
    if len({signer.domain for signer in signers}) <= 1:
        return
    for client in (one, other):
        for change in await listed(client, signers, namespace=namespace):
            if change.action != "unchanged":
                render.note(f"{client.access.name}: {change.title}: {change.action}")


async def forget(client: kube_client.Client, cluster: str, *, namespace: str) -> None:
    """List no longer who signs in a cluster; new connections from there are refused."""
    name = listing.name_of(ClusterId(cluster))
    found = await client.find(kinds.CONFIG_MAP, name, namespace=namespace)
    for change in await apply.delete(client, [found] if found else []):
        render.note(f"{client.access.name}: {change.title}: {change.action}")


async def listed(
    client: kube_client.Client, signers: Iterable[listing.Signer], *, namespace: str
) -> list[apply.Change]:
    """List signers in a cluster, beside what is listed there by now; return what changes."""
    manifests = []
    for signer in signers:
        held = await client.find(
            kinds.CONFIG_MAP, listing.name_of(signer.cluster), namespace=namespace
        )
        whole = listing.with_listed(signer, held, now=clock.SystemClock().now())
        manifests.append(listing.manifest(whole, namespace=namespace))
    return list(await apply.apply(client, manifests))


async def values_of(client: kube_client.Client, namespace: str) -> Mapping[str, Any]:
    """Return the values with which a control plane was installed; none where there is none."""
    found = await client.find(kinds.CONFIG_MAP, "istio-sidecar-injector", namespace=namespace)
    try:
        values = json.loads(((found or {}).get("data") or {}).get("values") or "{}")
    except ValueError:
        values = {}
    return values if isinstance(values, dict) else {}


async def domain_of(client: kube_client.Client, namespace: str) -> TrustDomain:
    """Return the trust domain of a cluster."""
    found = await client.find(kinds.CONFIG_MAP, "istio", namespace=namespace)
    document = documents.parse(((found or {}).get("data") or {}).get("mesh") or "")
    said = document.get("trustDomain") if isinstance(document, dict) else ""
    return TrustDomain(str(said)) if said else settings.DEFAULT_TRUST_DOMAIN


def _title(client: kube_client.Client) -> str:
    return f"cluster `{client.access.name}`" if client.access.name else "the cluster"
