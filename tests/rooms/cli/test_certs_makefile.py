"""The targets by which Istio's users make certificates."""

import base64
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

MAKEFILE = pathlib.Path(__file__).resolve().parents[3] / "tools" / "certs" / "Makefile"
FOUR = {"ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


class Maker:
    """Runs the Makefile in a folder, with smaller keys than its own."""

    def __init__(self, folder):
        self.folder = folder
        self.kubectl = "false"

    def attempt(self, *targets):
        settings = (f"ISTHMUS={sys.executable} -m isthmus", "CA_FLAGS=", f"KUBECTL={self.kubectl}")
        return subprocess.run(
            ["make", "-f", str(MAKEFILE), *settings, *targets],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(MAKEFILE.parents[2] / "src")},
            capture_output=True,
            text=True,
            check=False,
        )

    def make(self, *targets):
        ended = self.attempt(*targets)
        assert ended.returncode == 0, ended.stderr

    def text(self, name):
        return (self.folder / name).read_text()


@pytest.fixture
def maker(tmp_path):
    return Maker(tmp_path)


def test_a_cluster_gets_the_four_files_signed_by_the_root_here(maker):
    maker.make("root-ca", "cluster1-cacerts", "cluster2-cacerts-k8s")

    for cluster in ("cluster1", "cluster2"):
        assert {each.name for each in (maker.folder / cluster).iterdir()} == FOUR
        assert maker.text(f"{cluster}/root-cert.pem") == maker.text("root-cert.pem")
        assert maker.text(f"{cluster}/cert-chain.pem").endswith(maker.text("root-cert.pem"))


def test_what_is_there_already_is_kept(maker):
    maker.make("root-ca", "cluster1-cacerts")
    before = maker.text("root-cert.pem"), maker.text("cluster1/ca-cert.pem")

    maker.make("root-ca", "cluster1-cacerts", "cluster1-cacerts-k8s")

    assert (maker.text("root-cert.pem"), maker.text("cluster1/ca-cert.pem")) == before


def test_without_a_root_here_that_of_the_cluster_signs(maker, tmp_path_factory):
    elsewhere = Maker(tmp_path_factory.mktemp("root"))
    elsewhere.make("root-ca")
    maker.kubectl = str(maker.folder / "kubectl")
    cert, key = (
        base64.b64encode(elsewhere.text(name).encode()).decode()
        for name in ("root-cert.pem", "root-key.pem")
    )
    pathlib.Path(maker.kubectl).write_text(
        f'#!/bin/sh\ncase "$*" in *cert*pem*) echo {cert};; *) echo {key};; esac\n'
    )
    pathlib.Path(maker.kubectl).chmod(0o755)

    maker.make("cluster2-cacerts-k8s")

    assert maker.text("cluster2/root-cert.pem") == elsewhere.text("root-cert.pem")
    maker.make("clean")
    assert not (maker.folder / "k8s-root-key.pem").exists()


def test_a_cluster_without_a_root_is_an_error_that_names_the_next_step(maker):
    ended = maker.attempt("cluster2-cacerts-k8s")

    assert ended.returncode != 0
    assert "root-ca" in ended.stderr
    assert not (maker.folder / "cluster2").exists()
