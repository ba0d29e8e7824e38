"""When a certificate is replaced: at half of its life, a little scattered.

Source: spec section 1.5.
"""

import datetime

HALF = 0.5
SPREAD = 0.01


def renewal_time(
    begins: datetime.datetime, *, ends: datetime.datetime, chance: float
) -> datetime.datetime:
    """Choose when to replace a certificate, so that many made at once do not return at once.

    Args:
        begins: When it was issued (a certificate's own beginning is backdated).
        ends: When it ends.
        chance: Between 0 and 1, drawn by the caller.
    """
    share = HALF + SPREAD * (2 * chance - 1)
    return begins + (ends - begins) * share
