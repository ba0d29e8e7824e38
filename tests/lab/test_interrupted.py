"""Interrupted, or on a machine that forbids namespaces: it is said plainly and nothing is left."""

import ctypes
import os
import pathlib
import signal
import subprocess
import sys

import meshes
import pytest
import traffic

from isthmus.testing import pace

pytestmark = pytest.mark.lab

CLONE_NEWUSER = 0x10000000


PEOPLE = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]


@pytest.fixture
def person(request):
    """A folder and an environment for labs, with nothing in it; nothing may stay."""
    lab = meshes.MeshLab(as_ordinary_user=request.param == "ordinary")
    yield lab
    assert processes_below(lab.folder) == []
    meshes.shutil.rmtree(lab.folder)


def processes_below(folder):
    """Return the processes that name the folder in their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"--folder={folder}" in line:
            found.append(line)
    return found


UP, STAYING, DEMO = (
    ("exec isthmus lab up --name one", "networks"),
    ("exec isthmus lab up --foreground --name one", "is up after"),
    ("exec isthmus demo --name one", "isthmus ca root"),
)
CASES = [(person, *case) for person in PEOPLE for case in (UP, STAYING, DEMO)]
SOME = {("root", *STAYING), ("ordinary", *UP), ("ordinary", *DEMO)}


@pytest.mark.parametrize(
    ("person", "command", "moment"),
    [
        pytest.param(*case, marks=() if case in SOME or len(PEOPLE) == 1 else pytest.mark.long)
        for case in CASES
    ],
    indirect=["person"],
)
def test_ctrl_c_ends_a_command_in_one_line_and_leaves_no_lab(person, command, moment):
    running = person.start(f"{command} 2>&1")
    said = ""
    while moment not in said:
        line = running.stdout.readline()
        assert line, said
        said += line

    running.send_signal(signal.SIGINT)
    rest, _ = running.communicate(timeout=pace.patience(30))
    running.stdin.close()

    assert "Traceback" not in said + rest
    assert running.returncode == (0 if "--foreground" in command else 130)
    traffic.until(lambda: processes_below(person.folder) == [])
    assert person.run("isthmus lab status -o json").split() == ["{", '"labs":', "[]", "}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a place where it is forbidden")
def test_where_namespaces_are_forbidden_doctor_and_up_name_the_fix():
    lab = meshes.MeshLab(as_ordinary_user=True)

    doctor = forbidden(lab, "doctor")
    up = forbidden(lab, "up")
    meshes.shutil.rmtree(lab.folder)

    fix = "sudo sysctl -w user.max_user_namespaces=65536"
    assert (doctor.returncode, up.returncode) == (1, 1)
    assert f"fix: {fix}" in doctor.stdout
    assert f"fix: {fix}" in up.stderr
    assert "error[ISM-LAB-207]" in up.stderr
    assert "Traceback" not in doctor.stderr + up.stderr


def forbidden(lab, word):
    """Run `isthmus lab <word>` as an ordinary user in a user namespace that allows no other.

    The limit is the namespace's own; the machine's is not touched.
    """
    outside, inside = os.pipe(), os.pipe()

    def enter():
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWUSER) == 0
        os.write(inside[1], b"x")
        os.read(outside[0], 1)
        pathlib.Path("/proc/sys/user/max_user_namespaces").write_text("0")
        os.setgroups([])
        os.setresgid(meshes.ORDINARY, meshes.ORDINARY, meshes.ORDINARY)
        os.setresuid(meshes.ORDINARY, meshes.ORDINARY, meshes.ORDINARY)

    def admit(pid):
        os.read(inside[0], 1)
        for name in ("uid_map", "gid_map"):
            pathlib.Path(f"/proc/{pid}/{name}").write_text(
                f"0 0 1\n{meshes.ORDINARY} {meshes.ORDINARY} 1\n"
            )
        os.write(outside[1], b"x")

    script = "import isthmus.cli.main as main; main.main()"
    argv = [os.path.realpath(sys.executable), "-c", script, "lab", word]
    pid_read, pid_write = os.pipe()
    child = os.fork()
    if child == 0:
        admit(int(os.read(pid_read, 32)))
        os._exit(0)

    def begin():
        os.write(pid_write, str(os.getpid()).encode())
        enter()

    ended = subprocess.run(
        argv, env=lab.environment, preexec_fn=begin, text=True, capture_output=True, check=False
    )
    os.waitpid(child, 0)
    for end in (*outside, *inside, pid_read, pid_write):
        os.close(end)
    return ended
