"""A cluster without a socket, and objects to put into it."""

import pytest

from isthmus.lab.apiserver import api as apis


@pytest.fixture
def api():
    return apis.Api(history=100)
