"""A graph for each test."""

import pytest

from isthmus.engine import graph


@pytest.fixture
def graph_():
    return graph.Graph()
