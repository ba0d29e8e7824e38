import pytest
from envoy_examples import ALL, inbound

from isthmus.mesh.policies import MtlsMode
from isthmus.resources.envoy import build
from isthmus.testing import envoys


def test_envoy_takes_one_slice_of_each_kind(tmp_path):
    complaint = envoys.complaint_about(map(build.build, ALL), directory=tmp_path)

    assert complaint == ""


@pytest.mark.parametrize("mode", MtlsMode)
def test_envoy_takes_the_chains_of_each_mode(mode, tmp_path):
    slices = [*ALL[:-1], inbound(mode)]

    complaint = envoys.complaint_about(map(build.build, slices), directory=tmp_path)

    assert complaint == ""
