"""The kinds of the Gateway API, and what running Gateways takes."""

import pytest

from fakes import lab_server
from isthmus.install import gateway_crds, installing, manifests, operator, options
from isthmus.kube import apply, client

DOCUMENT = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: minimal}\n"
FLAG = "values.pilot.env.PILOT_ENABLE_GATEWAY_API=true"
NAMES = {gateway_crds.name_of(one) for one in gateway_crds.RESOURCES}


def chosen(*flags):
    return options.of_spec(operator.read([("file.yaml", DOCUMENT)], flags=flags))


def names(*flags):
    return {one["metadata"]["name"] for one in manifests.of_options(chosen(*flags))}


def rules(*flags):
    return [
        (group, resource, verb)
        for one in manifests.of_options(chosen(*flags))
        if one["kind"] == "ClusterRole" and one["metadata"]["name"].startswith("istiod")
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def test_kinds_and_rights_come_only_where_gateways_are_run():
    assert names() >= {"gateways.networking.istio.io"}
    assert not names() & NAMES
    assert names(FLAG) >= NAMES
    assert ("apps", "deployments", "create") not in rules()
    assert ("apps", "deployments", "create") in rules(FLAG)


def test_pods_secrets_and_roles_are_not_among_the_rights():
    resources = {resource for _, resource, verb in rules(FLAG) if verb not in {"list", "watch"}}

    assert not resources & {"pods", "secrets", "roles", "rolebindings", "gateways"}


@pytest.mark.parametrize("is_ours", [True, False])
async def test_kinds_that_others_brought_are_left_alone(is_ours):
    async with lab_server.serving("c1") as server, client.Client(server.access()) as opened:
        there = gateway_crds.manifests()
        for one in () if is_ours else there:
            del one["metadata"]["annotations"][gateway_crds.BROUGHT]
        await apply.apply(opened, there)
        planned = await installing.without_others(opened, installing.phases(chosen(FLAG)))

    kept = {one["metadata"]["name"] for phase in planned for one in phase.objects}
    assert bool(kept & NAMES) is is_ours
    assert "gateways.networking.istio.io" in kept
