"""How API servers are reached: the user's own kubeconfig, and foreign ones."""

import json
import sys

import pytest

from fakes.kubeconfigs import CA, KEY, b64, document, own, refusal, text
from isthmus.kube import access, problems, tls


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


def test_the_current_context_is_used_unless_another_is_asked_for(tmp_path):
    contexts = [
        *document()["contexts"],
        {"name": "other", "context": {"cluster": "c2", "user": "c2"}},
    ]
    path = own(tmp_path, contexts=contexts)

    assert access.from_kubeconfig(str(path), context=None).name == "c2"
    assert access.from_kubeconfig(str(path), context="other").name == "other"


def test_ones_own_file_with_a_date_that_no_calendar_has_is_broken(tmp_path):
    path = tmp_path / "config"
    path.write_text(text({"certificate-authority-data": ""}) + "\nsince: 2026-13-45\n")

    with pytest.raises(problems.KubeconfigBroken, match="not a kubeconfig") as refused:
        access.from_kubeconfig(str(path), context=None)

    assert refused.value.detail == "ValueError: month must be in 1..12"
    assert "--kubeconfig" in refused.value.hint


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
