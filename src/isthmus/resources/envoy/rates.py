"""How many tunnels one caller may begin at a gateway, for Envoy: a bucket for each identity.

Who a caller is was proven by its certificate. Callers that nobody knows beforehand get a bucket when
they first come; the ones that have not come for longest lose theirs.

Source: security rule GW-6.
"""

from typing import Final

from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2

from isthmus.resources.envoy import messages

BURST: Final = 2
"""So many seconds' worth may begin at once."""

MOST_CALLERS: Final = 10_000
EVERYBODY: Final = 2**31 - 1
"""All callers together are bounded by what a gateway can do."""

KEY: Final = "caller"
WHO: Final = "connection.uri_san_peer_certificate"
TOO_MANY: Final = 429
ALWAYS: Final[messages.Fields] = {"default_value": {"numerator": 100}}
SECOND: Final[messages.Fields] = {"seconds": 1}


def of_callers(most: int) -> messages.Fields:
    """Return the filter that lets each caller begin so many requests a second."""
    who = messages.extension(
        "envoy.rate_limit_descriptors.expr", expr_pb2.Descriptor(descriptor_key=KEY, text=WHO)
    )
    limit = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix="callers",
        status={"code": TOO_MANY},
        token_bucket=_bucket(EVERYBODY, EVERYBODY),
        always_consume_default_token_bucket={"value": False},
        filter_enabled=ALWAYS,
        filter_enforced=ALWAYS,
        rate_limits=[{"actions": [{"extension": who}]}],
        # Without a value it stands for every one, each with a bucket of its own.
        descriptors=[{"entries": [{"key": KEY}], "token_bucket": _bucket(most, BURST * most)}],
        max_dynamic_descriptors={"value": MOST_CALLERS},
    )
    return messages.extension("envoy.filters.http.local_ratelimit", limit)


def _bucket(each_second: int, most: int) -> messages.Fields:
    return {
        "max_tokens": most,
        "tokens_per_fill": {"value": each_second},
        "fill_interval": SECOND,
    }
