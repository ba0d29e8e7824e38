import pytest

from isthmus.lab.apiserver import merging, patches, schemas
from isthmus.lab.apiserver.errors import ApiError

POD = schemas.builtin("", "v1", "Pod")
DEPLOYMENT = schemas.builtin("apps", "v1", "Deployment")


def containers(*found):
    return {"spec": {"containers": list(found)}}


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ({"op": "add", "path": "/b", "value": 1}, {"a": [1, 2], "b": 1}),
        ({"op": "add", "path": "/a/1", "value": 9}, {"a": [1, 9, 2]}),
        ({"op": "add", "path": "/a/-", "value": 9}, {"a": [1, 2, 9]}),
        ({"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"op": "replace", "path": "/a/1", "value": 3}, {"a": [1, 3]}),
        ({"op": "move", "from": "/a", "path": "/x~1y~0"}, {"x/y~": [1, 2]}),
        ({"op": "copy", "from": "/a/0", "path": "/b"}, {"a": [1, 2], "b": 1}),
        ({"op": "test", "path": "/a/0", "value": 1}, {"a": [1, 2]}),
        ({"op": "replace", "path": "", "value": {}}, {}),
    ],
)
def test_json_patch_does_as_its_rfc_says(operation, result):
    assert patches.operated({"a": [1, 2]}, [operation]) == result


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "remove", "path": "/missing"}, 422),
        ({"op": "test", "path": "/a", "value": 2}, 422),
        ({"op": "add", "path": "/list/7", "value": 1}, 422),
        ({"op": "add", "path": "/a/b/c", "value": 1}, 422),
        ({"op": "add", "path": "no-slash", "value": 1}, 400),
        ({"op": "add", "path": "/b"}, 400),
        ({"op": "paint", "path": "/a"}, 400),
        ("add", 400),
    ],
)
def test_a_json_patch_that_makes_no_sense_is_refused(operation, code):
    with pytest.raises(ApiError) as caught:
        patches.operated({"a": 1, "list": []}, [operation])
    assert caught.value.code == code


def test_a_merge_patch_removes_with_null_and_replaces_lists():
    have = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert patches.merged(have, {"a": {"b": None, "c": [3]}}) == {"a": {"c": [3]}, "d": 1}


def test_strategic_merge_changes_a_list_item_by_its_key():
    have = containers({"name": "a", "image": "1", "tty": True}, {"name": "b", "image": "1"})
    patch = containers({"name": "a", "image": "2"}, {"name": "c", "image": "1"})
    assert merging.merged(POD, have, patch) == containers(
        {"name": "a", "image": "2", "tty": True},
        {"name": "b", "image": "1"},
        {"name": "c", "image": "1"},
    )


def test_strategic_merge_deletes_and_replaces_by_directive():
    have = containers({"name": "a"}, {"name": "b"})
    assert merging.merged(POD, have, containers({"name": "a", "$patch": "delete"})) == containers(
        {"name": "b"}
    )
    assert merging.merged(
        POD, have, containers({"name": "c"}, {"$patch": "replace"})
    ) == containers({"name": "c"})


def test_strategic_merge_puts_items_in_the_order_that_is_asked_for():
    have = containers({"name": "a"}, {"name": "b"})
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "c"}],
        }
    }
    assert merging.merged(POD, have, patch) == containers(
        {"name": "c"}, {"name": "b"}, {"name": "a"}
    )


def test_strategic_merge_treats_lists_of_words_as_sets_where_the_kind_says_so():
    have = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["b", "c"]}}
    assert merging.merged(POD, have, patch) == {"metadata": {"finalizers": ["b", "c"]}}


def test_strategic_merge_keeps_only_the_keys_that_are_to_be_retained():
    have = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert merging.merged(DEPLOYMENT, have, patch) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_strategic_merge_needs_the_key_of_an_item():
    with pytest.raises(ApiError, match="declared merge key: name"):
        merging.merged(POD, containers({"name": "a"}), containers({"image": "x"}))


def test_ports_of_a_service_merge_by_port_and_of_a_container_by_container_port():
    service = schemas.builtin("", "v1", "Service")
    have = {"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}]}}
    patch = {"spec": {"ports": [{"port": 80, "name": "b"}]}}
    assert merging.merged(service, have, patch)["spec"]["ports"] == [
        {"port": 80, "name": "b"},
        {"port": 81},
    ]
