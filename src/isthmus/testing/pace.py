"""How patient tests are: what they wait for may take longer where this machine is slower.

A factor is measured once in a session, by what a control plane's program takes to start; the
processes that run tests side by side inherit it. It decides about deadlines and about how much is
asked at a time, never about what is right.
"""

import os
import subprocess
import sys
import time
from typing import Final

NAME: Final = "ISTHMUS_TESTS_SLOWNESS"
USUAL_START_S: Final = 0.85
MARGIN: Final = 4.0
"""Others work on the same machine; who waits in vain for something good costs a failure only."""


def slowness_now() -> float:
    """Return how many times longer than usual a control plane's program takes to start; 1 or more."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import isthmus.runtime.program"], check=True)
    return max(1.0, (time.monotonic() - began) / USUAL_START_S)


def measure() -> None:
    """Measure this session's factor, unless who started it has."""
    if NAME not in os.environ:
        os.environ[NAME] = f"{slowness_now():.2f}"


def slowness() -> float:
    """Return this session's factor."""
    return float(os.environ.get(NAME, "1"))


def patience(seconds: float) -> float:
    """Return for how long to wait for what usually comes within so many seconds."""
    return seconds * MARGIN * slowness()


def promised(most: float) -> float:
    """Return what stands here and now for a limit that the product keeps on a usual machine."""
    return most * max(slowness(), slowness_now())
