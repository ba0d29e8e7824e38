"""A slice's names as the table that agents answer DNS from.

Source: spec section 4.10.
"""

import functools
from typing import Final

from google.protobuf import message

from isthmus.views import view
from isthmus_proto.istio.networking.nds.v1 import nds_pb2

KUBERNETES: Final = "Kubernetes"
"""Agents know short forms of names from this registry."""

EXTERNAL: Final = "External"
"""Of names of ServiceEntries, which are written in full."""


def table_of(names: view.NamesSlice) -> message.Message:
    """Return the message that says which names there are."""
    table = nds_pb2.NameTable()
    for host in names.hosts:
        table.table[host.host].CopyFrom(_named(host))
    result: message.Message = table
    return result


@functools.lru_cache(maxsize=65536)
def _named(host: view.NamedHost) -> message.Message:
    """Return one entry; all tables that have it share it."""
    result: message.Message = nds_pb2.NameTable.NameInfo(
        ips=host.addresses,
        registry=KUBERNETES if host.short else EXTERNAL,
        shortname=host.short,
        namespace=host.namespace,
    )
    return result
