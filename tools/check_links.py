"""Checks that every relative link in the project's Markdown files leads somewhere."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SKIPPED = {".venv", "node_modules", "build", "dist"}


def broken_links(root: Path) -> list[str]:
    """Return `file: target` for each link below `root` that leads nowhere."""
    broken = []
    for page in sorted(root.rglob("*.md")):
        if SKIPPED & set(page.relative_to(root).parts):
            continue
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            path, _, _ = target.partition("#")
            if path and "://" not in path and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(root)}: {target}")
    return broken


def main() -> int:
    """Print broken links; the exit status is 1 when there are any."""
    broken = broken_links(ROOT)
    for line in broken:
        print(f"broken link: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
