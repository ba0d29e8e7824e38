"""`isthmus manifest generate` prints objects; `manifest apply` is Istio's old name of `install`."""

from collections.abc import Sequence

import click
import yaml

from isthmus.cli import groups, install, operator_options
from isthmus.install import installing, settings_check


@click.group(cls=groups.Group)
def command() -> None:
    """Print what `install` would apply.

    Example: isthmus manifest generate -f cluster1.yaml
    """


@command.command()
@operator_options.given
def generate(
    files: Sequence[str], values: Sequence[str], flags: Sequence[str], revision: str
) -> None:
    """Print the objects of an installation as YAML.

    Example: isthmus manifest generate -f cluster1.yaml > cluster1-objects.yaml
    """
    chosen = operator_options.chosen(files, flags, revision, values=values)
    for warning in settings_check.warnings_for(chosen):
        install.warn(warning)
    objects = [manifest for phase in installing.phases(chosen) for manifest in phase.objects]
    click.echo(yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True), nl=False)


command.add_command(install.command, "apply")
