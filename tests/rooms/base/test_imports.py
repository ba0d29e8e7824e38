"""What a program's start must not cost."""

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
