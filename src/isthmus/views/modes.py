"""What a workload accepts on a port: plain text, mutual TLS or both.

The mesh's policy is overruled by the namespace's, that by the workload's, and that by the port's.
On each level the oldest object wins, so that a new one cannot take a working one's place.

Source: spec section 4.9.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.mesh.policies import MtlsMode, PeerAuthentication

UNLESS_SAID: Final = MtlsMode.PERMISSIVE


@dataclass(frozen=True, slots=True)
class Modes:
    """What one workload accepts.

    Attributes:
        general: On ports for which nothing else is said.
        by_port: By the workload's own port.
    """

    general: MtlsMode
    by_port: Mapping[int, MtlsMode]

    def of(self, port: int) -> MtlsMode:
        """Return what is accepted on a port."""
        return self.by_port.get(port, self.general)


def modes_of(
    policies: Iterable[PeerAuthentication],
    *,
    namespace: str,
    labels: Mapping[str, str],
    root: str,
) -> Modes:
    """Return what the workload with these labels accepts.

    `policies` are those of its namespace and of the mesh's root namespace, at least.
    """
    general, by_port = UNLESS_SAID, dict[int, MtlsMode]()
    for policy in _in_force(policies, namespace=namespace, labels=labels, root=root):
        general = policy.mode or general
        if policy.selector:
            by_port = {port: mode or general for port, mode in policy.port_modes}
    return Modes(general, by_port)


def deciding(
    policies: Iterable[PeerAuthentication],
    *,
    namespace: str,
    labels: Mapping[str, str],
    root: str,
    port: int,
) -> PeerAuthentication | None:
    """Return the policy that says what is accepted on a port; None where none says anything."""
    found = None
    for policy in _in_force(policies, namespace=namespace, labels=labels, root=root):
        says_port = bool(policy.selector) and dict(policy.port_modes).get(port) is not None
        if policy.mode is not None or says_port:
            found = policy
    return found


def of_workload(
    policies: Iterable[PeerAuthentication],
    *,
    namespace: str,
    labels: Mapping[str, str],
    root: str,
) -> PeerAuthentication | None:
    """Return the policy that selects the workload with these labels; None where none does."""
    in_force = _in_force(policies, namespace=namespace, labels=labels, root=root)
    return next((policy for policy in in_force if policy.selector), None)


def _in_force(
    policies: Iterable[PeerAuthentication],
    *,
    namespace: str,
    labels: Mapping[str, str],
    root: str,
) -> Iterator[PeerAuthentication]:
    """Yield the oldest policy of each level, from the mesh to the workload."""
    levels: list[list[PeerAuthentication]] = [[], [], []]
    for policy in sorted(policies, key=_age):
        level = _level(policy, namespace=namespace, labels=labels, root=root)
        if level is not None:
            levels[level].append(policy)
    for level_policies in levels:
        yield from level_policies[:1]


def _age(policy: PeerAuthentication) -> tuple[str, str, str]:
    return policy.created, policy.namespace, policy.name


def _level(
    policy: PeerAuthentication, *, namespace: str, labels: Mapping[str, str], root: str
) -> int | None:
    """Return 0 for the mesh's policy, 1 for the namespace's, 2 for the workload's."""
    if policy.selector:
        selects = all(labels.get(key) == value for key, value in policy.selector)
        is_own = policy.namespace == namespace and namespace != root
        return 2 if selects and is_own else None
    if policy.namespace == root:
        return 0
    return 1 if policy.namespace == namespace else None
