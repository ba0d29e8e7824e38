"""Whatever a client sends, it gets an answer that says what is wrong."""

import contextlib

import hypothesis
from hypothesis import strategies as st

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import resources

NAMES = st.sampled_from(
    [
        "spec",
        "template",
        "metadata",
        "containers",
        "ports",
        "name",
        "labels",
        "selector",
        "matchLabels",
        "data",
        "type",
        "versions",
        "schema",
        "openAPIV3Schema",
        "properties",
        "required",
        "items",
        "webhooks",
        "rules",
        "subjects",
        "roleRef",
        "port",
    ]
)
PLAIN = st.sampled_from([None, True, 0, -1, 1.5, "", "x", "object", "array", "a/b", "(a+)+"])
JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from([one.key for one in resources.BUILTIN if not one.virtual])


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    KEYS,
    st.dictionaries(NAMES | st.sampled_from(["status", "endpoints", "subsets"]), JSON, max_size=6),
    JSON,
    st.sampled_from(["merge", "strategic", "json", "apply"]),
)
async def test_odd_objects_are_stored_or_refused_but_never_break_the_server(key, obj, patch, kind):
    api = apis.Api()
    made = {**obj, "metadata": {"name": "x", "namespace": "default"}}
    # Anything but a refusal would come out and fail the test.
    with contextlib.suppress(apis.ApiError):
        await api.create(key, made)
        await api.patch(key, "x", patch, namespace="default", kind=kind)
