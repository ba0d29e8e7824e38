"""What processes use, as the kernel accounts it."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, and the CPU time that it and its ended children have used."""

    pid: int
    parent: int
    argv: tuple[str, ...]
    cpu_s: float

    @property
    def part(self) -> str:
        """What of the product it is; empty for anything else."""
        if "isthmus.runtime" in self.argv and "discovery" in self.argv:
            return "control-plane"
        if "isthmus.node" in self.argv and "proxy" in self.argv:
            return "agent"
        if "isthmus.node" in self.argv and "ztunnel" in self.argv:
            return "node-agent"
        if self.argv and self.argv[0].endswith("/envoy"):
            return "envoy"
        if "isthmus.lab.cluster" in self.argv:
            return "cluster"
        return ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in MiB: its fair share of everything, and what is its alone."""

    pss: float
    private: float


def below(root: int) -> list[Process]:
    """Return a process and all that it has started, with those that they have started."""
    everything = {each.pid: each for each in _all()}
    wanted = {root}
    while more := {
        each.pid for each in everything.values() if each.parent in wanted and each.pid not in wanted
    }:
        wanted |= more
    return [everything[pid] for pid in sorted(wanted) if pid in everything]


def of_part(processes: Iterable[Process], part: str) -> list[Process]:
    """Return the processes that are one part of the product."""
    return [each for each in processes if each.part == part]


def cpu_s(root: int, part: str = "") -> float:
    """Return the CPU time of all processes of a part, or of everything, below `root`."""
    return sum(each.cpu_s for each in below(root) if not part or each.part == part)


def exact_cpu_s(root: int) -> float:
    """Return the CPU time of all that runs below `root`, to the nanosecond; the ended ones count not."""
    return sum(_scheduled_ns(each.pid) for each in below(root)) / 1e9


def _scheduled_ns(pid: int) -> int:
    used = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            used += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
    return used


def peak_mib(pid: int) -> float:
    """Return the most that a process has held; 0 when it has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return sum(int(one.split()[1]) / 1024 for one in lines if one.startswith("VmHWM"))
    return 0.0


def memory(pid: int) -> Memory | None:
    """Return what a process holds; None when it has ended, or may not be looked into."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        return Memory(kib["Pss"] / 1024, (kib["Private_Dirty"] + kib["Private_Clean"]) / 1024)
    return None


def _all() -> Iterable[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                argv = (folder / "cmdline").read_text(encoding="utf-8").split("\0")
                ticks = sum(int(each) for each in fields[11:15])
                yield Process(int(folder.name), int(fields[1]), tuple(argv), ticks / _TICKS)
