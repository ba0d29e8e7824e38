"""Writes the generated parts of docs/reference from the code: metrics and installation fields."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/isthmus"
METRICS = ROOT / "docs/reference/metrics.md"
SETTINGS = ROOT / "docs/reference/settings.md"
BEGIN = "<!-- {}: written by tools/reference.py -->"
END = "<!-- end of {} -->"

VARIABLE = re.compile(
    r"(?:environ(?:ment)?(?:\.get)?[\[(]\s*|_\w+\(\s*environment,\s*)\"([A-Z][A-Z0-9_]+)\""
)
"""How the code reads an environment variable by its name."""


def metrics() -> list[tuple[str, str, str]]:
    """Return the name, labels and meaning of every metric that the code declares."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (texts := _texts(node)) is not None:
                name, meaning, *labels = texts
                if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", name) and meaning.endswith("."):
                    found[name] = (name, ", ".join(f"`{each}`" for each in labels), meaning)
    return [found[name] for name in sorted(found)]


def _texts(call: ast.Call) -> list[str] | None:
    values = [each.value for each in call.args if isinstance(each, ast.Constant)]
    texts = [value for value in values if isinstance(value, str)]
    return texts if len(texts) == len(call.args) and len(texts) > 1 else None


def variables() -> set[str]:
    """Return the environment variables that the code reads by name."""
    return {
        name
        for path in SOURCE.rglob("*.py")
        for name in VARIABLE.findall(path.read_text(encoding="utf-8"))
    }


def metrics_page(page: str) -> str:
    """Return the page of metrics brought up to date."""
    rows = "\n".join(f"| `{name}` | {labels} | {text} |" for name, labels, text in metrics())
    return _filled(page, "metrics", f"| metric | labels | meaning |\n|---|---|---|\n{rows}")


def settings_page(page: str) -> str:
    """Return the page of settings brought up to date."""
    sys.path.insert(0, str(ROOT / "src"))
    from isthmus.install import fields  # the package need not be installed to run this

    obeyed, ignored = [], []
    for path, field in fields.listed():
        if field.is_obeyed:
            obeyed.append(f"| `{path}` | {field.kind.value} |")
        else:
            ignored.append(f"| `{path}` | {field.why} |")
    page = _filled(page, "obeyed", "| field | holds |\n|---|---|\n" + "\n".join(obeyed))
    return _filled(page, "ignored", "| field | because |\n|---|---|\n" + "\n".join(ignored))


def _filled(page: str, name: str, text: str) -> str:
    before, _, rest = page.partition(BEGIN.format(name))
    _, _, after = rest.partition(END.format(name))
    return f"{before}{BEGIN.format(name)}\n\n{text}\n\n{END.format(name)}{after}"


def main() -> int:
    """Bring both pages up to date."""
    for path, filled in ((METRICS, metrics_page), (SETTINGS, settings_page)):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
