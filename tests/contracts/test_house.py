"""What the house promises about itself."""

import ast
import collections
import importlib
import re
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/isthmus"
PURE = ("engine", "mesh", "registry", "views", "resources", "xds", "ca", "inject", "capture")
MODULES = sorted(SOURCE.rglob("*.py"))
CODE = re.compile(r'"(ISM-[A-Z]+-\d{3})"')

sys.path.insert(0, str(ROOT / "tools"))


def test_the_list_of_rooms_says_what_the_packages_say():
    rooms = importlib.import_module("rooms")
    page = (ROOT / "ARCHITECTURE.md").read_text()

    assert rooms.page_with_rooms(page) == page


def test_every_relative_link_leads_somewhere():
    check_links = importlib.import_module("check_links")

    assert check_links.broken_links(ROOT) == []


def test_no_two_files_of_tests_share_a_name():
    """They would be one module to Python, and only the first would be run."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]

    assert [name for name, times in collections.Counter(names).items() if times > 1] == []


def test_no_module_is_longer_than_500_lines():
    long = {str(path.relative_to(ROOT)): count for path in MODULES if (count := lines(path)) > 500}

    assert long == {}


def lines(path):
    return path.read_text().count("\n")


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_function_is_longer_than_60_lines():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in functions(path)
        if node.end_lineno - node.lineno + 1 > 60 and "command" not in ast.dump(node)[:2000]
    ]

    assert long == []


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_never_wait(room):
    waiting = [
        f"{path.name}: {node.name}"
        for path in (SOURCE / room).rglob("*.py")
        for node in functions(path)
        if isinstance(node, ast.AsyncFunctionDef)
    ]

    assert waiting == []


def codes():
    found = {}
    for path in MODULES:
        for code in CODE.findall(path.read_text()):
            found.setdefault(code, set()).add(str(path.relative_to(SOURCE)))
    return found


def test_each_error_code_has_a_page():
    missing = [code for code in codes() if not (ROOT / f"docs/errors/{code}.md").exists()]

    assert missing == []


def test_each_error_page_is_about_a_code_that_exists():
    known = set(codes())
    pages = {path.stem for path in (ROOT / "docs/errors").glob("ISM-*.md")}

    assert pages - known == set()


def test_no_error_code_is_defined_by_two_classes():
    definitions = re.compile(r'^    code(?:: str)? = "(ISM-[A-Z]+-\d{3})"', re.MULTILINE)
    seen = [code for path in MODULES for code in definitions.findall(path.read_text())]

    assert sorted(seen) == sorted(set(seen))


def commands(command, path):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            yield from commands(found, f"{path} {name}")


def test_every_command_explains_itself_with_an_example():
    main = importlib.import_module("isthmus.cli.main")

    silent = [
        path
        for path, command in commands(main.command, "isthmus")
        if not path.endswith(" x") and "Example:" not in (command.help or "")
    ]

    assert silent == []
