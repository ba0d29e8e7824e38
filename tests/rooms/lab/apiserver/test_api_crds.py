import json
import re

import pytest
from lab_objects import definition, gadget

from isthmus.lab.apiserver import discovery, openapi, schemas, validation
from isthmus.lab.apiserver.api import ApiError

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
GADGETS = "gadgets.demo.io"


async def made(api, properties, spec, **more):
    await api.create(CRDS, definition(properties, **more))
    return (await api.create(GADGETS, gadget(**spec)))["spec"]


async def fields_refused(api, properties, spec, **more):
    with pytest.raises(ApiError) as caught:
        await made(api, properties, spec, **more)
    assert caught.value.code == 422
    return [cause["field"] for cause in caught.value.details["causes"]]


async def test_a_definition_is_established_at_once(api):
    crd = await api.create(CRDS, definition({}))
    assert {one["type"]: one["status"] for one in crd["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert crd["status"]["storedVersions"] == ["v1"]


async def test_a_new_kind_is_discovered_at_once(api):
    before = openapi.index(api.state)
    await api.create(CRDS, definition({}))
    after = openapi.index(api.state)

    found = discovery.resource_list(api.state.catalog, group="demo.io", version="v1")
    assert [one["name"] for one in found["resources"]] == ["gadgets"]
    assert before["paths"]["api/v1"] != after["paths"]["api/v1"]


async def test_a_type_that_several_kinds_share_is_described_once(api):
    document = openapi.document(api.state, "apis/apps/v1")

    text = json.dumps(document)
    parts = document["components"]["schemas"]
    named = set(re.findall(r"#/components/schemas/([\w.]+)", text))
    template = "io.k8s.api.core.v1.PodTemplateSpec"
    spec = parts["apps.v1.Deployment"]["properties"]["spec"]["$ref"].rpartition("/")[2]
    assert parts[spec]["properties"]["template"] == {"$ref": f"#/components/schemas/{template}"}
    assert text.count('"hostNetwork"') == 1
    assert named <= parts.keys()


async def test_fields_are_pruned_and_defaulted(api):
    shape = {"color": {"type": "string", "default": "red"}}
    assert await made(api, shape, {"junk": 1}) == {"color": "red"}


async def test_fields_are_kept_where_the_schema_says_so(api):
    shape = {"free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    assert await made(api, shape, {"free": {"a": [1]}}) == {"free": {"a": [1]}}


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ({"type": "integer"}, "1"),
        ({"type": "integer"}, True),
        ({"type": "string"}, None),
        ({"type": "string", "enum": ["a"]}, "b"),
        ({"type": "string", "pattern": "^a+$"}, "b"),
        ({"type": "string", "minLength": 2}, "b"),
        ({"type": "integer", "minimum": 1}, 0),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": True}, 1),
        ({"type": "array", "maxItems": 1, "items": {"type": "string"}}, ["a", "b"]),
        ({"x-kubernetes-int-or-string": True}, []),
        ({"type": "string", "anyOf": [{"minLength": 3}, {"enum": ["a"]}]}, "b"),
        ({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}, {}),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            ["a", "a"],
        ),
    ],
)
async def test_a_bad_value_is_refused_with_its_path(api, shape, value):
    fields = await fields_refused(api, {"x": shape}, {"x": value})
    assert fields
    assert all(field.startswith("spec.x") for field in fields)


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True}, "http"),
        ({"type": "number"}, 1),
        (
            {
                "type": "object",
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                "properties": {"a": {"type": "string"}},
            },
            {"a": "x"},
        ),
    ],
)
async def test_a_good_value_is_taken(api, shape, value):
    assert await made(api, {"x": shape}, {"x": value}) == {"x": value}


async def test_a_required_field_must_be_there(api):
    shape = {"size": {"type": "integer"}}
    assert await fields_refused(api, shape, {}, required=["size"]) == ["spec.size"]


async def test_without_a_status_subresource_status_is_an_ordinary_field(api):
    await api.create(CRDS, definition({}))
    one = await api.create(GADGETS, gadget())
    assert "status" not in one


async def test_a_status_subresource_keeps_spec_and_status_apart(api):
    crd = definition({"size": {"type": "integer"}}, subresources={"status": {}})
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    schema["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await api.create(CRDS, crd)
    await api.create(GADGETS, {**gadget(size=1), "status": {"ready": True}})

    patch = {"spec": {"size": 2}, "status": {"ready": True}}
    one = await api.patch(GADGETS, "one", patch, namespace="default", subresource="status")

    assert (one["spec"], one["status"], one["metadata"]["generation"]) == (
        {"size": 1},
        {"ready": True},
        1,
    )


async def test_every_served_version_shows_the_same_objects(api):
    crd = definition({})
    older = {**crd["spec"]["versions"][0], "name": "v1beta1", "storage": False}
    crd["spec"]["versions"].append(older)
    await api.create(CRDS, crd)

    catalog = api.state.catalog
    found = [catalog.find(group="demo.io", version=v, plural="gadgets") for v in ("v1", "v1beta1")]
    assert {one.key for one in found} == {GADGETS}
    assert discovery.versions_of(catalog, "demo.io") == ["v1", "v1beta1"]


async def test_a_changed_definition_takes_effect_at_once(api):
    crd = await api.create(CRDS, definition({}))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["size"] = {"type": "integer"}
    await api.update(CRDS, crd)
    assert (await api.create(GADGETS, gadget(size=3)))["spec"] == {"size": 3}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": "demo"}, "spec.group"),
        ({"scope": "Galaxy"}, "spec.scope"),
        ({"names": {"plural": "others", "kind": "Other"}}, "metadata.name"),
        (
            {"versions": [{"name": "v1", "served": True, "storage": True}]},
            "spec.versions[0].schema.openAPIV3Schema",
        ),
    ],
)
async def test_a_bad_definition_is_refused(api, change, field):
    crd = definition({})
    crd["spec"].update(change)
    with pytest.raises(ApiError) as caught:
        await api.create(CRDS, crd)
    assert field in [cause["field"] for cause in caught.value.details["causes"]]


async def test_a_kind_that_is_taken_is_not_established(api):
    await api.create(CRDS, definition({}))
    other = definition({}, name="widgets")
    other["spec"]["names"]["kind"] = "Gadget"
    crd = await api.create(CRDS, other)
    assert {one["status"] for one in crd["status"]["conditions"]} == {"False"}
    with pytest.raises(ApiError, match="could not find"):
        await api.list("widgets.demo.io")


def test_unknown_fields_of_built_in_kinds_are_reported_and_pruned():
    shape = schemas.builtin("apps", "v1", "Deployment")
    given = {
        "spec": {"replics": 1, "template": {"spec": {"containers": [{"name": "a", "imag": "x"}]}}}
    }

    cleaned, report = validation.clean(shape, given)

    assert report.unknown == ["spec.replics", "spec.template.spec.containers[0].imag"]
    assert cleaned["spec"] == {"template": {"spec": {"containers": [{"name": "a"}]}}}


@pytest.mark.parametrize(
    ("spec", "fits"), [({}, True), ({"a": 1}, True), ({"a": 1, "b": 1}, False)]
)
async def test_at_most_one_of_two_fields_can_be_demanded(api, spec, fits):
    choice = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [
            {"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
            {"required": ["a"]},
            {"required": ["b"]},
        ],
    }
    if fits:
        assert await made(api, {"x": choice}, {"x": spec}) == {"x": spec}
    else:
        assert await fields_refused(api, {"x": choice}, {"x": spec}) == ["spec.x"]
