"""How near endpoints are by what they share with a client: one rule for all who balance.

Source: spec section 7.5.
"""

from collections.abc import Sequence


def rank_of(shared: Sequence[bool], *, network_first: bool) -> int:
    """Return how near an endpoint is; more is nearer, 0 is farthest.

    What counts is how many things are shared up to the first that is not. Where the network is
    the first of them, whatever is in the client's network is nearer than all that is not; and of
    that, those that share more of the rest are nearer still.

    Args:
        shared: Of each thing that makes near, the most important first, whether it is shared.
        network_first: Whether the first of them is the network.
    """
    if not network_first or not shared:
        return _leading(shared)
    rest = len(shared) - 1
    return _leading(shared) + rest if shared[0] else _leading(shared[1:])


def most(length: int, *, network_first: bool) -> int:
    """Return the rank of an endpoint that shares everything."""
    return length + max(length - 1, 0) if network_first else length


def _leading(shared: Sequence[bool]) -> int:
    return next((number for number, one in enumerate(shared) if not one), len(shared))
