"""`isthmus multicluster`: commands that let clusters reach each other through their gateways."""

import click

from isthmus.cli import multicluster_expose


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Let clusters reach each other.

    Example: isthmus multicluster expose --context cluster1
    """


command.add_command(multicluster_expose.command, "expose")
