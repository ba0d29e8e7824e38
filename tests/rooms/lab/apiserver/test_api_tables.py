import datetime

from lab_objects import definition

from isthmus.lab.apiserver import columns, crds, tables

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def row(api, key, obj, *, wide=False, printer=()):
    resource = api.state.catalog.named(key)
    obj = {"metadata": {"name": "x", "creationTimestamp": "2029-12-31T23:59:30Z"}, **obj}
    found = columns.columns_of(resource, printer)
    made = tables.table([obj], columns=found, meta={}, include="Metadata", now=NOW)
    shown = [one["priority"] == 0 or wide for one in made["columnDefinitions"]]
    return [cell for cell, show in zip(made["rows"][0]["cells"], shown, strict=True) if show]


def pod(**status):
    return {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status}


def test_a_pods_row_says_why_it_waits(api):
    waiting = {"name": "a", "state": {"waiting": {"reason": "ErrImagePull"}}}
    ready = {"name": "b", "ready": True, "restartCount": 2, "state": {"running": {}}}
    obj = pod(phase="Pending", containerStatuses=[waiting, ready])
    assert row(api, "pods", obj) == ["x", "1/2", "ErrImagePull", "2", "30s"]


def test_a_pod_in_its_init_containers_counts_them(api):
    obj = pod(phase="Pending", initContainerStatuses=[{"name": "i", "state": {"running": {}}}])
    obj["spec"]["initContainers"] = [{"name": "i"}, {"name": "j"}]
    assert row(api, "pods", obj)[2] == "Init:0/2"


def test_a_pod_that_is_being_deleted_is_terminating(api):
    obj = pod(phase="Running")
    obj["metadata"] = {"name": "x", "deletionTimestamp": "2030-01-01T00:00:00Z"}
    assert row(api, "pods", obj)[2] == "Terminating"


def test_a_services_row_shows_addresses_and_ports(api):
    spec = {"type": "LoadBalancer", "clusterIP": "10.96.0.1"}
    spec["ports"] = [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]
    assert row(api, "services", {"spec": spec})[1:5] == [
        "LoadBalancer",
        "10.96.0.1",
        "<pending>",
        "80:30000/TCP",
    ]


def test_a_custom_resource_shows_the_columns_of_its_definition(api):
    version = {
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {
                "name": "Ready",
                "type": "string",
                "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
            },
            {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"},
            {"name": "First", "type": "string", "jsonPath": ".spec.hosts[0]"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]
    }
    crd = definition({}, **version)
    api.state.learn(crd)
    obj = {
        "spec": {"size": 3, "hosts": ["a", "b"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    printer = crds.versions_of(crd)[0].columns
    assert row(api, "gadgets.demo.io", obj, printer=printer) == [
        "x",
        3,
        "True",
        "[a b]",
        "a",
        "30s",
    ]


def test_every_kind_has_a_row_even_for_an_empty_object(api):
    for resource in api.state.catalog.stored():
        assert len(row(api, resource.key, {}, wide=True)) >= 2
