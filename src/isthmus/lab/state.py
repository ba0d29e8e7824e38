"""Where a lab keeps what outlives a command: its process, kubeconfig and log.

Decides file names and who may read them; says whether a lab is alive. Everything else that a lab
has is in memory and goes with its processes.

Errors: `NoLabError` (ISM-LAB-205), `LabRunsError` (ISM-LAB-206).
"""

import contextlib
import json
import os
import pathlib
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.base import errors


class NoLabError(errors.IsthmusError):
    """There is no such lab."""

    code = "ISM-LAB-205"


class LabRunsError(errors.IsthmusError):
    """A lab of this name runs already."""

    code = "ISM-LAB-206"


@dataclass(frozen=True, slots=True)
class Record:
    """What a running lab says of itself.

    Attributes:
        pid: Its outermost process, in the machine's own numbering.
        born: When that process began, in the kernel's ticks; with `pid` it is unmistakable.
        topology: As `topology.to_json` writes it.
        servers: Cluster name to the address of its API server on this machine.
    """

    name: str
    pid: int
    born: int
    topology: str
    servers: Mapping[str, str]


class Place:
    """The folder of one lab."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.folder.name

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The file with one context for each cluster."""
        return self.folder / "kubeconfig"

    @property
    def log(self) -> pathlib.Path:
        """What the lab's own processes write."""
        return self.folder / "lab.log"

    def audit(self, cluster: str) -> pathlib.Path:
        """Return the file with what was asked of a cluster's API server, and by whom."""
        return self.folder / f"audit-{cluster}.jsonl"

    def orders(self, cluster: str) -> pathlib.Path:
        """Return the socket at which a cluster takes orders."""
        return self.folder / f"orders-{cluster}.sock"

    @property
    def scratch(self) -> pathlib.Path:
        """An empty folder on which the lab mounts its memory."""
        return self.folder / "memory"

    def make(self) -> None:
        """Make the folder, for this user alone."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(stat.S_IRWXU)
        self.scratch.mkdir(exist_ok=True)
        (self.folder / "lab.json").unlink(missing_ok=True)  # of one that has ended

    def write_private(self, path: pathlib.Path, text: str) -> None:
        """Write a file that only this user may read, in one step."""
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        fresh.replace(path)

    def record(self, record: Record) -> None:
        """Say that the lab runs."""
        fields = {
            "name": record.name,
            "pid": record.pid,
            "born": record.born,
            "topology": record.topology,
            "servers": dict(record.servers),
        }
        self.write_private(self.folder / "lab.json", json.dumps(fields))

    @property
    def is_recorded(self) -> bool:
        """Whether somebody has said where it is, so that it can be ended."""
        return (self.folder / "lab.json").exists()

    def read(self) -> Record | None:
        """Return what the lab says of itself if it is alive."""
        try:
            fields = json.loads((self.folder / "lab.json").read_text())
            record = Record(**fields)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if record.born and birth_of(record.pid) == record.born else None

    def alive(self) -> Record:
        """Return what the lab says of itself.

        Raises:
            NoLabError: It does not run.
        """
        record = self.read()
        if record is None:
            raise NoLabError(
                f"no lab `{self.name}` is running",
                hint="start one with `isthmus lab up`, or name another with `--name`",
            )
        return record

    def remove(self) -> None:
        """Remove the folder of a lab that has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def birth_of(pid: int) -> int:
    """Return when a process began, in ticks since the machine's start; 0 if there is none."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def home() -> pathlib.Path:
    """Return the folder of all labs of this user."""
    named = os.environ.get("ISTHMUS_LAB_HOME")
    if named:
        return pathlib.Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return pathlib.Path(runtime, "isthmus", "labs")
    return pathlib.Path("~/.local/state/isthmus/labs").expanduser()


def place(name: str) -> Place:
    """Return the place of the lab with this name, which need not exist."""
    return Place(home() / name)


def all_places() -> tuple[Place, ...]:
    """Return the places of all labs of this user, running or not."""
    with contextlib.suppress(FileNotFoundError):
        return tuple(Place(each) for each in sorted(home().iterdir()) if each.is_dir())
    return ()
