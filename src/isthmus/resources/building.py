"""The door of this room: a slice goes in, bytes with a version come out.

The slice is all that goes in, so equal slices give equal bytes, whoever asks and whenever. Proxies
in many places are told the same of a service: such resources are one object, and so are their
bytes, as long as anybody is told them.
"""

import dataclasses

from isthmus.resources import snapshot
from isthmus.resources.envoy import build as envoy
from isthmus.resources.ztunnel import build as ztunnel
from isthmus.views import view


def build(slice_: view.Slice, *, is_apart: bool | None = None) -> snapshot.Resource:
    """Return the resource that says `slice_` to the kind of proxy that it is for.

    `is_apart` says whether endpoints are told one by one instead of what the slice says of that.
    """
    if isinstance(slice_, view.wds.NodeSlice):
        return ztunnel.build(slice_)
    if not isinstance(slice_, view.EndpointsSlice):
        return _shared(slice_)
    form = slice_.is_apart if is_apart is None else is_apart
    return slice_.memory.answer((), form, lambda: _told(slice_, form))


def _told(slice_: view.EndpointsSlice, form: bool) -> snapshot.Resource:
    return _shared(
        slice_ if slice_.is_apart is form else dataclasses.replace(slice_, is_apart=form)
    )


def _shared(slice_: view.EnvoySlice) -> snapshot.Resource:
    return snapshot.shared(envoy.build(slice_))
