"""The door of this room: a slice goes in, bytes with a version come out.

The slice is all that goes in, so equal slices give equal bytes, whoever asks and whenever.
"""

from isthmus.resources import snapshot
from isthmus.resources.envoy import build as envoy
from isthmus.resources.ztunnel import build as ztunnel
from isthmus.views import view


def build(slice_: view.Slice) -> snapshot.Resource:
    """Return the resource that says `slice_` to the kind of proxy that it is for."""
    if isinstance(slice_, view.wds.NodeSlice):
        return ztunnel.build(slice_)
    return envoy.build(slice_)
