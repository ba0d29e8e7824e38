"""A demo's commands fit into a terminal of 80 columns, and are still the same commands."""

import pytest

from isthmus.cli import demo, narrow

WALKS = [*demo.TOPOLOGIES.values(), *(one for size in demo.SIZES for one in size.values())]
STEPS = [step for walk in WALKS for step in walk.steps]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: f"{walk.lab}-{walk.clusters}")
def test_no_line_of_a_walkthrough_is_wider_than_a_terminal(walk):
    lines = [line for step in walk.steps for line in shown(step)]

    assert [line for line in lines if len(line) > demo.COLUMNS] == []
    assert all(len(step.title) <= demo.COLUMNS for step in walk.steps)


def shown(step):
    """Yield the lines that the demo prints before it runs a step."""
    for text in step.files.values():
        yield from (demo.OUTPUT_INDENT + line for line in text.splitlines())
    first, *rest = step.typed.splitlines()
    yield demo.PROMPT + first
    yield from (demo.FURTHER + line for line in rest)


def test_a_broken_command_has_the_same_words():
    wide = [step for step in STEPS if step.typed != step.command]

    assert wide
    for step in wide:
        assert words(step.typed) == words(step.command)


def words(command):
    """Return the words of each line, as a shell reads them."""
    return [line.split() for line in command.replace("\\\n", " ").split("\n")]


@pytest.mark.parametrize(
    ("command", "narrowed"),
    [
        ("echo short", "echo short"),
        (f"say {'a' * 40} {'b' * 40}", f"say {'a' * 40} \\\n    {'b' * 40}"),
        ("go " + "x" * 70 + " --to one", "go " + "x" * 70 + " \\\n    --to one"),
        ("go --to " + "x" * 70, "go \\\n    --to \\\n" + "x" * 70),
        (f"  {'a ' * 40}\\\nb", f"  {'a ' * 35}a \\\n  a a a a \\\nb"),
        (f"cat <<EOF\n{'a ' * 50}\nEOF", f"cat <<EOF\n{'a ' * 50}\nEOF"),
    ],
)
def test_lines_break_between_words_only(command, narrowed):
    assert narrow.narrowed(command) == narrowed


@pytest.mark.parametrize(
    ("shown", "is_below"),
    [("x" * 67, False), ("x" * 68, True), ("a\n" + "x" * 71, False), ("a\n" + "x" * 72, True)],
)
def test_how_long_a_command_took_stands_below_it_where_it_would_not_fit(shown, is_below):
    lines = (demo.PROMPT + shown + demo.timed(shown, 12.34)).split("\n")

    assert (lines[-1] == "    12.3 s") == is_below
    assert max(map(len, lines)) <= demo.COLUMNS
