"""`isthmus ca`: makes the certificates that clusters share, and installs them.

Writes files and one Secret; what certificates look like is decided in the room `ca`.
"""

import base64
import datetime
import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from isthmus.base import clock
from isthmus.ca import authority, intermediate, keys, listing, pem, refusals, root, shapes
from isthmus.cli import groups, options, render
from isthmus.kube import kinds, problems
from isthmus.mesh import trust
from isthmus.mesh.identities import ClusterId

if TYPE_CHECKING:
    from isthmus.kube import client

ROOT_KEY = "root-key.pem"
ROOT_CERTIFICATE = "root-cert.pem"
SECRET = "cacerts"
RSA_BITS = 4096
LONGEST_NAME = 63
TRUST_DOMAIN = "cluster.local"
SOON = datetime.timedelta(days=14)


class WouldOverwrite(refusals.CaRefusal):
    """A file is there already."""

    code = "ISM-CA-012"


class FilesMissing(refusals.CaRefusal):
    """The directory lacks the files that a command needs."""

    code = "ISM-CA-013"


@click.group(cls=groups.Group)
def command() -> None:
    """Make and install the certificates that clusters share.

    One root for the mesh, one intermediate per cluster, each pushed to its cluster.

    Example: isthmus ca root && isthmus ca intermediate cluster1 &&
    isthmus ca push --context cluster1 cluster1
    """


_OUT = click.option(
    "--out",
    default=".",
    show_default=True,
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Directory to write to.",
)
_FORCE = click.option("--force", is_flag=True, help="Replace files that are there already.")
_RSA = click.option("--rsa", is_flag=True, help="RSA of 4096 bits instead of EC P-256.")


@command.command("root")
@_OUT
@_FORCE
@_RSA
@click.option(
    "--organization", default=root.ORGANIZATION, show_default=True, help="O of the subject."
)
@click.option(
    "--days", default=root.LIFETIME.days, show_default=True, type=click.IntRange(1, 36500)
)
def make_root(*, out: pathlib.Path, force: bool, rsa: bool, organization: str, days: int) -> None:
    """Make the root that a whole mesh trusts.

    Keep root-key.pem offline: only `isthmus ca intermediate` reads it.

    Example: isthmus ca root --out certs --rsa --organization "Example Inc"
    """
    key = _new_key(rsa=rsa)
    certificate = root.build(
        key,
        stamp=_stamp(),
        organization=organization,
        lifetime=datetime.timedelta(days=days),
    )
    files = {ROOT_KEY: keys.private_pem(key), ROOT_CERTIFICATE: pem.written(certificate)}
    _write(out, files, force=force)
    render.note(f"root written to `{out}`, valid until {_day(certificate.not_valid_after_utc)}")


@command.command("intermediate")
@click.argument("name")
@click.option(
    "--root",
    "root_folder",
    default=".",
    show_default=True,
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Directory of root-key.pem and root-cert.pem.",
)
@_OUT
@_FORCE
@_RSA
@click.option(
    "--days", default=intermediate.LIFETIME.days, show_default=True, type=click.IntRange(1, 36500)
)
@click.option(
    "--trust-domain",
    "trust_domains",
    metavar="NAME",
    multiple=True,
    help=f"Trust domain whose identities it may sign; may be repeated.  [default: {TRUST_DOMAIN}]",
)
@click.option("--any-trust-domain", is_flag=True, help="Let it sign identities of all of them.")
def make_intermediate(  # noqa: PLR0913  # a command's options
    *,
    name: str,
    root_folder: pathlib.Path,
    out: pathlib.Path,
    force: bool,
    rsa: bool,
    days: int,
    trust_domains: tuple[str, ...],
    any_trust_domain: bool,
) -> None:
    """Make the intermediate of the cluster NAME, in a directory of that name.

    It is renewed by running this again with --force, then `isthmus ca push`; workloads keep
    running. Give the mesh's own meshConfig.trustDomain if there is one.

    Example: isthmus ca intermediate cluster1 --root certs --out certs --days 30
    """
    _check_name(name)
    for domain in trust_domains:
        _check_trust_domain(domain)
    found = _read(root_folder, (ROOT_KEY, ROOT_CERTIFICATE), hint="make it with `isthmus ca root`")
    top = pem.certificates(found[ROOT_CERTIFICATE], file=ROOT_CERTIFICATE)[0]
    top_key = keys.private_from_pem(found[ROOT_KEY], file=ROOT_KEY)
    key = _new_key(rsa=rsa)
    certificate = intermediate.build(
        key.public_key(),
        cluster=name,
        issuer=shapes.Issuer(top, top_key),
        stamp=_stamp(),
        lifetime=datetime.timedelta(days=days),
        trust_domains=() if any_trust_domain else trust_domains or (TRUST_DOMAIN,),
    )
    files = {
        authority.CERTIFICATE: pem.written(certificate),
        authority.KEY: keys.private_pem(key),
        authority.ROOTS: found[ROOT_CERTIFICATE],
        authority.CHAIN: pem.joined((certificate, top)),
    }
    # The control plane would refuse material that does not fit together; better to hear it here.
    authority.load(files, now=_now())
    _write(out / name, files, force=force)
    render.note(
        f"intermediate of `{name}` written to `{out / name}`, "
        f"valid until {_day(certificate.not_valid_after_utc)}"
    )


@command.command("push")
@click.argument("directory", type=click.Path(file_okay=False, path_type=pathlib.Path))
@options.cluster
def push(
    *,
    directory: pathlib.Path,
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
) -> None:
    """Install the files of DIRECTORY as the signing authority of a cluster.

    The same as: kubectl create secret generic cacerts -n istio-system --from-file=... for each
    file.

    Example: isthmus ca push --context cluster1 certs/cluster1
    """
    files = _read(directory, authority.FILES, hint="make it with `isthmus ca intermediate`")
    made = authority.load(files, now=_now())
    access = options.accessed(kubeconfig, context=context)

    async def pushed() -> tuple[str, bool]:
        async with options.client_of(access) as server:
            outcome = await install(server, files, namespace=istio_namespace)
            return outcome, await _is_listed(server, made, namespace=istio_namespace)

    outcome, is_listed = options.run(pushed())
    click.echo(f"secret/{SECRET} {outcome}")
    if not is_listed:
        render.note(
            "warning: peers refuse what it signs until they list it: run `isthmus multicluster "
            "trust` with the contexts of all clusters now"
        )
    if outcome == REPLACED:
        render.note("the control plane signs with the new one from now on; workloads follow")
    _note_end(made.ends)


CREATED, UNCHANGED, REPLACED = "created", "unchanged", "replaced"


async def install(server: "client.Client", files: Mapping[str, str], *, namespace: str) -> str:
    """Make Secret `cacerts` hold `files`; return what that took.

    Raises:
        ApiError: The API server refused (ISM-KUBE-001).
        Unreachable: It does not answer (ISM-KUBE-002).
    """
    if await server.find(kinds.NAMESPACE, namespace) is None:
        await _create_namespace(server, namespace)
    wanted = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    held = await server.find(kinds.SECRET, SECRET, namespace=namespace)
    if held is None:
        await server.create(
            kinds.SECRET,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "Opaque",
                "metadata": {"name": SECRET, "namespace": namespace},
                "data": wanted,
            },
        )
        return CREATED
    if held.get("data") == wanted:
        return UNCHANGED
    # Carries the version that was read, so that somebody else's change is never overwritten.
    await server.update(kinds.SECRET, {**held, "data": wanted})
    return REPLACED


async def _is_listed(server: "client.Client", made: authority.Authority, *, namespace: str) -> bool:
    """Say whether an authority is listed for its cluster, if that one has a list."""
    maps = await server.list_(kinds.CONFIG_MAP, namespace=namespace, labels=trust.DOMAIN_LABEL)
    name = made.issuer.certificate.subject.get_attributes_for_oid(x509.NameOID.LOCALITY_NAME)
    own = [
        one.get("data") or {}
        for one in maps
        if one["metadata"]["name"] in {listing.name_of(ClusterId(str(each.value))) for each in name}
    ]
    wanted = pem.written(made.issuer.certificate)
    return all(wanted in str(held.get(trust.BUNDLE, "")) for held in own)


async def _create_namespace(server: "client.Client", name: str) -> None:
    try:
        await server.create(
            kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
    except problems.ApiError as error:
        if not error.is_conflict:
            raise


@command.command("show")
@click.argument(
    "directory", required=False, type=click.Path(file_okay=False, path_type=pathlib.Path)
)
@options.cluster
def show(
    *,
    directory: pathlib.Path | None,
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
) -> None:
    """Show the signing authority in DIRECTORY, or the one installed in a cluster.

    Example: isthmus ca show --context cluster1
    """
    if directory is not None:
        files = _read(directory, authority.FILES, hint="make it with `isthmus ca intermediate`")
    else:
        files = options.run(_installed(kubeconfig, context=context, namespace=istio_namespace))
    made = authority.load(files, now=_now())
    rows = [
        (role, pem.subject(each), _day(each.not_valid_after_utc), pem.fingerprint(each)[:23])
        for role, each in (
            ("signs", made.issuer.certificate),
            *(("root", each) for each in made.roots),
        )
    ]
    render.table(("ROLE", "SUBJECT", "VALID UNTIL", "SHA-256"), rows)
    domains = made.trust_domains
    render.note(f"signs for trust domain: {', '.join(sorted(domains)) if domains else 'any'}")
    _note_end(made.ends)


async def _installed(
    kubeconfig: str | None, *, context: str | None, namespace: str
) -> dict[str, str]:
    async with options.client_of(options.accessed(kubeconfig, context=context)) as server:
        held = await server.find(kinds.SECRET, SECRET, namespace=namespace)
    if held is None:
        raise FilesMissing(
            f"secret `{namespace}/{SECRET}` does not exist",
            hint="install it with `isthmus ca push`",
        )
    return {
        name: base64.b64decode(text).decode(errors="replace")
        for name, text in (held.get("data") or {}).items()
    }


def _note_end(ends: datetime.datetime) -> None:
    left = ends - _now()
    if left < SOON:
        render.note(
            f"warning: the signing certificate ends in {left.days} days: "
            "make a new one with `isthmus ca intermediate --force`, then push it"
        )


def _check_name(name: str) -> None:
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not (
        plain.isascii() and plain.isalnum() and name[0].isalnum() and len(name) <= LONGEST_NAME
    ):
        raise click.BadParameter(
            "use letters, digits, `-`, `_` and `.`, at most 63", param_hint="NAME"
        )


def _check_trust_domain(name: str) -> None:
    parts = name.split(".")
    if (
        not all(part.isascii() and part.replace("-", "").isalnum() for part in parts)
        or name != name.lower()
    ):
        raise click.BadParameter(
            f"`{name}` is no trust domain: use small letters, digits, `-` and `.`",
            param_hint="--trust-domain",
        )


def _new_key(*, rsa: bool) -> keys.PrivateKey:
    if rsa:
        return _rsa_key()
    return ec.generate_private_key(ec.SECP256R1())


def _rsa_key() -> keys.PrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def _stamp() -> shapes.Stamp:
    return shapes.Stamp(_now(), secrets.randbits(127) + 1)


def _now() -> clock.Instant:
    return clock.SystemClock().now()


def _day(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _read(folder: pathlib.Path, names: tuple[str, ...], *, hint: str) -> dict[str, str]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FilesMissing(
            f"`{folder}` lacks files", detail="missing: " + ", ".join(missing), hint=hint
        )
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def _write(folder: pathlib.Path, files: Mapping[str, str], *, force: bool) -> None:
    held = [name for name in files if (folder / name).exists()]
    if held and not force:
        raise WouldOverwrite(
            f"`{folder}` holds certificates already",
            detail="there: " + ", ".join(held),
            still_working="nothing was changed",
            hint="choose another directory with `--out`, or replace them with `--force`",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        _write_file(folder / name, text, secret=name in (ROOT_KEY, authority.KEY))


def _write_file(path: pathlib.Path, text: str, *, secret: bool) -> None:
    """Write beside, then rename: a reader sees the old file or the new one, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
