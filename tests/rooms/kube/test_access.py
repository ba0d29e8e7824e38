"""How API servers are reached: the user's own kubeconfig, and foreign ones."""

import base64
import datetime
import ipaddress
import json
import socket
import sys
import urllib.parse

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.kube import access, problems, tls


def _certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(at)
        .not_valid_after(at + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


CA, KEY = _certificate()


def b64(text):
    return base64.b64encode(text.encode()).decode()


def document(cluster=None, user=None, **top):
    """Return a kubeconfig as `create-remote-secret` makes it, with changes."""
    authority = {"certificate-authority-data": b64(CA), "server": "https://10.2.0.9:6443"}
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": authority | (cluster or {}), "name": "c2"}],
        "contexts": [{"context": {"cluster": "c2", "user": "c2"}, "name": "c2"}],
        "current-context": "c2",
        "users": [{"name": "c2", "user": {"token": "t"} if user is None else user}],
    }
    return whole | {key.replace("_", "-"): value for key, value in top.items()}


def text(*parts, **top):
    return yaml.safe_dump(document(*parts, **top))


def refusal(kubeconfig):
    with pytest.raises(problems.KubeconfigRefused) as caught:
        access.parse_untrusted(kubeconfig)
    return caught.value


# --- foreign kubeconfigs --------------------------------------------------------------------------


def test_what_create_remote_secret_writes_is_accepted():
    found = access.parse_untrusted(text())

    assert (found.server, found.token, found.ca_pem) == ("https://10.2.0.9:6443", "t", CA)
    assert found.confined


def test_what_older_command_lines_and_walkthroughs_write_is_accepted():
    old = text(preferences={}, creationTimestamp=None)
    by_hand = (
        "apiVersion: v1\nkind: Config\nclusters:\n  - cluster:\n"
        f"      certificate-authority-data: {b64(CA)}\n      server: https://east.example:6443\n"
        "    name: cluster2\ncontexts:\n  - context:\n      cluster: cluster2\n"
        "      user: cluster2\n    name: cluster2\ncurrent-context: cluster2\n"
        "users:\n  - name: cluster2\n    user:\n      token: abc.def\n"
    )

    assert access.parse_untrusted(old).token == "t"
    assert access.parse_untrusted(by_hand).server == "https://east.example:6443"


def test_an_inline_client_certificate_is_accepted_and_usable():
    user = {"client-certificate-data": b64(CA), "client-key-data": b64(KEY)}

    found = access.parse_untrusted(text(None, user))

    assert found.client_certificate_pem == CA
    assert tls.context(found).check_hostname


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ({"exec": {"command": "rm"}}, "exec is not allowed"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider is not allowed"),
        ({"auth-provider": {"name": "oidc"}}, "auth-provider is not allowed"),
        ({"tokenFile": "/etc/shadow"}, "tokenFile is not allowed"),
        ({"client-certificate": "/x"}, "clientCertificate is not allowed"),
        ({"client-key": "/x"}, "clientKey is not allowed"),
        ({"username": "a", "password": "b"}, "not allowed: use a token"),
        ({"token": "t", "as": "admin"}, "impersonation is not allowed"),
        ({"token": "t", "as-groups": ["system:masters"]}, "impersonation is not allowed"),
        ({"token": "a\nX-Evil: b"}, "not one line of plain text"),
        ({"token": "t" * 20_000}, "not one line of plain text"),
        ({"token": ["t"]}, "`token` is not a text"),
        ({}, "no token and no client certificate"),
        ({"client-certificate-data": b64(CA)}, "belong together"),
        (
            {"client-certificate-data": b64("x"), "client-key-data": b64("y")},
            "a certificate or key is malformed",
        ),
        ({"token": "t", "colour": "blue"}, "unknown field `colour`"),
    ],
)
def test_a_user_that_could_do_more_than_show_a_credential_is_refused(user, reason):
    assert reason in refusal(text(None, user)).happened


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify is not allowed"),
        ({"proxy-url": "http://evil"}, "proxy-url is not allowed"),
        ({"certificate-authority": "/etc/x"}, "certificate-authority is not allowed"),
        ({"certificate-authority-data": ""}, "certificate-authority-data is missing"),
        ({"certificate-authority-data": b64("x")}, "malformed"),
        ({"certificate-authority-data": "%%%"}, "not base64"),
        ({"extensions": []}, "unknown field `extensions`"),
        ({"server": "http://10.0.0.1"}, "must begin with https://"),
        ({"server": "https://user:pw@10.0.0.1"}, "more than a place"),
        ({"server": "https://10.0.0.1?x=1"}, "more than a place"),
        ({"server": "https://10.0.0.1:99999"}, "malformed"),
        ({"server": "https://[::1"}, "malformed"),
        ({"server": ""}, "must begin with https://"),
        ({"server": "https://127.0.0.1:6443"}, "loopback"),
        ({"server": "https://127.9.9.9"}, "loopback"),
        ({"server": "https://localhost:6443"}, "loopback"),
        ({"server": "https://LOCALHOST."}, "loopback"),
        ({"server": "https://a.localhost"}, "loopback"),
        ({"server": "https://[::1]:6443"}, "loopback"),
        ({"server": "https://[::ffff:127.0.0.1]"}, "loopback"),
        ({"server": "https://127.1"}, "unusual spelling"),
        ({"server": "https://2130706433"}, "unusual spelling"),
        ({"server": "https://0x7f000001"}, "unusual spelling"),
        ({"server": "https://0.0.0.0"}, "no address"),
        ({"server": "https://169.254.169.254"}, "link-local"),
        ({"server": "https://[fe80::1%25eth0]"}, "link-local"),
        ({"server": "https://metadata.google.internal"}, "a metadata service"),
        ({"server": "https://224.0.0.1"}, "multicast"),
    ],
)
def test_a_cluster_that_leads_elsewhere_or_is_not_verified_is_refused(cluster, reason):
    assert reason in refusal(text(cluster)).happened


def test_a_loopback_server_is_refused_with_the_way_out():
    assert "--server" in refusal(text({"server": "https://127.0.0.1:6443"})).hint


@pytest.mark.parametrize(
    ("kubeconfig", "reason"),
    [
        ("", "kubeconfig is empty"),
        ("  \n", "kubeconfig is empty"),
        ("[]", "is not a mapping"),
        ("a: [", "cannot be loaded: it is not YAML"),
        ("a: &x 1\nb: *x", "it uses a YAML anchor"),
        ("a: *x", "it uses a YAML alias"),
        ("a: !!python/object/apply:os.system [id]", "it uses a YAML tag"),
        ("%YAML 1.1\n---\na: 1", "it uses a YAML directive"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: 1\na: 2", "key `a` is given twice"),
        ("[a]: 1", "a key is not a text"),
        ("a: " + "[" * 17, "nested more than 16 levels deep"),
        ("[" * 60_000, "nested more than 16 levels deep"),
        ("a: " + "x" * 70_000, "larger than 64 KiB"),
        ("- a\n" * 5_000, "far more than a kubeconfig"),
        (text(extensions=[{"name": "x"}]), "preferences and extensions must be empty"),
        (text(kind="Secret"), "not a `v1` `Config`"),
        (text(current_context="other"), "current-context names no context"),
        (text(users=[]), "exactly one of users"),
        (
            text(contexts=[*document()["contexts"], *document()["contexts"]]),
            "exactly one of contexts",
        ),
        (text(contexts=[{"name": "c2", "context": {"cluster": "x", "user": "c2"}}]), "another"),
    ],
)
def test_a_text_that_is_no_plain_kubeconfig_is_refused(kubeconfig, reason):
    assert reason in refusal(kubeconfig).happened


def test_the_credential_is_in_no_text_about_the_access():
    assert "secret" not in repr(access.parse_untrusted(text(None, {"token": "secret"})))


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


# --- the user's own -------------------------------------------------------------------------------


def own(tmp_path, name="config", **changes):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(document(**changes)))
    return path


def test_the_current_context_is_used_unless_another_is_asked_for(tmp_path):
    contexts = [
        *document()["contexts"],
        {"name": "other", "context": {"cluster": "c2", "user": "c2"}},
    ]
    path = own(tmp_path, contexts=contexts)

    assert access.from_kubeconfig(str(path), context=None).name == "c2"
    assert access.from_kubeconfig(str(path), context="other").name == "other"


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


def test_ones_own_file_with_a_date_that_no_calendar_has_is_broken(tmp_path):
    path = tmp_path / "config"
    path.write_text(text({"certificate-authority-data": ""}) + "\nsince: 2026-13-45\n")

    with pytest.raises(problems.KubeconfigBroken, match="not a kubeconfig") as refused:
        access.from_kubeconfig(str(path), context=None)

    assert refused.value.detail == "ValueError: month must be in 1..12"


_VALUES = st.sampled_from(
    ["2026-13-45", "~", "7", "[7]", "{a: 7}", "- 7", "!!binary x", "true", "0o9", "1e999", "<<: 7"]
)
"""What is no text, or is none that a reader of YAML takes."""


def test_an_unknown_context_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(problems.KubeconfigBroken) as caught:
        access.from_kubeconfig(str(own(tmp_path)), context="nowhere")

    assert "contexts: `c2`" in caught.value.detail


def test_several_files_are_merged_and_the_first_to_name_something_defines_it(tmp_path, monkeypatch):
    first = own(tmp_path, "first")
    second = own(tmp_path, "second", cluster={"server": "https://10.9.9.9"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path}/missing:{second}")

    assert access.from_kubeconfig(None, context="c2").server == "https://10.2.0.9:6443"


def test_files_are_found_beside_the_kubeconfig_that_names_them(tmp_path):
    (tmp_path / "ca.pem").write_text(CA)
    (tmp_path / "token").write_text("t")
    cluster = {"certificate-authority-data": "", "certificate-authority": "ca.pem"}
    path = own(tmp_path, cluster=cluster, user={"tokenFile": "token"})

    found = access.from_kubeconfig(str(path), context=None)

    assert (found.ca_pem, found.token_path) == (CA, str(tmp_path / "token"))


def test_skipping_verification_is_possible_for_ones_own_file_and_said(tmp_path):
    path = own(tmp_path, cluster={"insecure-skip-tls-verify": True})

    found = access.from_kubeconfig(str(path), context=None)

    assert not found.verify
    assert "does not verify" in found.warnings[0]


def test_a_credential_plugin_is_run_and_told_of_the_cluster(tmp_path):
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    program = tmp_path / "login"
    program.write_text(
        f"#!{sys.executable}\nimport json, os\n"
        "told = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "assert told['spec']['cluster']['server'] == 'https://10.2.0.9:6443'\n"
        "assert os.environ['REGION'] == 'eu'\n"
        f"print({json.dumps(json.dumps(answer))})\n"
    )
    program.chmod(0o755)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./login",
        "env": [{"name": "REGION", "value": "eu"}],
        "provideClusterInfo": True,
    }
    path = own(tmp_path, user={"exec": plugin})

    assert access.from_kubeconfig(str(path), context=None).token == "from-plugin"


def test_a_missing_plugin_is_refused_with_its_own_hint(tmp_path):
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "no-such-program-anywhere",
        "installHint": "install the cloud's tool",
    }

    with pytest.raises(problems.PluginFailed) as caught:
        access.from_kubeconfig(str(own(tmp_path, user={"exec": plugin})), context=None)

    assert caught.value.hint == "install the cloud's tool"


def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path):
    path = tmp_path / "config"
    path.write_text("clusters: 7")

    with pytest.raises(problems.KubeconfigBroken):
        access.from_kubeconfig(str(path), context=None)


def test_a_pods_own_account_is_found(tmp_path, monkeypatch):
    for name, content in {"token": "t", "ca.crt": CA, "namespace": "istio-system"}.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    found = access.in_cluster(str(tmp_path))

    assert found.server == "https://10.0.0.1:443"
    assert found.namespace == "istio-system"
    assert found.token_path == str(tmp_path / "token")


def test_outside_a_cluster_there_is_no_account(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(problems.NotInCluster):
        access.in_cluster(str(tmp_path))
