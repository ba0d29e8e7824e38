"""Generates src/isthmus_proto from proto/; `--check` only says whether that would change anything."""

import filecmp
import pathlib
import sys
import tempfile

from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
GENERATED = ROOT / "src" / "isthmus_proto"


def generate(target: pathlib.Path) -> list[pathlib.Path]:
    """Write the modules of all sources below `target` and return their paths inside it."""
    made = []
    for source in sorted(SOURCES.rglob("*.proto")):
        name = source.relative_to(SOURCES)
        outcome = protoc.main(
            ["protoc", f"-I{SOURCES}", f"--python_out={target}", str(name), _well_known()]
        )
        if outcome != 0:
            raise SystemExit(f"protoc refused {name}")
        made.append(name.with_name(f"{name.stem}_pb2.py"))
    return made


def stale() -> list[pathlib.Path]:
    """List the modules in the tree that differ from what their sources say."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = pathlib.Path(folder)
        return [
            name
            for name in generate(fresh)
            if not (GENERATED / name).exists()
            or not filecmp.cmp(fresh / name, GENERATED / name, shallow=False)
        ]


def _well_known() -> str:
    return f"-I{pathlib.Path(protoc.__file__).parent / '_proto'}"


def main() -> None:
    """Generate, or check."""
    if "--check" in sys.argv[1:]:
        if old := stale():
            raise SystemExit("not current: " + ", ".join(map(str, old)))
        return
    for name in generate(GENERATED):
        for folder in [GENERATED / name, *(GENERATED / name).parents]:
            if folder.is_dir() and GENERATED in [folder, *folder.parents]:
                (folder / "__init__.py").touch()
        print(f"wrote {(GENERATED / name).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
