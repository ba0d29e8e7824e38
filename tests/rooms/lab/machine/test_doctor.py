"""What the doctor tries works on a machine that can run a lab."""

import errno

import pytest

from isthmus.lab import doctor


@pytest.mark.lab
def test_a_machine_that_runs_labs_is_well():
    assert [check for check in doctor.examine() if not check.good] == []


def test_a_machine_without_user_namespaces_is_told_the_setting():
    fix = doctor.namespaces_fix(OSError(errno.ENOSPC, "No space left on device"))

    assert fix == "sudo sysctl -w user.max_user_namespaces=65536"
