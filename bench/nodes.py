"""One node with many pods in ambient mode: its proxy's listeners, memory, and what it is told."""

import json
import subprocess
import sys
import tempfile

from bench import measures

DEADLINE_S = 120


def measure(results: measures.Results) -> None:
    """Measure once, in a program that moves into namespaces of its own."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        ended = subprocess.run(
            [sys.executable, "-m", "bench.node_program", folder],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
    for name, value in json.loads(ended.stdout).items():
        results.add(f"node/{name}", value)
