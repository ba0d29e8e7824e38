"""Values of older charts: what they mean today."""

import yaml

from isthmus.install import manifests, operator, options, settings_check

SYSTEM = "istio-system"


def chosen(*flags):
    return options.of_spec(operator.read([], flags=flags))


def objects(*flags):
    return {manifests.identity(each): each for each in manifests.of_options(chosen(*flags))}


def ports(service):
    return {port["port"] for port in service["spec"]["ports"]}


def test_mesh_expansion_exposes_the_control_plane_at_the_ingress_gateway():
    found = objects("values.global.meshExpansion.enabled=true")
    [server] = found["Gateway", SYSTEM, "meshexpansion-gateway"]["spec"]["servers"]
    virtual = found["VirtualService", SYSTEM, "meshexpansion-vs-istiod"]["spec"]

    assert server["port"] == {"number": 15012, "name": "tcp-istiod", "protocol": "TCP"}
    assert virtual["gateways"] == ["meshexpansion-gateway"]
    assert {15012, 15443} <= ports(found["Service", SYSTEM, "istio-ingressgateway"])


def test_without_it_the_ingress_gateway_leads_nowhere_inside():
    found = objects()

    assert ("Gateway", SYSTEM, "meshexpansion-gateway") not in found
    assert ports(found["Service", SYSTEM, "istio-ingressgateway"]) == {15021, 80, 443}


def test_an_address_without_the_remote_profile_moves_discovery_and_nothing_else():
    found = objects("values.global.remotePilotAddress=172.30.0.9")
    mesh = yaml.safe_load(found["ConfigMap", SYSTEM, "istio"]["data"]["mesh"])
    service = found["Service", SYSTEM, "istiod-remote"]

    assert ("Deployment", SYSTEM, "istiod") in found
    assert mesh["defaultConfig"]["discoveryAddress"] == "istiod-remote.istio-system.svc:15012"
    assert "selector" not in service["spec"]
    assert ports(service) == {15012}
    assert found["EndpointSlice", SYSTEM, "istiod-remote"]["endpoints"][0]["addresses"] == [
        "172.30.0.9"
    ]


def test_a_discovery_address_that_is_given_stays():
    found = objects(
        "values.global.remotePilotAddress=172.30.0.9",
        "meshConfig.defaultConfig.discoveryAddress=mine.example:15012",
    )
    mesh = yaml.safe_load(found["ConfigMap", SYSTEM, "istio"]["data"]["mesh"])

    assert mesh["defaultConfig"]["discoveryAddress"] == "mine.example:15012"


def test_mutual_tls_for_all_is_a_policy_today():
    policy = objects("values.global.mtls.enabled=true")["PeerAuthentication", SYSTEM, "default"]

    assert policy["spec"] == {"mtls": {"mode": "STRICT"}}
    assert ("PeerAuthentication", SYSTEM, "default") not in objects()


def test_gateways_are_switched_off_and_given_an_environment_as_charts_did():
    env = "values.gateways.istio-ingressgateway.env.ISTIO_META_NETWORK=network2"
    pod = objects(env)["Deployment", SYSTEM, "istio-ingressgateway"]["spec"]["template"]["spec"]

    assert pod["containers"][0]["env"] == [{"name": "ISTIO_META_NETWORK", "value": "network2"}]
    for switch in ("values.gateways.enabled", "values.gateways.istio-ingressgateway.enabled"):
        assert ("Deployment", SYSTEM, "istio-ingressgateway") not in objects(f"{switch}=false")


def test_values_whose_matter_is_gone_are_accepted_and_said_to_have_no_effect():
    flags = (
        "values.security.selfSigned=false",
        "values.global.controlPlaneSecurityEnabled=true",
        "values.global.createRemoteSvcEndpoints=true",
        "values.global.remotePilotCreateSvcEndpoint=true",
        "values.global.remotePolicyAddress=1.2.3.4",
        "values.global.remoteTelemetryAddress=1.2.3.4",
    )
    findings = list(settings_check.warnings_for(chosen(*flags)))

    assert {each.subject for each in findings} == {
        f"spec.{flag.partition('=')[0]}" for flag in flags
    }
    assert all("has no effect: " in each.happened for each in findings)


def test_a_remote_cluster_may_have_an_injector_of_its_own():
    found = objects(
        "profile=remote",
        "values.istiodRemote.enabledLocalInjectorIstiod=true",
        "values.global.remotePilotAddress=172.30.0.9",
    )

    assert ("Deployment", SYSTEM, "istiod") in found
    assert ("Service", SYSTEM, "istiod-remote") in found
