"""The page for people who come from Istio names every command of the guides, and types real ones."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from tools import guides, topologies

from isthmus.cli import demo, main

ROOT = Path(__file__).resolve().parents[2]
LINES = yaml.safe_load(Path(__file__).with_name("guide_lines.yaml").read_text())
SECTIONS = guides.sections()
OURS = re.compile(
    r"(?:^|[|;&(]\s*|\bdo\s+)(?:isthmus|istioctl)\s+((?:'[^'\n]*'|[^|;&>)\n])*)", re.MULTILINE
)
SHELL = re.compile(r"```(?:sh|console)\n(.*?)```", re.DOTALL)
CURRENT = re.compile(r"--context=\$CTX_(LOCAL|REMOTE) ")
PLACEHOLDERS = {"NETWORK": "network1", "NAME": "one", "…": ""}
WALKED = {
    "A remote cluster on the same network (Istio 1.6)": "primary-remote-shared-network",
    "Split-horizon EDS (Istio 1.1)": "split-horizon",
}
"""Guides whose lines the demo types; tests of the lab take the others' from the page."""
BY_HAND = "with `kubectl edit"


@pytest.mark.parametrize("section", LINES)
def test_no_command_of_a_guide_is_missing(section):
    told = [command for row in SECTIONS[section] for command in row.guide]

    assert [line for line in LINES[section] if line not in told] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_has_a_way_or_a_reason(section):
    for row in SECTIONS[section]:
        here = row.here
        assert here.startswith(guides.WAYS), here


@pytest.mark.parametrize(("section", "topology"), WALKED.items())
def test_the_demo_types_what_the_page_says(section, topology):
    typed = [plain(command) for command in commands(topology)]
    for row in SECTIONS[section]:
        for line in [] if BY_HAND in row.here else row.typed:
            wanted = plain(line.partition("…")[0])
            assert any(wanted in command for command in typed), line


def commands(topology):
    for step in demo.TOPOLOGIES[topology].steps:
        yield step.command
        if step.variable:
            yield f"export {step.variable}=$({step.command})"


def plain(command):
    """Return a command in one line, in the current context where the guide has it so."""
    return CURRENT.sub("", " ".join(command.replace("\\\n", " ").split()))


def spoken():
    """Yield every command line of ours in the documentation, with the page that has it."""
    for page in texts():
        for block in SHELL.findall(page.read_text()):
            for words in OURS.findall(prompted(block)):
                yield page.name, words
    for section, rows in SECTIONS.items():
        for row in rows:
            for command in row.typed or (line for line in row.mentioned if "isthmus " in line):
                for words in OURS.findall(command):
                    yield section, words


def prompted(block):
    """Return what is typed in a block: lines after prompts, if there are any."""
    text = re.sub(r"^ +", "", block.replace("\\\n", " "), flags=re.MULTILINE)
    shown = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return "\n".join(shown) if shown else text


def test_every_command_of_ours_in_the_documentation_exists_with_its_options():
    found = sorted(set(spoken()))

    assert len(found) > 100
    assert [(page, words, why) for page, words in found if (why := refusal(words))] == []


NOT_TYPED = {
    "from-istio.md": "its commands stand in tables, which tests of the lab type",
    "gke.md": "a cloud's; its plan is held by a test without one",
    "ISM-CA-015.md": "replaces a certificate that has ended",
}


def test_every_page_that_has_something_to_type_is_typed_by_a_test():
    typed = "".join(file.read_text() for file in sorted((ROOT / "tests/lab").glob("*.py")))
    walked = {*NOT_TYPED, *topologies.PAGES.values()}
    pages = [page for page in texts() if SHELL.search(page.read_text())]

    assert [page.name for page in pages if page.name not in walked | pages_in(typed)] == []


def pages_in(text):
    return set(re.findall(r"[\w.-]+\.md", text))


def texts():
    return [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("words", ["instal", "install --no-such-option", "demo --topology nowhere"])
def test_a_command_that_does_not_exist_is_noticed(words):
    assert refusal(words)


def refusal(words):
    """Return why our command line does not take these words; empty when it does."""
    for name, value in PLACEHOLDERS.items():
        words = words.replace(name, value)
    try:
        understood(main.command, shlex.split(words, comments=True), None)
    except click.exceptions.Exit:
        return ""
    except (click.ClickException, ValueError) as error:
        return str(error)
    return ""


def understood(command, arguments, parent):
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(arguments), parent=parent).close()
        return
    context = click.Context(command, parent=parent)
    _, rest, _ = command.make_parser(context).parse_args(list(arguments))
    if rest:
        _, chosen, left = command.resolve_command(context, rest)
        understood(chosen, left, context)
