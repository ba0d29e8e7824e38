"""Control planes of clusters with trust domains of their own believe each other by what is listed."""

import pytest
from peering_world import Plane, running, until

from isthmus.ca import pem
from isthmus.kube import objects
from isthmus.mesh import trust
from isthmus.runtime import trusting
from isthmus.testing import shapes


def plane(name, network):
    made = Plane(name, network=network, domain=f"{name}.local")
    trusting.tell(made.mesh, made.signer)
    made.share(f"of-{name}", ready=["10.0.0.1"])
    return made


def lists(at, *others, by=None):
    """List who signs in other clusters; `by` is another than who does."""
    for other in others:
        signer = (by or other).signer.issuer.certificate
        metadata = shapes.metadata(
            other.name, "istio-system", {trust.DOMAIN_LABEL: f"{other.name}.local"}
        )
        found = objects.ConfigMap(metadata, data={trust.BUNDLE: pem.written(signer)})
        at.put("trust_bundles", found)


@pytest.fixture
def alpha():
    return plane("alpha", "n1")


@pytest.fixture
def beta():
    return plane("beta", "n2")


async def test_both_are_heard_where_both_are_listed(alpha, beta):
    lists(alpha, alpha, beta)
    lists(beta, alpha, beta)
    async with running(alpha, beta):
        alpha.link(beta)
        beta.link(alpha)

        await until(lambda: alpha.imports() == {"beta/of-beta": 1})
        await until(lambda: beta.imports() == {"alpha/of-alpha": 1})


@pytest.mark.parametrize("where", ["who asks", "who tells"])
async def test_who_is_signed_by_another_than_is_listed_is_not_heard(alpha, beta, where):
    lists(alpha, alpha)
    lists(beta, beta)
    lists(alpha, beta, by=alpha if where == "who asks" else None)
    lists(beta, alpha, by=beta if where == "who tells" else None)
    async with running(alpha, beta):
        alpha.link(beta)

        await until(lambda: any(one.reason for one in alpha.peering.statuses()))
        assert alpha.imports() == {}
        lists(alpha, beta)
        lists(beta, alpha)
        await until(lambda: alpha.imports() == {"beta/of-beta": 1})


async def test_who_is_not_listed_is_not_heard_as_soon_as_anybody_is(alpha, beta):
    lists(alpha, alpha)
    async with running(alpha, beta):
        alpha.link(beta)

        await until(lambda: any(one.reason for one in alpha.peering.statuses()))
        assert alpha.imports() == {}
