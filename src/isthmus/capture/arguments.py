"""Reads the arguments that the injected init container calls istio-iptables with.

Source: spec sections 5.3 and 5.4.
"""

import dataclasses
from collections.abc import Callable, Sequence

from isthmus.capture import redirects

LONG_NAMES = {
    "--envoy-port": "-p",
    "--inbound-capture-port": "-z",
    "--inbound-tunnel-port": "-e",
    "--proxy-uid": "-u",
    "--proxy-gid": "-g",
    "--istio-inbound-interception-mode": "-m",
    "--istio-inbound-ports": "-b",
    "--istio-local-exclude-ports": "-d",
    "--istio-local-outbound-ports-exclude": "-o",
    "--istio-outbound-ports": "-q",
    "--istio-service-cidr": "-i",
    "--istio-service-exclude-cidr": "-x",
    "--istio-exclude-interfaces": "-c",
    "--kube-virt-interfaces": "-k",
    "--istio-inbound-tproxy-mark": "-t",
    "--istio-inbound-tproxy-route-table": "-r",
}
"""Istio's long spellings of what the short options say."""

IGNORED = frozenset({"-m", "-k", "-t", "-r"})
"""Options that take a value and change nothing here; `-m` is checked for what it asks."""

FLAGS = frozenset(
    {
        "--dry-run",
        "--restore-format",
        "--run-validation",
        "--skip-rule-apply",
        "--force-apply",
        "--reconcile",
        "--redirect-dns",
        "--capture-all-dns",
        "--drop-invalid",
        "--dual-stack",
        "--cleanup-only",
    }
)
"""Options that stand alone; they may also be written with `=true`."""

LOGGING = "--log_"
REDIRECT_DNS, ALL_DNS = "--redirect-dns", "--capture-all-dns"

_Reader = Callable[[str], object]


def parse(
    arguments: Sequence[str], *, servers: Sequence[str] = (), redirects_dns: bool = False
) -> redirects.Redirect:
    """Read arguments as istio-iptables takes them.

    Args:
        arguments: What follows the program's name.
        servers: Addresses of the pod's servers for names, as its resolv.conf has them.
        redirects_dns: Whether the environment says what `--redirect-dns` does.

    Raises:
        ArgumentsRefused: An unknown option, or a value that is none (ISM-CAP-001).
    """
    found: dict[str, object] = {}
    flags = _flags(arguments)
    if ALL_DNS in flags:
        found["dns_servers"] = None
    elif REDIRECT_DNS in flags or redirects_dns:
        found["dns_servers"] = redirects.ranges(",".join(servers), option=REDIRECT_DNS)
    for option, value in _pairs(arguments):
        if option == "-m" and value not in ("REDIRECT", ""):
            raise redirects.ArgumentsRefused(
                f"interception mode is not supported: `{value[:60]}`",
                hint="leave the annotation `sidecar.istio.io/interceptionMode` at REDIRECT",
            )
        if option in _FIELDS:
            field, read = _FIELDS[option]
            found[field] = read(value)
    return dataclasses.replace(redirects.Redirect(), **found)  # type: ignore[arg-type]  # by table


def _flags(arguments: Sequence[str]) -> set[str]:
    """Return the options without a value that are set; `=false` takes one back."""
    found = set[str]()
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in FLAGS:
            (found.discard if value.lower() == "false" else found.add)(name)
    return found


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if name in FLAGS or name.startswith(LOGGING):
            continue
        option = LONG_NAMES.get(name, name)
        if option not in _FIELDS and option not in IGNORED:
            raise redirects.ArgumentsRefused(
                f"unknown option of istio-iptables: `{name[:60]}`",
                hint="known ones: " + " ".join(sorted({*_FIELDS, *LONG_NAMES})),
            )
        if not given:
            if not rest:
                raise redirects.ArgumentsRefused(f"option has no value: `{name}`")
            value = rest.pop(0)
        pairs.append((option, value.strip('"')))
    return pairs


def _one_port(option: str) -> _Reader:
    def read(value: str) -> int:
        found = redirects.ports(value, option=option)
        if len(found) != 1:
            raise redirects.ArgumentsRefused(f"`{option}` takes one port, not `{value[:60]}`")
        return found[0]

    return read


def _user(option: str) -> _Reader:
    def read(value: str) -> int:
        if value.isascii() and value.isdigit() and len(value) < 11:
            return int(value)
        raise redirects.ArgumentsRefused(f"`{option}` takes a number, not `{value[:60]}`")

    return read


_FIELDS: dict[str, tuple[str, _Reader]] = {
    "-p": ("outbound_port", _one_port("-p")),
    "-z": ("inbound_port", _one_port("-z")),
    "-e": ("tunnel_port", _one_port("-e")),
    "-u": ("proxy_uid", _user("-u")),
    "-g": ("proxy_gid", _user("-g")),
    "-b": ("inbound_ports", lambda value: redirects.ports_or_all(value, option="-b")),
    "-d": ("excluded_inbound_ports", lambda value: redirects.ports(value, option="-d")),
    "-o": ("excluded_outbound_ports", lambda value: redirects.ports(value, option="-o")),
    "-q": ("outbound_ports", lambda value: redirects.ports_or_all(value, option="-q")),
    "-i": ("outbound_ranges", lambda value: redirects.ranges_or_all(value, option="-i")),
    "-x": ("excluded_outbound_ranges", lambda value: redirects.ranges(value, option="-x")),
    "-c": ("excluded_interfaces", redirects.names),
}
