"""What controllers in the same process see."""

from lab_objects import config, definition, gadget, next_event


async def test_a_subscription_begins_with_what_exists_then_says_so(api):
    await api.create("configmaps", config("a"))

    async with api.watch("configmaps") as changes:
        await api.delete("configmaps", "a", "default")
        seen = [(await next_event(changes)).type for _ in range(3)]

    assert seen == ["ADDED", "SYNCED", "DELETED"]


async def test_changing_what_came_out_changes_nothing_stored(api):
    made = await api.create("configmaps", config("a", data={"x": "1"}))
    made["data"]["x"] = "2"
    (await api.list("configmaps"))[0]["data"]["x"] = "3"
    async with api.watch("configmaps") as changes:
        (await next_event(changes)).obj["data"]["x"] = "4"

    assert (await api.get("configmaps", "a", "default"))["data"] == {"x": "1"}


async def test_a_closed_subscription_ends(api):
    changes = api.watch("configmaps")
    changes.close()
    assert [event async for event in changes] == []


async def test_a_subscription_ends_when_its_definition_is_deleted(api):
    await api.create("customresourcedefinitions.apiextensions.k8s.io", definition({}))
    await api.create("gadgets.demo.io", gadget())
    changes = api.watch("gadgets.demo.io")
    await api.delete("customresourcedefinitions.apiextensions.k8s.io", "gadgets.demo.io")

    assert [event.type async for event in changes] == ["ADDED", "SYNCED", "DELETED"]
