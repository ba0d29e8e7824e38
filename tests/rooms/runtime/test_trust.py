"""The authority in force follows its files, and never for the worse."""

import datetime

from isthmus.runtime import trust
from isthmus.testing import certificates as material

MINUTE = datetime.timedelta(minutes=1)


class HandClock:
    def __init__(self):
        self.at = material.NOW

    def now(self):
        return self.at


class Setting:
    """A directory of files, and who follows it."""

    def __init__(self, directory):
        self.directory = directory
        self.clock = HandClock()
        self.trust = trust.Trust(str(directory), system_clock=self.clock)
        self.heard = []
        self.trust.listen(self.heard.append)

    def write(self, files):
        for name, text in files.items():
            (self.directory / name).write_text(text)
        self.trust.look()


def test_without_files_there_is_no_authority_and_the_reason_is_known(tmp_path):
    setting = Setting(tmp_path)

    setting.trust.look()

    assert setting.trust.authority is None
    assert setting.trust.fault.code == "ISM-RUN-002"


def test_files_that_are_completed_later_are_taken(tmp_path):
    setting, files = Setting(tmp_path), material.files()
    key = files.pop("ca-key.pem")
    setting.write(files)
    assert setting.trust.authority is None
    assert "ca-key.pem" in setting.trust.fault.detail

    setting.write({"ca-key.pem": key})

    assert setting.trust.fault is None
    assert setting.heard == [setting.trust.authority]


def test_what_cannot_be_used_never_replaces_what_can(tmp_path):
    setting = Setting(tmp_path)
    setting.write(material.files())
    before = setting.trust.authority

    setting.write({"ca-cert.pem": "nonsense"})

    assert setting.trust.authority is before
    assert setting.trust.fault is not None


def test_another_intermediate_of_the_same_root_is_taken(tmp_path):
    setting = Setting(tmp_path)
    setting.write(material.files("cluster1"))

    setting.write(material.files("cluster2"))

    assert len(setting.heard) == 2
    assert setting.trust.fault is None


def test_a_root_that_nobody_trusts_yet_does_not_replace_the_one_in_force(tmp_path):
    setting = Setting(tmp_path)
    setting.write(material.files())
    before = setting.trust.authority

    setting.write(material.files(of="another"))

    assert setting.trust.authority is before
    assert setting.trust.fault.code == "ISM-RUN-004"
    assert len(setting.heard) == 1


def test_a_root_can_be_added_and_then_be_alone(tmp_path):
    setting, old, new = Setting(tmp_path), material.files(), material.files(of="another")
    both = old["root-cert.pem"] + new["root-cert.pem"]
    setting.write(old)

    for files in ({**old, "root-cert.pem": both}, {**new, "root-cert.pem": both}, new):
        setting.write(files)
        assert setting.trust.fault is None

    assert setting.trust.authority.roots_pem == new["root-cert.pem"]


def test_an_authority_that_is_not_valid_yet_is_taken_when_it_is(tmp_path):
    setting = Setting(tmp_path)
    setting.clock.at -= datetime.timedelta(days=1)
    setting.write(material.files())
    assert setting.trust.authority is None

    setting.clock.at = material.NOW + MINUTE
    setting.trust.look()

    assert setting.trust.authority is not None
