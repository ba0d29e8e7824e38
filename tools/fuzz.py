"""Fuzzes the server of discovery from the bytes of a connection on, guided by coverage.

Needs `atheris`, which is no dependency, since it has no wheels for all that we run on:
`pip install atheris`, then `python tools/fuzz.py -max_total_time=600 CORPUS_DIRECTORY`. Hypothesis
runs the same target in the tests; what is found here becomes a row of the corpus there.
"""

import logging
import pathlib
import sys

import atheris

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests/rooms/wire/h2"))

with atheris.instrument_imports(include=["isthmus.wire", "isthmus.xds", "hpack"]):
    import fuzzing


def main() -> None:
    """Run until something is found, or for as long as the arguments say."""
    logging.getLogger("isthmus.h2").setLevel(logging.CRITICAL)
    logging.getLogger("isthmus.ads").setLevel(logging.CRITICAL)
    atheris.Setup(sys.argv, fuzzing.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
