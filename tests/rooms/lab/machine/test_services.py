"""Which addresses of Services lead to which pods."""

from isthmus.lab.machine import serviceproxy


def service(name="web", *, ports=None, status=None, **spec):
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {
            "clusterIP": "10.96.0.7",
            "ports": ports or [{"name": "http", "port": 80}],
            **spec,
        },
        "status": status or {},
    }


def part(*endpoints, service="web", port=8080, name="http"):
    return {
        "metadata": {
            "name": f"{service}-1",
            "namespace": "ns",
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": name, "port": port}],
        "endpoints": list(endpoints),
    }


def endpoint(ip, **conditions):
    return {"addresses": [ip], "conditions": conditions}


def backends(*slices, **spec):
    (front,) = serviceproxy.fronts([service(**spec)], slices)
    return [f"{each.ip}:{each.port}" for each in front.backends]


def test_ready_pods_are_backends_at_the_port_of_that_name():
    ready, unready = endpoint("10.0.0.1", ready=True), endpoint("10.0.0.2", ready=False)

    assert backends(part(ready, unready)) == ["10.0.0.1:8080"]
    assert backends(part(ready, name="other")) == []


def test_pods_that_say_nothing_of_readiness_count_as_ready():
    assert backends(part(endpoint("10.0.0.1"))) == ["10.0.0.1:8080"]


def test_while_all_pods_go_away_those_that_still_serve_are_used():
    leaving = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)

    assert backends(part(leaving)) == ["10.0.0.1:8080"]
    assert backends(part(leaving, endpoint("10.0.0.2", ready=True))) == ["10.0.0.2:8080"]


def test_addresses_of_load_balancers_and_external_ones_lead_there_too():
    status = {"loadBalancer": {"ingress": [{"ip": "172.30.0.10"}]}}

    (front,) = serviceproxy.fronts([service(status=status, externalIPs=["192.0.2.1"])], [])

    assert front.addresses == ("10.96.0.7", "172.30.0.10", "192.0.2.1")


def test_services_without_an_address_need_no_rules():
    headless = service(clusterIP="None")
    elsewhere = service(type="ExternalName", clusterIP="")

    assert serviceproxy.fronts([headless, elsewhere], []) == ()


def test_the_same_services_give_the_same_rules_in_any_order():
    one, two = service("one"), service("two")

    assert serviceproxy.fronts([one, two], []) == serviceproxy.fronts([two, one], [])
