"""Lists and watches, as the transcript of what a client sees."""

import msgspec
import pytest
from lab_objects import config

from isthmus.lab.apiserver import errors, lists, store, watching


def transcript(lines):
    """Return a watch's lines as `TYPE name@revision`."""
    shown = []
    for line in b"".join(lines).splitlines():
        event = msgspec.json.decode(line)
        obj = event["object"]
        if event["type"] == "ERROR":
            shown.append(f"ERROR {obj['code']} {obj['reason']}")
            continue
        meta = obj["metadata"]
        end = " end" if watching.INITIAL_EVENTS_END in meta.get("annotations", {}) else ""
        shown.append(f"{event['type']} {meta.get('name', '')}@{meta['resourceVersion']}{end}")
    return shown


def watch(api, **query):
    query = {key: str(value) for key, value in query.items()}
    resource = api.state.catalog.named("configmaps")
    wish = watching.wish(api.state, namespace="default", query=query)
    return watching.Watch(api.state, resource, wish, lambda entry: entry.encoded)


def listed(api, **query):
    query = {key.rstrip("_"): str(value) for key, value in query.items()}
    resource = api.state.catalog.named("configmaps")
    return lists.page(api.state, resource, namespace="default", query=query)


def names(page):
    return [entry.obj["metadata"]["name"] for entry in page.entries]


@pytest.fixture
async def three(api):
    for name in "abc":
        await api.create("configmaps", config(name))
    return api


async def test_every_write_raises_the_one_revision_of_the_cluster(api):
    first = await api.create("configmaps", config("a"))
    second = await api.create("namespaces", {"metadata": {"name": "other"}})

    assert int(second["metadata"]["resourceVersion"]) == (
        int(first["metadata"]["resourceVersion"]) + 1
    )
    assert listed(api).meta["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_a_watch_from_a_list_sees_exactly_what_happens_after_it(three):
    at = int(listed(three).meta["resourceVersion"])

    await three.patch("configmaps", "a", {"data": {"x": "1"}}, namespace="default")
    await three.delete("configmaps", "b", "default")
    await three.create("configmaps", config("d"))

    assert transcript(watch(three, resourceVersion=at).beginning()) == [
        f"MODIFIED a@{at + 1}",
        f"DELETED b@{at + 2}",
        f"ADDED d@{at + 3}",
    ]


async def test_a_watch_without_a_revision_begins_with_what_is_there(three):
    view = watch(three)
    at = three.state.store.revision
    assert transcript(view.beginning()) == [
        f"ADDED a@{at - 2}",
        f"ADDED b@{at - 1}",
        f"ADDED c@{at}",
    ]

    await three.delete("configmaps", "a", "default")

    assert transcript(view.lines(view.feed.take())) == [f"DELETED a@{at + 1}"]


async def test_initial_events_end_with_a_marked_bookmark(three):
    at = three.state.store.revision

    lines = watch(
        three,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="1",
    ).beginning()

    assert transcript(lines)[-1] == f"BOOKMARK @{at} end"


def test_initial_events_need_the_match_that_goes_with_them(api):
    with pytest.raises(errors.ApiError, match="NotOlderThan") as caught:
        watch(api, sendInitialEvents="true")
    assert caught.value.code == 422


async def test_a_watch_from_a_forgotten_revision_gets_gone_and_ends(three):
    at = three.state.store.revision
    await three.create("configmaps", config("d"))
    three.compact()

    view = watch(three, resourceVersion=at)

    assert transcript(view.beginning()) == ["ERROR 410 Expired"]
    assert view.feed.closed


async def test_a_watch_from_the_last_forgotten_revision_still_misses_nothing(three):
    three.compact()
    at = three.state.store.revision
    await three.create("configmaps", config("d"))

    assert transcript(watch(three, resourceVersion=at).beginning()) == [f"ADDED d@{at + 1}"]


async def test_a_full_ring_forgets_the_oldest_changes(api):
    for number in range(300):
        await api.create("configmaps", config(f"c{number}"))

    assert api.state.store.floor > 100
    assert transcript(watch(api, resourceVersion=5).beginning()) == ["ERROR 410 Expired"]


async def test_a_revision_ahead_of_the_cluster_is_refused_as_too_large(api):
    with pytest.raises(errors.ApiError, match="Too large resource version") as caught:
        watch(api, resourceVersion=10_000)
    assert caught.value.code == 504


async def test_an_object_that_leaves_the_selection_is_deleted_for_the_watcher(api):
    await api.create("configmaps", config("a", labels={"app": "x"}))
    view = watch(api, resourceVersion=api.state.store.revision, labelSelector="app=x")
    at = api.state.store.revision

    for value in ("y", "x", "x"):
        labels = {"metadata": {"labels": {"app": value, "n": str(api.state.store.revision)}}}
        await api.patch("configmaps", "a", labels, namespace="default")

    assert transcript(view.lines(view.feed.take())) == [
        f"DELETED a@{at + 1}",
        f"ADDED a@{at + 2}",
        f"MODIFIED a@{at + 3}",
    ]


async def test_another_namespace_is_not_watched(api):
    view = watch(api, resourceVersion=api.state.store.revision)
    await api.create("configmaps", {"metadata": {"name": "x", "namespace": "kube-system"}})
    assert view.feed.take() == []


async def test_a_list_in_pieces_shows_one_moment(three):
    first = listed(three, limit=2)
    assert (names(first), first.meta["remainingItemCount"]) == (["a", "b"], 1)

    await three.delete("configmaps", "c", "default")
    await three.create("configmaps", config("d"))
    rest = listed(three, limit=2, continue_=first.meta["continue"])

    assert names(rest) == ["c"]
    assert rest.meta == {"resourceVersion": first.meta["resourceVersion"]}


async def test_a_piece_of_a_forgotten_list_is_gone_but_offers_to_go_on(three):
    first = listed(three, limit=1)
    await three.create("configmaps", config("d"))
    three.compact()

    with pytest.raises(errors.ApiError) as caught:
        listed(three, continue_=first.meta["continue"])

    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    again = caught.value.status()["metadata"]["continue"]
    assert names(listed(three, continue_=again)) == ["b", "c", "d"]


async def test_a_damaged_continue_token_is_a_bad_request(api):
    with pytest.raises(errors.ApiError, match="continue key is not valid"):
        listed(api, continue_="??")


async def test_an_exact_list_shows_the_past(three):
    at = three.state.store.revision
    await three.delete("configmaps", "a", "default")

    assert names(listed(three, resourceVersion=at, resourceVersionMatch="Exact")) == ["a", "b", "c"]
    assert names(listed(three, resourceVersion=at)) == ["b", "c"]


async def test_an_exact_list_of_a_forgotten_moment_is_gone(three):
    at = three.state.store.revision
    await three.create("configmaps", config("d"))
    three.compact()
    with pytest.raises(errors.ApiError) as caught:
        listed(three, resourceVersion=at, resourceVersionMatch="Exact")
    assert caught.value.code == 410


async def test_a_reader_that_is_hopelessly_behind_is_cut_off(api, monkeypatch):
    monkeypatch.setattr(store, "_LONGEST_QUEUE", 2)
    view = watch(api)
    for name in "abcd":
        await api.create("configmaps", config(name))
    assert view.feed.overrun
    assert view.feed.closed
