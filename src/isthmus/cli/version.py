"""`isthmus version`."""

import click

from isthmus.base import version


@click.command()
def command() -> None:
    """Print the version.

    Example: isthmus version
    """
    click.echo(f"client version: {version.VERSION}")
    click.echo(f"proxy image: istio/proxyv2:{version.PROXY_VERSION}")
