"""Starts every controller of one cluster.

It decides which controllers a cluster has. It refuses to know how each of them works.

What the assembly of a cluster needs::

    settings = running.Settings(authority=authority, signer=security.signer,
                                cluster_ip="10.96.0.1", address="172.30.0.3", port=6443,
                                load_balancer_pool=("172.30.0.100", ...), on_load_balancer=hook)
    await running.prepare(api, settings)             # namespaces, bootstrap roles, `kubernetes`
    running.run_all(api, nursery, settings)          # starts tasks in the nursery and returns
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from isthmus.base import clock as clocks
from isthmus.base import tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors, pki, tokens
from isthmus.lab.controllers import (
    accounts,
    balancers,
    bootstrap,
    daemonsets,
    deployments,
    endpoints,
    jobs,
    nodes,
    replicasets,
    scheduling,
    statefulsets,
)


class Controller(Protocol):
    """What every controller can do."""

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""


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
    on_load_balancer: balancers.Hook | None = None
    clock: clocks.Clock = field(default_factory=clocks.SystemClock)


async def prepare(api: apis.Api, settings: Settings) -> None:
    """Make the objects that every cluster is born with: namespaces, roles, `kubernetes`."""
    await bootstrap.make_objects(api)
    await bootstrap.make_kubernetes_service(
        api, cluster_ip=settings.cluster_ip, address=settings.address, port=settings.port
    )


def run_all(api: apis.Api, nursery: tasks.Nursery, settings: Settings) -> None:
    """Start all controllers and the scheduler in `nursery`."""
    follow = mirrors.Mirrors(api, nursery)
    ca_pem, clock = settings.authority.ca_pem, settings.clock
    controllers: tuple[Controller, ...] = (
        accounts.Namespaces(api, follow, ca_pem=ca_pem),
        accounts.TokenSecrets(api, follow, signer=settings.signer, ca_pem=ca_pem),
        deployments.Deployments(api, follow, clock),
        replicasets.ReplicaSets(api, follow, clock),
        daemonsets.DaemonSets(api, follow, clock),
        statefulsets.StatefulSets(api, follow, clock),
        jobs.Jobs(api, follow, clock),
        scheduling.Scheduler(api, follow, clock),
        endpoints.Endpoints(api, follow),
        nodes.NodeLifecycle(api, follow, clock),
        balancers.LoadBalancers(
            api,
            follow,
            clock,
            pool=settings.load_balancer_pool,
            hook=settings.on_load_balancer,
        ),
    )
    for controller in controllers:
        controller.start(nursery)
