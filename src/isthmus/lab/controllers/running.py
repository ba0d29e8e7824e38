"""Starts every controller of one cluster.

It decides which controllers a cluster has. It refuses to know how each of them works.

What the assembly of a cluster needs::

    settings = running.Settings(authority=authority, signer=security.signer,
                                cluster_ip="10.96.0.1", address="172.30.0.3", port=6443,
                                load_balancer_pool=("172.30.0.100", ...), on_load_balancer=hook)
    await running.prepare(api, settings)             # namespaces, bootstrap roles, `kubernetes`
    running.run_all(api, nursery, settings)          # starts tasks in the nursery and returns
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import pki, tokens

LoadBalancerHook = Callable[[dict[str, Any], str | None], Awaitable[None]]
"""Called with a Service and its address, or None when the address is free again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs between clusters.

    Attributes:
        authority: The cluster's certificates, for the root CA ConfigMaps.
        signer: Signs the tokens that are kept in Secrets.
        cluster_ip: The address of the Service `kubernetes`.
        address: Where the API server really listens for pods.
        port: The port at `address`.
        load_balancer_pool: The addresses that Services of type LoadBalancer may get.
        on_load_balancer: Programs an address into the network, or takes it out.
        clock: Tells the time.
    """

    authority: pki.Authority
    signer: tokens.Signer
    cluster_ip: str
    address: str
    port: int = 6443
    load_balancer_pool: Sequence[str] = ()
    on_load_balancer: LoadBalancerHook | None = None
    clock: clock.Clock = field(default_factory=clock.SystemClock)


async def prepare(api: Any, settings: Settings) -> None:
    """Make the objects that every cluster is born with: namespaces, roles, `kubernetes`."""
    raise NotImplementedError


def run_all(api: Any, nursery: tasks.Nursery, settings: Settings) -> None:
    """Start all controllers and the scheduler in `nursery`."""
    raise NotImplementedError
