"""What is said to somebody who types a command that there is not, and how commands are listed."""

import click
import pytest
from click.testing import CliRunner

from isthmus.cli import groups, main


def said(*words):
    return CliRunner().invoke(main.command, list(words))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["instal"], "Did you mean `install`"),
        (["lab", "stauts"], "Did you mean `status`"),
        (["analyze"], "Instead: `isthmus findings`"),
        (["x", "describe"], "Instead: `isthmus explain"),
        (["pc", "ecds", "deploy/sleep"], "Instead: no extension"),
        (["kubectl", "describe", "pod"], "a small one"),
    ],
)
def test_a_command_that_there_is_not_leads_to_one_that_there_is(words, advice):
    ended = said(*words)

    assert ended.exit_code == 2
    assert advice in ended.stderr


def test_a_command_that_resembles_none_is_refused_without_a_guess():
    assert said("qqq").stderr.splitlines()[-1] == "Error: No such command 'qqq'."


@pytest.mark.parametrize("word", ["x", "exp", "experimental"])
def test_experimental_commands_have_all_of_istios_spellings(word):
    assert not said(word, "create-remote-secret", "--help").exit_code


def test_nothing_that_exists_is_said_to_be_elsewhere():
    assert not set(groups.ISTIOCTL) & {*main.COMMANDS, *main.ALIASES}


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_help_fits_a_terminal_and_cuts_no_sentence_short(name):
    for words in pages(main.command, [name]):
        text = said(*words, "--help").stdout
        assert max(map(len, text.splitlines())) <= 80, words
        assert not [line for line in text.splitlines()[1:] if line.endswith("...")], words
        assert "Example: " in text, words


def pages(group, words):
    found = group.get_command(click.Context(group), words[-1])
    yield words
    for name in found.commands if isinstance(found, click.Group) else ():
        yield from pages(found, [*words, name])
