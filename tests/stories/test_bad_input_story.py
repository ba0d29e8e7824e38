"""Bad input at the command line: a code, what happened, a hint; a status; never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.testing import pace

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
clusters: [{name: one, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: one, context: {cluster: one, user: one}}]
users: [{name: one, user: {token: t}}]
"""


@pytest.fixture
def isthmus(tmp_path):
    """Run the command line in an empty folder, with a kubeconfig whose server does not listen."""
    (tmp_path / "config").write_text(KUBECONFIG)
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "HOME": str(tmp_path)}

    def run(*words, stdout=subprocess.PIPE, **changed):
        ended = subprocess.run(
            [sys.executable, "-m", "isthmus", *words],
            cwd=tmp_path,
            env={**environment, **changed},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=pace.patience(30),
            check=False,
        )
        assert "Traceback" not in ended.stderr
        return ended

    return run


@pytest.mark.parametrize(
    "words",
    [
        ("install", "-y"),
        ("uninstall", "-y"),
        ("remote-clusters",),
        ("proxy-status",),
        ("findings",),
        ("create-remote-secret", "--name", "two"),
        ("verify", "--contexts", "one"),
    ],
)
def test_a_cluster_that_does_not_listen_is_named(isthmus, words):
    ended = isthmus(*words)

    assert ended.returncode == 1
    assert "error[ISM-KUBE-002]: cannot reach cluster `one`" in ended.stderr
    assert "https://127.0.0.1:1: nothing listens there" in ended.stderr
    assert "hint: check the address" in ended.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "there is no kubeconfig at"),
        ("not: [yaml", "not a kubeconfig"),
        ("\udcff", "is not a text"),
        ("contexts: [{name: one, context: x}]", "`one` in `contexts` has no fields"),
        ("apiVersion: v1\nkind: Config\n", "the kubeconfig names no context"),
        (KUBECONFIG.replace("current-context: one", "current-context: two"), "no context `two`"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named_with_the_reason(isthmus, tmp_path, text, reason):
    path = tmp_path / "other"
    if text is not None:
        path.write_text(text, errors="surrogateescape")

    ended = isthmus("remote-clusters", KUBECONFIG=str(path))

    assert ended.returncode == 1
    assert ended.stderr.startswith("error[ISM-KUBE-003]")
    assert reason in ended.stderr
    assert str(path) in ended.stderr


@pytest.mark.parametrize(
    "words", [("install", "--bogus"), ("bogus",), ("lab", "up", "--name", "../up")]
)
def test_wrong_usage_ends_with_status_2_and_says_where_help_is(isthmus, words):
    ended = isthmus(*words)

    assert ended.returncode == 2
    assert "--help" in ended.stderr


def test_certificates_are_never_overwritten_unasked(isthmus, tmp_path):
    assert isthmus("ca", "root").returncode == 0
    before = (tmp_path / "root-key.pem").read_text()

    ended = isthmus("ca", "root")

    assert ended.returncode == 1
    assert "error[ISM-CA-012]" in ended.stderr
    assert "still working: nothing was changed" in ended.stderr
    assert (tmp_path / "root-key.pem").read_text() == before


def test_a_full_disk_is_named(isthmus):
    with Path("/dev/full").open("w") as full:
        ended = isthmus("manifest", "generate", stdout=full)

    assert ended.returncode == 1
    assert "error[ISM-BASE-002]: no space left on device" in ended.stderr
    assert "hint: the disk is full" in ended.stderr


def test_a_place_that_cannot_be_written_is_named(isthmus):
    ended = isthmus("lab", "up", ISTHMUS_LAB_HOME="/proc/nowhere")

    assert ended.returncode == 1
    assert "error[ISM-BASE-002]" in ended.stderr
    assert "/proc/nowhere" in ended.stderr


def test_whoever_stops_reading_ends_a_command_in_silence(isthmus):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as nobody:
        ended = isthmus("manifest", "generate", stdout=nobody)

    assert ended.stderr == ""
