"""What the agent of ambient mode is told."""

import pathlib

import pytest

from isthmus.node import durations
from isthmus.node.cni import settings

ENVIRONMENT = {"NODE_NAME": "n1"}


def test_a_node_is_enough():
    assert settings.read([], environment=ENVIRONMENT) == settings.Settings(node="n1")


def test_without_a_node_nothing_begins():
    with pytest.raises(durations.SettingRefused, match="NODE_NAME"):
        settings.read([], environment={})


def test_what_the_config_map_says_is_obeyed():
    told = {
        **ENVIRONMENT,
        "EXCLUDE_NAMESPACES": "a, b,",
        "AMBIENT_DNS_CAPTURE": "false",
        "ZTUNNEL_UDS_ADDRESS": "/run/z.sock",
    }

    found = settings.read(["--log_output_level=default:debug"], environment=told)

    assert found.excluded == {"a", "b"}
    assert not found.captures_dns
    assert found.socket == pathlib.Path("/run/z.sock")
    assert found.log_level == "debug"
