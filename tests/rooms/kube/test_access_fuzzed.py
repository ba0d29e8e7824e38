"""Any kubeconfig: it is accepted as what it says, or refused, and nothing is touched meanwhile."""

import base64
import ipaddress
import socket
import sys
import urllib.parse

import pytest
import yaml
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.kubeconfigs import CA, b64, refusal, text
from isthmus.kube import access, problems

_VIGILANT = []


_ODD = st.text(max_size=5) | st.sampled_from(
    ["&a", "*a", "!!x", "[" * 999, "ö", "\0", "---", "a: "]
)
_LINES = st.sampled_from(
    [
        "insecure-skip-tls-verify: true",
        "insecure-skip-tls-verify: 'false'",
        "proxy-url: http://10.0.0.1",
        "tokenFile: /etc/passwd",
        "client-key: /etc/passwd",
        "certificate-authority: /etc/passwd",
        "exec: {command: rm}",
        "token: other",
        "token: [t]",
        "server: https://127.0.0.1",
        "tls-server-name: kubernetes",
        "as: root",
        "<<: {token: x}",
        "- name: another",
        "? [x]",
        "2026-13-45",
    ]
)
"""What would be harmful, or is no kubeconfig at all."""


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_kubeconfig_with_any_text_anywhere_is_accepted_or_refused_and_nothing_else(data):
    short = {"certificate-authority-data": "CA"}  # Else nearly all of it is the certificate.
    lines = text(short).splitlines()
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(lines) - 1))
        # Mostly beside its neighbour, where it means something.
        beside = lines[at][: len(lines[at]) - len(lines[at].lstrip(" -"))].replace("-", " ")
        indent = data.draw(st.sampled_from([beside] * 4 + ["", "  "]))
        lines[at + 1 : at + 1 + data.draw(st.sampled_from([0, 0, 1]))] = [
            indent + data.draw(_LINES)
        ]
    whole = "\n".join(lines)
    for _ in range(data.draw(st.sampled_from([0, 0, 1, 2]))):
        at, skip = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 5))
        whole = whole[:at] + data.draw(_ODD) + whole[at + skip :]
    whole = whole.replace("-data: CA", f"-data: {b64(CA)}")

    try:
        found = access.parse_untrusted(whole)
    except problems.KubeconfigRefused:
        return
    assert_is_what_it_says(found, whole)


def assert_is_what_it_says(found, whole):
    """Hold what was accepted against a reader of another kind: nothing is added, left out or bent."""
    assert_says_nothing_twice(yaml.compose(whole, yaml.BaseLoader))
    document = yaml.load(whole, yaml.BaseLoader)
    ((cluster,), (user,)) = (
        [one[single] for one in document[f"{single}s"]] for single in ("cluster", "user")
    )
    assert cluster.keys() <= {
        "server",
        "certificate-authority-data",
        "tls-server-name",
        "insecure-skip-tls-verify",
    }
    assert cluster.get("insecure-skip-tls-verify", "false") == "false"
    assert user.keys() <= {"token", "client-certificate-data", "client-key-data"}
    assert found.server == cluster["server"].rstrip("/")
    assert found.token == user.get("token", "").strip()
    assert found.ca_pem.encode() == base64.b64decode(cluster["certificate-authority-data"])
    assert x509.load_pem_x509_certificates(found.ca_pem.encode())
    assert (found.verify, found.confined, found.proxy_url, found.token_path) == (True, True, "", "")
    assert_leads_elsewhere(found.server)


def assert_says_nothing_twice(node):
    parts = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len({*keys})
        parts = [value for _, value in node.value]
    for part in parts:
        assert_says_nothing_twice(part)


def assert_leads_elsewhere(server):
    """Hold an address against what resolvers make of it."""
    parts = urllib.parse.urlsplit(server)
    name = (parts.hostname or "").rstrip(".")
    assert (parts.scheme, bool(name), "@" in server) == ("https", True, False)
    assert parts.port is None or 0 <= parts.port < 65536
    assert not {*"?# \t\r\n"} & {*server}
    assert not name.endswith(("localhost", "localdomain", "metadata", "metadata.google.internal"))
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        with pytest.raises(OSError, match="illegal IP"):
            socket.inet_aton(name)
    else:
        plain = getattr(address, "ipv4_mapped", None) or address
        bad = (plain.is_loopback, plain.is_link_local, plain.is_unspecified, plain.is_multicast)
        assert not any(bad)


_PARTS = {
    "scheme": ["https://", "HTTPS://", "http://", "https:", "//", "file://", ""],
    "user": ["", "a@", "a:b@", "@"],
    "host": [
        "10.0.0.1",
        "east.example",
        "[fd00::1]",
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.1",
        "0x7f.1",
        "0X7F000001",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "169.254.169.254",
        "metadata",
        "metadata.google.internal",
        "100.100.100.200",
        "0.0.0.0",
        "0",
        "224.0.0.1",
        "[ff02::1]",
        "\uff11\uff12\uff17.0.0.1",
        "east.example:",
        "[",
        "]",
    ],
    "port": ["", ":6443", ":99999", ":x", ":-1"],
    "tail": ["", "/", "/x", "?y", "#z", " ", "\n", "\\\\@127.0.0.1"],
}


@st.composite
def _servers(draw):
    """Draw an address of which one part or two are odd, and the others as usual."""
    chosen = {name: values[0] for name, values in _PARTS.items()}
    for name in draw(st.lists(st.sampled_from(sorted(_PARTS)), min_size=1, max_size=2)):
        odd = st.sampled_from(_PARTS[name])
        chosen[name] = draw(odd | st.text(max_size=9) if name == "host" else odd)
    return "".join(chosen.values())


@settings(max_examples=400, deadline=None)
@given(_servers())
def test_an_address_that_is_accepted_leads_nowhere_near(server):
    try:
        found = access.parse_untrusted(text({"server": server}))
    except problems.KubeconfigRefused:
        return
    assert found.server == server.rstrip("/")
    assert_leads_elsewhere(found.server)


def test_an_authority_of_strange_letters_is_refused():
    found = refusal(text({"certificate-authority-data": "LS0tö"}))

    assert "is not base64 of a text" in found.happened


def _watch_io(event, arguments):
    if _VIGILANT and event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        _VIGILANT.append((event, arguments))


sys.addaudithook(_watch_io)

_NODES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "exec": _NODES,
            "tokenFile": _NODES,
            "token": _NODES,
            "client-key": _NODES,
            "x": _NODES,
        },
    ),
    st.one_of(
        st.just("https://10.0.0.1"), st.text(max_size=30).map(lambda tail: f"https://{tail}")
    ),
)
def test_nothing_is_touched_and_what_is_accepted_is_within_bounds(user, server):
    kubeconfig = text({"server": server}, user)
    _VIGILANT.append("on")
    try:
        found = access.parse_untrusted(kubeconfig)
    except problems.KubeconfigRefused:
        found = None
    seen = list(_VIGILANT)
    _VIGILANT.clear()

    assert seen == ["on"]
    if found is not None:
        assert set(user) == {"token"}
        assert not access.forbidden_host(found.server.removeprefix("https://").split(":")[0])


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ones_own_file_with_any_text_anywhere_is_read_or_broken_and_nothing_else(tmp_path, data):
    whole = text({"certificate-authority-data": ""})
    for _ in range(data.draw(st.integers(1, 3))):
        at, skip = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 20))
        whole = whole[:at] + data.draw(_ODD | _VALUES) + whole[at + skip :]
    path = tmp_path / "config"
    path.write_bytes(whole.encode("utf-8", "surrogatepass"))

    try:
        found = access.from_kubeconfig(str(path), context=None)
    except (problems.KubeconfigBroken, problems.PluginFailed):
        return
    assert found.server.startswith(("https://", "http://"))
    assert found.name


_VALUES = st.sampled_from(
    ["2026-13-45", "~", "7", "[7]", "{a: 7}", "- 7", "!!binary x", "true", "0o9", "1e999", "<<: 7"]
)
"""What is no text, or is none that a reader of YAML takes."""
