"""The reference pages say what the code does: no metric, setting or field is missing or made up."""

import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs/reference"

sys.path.insert(0, str(ROOT / "tools"))
reference = importlib.import_module("reference")
pages = importlib.import_module("pages")

GIVEN_BY_PREFIX = {"ISTHMUS_DEBUG"}
"""Read through a constant, so that the search for names in the code does not meet it."""


def test_the_page_of_metrics_lists_what_the_code_declares():
    page = (PAGES / "metrics.md").read_text()

    assert reference.metrics_page(page) == page


def test_metrics_that_everybody_watches_are_among_them():
    names = {name for name, _, _ in reference.metrics()}

    assert {"pilot_xds", "istiod_managed_clusters", "sidecar_injection_requests_total"} <= names


def test_the_page_of_debug_endpoints_lists_what_is_served():
    page = (PAGES / "debug-endpoints.md").read_text()

    assert pages.page_with_tables(page) == page


def test_the_page_of_settings_lists_the_fields_of_the_installer():
    page = (PAGES / "settings.md").read_text()

    assert reference.settings_page(page) == page


def test_every_environment_variable_has_its_row():
    page = (PAGES / "settings.md").read_text()
    listed = {
        name
        for row in re.findall(r"^\| (`[A-Z].*?`) \|", page, re.MULTILINE)
        for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)
    }

    assert listed - GIVEN_BY_PREFIX == reference.variables()
