"""What a proxy of a fleet must have in the end, from what API servers say and nothing else."""

from collections.abc import Mapping, Sequence

from bench.scale import clients, shapes

Truth = Sequence[Mapping[str, Sequence[str]]]
"""By cluster and service the addresses that are ready."""


def right(shape: shapes.Shape, truth: Truth, cluster: int) -> str:
    """Return the digest of the endpoints that a sidecar in a cluster must know."""
    near = range(shape.clusters) if shape.is_flat else [cluster]
    far = set(range(shape.clusters)) - set(near)
    lines = []
    for host in truth[0]:
        pods = [f"{address} 1" for one in near for address in truth[one].get(host, ())]
        gateways = [f"{shapes.gateway(one)} {len(truth[one].get(host, ()))}" for one in far]
        lines.append(f"outbound|80||{host}={','.join(sorted(pods + gateways))}")
    return clients.digest(lines)
