"""What a program's start must not cost."""

import gc
import os
import subprocess
import sys

import pytest

from isthmus.base import imports


def test_the_machines_authorities_are_hidden_and_come_back(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/mine.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    with imports.without_authorities():
        assert os.environ["SSL_CERT_FILE"] == os.environ["SSL_CERT_DIR"] == os.devnull

    assert os.environ["SSL_CERT_FILE"] == "/etc/mine.pem"
    assert "SSL_CERT_DIR" not in os.environ


def test_nothing_is_collected_while_a_program_is_imported():
    with imports.at_start():
        assert not gc.isenabled()

    assert gc.isenabled()


@pytest.mark.parametrize(
    "command", ["version --remote=false", "ca root --help", "lab status", "lab up --help"]
)
def test_commands_that_reach_no_cluster_import_no_http(command, tmp_path):
    script = (
        "import sys\nfrom isthmus.cli import main\n"
        f"sys.argv = ['isthmus', *{command.split()}]\n"
        "try:\n    main.main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "assert 'aiohttp' not in sys.modules\n"
    )
    environment = {**os.environ, "ISTHMUS_LAB_HOME": str(tmp_path)}

    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr


HEAVY = ("aiohttp", "asyncio", "cryptography", "email", "envoy", "google", "grpc", "msgspec")
ROLES = {
    "isthmus.cli.main": (),
    "isthmus.cli.main isthmus.cli.lab": (),
    "isthmus.cli.main isthmus.cli.demo": (),
    "isthmus.cli.main isthmus.cli.version": (),
    "isthmus.cli.main isthmus.cli.ca": ("cryptography", "email", "msgspec"),
    "isthmus.cli.main isthmus.cli.install": ("aiohttp", "asyncio", "email", "msgspec"),
    "isthmus.cli.main isthmus.cli.verify": ("aiohttp", "asyncio", "email", "msgspec"),
    "isthmus.node.__main__ isthmus.node.redirect": (),
    "isthmus.node.__main__ isthmus.node.agent": ("asyncio", "email"),
    "isthmus.runtime.__main__": ("email",),
}
"""What programs consist of when they start, and which of the heavy packages that takes."""


@pytest.mark.parametrize("modules", ROLES)
def test_a_program_starts_with_no_package_that_it_does_not_need(modules):
    loaded = _loaded(modules)

    assert tuple(each for each in HEAVY if each in loaded) == ROLES[modules]


def test_an_agent_loads_nothing_of_what_serves_proxies_of_others():
    loaded = _loaded("isthmus.node.agent isthmus.node.certificates isthmus.wire.local")

    assert "envoy.service.discovery.v3.discovery_pb2" in loaded
    assert not loaded & {
        "isthmus.wire.ads",
        "isthmus.xds.session",
        "envoy.config.cluster.v3.cluster_pb2",
        "envoy.config.listener.v3.listener_pb2",
        "envoy.config.route.v3.route_components_pb2",
    }


def _loaded(modules: str) -> set[str]:
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    ended = subprocess.run(
        [sys.executable, "-c", f"{script}print(*sys.modules)", *modules.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.split())
