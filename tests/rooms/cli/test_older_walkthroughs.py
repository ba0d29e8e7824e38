"""What the demo does before an older guide's first step, and what its commands print."""

import yaml
from click import testing

from isthmus.cli import demo, manifest


def test_a_program_that_a_guide_calls_is_asked_for_before_anything_is_booted(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    ended = testing.CliRunner().invoke(
        demo.command, ["--topology", "primary-remote-shared-network"]
    )

    assert isinstance(ended.exception, demo.StepFailed)
    assert "`kubectl`, which is not on this machine" in ended.exception.happened
    assert ended.stdout == ""


def test_generated_objects_stay_yaml_when_a_value_has_no_effect():
    flag = "values.global.remotePolicyAddress=172.30.0.9"

    ended = testing.CliRunner().invoke(manifest.command, ["generate", "--set", flag])

    assert ended.exit_code == 0
    assert f"spec.{flag.partition('=')[0]}: has no effect" in ended.stderr
    assert all(yaml.safe_load_all(ended.stdout))
