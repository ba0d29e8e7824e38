"""The page of fields says what becomes of each field of Istio's API; none is ignored in silence."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
fields = importlib.import_module("fields")


@pytest.fixture(scope="module")
def tried():
    return [(row, fields.outcome(row)) for row in fields.rows()]


def test_no_field_is_ignored_in_silence(tried):
    assert [row.name for row, what in tried if what.verdict == fields.SILENT] == []


def test_the_page_tells_what_was_tried(tried):
    page = fields.PAGE.read_text(encoding="utf-8")

    assert fields.page(page, tried) == page, "run tools/fields.py"


def test_a_field_that_changes_nothing_would_be_found():
    """Names of routes only name things: nothing is told or said, and the probe must see that."""
    base = {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}
    named = {"hosts": ["web"], "http": [{**base["http"][0], "name": "first"}]}
    row = fields.Row("VirtualService", "http[].name", base, named)

    assert fields.outcome(row) == fields.Outcome(fields.SILENT)
