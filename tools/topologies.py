"""Writes the steps of each how-to for a topology from the walkthrough that `isthmus demo` runs."""

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from isthmus.cli import demo, walkthrough

ROOT = Path(__file__).resolve().parent.parent
HOWTO = ROOT / "docs/howto"
PAGES = {
    "primary-remote": "primary-remote.md",
    "primary-remote-shared-network": "shared-network.md",
    "split-horizon": "split-horizon.md",
    "multi-primary": "multi-primary.md",
    "multi-primary-multi-network": "multi-primary-multi-network.md",
    "external-control-plane": "external-control-plane.md",
    "fifty": "fifty.md",
    "ambient": "ambient.md",
}
"""The how-to of each topology."""

BEGIN = "<!-- steps of {}: written by tools/topologies.py -->\n"
END = "<!-- end of steps -->"


def steps(topology: str) -> str:
    """Return the steps of a walkthrough as numbered items, each with its commands."""
    walk = demo.TOPOLOGIES[topology]
    items: list[tuple[str, list[str]]] = []
    if walk.variables:
        lines = [f"export {name}={value}" for name, value in walk.variables.items()]
        items.append(("Name things", [*lines, "alias istioctl=isthmus"]))
    for step in walk.steps:
        if step.title:
            items.append((step.title, []))
        items[-1][1].extend(commands(step))
    return "\n".join(_item(number, *item) for number, item in enumerate(items, start=1))


def commands(step: walkthrough.Step) -> Iterable[str]:
    """Yield what a person types for a step: the files that it reads, then the command."""
    for name, text in step.files.items():
        yield f"cat <<'EOF' > {name}\n{text}EOF"
    yield f"export {step.variable}=$({step.typed})" if step.variable else step.typed


def _item(number: int, title: str, lines: list[str]) -> str:
    text = "\n".join(lines)
    mark = f"{number}. "
    indented = textwrap.indent(f"```sh\n{text}\n```", " " * len(mark))
    return f"{mark}{title}:\n\n{indented}\n"


def filled(page: str, topology: str) -> str:
    """Return a how-to with its steps brought up to date."""
    before, begin, rest = page.partition(BEGIN.format(topology))
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the how-to of `{topology}` has no place for its steps")
    return f"{before}{begin}\n{steps(topology)}\n{end}{after}"


def main() -> int:
    """Bring all pages up to date."""
    for topology, name in PAGES.items():
        path = HOWTO / name
        path.write_text(filled(path.read_text(encoding="utf-8"), topology), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
