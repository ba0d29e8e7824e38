"""The page for users of Istio, held against the program."""

import pathlib
import re

import pytest

from isthmus.cli import demo, external_walkthrough, main, older_walkthroughs

PAGE = (pathlib.Path(main.__file__).resolve().parents[3] / "docs/howto/from-istio.md").read_text()


def test_the_topologies_that_the_page_shows_exist():
    assert set(re.findall(r"--topology ([a-z-]+)", PAGE)) <= set(demo.TOPOLOGIES)


NAMING = {**older_walkthroughs.TOPOLOGIES, **external_walkthrough.TOPOLOGIES}


@pytest.mark.parametrize("topology", NAMING)
def test_what_walkthroughs_set_is_what_their_steps_use(topology):
    walk = NAMING[topology]
    text = "\n".join(step.command for step in walk.steps)
    used = set(re.findall(r"\$\{?([A-Z][A-Z0-9_]*)\}?", text))
    made = {step.variable for step in walk.steps} | set(re.findall(r"^([A-Z_]+)=", text, re.M))

    assert used - made - set(demo.PLACES) == set(walk.variables)
