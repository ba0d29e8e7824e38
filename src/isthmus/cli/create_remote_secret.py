"""`isthmus create-remote-secret`."""

import asyncio
import sys
from typing import Literal, cast

import click

from isthmus.cli import render
from isthmus.fleet import linking
from isthmus.kube import access, client


@click.command()
@click.option("--name", default="", help="Id of the cluster; default: UID of kube-system.")
@click.option("--server", default="", help="Address of the API server for the kubeconfig.")
@click.option("--tls-server-name", default="", help="Name that its certificate must bear.")
@click.option("--service-account", default="", help="Account whose token goes in.")
@click.option(
    "--create-service-account",
    default=True,
    show_default=True,
    type=click.BOOL,
    help="Make the account and its rights if it is missing.",
)
@click.option("--secret-name", default="", help="Which token secret of the account to use.")
@click.option(
    "--auth-type",
    type=click.Choice(["bearer-token", "plugin"]),
    default="bearer-token",
    show_default=True,
    help="How the other control plane shows who it is.",
)
@click.option("--auth-plugin-name", default="", help="Name of the login plugin.")
@click.option("--auth-plugin-config", multiple=True, metavar="KEY=VALUE", help="Its settings.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["remote", "config"]),
    default="remote",
    show_default=True,
    help="What the secret is for.",
)
@click.option("--manifests", "-d", default="", help="Accepted for compatibility; not used.")
@click.option("--namespace", "-n", default="", help="Namespace of account and secret.")
@click.option("--istioNamespace", "-i", "system", default="istio-system", show_default=True)
@click.option("--context", default=None, help="Context of the cluster that is to be watched.")
@click.option("--kubeconfig", "-c", default=None, help="Kubeconfig file.")
def command(**given: object) -> None:
    """Print the secret that lets another cluster's control plane watch this one.

    Example: isthmus create-remote-secret --context cluster2 --name cluster2 |
    kubectl apply -f - --context cluster1
    """
    wanted = _request(given)
    reached_by = access.from_kubeconfig(
        cast("str | None", given["kubeconfig"]), context=cast("str | None", given["context"])
    )
    for warning in reached_by.warnings:
        render.note(f"warning: {warning}")
    text = asyncio.run(_made(reached_by, wanted))
    if sys.stdout.isatty():
        render.note("warning: what follows holds a credential; do not leave it on the screen")
    click.echo(text, nl=False)


async def _made(reached_by: access.Access, wanted: linking.Request) -> str:
    async with client.Client(reached_by) as reads:
        secret = await linking.remote_secret(reads, wanted, on_note=render.note)
    return linking.text_of(secret)


def _request(given: dict[str, object]) -> linking.Request:
    plugin = None
    if given["auth_type"] == "plugin":
        settings = cast("tuple[str, ...]", given["auth_plugin_config"])
        pairs = dict(item.partition("=")[::2] for item in settings)
        plugin = (str(given["auth_plugin_name"]), pairs)
    return linking.Request(
        name=str(given["name"]),
        namespace=str(given["namespace"] or given["system"]),
        server=str(given["server"]).rstrip("/"),
        tls_server_name=str(given["tls_server_name"]),
        kind=cast('Literal["remote", "config"]', given["kind"]),
        service_account=str(given["service_account"]),
        create_service_account=bool(given["create_service_account"]),
        secret_name=str(given["secret_name"]),
        plugin=plugin,
    )
