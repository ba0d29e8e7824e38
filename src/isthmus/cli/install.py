"""`isthmus install`: shows what will change, applies it, waits until it works."""

import sys
from collections.abc import Mapping, Sequence

import click

from isthmus.base import clock, errors
from isthmus.cli import operator_options
from isthmus.cli import options as cli_options
from isthmus.install import installing, options
from isthmus.install import settings_check as checks
from isthmus.kube import apply
from isthmus.kube import client as kube_client

FIELDS_SHOWN = 4


@click.command()
@operator_options.given
@cli_options.cluster
@click.option("--yes", "-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and stop.")
@click.option("--force", is_flag=True, help="Take over fields that others have set.")
@click.option(
    "--readiness-timeout",
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until everything is ready.",
)
def command(  # noqa: PLR0913  # a command's options
    files: Sequence[str],
    values: Sequence[str],
    flags: Sequence[str],
    revision: str,
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    readiness_timeout: float,
    *,
    yes: bool,
    dry_run: bool,
    force: bool,
) -> int:
    """Install or change Isthmus in a cluster, from IstioOperator files.

    Running it again changes nothing. Nothing is rolled back when waiting ends: run it again to go
    on waiting.

    Example: isthmus install --context cluster1 -f cluster1.yaml

    Example: isthmus install --set profile=ambient --values values.yaml
    """
    if istio_namespace != options.SYSTEM_NAMESPACE:
        flags = (f"values.global.istioNamespace={istio_namespace}", *flags)
    chosen = operator_options.chosen(files, flags, revision, values=values)
    access = cli_options.accessed(kubeconfig, context=context)

    async def work() -> int:
        async with kube_client.Client(access) as client:
            return await _install(
                client, chosen, timeout_s=readiness_timeout, yes=yes, dry_run=dry_run, force=force
            )

    return cli_options.run(work())


async def _install(
    client: kube_client.Client,
    chosen: options.Options,
    *,
    timeout_s: float,
    yes: bool,
    dry_run: bool,
    force: bool,
) -> int:
    for warning in checks.warnings_for(chosen):
        warn(warning)
    for warning in await checks.renamed(client, chosen):
        warn(warning)
    planned = await installing.without_others(client, installing.phases(chosen))
    changes = await installing.changes(client, chosen, planned, force=force)
    _show(changes)
    if dry_run:
        return 0
    due = any(change.action != "unchanged" for change in changes)
    if due and not yes and sys.stdin.isatty() and not _agreed(chosen, client):
        click.echo("nothing was changed", err=True)
        return 1
    await checks.authority(client, chosen, judge=_fault, warn=warn)
    await installing.carry_out(
        client, chosen, planned, force=force, timeout_s=timeout_s, tell=_tell
    )
    _tell("✔ Installation complete")
    return 0


def _fault(files: Mapping[str, str]) -> errors.IsthmusError | None:
    from isthmus.ca import authority  # only where somebody has put certificates there

    try:
        authority.load(files, now=clock.SystemClock().now())
    except errors.IsthmusError as error:
        return error
    return None


def _agreed(chosen: options.Options, client: kube_client.Client) -> bool:
    return click.confirm(
        f"This will install the Isthmus {client.access.name or 'cluster'} "
        f'profile "{chosen.profile}" into the cluster. Proceed?',
        default=False,
        err=True,
    )


def _show(changes: Sequence[apply.Change]) -> None:
    unchanged = sum(1 for change in changes if change.action == "unchanged")
    for change in changes:
        if change.action != "unchanged":
            fields = ", ".join(change.fields[:FIELDS_SHOWN])
            more = f" and {len(change.fields) - FIELDS_SHOWN} more" * (
                len(change.fields) > FIELDS_SHOWN
            )
            _tell(f"  {change.action} {change.title}" + (f" ({fields}{more})" if fields else ""))
    if unchanged:
        _tell(f"  {unchanged} objects are as they should be")


def warn(finding: errors.Finding) -> None:
    """Tell of something that does not stop an installation, on standard error."""
    click.echo(f"warning[{finding.code}]: {finding.subject}: {finding.happened}", err=True)
    if finding.hint:
        click.echo(f"  hint: {finding.hint}", err=True)


def _tell(text: str) -> None:
    click.echo(text, err=True)
