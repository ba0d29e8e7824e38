"""Writes the tables of docs/reference/debug-endpoints.md from the pages that are served."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/debug-endpoints.md"
BEGIN = "<!-- {}: written by tools/pages.py -->"
END = "<!-- end of {} -->"


def page_with_tables(page: str) -> str:
    """Return the page brought up to date."""
    sys.path.insert(0, str(ROOT / "src"))
    from isthmus.wire import debugging  # the package need not be installed to run this

    mesh = [f"| `/debug/{name}` | {text} |" for name, text in sorted(debugging.PAGES.items())]
    own = [
        f"| `/debug/{name}` | {text} | {'yes' if name in debugging.OF_NAMESPACES else ''} |"
        for name, text in sorted(debugging.OF_PROXY.items())
    ]
    page = _filled(page, "pages", "| page | what it shows |\n|---|---|\n" + "\n".join(mesh))
    heading = "| page | what it shows | for its own namespace, too |\n|---|---|---|\n"
    return _filled(page, "pages of proxies", heading + "\n".join(own))


def _filled(page: str, name: str, text: str) -> str:
    before, _, rest = page.partition(BEGIN.format(name))
    _, _, after = rest.partition(END.format(name))
    return f"{before}{BEGIN.format(name)}\n\n{text}\n\n{END.format(name)}{after}"


def main() -> int:
    """Bring the page up to date."""
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
