"""Writes the list of rooms in ARCHITECTURE.md from the packages' own docstrings."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN = "<!-- rooms: written by tools/rooms.py -->"
END = "<!-- end of rooms -->"


def rooms() -> dict[str, str]:
    """Return each room and what it is for, by the first line of its docstring."""
    found = {}
    for package in sorted((ROOT / "src/isthmus").glob("*/__init__.py")):
        docstring = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
        found[package.parent.name] = docstring.splitlines()[0] if docstring else ""
    return found


def page_with_rooms(page: str) -> str:
    """Return the page with its list of rooms brought up to date."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = "\n".join(f"| `{name}/` | {purpose} |" for name, purpose in rooms().items())
    return f"{before}{BEGIN}\n\n| room | what it is for |\n|---|---|\n{rows}\n\n{END}{after}"


def main() -> int:
    """Bring the page up to date."""
    PAGE.write_text(page_with_rooms(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
