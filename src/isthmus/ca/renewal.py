"""When a certificate is replaced: at half of its life, a little scattered.

Source: spec section 1.5.
"""

import datetime

HALF = 0.5
SPREAD = 0.01


def renewal_time(
    begins: datetime.datetime,
    *,
    ends: datetime.datetime,
    chance: float,
    share: float = HALF,
    spread: float = SPREAD,
) -> datetime.datetime:
    """Choose when to replace a certificate, so that many made at once do not return at once.

    Args:
        begins: When it was issued (a certificate's own beginning is backdated).
        ends: When it ends.
        chance: Between 0 and 1, drawn by the caller.
        share: Part of the life after which it is replaced.
        spread: How far that part is scattered, either way.
    """
    return begins + (ends - begins) * (share + spread * (2 * chance - 1))
