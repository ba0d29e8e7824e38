"""Says slices to node proxies.

Source: spec section 7.1.
"""

from isthmus.resources import snapshot, versions
from isthmus.resources.ztunnel import addresses, authorizations
from isthmus.views import view


def build(slice_: view.wds.NodeSlice) -> snapshot.Resource:
    """Return the resource that says `slice_` to a node proxy."""
    match slice_:
        case view.wds.WorkloadSlice():
            return versions.resource(
                snapshot.ADDRESSES,
                addresses.of_workload(slice_),
                name=slice_.resource_name,
                aliases=view.wds.aliases_of(slice_),
                parts_of=view.wds.wholes_of(slice_),
            )
        case view.wds.ServiceSlice():
            return versions.resource(
                snapshot.ADDRESSES,
                addresses.of_service(slice_),
                name=slice_.resource_name,
                aliases=view.wds.aliases_of(slice_),
            )
        case view.wds.AuthorizationSlice():
            return versions.resource(
                snapshot.AUTHORIZATIONS,
                authorizations.authorization_of(slice_),
                name=slice_.resource_name,
            )
