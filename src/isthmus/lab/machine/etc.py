"""The files in /etc that every container of a pod gets: names, hosts and users.

Decides their text from the pod alone.
"""

from typing import Any

Obj = dict[str, Any]

_USERS = {"root": 0, "daemon": 1, "nobody": 65534, "istio-proxy": 1337, "app": 1000}
_SWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def files(pod: Obj, *, ip: str, dns: str) -> dict[str, str]:
    """Return path to text."""
    spec, metadata = pod["spec"], pod["metadata"]
    hostname = (spec.get("hostname") or metadata["name"])[:63]
    users = dict(_USERS)
    for security in _securities(spec):
        uid = security.get("runAsUser")
        if uid is not None and uid not in users.values():
            users[f"user{uid}"] = int(uid)
    return {
        "/etc/resolv.conf": _resolver(spec, metadata["namespace"], dns),
        "/etc/hosts": _hosts(spec, metadata["namespace"], hostname, ip),
        "/etc/hostname": f"{hostname}\n",
        "/etc/nsswitch.conf": _SWITCH,
        "/etc/passwd": "".join(
            f"{name}:x:{uid}:{uid}::{'/root' if uid == 0 else '/'}:/bin/sh\n"
            for name, uid in users.items()
        ),
        "/etc/group": "".join(f"{name}:x:{uid}:\n" for name, uid in users.items()),
    }


def _securities(spec: Obj) -> list[Obj]:
    everyone = [*spec["containers"], *(spec.get("initContainers") or ())]
    return [each.get("securityContext") or {} for each in (spec, *everyone)]


def _resolver(spec: Obj, namespace: str, dns: str) -> str:
    own = spec.get("dnsConfig") or {}
    default = spec.get("dnsPolicy") != "None"
    servers = [*([dns] if default else []), *(own.get("nameservers") or ())]
    search = [*(_search(namespace) if default else []), *(own.get("searches") or ())]
    options = {"ndots": "5"} if default else {}
    options.update({each["name"]: each.get("value", "") for each in own.get("options") or ()})
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        shown = (f"{name}:{value}" if value else name for name, value in options.items())
        lines.append(f"options {' '.join(shown)}")
    return "\n".join(lines) + "\n"


def _search(namespace: str) -> list[str]:
    return [f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"]


def _hosts(spec: Obj, namespace: str, hostname: str, ip: str) -> str:
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    names = hostname
    if spec.get("subdomain"):
        names = f"{hostname}.{spec['subdomain']}.{namespace}.svc.cluster.local\t{hostname}"
    lines.append(f"{ip}\t{names}")
    lines += [
        f"{each['ip']}\t{' '.join(each['hostnames'])}" for each in spec.get("hostAliases") or ()
    ]
    return "\n".join(lines) + "\n"
