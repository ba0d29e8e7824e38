"""Linux namespaces, mounts and capabilities, asked of the kernel without any other program.

Decides how to enter, make and leave namespaces safely; refuses to know what they are for. A
namespace is held by a file descriptor, never by a name under /run/netns: a named one is copied
into every mount namespace made later and outlives its pod.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

NEWNS = 0x20000
NEWCGROUP = 0x2000000
NEWUTS = 0x4000000
NEWIPC = 0x8000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

FILES = {NEWNS: "mnt", NEWUTS: "uts", NEWIPC: "ipc", NEWPID: "pid", NEWNET: "net", NEWUSER: "user"}
"""The name of each namespace's file under /proc/self/ns."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 32, 4096, 16384, 1 << 18, 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

_NS_GET_NSTYPE = 0xB703
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR = 442
_SYS_PIDFD_OPEN = 434
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522

_IN_ORDER = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
    SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
    CHECKPOINT_RESTORE
"""
CAPABILITIES = {name: number for number, name in enumerate(_IN_ORDER.split())}
"""Capability names, as in a pod's securityContext, with their numbers."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def unshare(flags: int) -> None:
    """Move this thread (and, for pids, its future children) into new namespaces."""
    _checked(_libc.unshare(flags), "unshare")


def enter(fd: int, *, flags: int = 0) -> None:
    """Move this thread into the namespace, or the given ones of a process, that `fd` holds."""
    _checked(_libc.setns(fd, flags), "setns")


def mount(
    source: str, target: str, kind: str | None = None, *, flags: int = 0, options: str = ""
) -> None:
    """Mount `source` on `target`."""
    result = _libc.mount(
        _encoded(source),
        _encoded(target),
        _encoded(kind),
        ctypes.c_ulong(flags),
        _encoded(options or None),
    )
    _checked(result, f"mount {target}")


def bind(source: str, target: str) -> None:
    """Make the tree at `source`, with the mounts below it, appear at `target` too."""
    mount(source, target, flags=MS_BIND | MS_REC)


def read_only(target: str) -> None:
    """Make the mount at `target` and all below it read-only, without set-uid programs."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(_encoded(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )
    _checked(result, f"read-only {target}")


def unmount(target: str) -> None:
    """Detach the mount at `target`; it goes when nobody uses it any more."""
    _checked(_libc.umount2(_encoded(target), MNT_DETACH), f"unmount {target}")


def private_mounts(target: str = "/") -> None:
    """Let no later mount below `target` be seen outside, nor the other way round."""
    mount("none", target, flags=MS_REC | MS_PRIVATE)


def share_mounts(target: str) -> None:
    """Let later mounts below `target`, a mount, be seen by copies of this mount namespace."""
    mount("none", target, flags=MS_SHARED)


def follow_mounts() -> None:
    """Let no later mount of this mount namespace be seen outside, but see what is shared there."""
    mount("none", "/", flags=MS_REC | MS_SLAVE)


def change_root(root: str, *, old: str) -> None:
    """Make `root`, a mount, the root of this mount namespace; the old one appears at `root`/`old`."""
    place = pathlib.Path(root, old)
    place.mkdir()
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    result = _libc.syscall(ctypes.c_long(number), _encoded(root), _encoded(str(place)))
    _checked(result, "pivot_root")
    os.chdir("/")


def die_with_parent(signal_number: int = 9) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def open_process(pid: int) -> int:
    """Return a descriptor of a process, through which its namespaces can be entered."""
    fd = _libc.syscall(ctypes.c_long(_SYS_PIDFD_OPEN), ctypes.c_int(pid), ctypes.c_uint(0))
    fd = _checked(fd, "pidfd_open")
    os.set_inheritable(fd, False)
    return fd


def current(flag: int) -> int:
    """Return a descriptor of this thread's own namespace of one kind."""
    return os.open(f"/proc/thread-self/ns/{FILES[flag]}", os.O_RDONLY | os.O_CLOEXEC)


def kind_of(fd: int) -> int:
    """Return which kind of namespace a descriptor holds, such as NEWNET; 0 if it holds none."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        return 0


def same(first: int, second: int) -> bool:
    """Say whether two descriptors hold the same namespace."""
    one, other = os.fstat(first), os.fstat(second)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


@contextlib.contextmanager
def entered(fd: int, *, flag: int = NEWNET) -> Iterator[None]:
    """Run a block, which must not await, inside a namespace and come back.

    Only this thread moves. Sockets made inside go on belonging to that network afterwards.
    """
    home = current(flag)
    try:
        enter(fd, flags=flag)
        try:
            yield
        finally:
            enter(home, flags=flag)
    finally:
        os.close(home)


def fresh(*flags: int, prepare: Callable[[], object] | None = None) -> tuple[int, ...]:
    """Make new namespaces without staying in them; return their descriptors in order.

    Args:
        flags: NEWNET, NEWUTS or NEWIPC, each once.
        prepare: Called inside them, before coming back.
    """
    homes = [current(flag) for flag in flags]
    made: list[int] = []
    try:
        for flag in flags:
            unshare(flag)
            made.append(current(flag))
        if prepare is not None:
            prepare()
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    finally:
        for flag, home in zip(flags, homes, strict=True):
            enter(home, flags=flag)
            os.close(home)
    return tuple(made)


def in_thread(function: Callable[[], T]) -> T:
    """Run `function` in a thread of its own that ends afterwards, so that it may move freely."""
    answers: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(function())
        except BaseException as error:  # it is raised again by the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]


def map_root(*, uid: int, gid: int) -> None:
    """Be root inside a user namespace that has just been made; outside stay who one is."""
    with contextlib.suppress(FileNotFoundError):
        pathlib.Path("/proc/self/setgroups").write_text("deny")
    pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    pathlib.Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def has_many_uids() -> bool:
    """Say whether this user namespace has more than one uid, so that setuid can work."""
    lines = pathlib.Path("/proc/self/uid_map").read_text().splitlines()
    return sum(int(line.split()[2]) for line in lines) > 1


def set_sysctl(name: str, value: int | str) -> None:
    """Set a kernel parameter of the current namespaces, such as `net.ipv4.ip_forward`."""
    pathlib.Path("/proc/sys", *name.split(".")).write_text(str(value))


def bound_capabilities(keep: Iterable[str]) -> None:
    """Make sure that this process and what it executes can never gain other capabilities.

    Call it as root; names are those of a pod's securityContext.
    """
    kept = {CAPABILITIES[name] for name in keep}
    for number in CAPABILITIES.values():
        # EINVAL says that this kernel does not know the capability, so nobody can have it.
        if number not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def set_capabilities(keep: Iterable[str]) -> None:
    """Have exactly these capabilities, in effect and permitted; pass none on but by being root."""
    bits = sum(1 << CAPABILITIES[name] for name in keep)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    values = struct.pack("6I", low, low, 0, high, high, 0)
    _checked(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(values)), "capset")


def forbid_new_privileges() -> None:
    """Make set-uid programs and file capabilities give nothing from here on."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
