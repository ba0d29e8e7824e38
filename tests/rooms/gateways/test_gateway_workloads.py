"""What must run for a Gateway, and which of its listeners are served."""

import msgspec
import pytest

from isthmus.gateways import listeners, statuses, workloads
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes


def gateway(*said, name="web", class_name="istio", metadata=None, **spec):
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "apps", "uid": "u1", **(metadata or {})},
            "spec": {"gatewayClassName": class_name, "listeners": said, **spec},
        },
        gateway_api.Gateway,
    )


def listener(name="http", port=80, protocol="HTTP", **said):
    return {"name": name, "port": port, "protocol": protocol, **said}


def wanted(found, behaviour=gateway_classes.INGRESS):
    return workloads.wanted(found, behaviour, revision="default")


def reasons(found, behaviour=gateway_classes.INGRESS):
    return [one.reason for one in listeners.judged(found, behaviour)]


def ports(found):
    service = wanted(found).service
    return {one["name"]: (one["port"], one["targetPort"]) for one in service["spec"]["ports"]}


def test_a_gateway_is_called_after_its_class_only_where_istio_does_so():
    found = gateway(listener())

    assert workloads.name_of(found, gateway_classes.INGRESS) == "web-istio"
    assert workloads.name_of(found, gateway_classes.EAST_WEST) == "web"


def test_low_ports_are_moved_out_of_the_way_of_others():
    found = gateway(listener(), listener("other", 8080), listener("more", 443))

    assert ports(found) == {
        "status-port": (15021, 15021),
        "http": (80, 18080),
        "other": (8080, 8080),
        "more": (443, 8443),
    }


def test_names_of_ports_are_such_that_a_service_may_have_them():
    found = gateway(listener("a.b"), listener("x" * 64, 81), listener("status-port", 82))

    assert set(ports(found)) == {"status-port", "port-80", "port-81", "port-82"}


def test_hosts_may_share_a_port():
    found = gateway(listener("a", hostname="a.example"), listener("b", hostname="b.example"))

    assert reasons(found) == ["", ""]
    assert set(ports(found)) == {"status-port", "a"}


def test_of_listeners_that_contradict_each_other_none_is_served():
    same = gateway(listener("a", hostname="a.example"), listener("b", hostname="A.example"))
    mixed = gateway(listener("a", 9000), listener("b", 9000, "TLS"), listener("c", 9001))
    both = gateway_classes.Behaviour("x/y", frozenset({"HTTP", "TLS"}))

    assert reasons(same) == ["HostnameConflict", "HostnameConflict"]
    assert reasons(mixed, both) == ["ProtocolConflict", "ProtocolConflict", ""]


@pytest.mark.parametrize("port", [15000, 15020, 15021, 15090])
def test_ports_of_the_proxy_itself_are_refused(port):
    assert reasons(gateway(listener("a", port))) == ["PortUnavailable"]


def test_tls_is_not_taken_for_passed_on_unless_it_says_so():
    found = gateway(listener("a", 15012, "TLS"))

    assert reasons(found, gateway_classes.EAST_WEST) == ["UnsupportedValue"]


@pytest.mark.parametrize(
    ("label", "hostname", "reason"),
    [
        ("15012", None, ""),
        ("15013", None, "UnsupportedValue"),
        ("", None, "UnsupportedValue"),
        (chr(0x661), None, "UnsupportedValue"),
        ("15012", "a.example", "UnsupportedValue"),
    ],
)
def test_tls_is_passed_on_to_the_control_plane_only(label, hostname, reason):
    tls = listener("a", 15012, "TLS", tls={"mode": "Passthrough"}, hostname=hostname)
    found = gateway(tls, metadata={"labels": {"istio.io/expose-istiod": label}})

    assert reasons(found, gateway_classes.EAST_WEST) == [reason]


def test_what_its_author_says_never_replaces_what_we_say():
    labels = {
        "gateway.networking.k8s.io/gateway-name": "other",
        "sidecar.istio.io/inject": "false",
        "istio.io/dataplane-mode": "ambient",
        "team": "a",
    }
    annotations = {"inject.istio.io/templates": "sidecar", "own": "kept"}
    found = wanted(
        gateway(listener(), infrastructure={"labels": labels, "annotations": annotations})
    )

    pod = found.deployment["spec"]["template"]["metadata"]
    assert pod["labels"]["gateway.networking.k8s.io/gateway-name"] == "web"
    assert pod["labels"]["sidecar.istio.io/inject"] == "true"
    assert pod["labels"]["istio.io/dataplane-mode"] == "none"
    assert pod["labels"]["team"] == "a"
    assert pod["annotations"] == {"inject.istio.io/templates": "gateway", "own": "kept"}


def test_its_network_is_always_passed_on():
    found = wanted(
        gateway(
            listener(),
            metadata={"labels": {"topology.istio.io/network": "n1", "own": "x"}},
            infrastructure={"labels": {"team": "a"}},
        )
    )

    labels = found.service["metadata"]["labels"]
    assert labels["topology.istio.io/network"] == "n1"
    assert labels["team"] == "a"
    assert "own" not in labels


def test_only_a_gateway_between_networks_keeps_to_its_own():
    metadata = {"labels": {"topology.istio.io/network": "n1"}}
    tls = listener("tls", 15012, "TLS", tls={"mode": "Passthrough"})
    labels = metadata["labels"] | {"istio.io/expose-istiod": "15012"}
    between = gateway(tls, metadata={"labels": labels})
    ingress = gateway(listener(), metadata=metadata)

    def env(found, behaviour):
        spec = wanted(found, behaviour).deployment["spec"]["template"]["spec"]
        return spec["containers"][0]["env"]

    assert [one["value"] for one in env(between, gateway_classes.EAST_WEST)] == ["n1"]
    assert env(ingress, gateway_classes.INGRESS) == []


def test_a_name_that_no_service_can_have_is_refused():
    for name in ("a.b", "9a", "x" * 63):
        reason, _ = workloads.fault_of(gateway(listener(), name=name), gateway_classes.INGRESS)
        assert reason == "Invalid"


def test_a_status_keeps_the_time_since_which_it_is_so():
    found = gateway(listener())
    seen = statuses.Seen(1, (gateway_api.Address("1.2.3.4", "IPAddress"),))
    first = statuses.of_gateway(found, gateway_classes.INGRESS, seen, now="2026-01-01T00:00:00Z")
    told = msgspec.structs.replace(found, status=msgspec.convert(first, gateway_api.GatewayStatus))
    again = statuses.of_gateway(told, gateway_classes.INGRESS, seen, now="2026-01-02T00:00:00Z")

    assert statuses.is_said(told, again)
    down = statuses.of_gateway(
        told, gateway_classes.INGRESS, statuses.Seen(), now="2026-01-02T00:00:00Z"
    )
    assert not statuses.is_said(told, down)


def test_conditions_of_others_are_kept():
    theirs = {"type": "theirs", "status": "True", "reason": "X", "lastTransitionTime": "t"}
    found = msgspec.structs.replace(
        gateway(listener()),
        status=msgspec.convert({"conditions": [theirs]}, gateway_api.GatewayStatus),
    )
    status = statuses.of_gateway(
        found, gateway_classes.INGRESS, statuses.Seen(), now="2026-01-01T00:00:00Z"
    )

    assert [one["type"] for one in status["conditions"]] == ["theirs", "Accepted", "Programmed"]
