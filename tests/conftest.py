"""Its place puts this folder on the path, so that every test can import `fakes`.

It decides which tests run where: what shares a lab stays together, and labs, which mostly wait,
run beside tests that mostly compute. What is marked `long` runs with `--long` alone.
"""

import asyncio
import functools
import gc
import os
import pathlib

import hypothesis
import pytest
from xdist import scheduler

from isthmus.testing import pace

HERE = pathlib.Path(__file__).parent
PEOPLE = {"root", "ordinary"}
IN_LABS = "in labs: "
LABS_AT_ONCE = 3
LONGEST = (
    "as ordinary",
    "ambient",
    "three_networks",
    "other_topologies",
    "fifty",
    "tutorial",
    "mesh",
)
UNDER_CHANGE = {"test_life_cycle.py", "test_traffic_under_change.py", "test_typed_pages.py"}
"""Two of these meshes side by side are through sooner than one."""

EACH_ALONE = {"test_other_topologies.py", "test_endings.py", "test_networks.py"}
"""Files of which each test has a lab of its own."""

# A deadline would measure the machine, and a run that nobody watches must be repeatable.
hypothesis.settings.register_profile("person", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "person")


def pytest_configure():
    # Otherwise pytest-asyncio's look for an earlier loop makes one that nobody closes.
    asyncio.set_event_loop(None)
    pace.measure()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run what is marked `long`, too")


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked `long`, and stories that do not depend on who booted the mesh."""
    if config.option.long:
        return
    left_out = [item for item in items if _is_long(item)]
    items[:] = [item for item in items if not _is_long(item)]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    """Spare the garbage collector all that stays to the end: thousands of tests, and their imports."""
    gc.collect()
    gc.freeze()


def _is_long(item):
    if item.get_closest_marker("long"):
        return True
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("mesh") == "root" and not item.get_closest_marker("people")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep together what shares a fixture, when tests run side by side (`make test`)."""
    return _BySharedFixture(config, log)


class _BySharedFixture(scheduler.LoadScopeScheduling):
    def _split_scope(self, nodeid):
        path, _, test = nodeid.partition("::")
        people = PEOPLE.intersection(test.partition("[")[2].rstrip("]").split("-"))
        if people and _uses(path, "mesh"):
            part = " under change" if path.rpartition("/")[2] in UNDER_CHANGE else ""
            return f"{IN_LABS}mesh as {min(people)}{part}"
        if _uses(path, "ambient"):
            return f"{IN_LABS}ambient mesh"
        if path.rpartition("/")[2] in EACH_ALONE:
            return f"{IN_LABS}{nodeid}"
        return f"{IN_LABS}{path}" if "/lab/test_" in path and "/rooms/" not in path else path

    def _assign_work_unit(self, node):
        """Take a lab while few others have one, else tests that compute; the longest labs first."""
        others = [units for one, units in self.assigned_work.items() if one is not node]
        is_lab = sum(map(_is_in_labs, others)) < LABS_AT_ONCE
        wanted = [scope for scope in self.workqueue if scope.startswith(IN_LABS) == is_lab]
        if wanted:
            self.workqueue.move_to_end(min(wanted, key=_turn), last=False)
        super()._assign_work_unit(node)


def _turn(scope):
    """Return when it is a scope's turn among its like."""
    return next((turn for turn, name in enumerate(LONGEST) if name in scope), len(LONGEST))


def _is_in_labs(units):
    """Whether tests in labs are still to be run among these."""
    return any(
        scope.startswith(IN_LABS) and not all(unit.values()) for scope, unit in units.items()
    )


@functools.cache
def _uses(path, fixture):
    return "/lab/" in path and f"({fixture}" in (HERE.parent / path).read_text()
