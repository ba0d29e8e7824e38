"""`isthmus multicluster`: commands that let clusters reach each other through their gateways."""

import click

from isthmus.cli import (
    groups,
    multicluster_check,
    multicluster_expose,
    multicluster_link,
    multicluster_trust,
)


@click.group(cls=groups.Group)
def command() -> None:
    """Let clusters reach each other.

    Example: isthmus multicluster expose --context cluster1
    """


command.add_command(multicluster_expose.command, "expose")
command.add_command(multicluster_trust.command, "trust")
command.add_command(multicluster_link.link, "link")
command.add_command(multicluster_link.unlink, "unlink")
command.add_command(multicluster_check.command, "check")
