"""The door of this room: a slice goes in, bytes with a version come out.

The slice is all that goes in, so equal slices give equal bytes, whoever asks and whenever. Proxies
in many places are told the same of a service: such resources are one object, and so are their
bytes, as long as anybody is told them.
"""

import functools
import weakref
from collections.abc import Hashable
from typing import Final

from isthmus.base.same import Same
from isthmus.resources import snapshot
from isthmus.resources.envoy import build as envoy
from isthmus.resources.ztunnel import build as ztunnel
from isthmus.views import view


def build(slice_: view.Slice) -> snapshot.Resource:
    """Return the resource that says `slice_` to the kind of proxy that it is for."""
    if isinstance(slice_, view.wds.NodeSlice):
        return ztunnel.build(slice_)
    return _built(Same(slice_)) if isinstance(slice_, view.EndpointsSlice) else _shared(slice_)


RECENT: Final = 64
"""Of so many assignments the resources are remembered: places that see the same are told in a row."""


@functools.lru_cache(maxsize=RECENT)
def _built(slice_: Same[view.EndpointsSlice]) -> snapshot.Resource:
    return _shared(slice_.it)


def _shared(slice_: view.EnvoySlice) -> snapshot.Resource:
    return shared(envoy.build(slice_))


_KNOWN: Final = weakref.WeakValueDictionary[Hashable, snapshot.Resource]()


def shared(fresh: snapshot.Resource) -> snapshot.Resource:
    """Return the resource that is equal and known already, or else this one."""
    told = tuple([one.version for one in fresh.collections])
    known = _KNOWN.setdefault((fresh.type_url, fresh.name, fresh.version, told), fresh)
    return known if known == fresh else fresh
