import pytest
from google.oauth2 import credentials

from fakes import google_cloud
from isthmus.gke import google


@pytest.fixture
def cloud():
    """A cloud that takes one token, empty yet."""
    with google_cloud.GoogleCloud(token="secret-token") as server:
        yield server


@pytest.fixture
def door(cloud):
    """Google's own libraries, connected to it."""
    signed_in = credentials.Credentials("secret-token")
    with google.Cloud(signed_in, environment=cloud.environment) as opened:
        yield opened
