"""The slice of who is believed. Part of the hand-over: see `view`.

Source: spec section 1.2; decision 0030.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.mesh.trust import Bundle

TRUST: Final = "trust-bundles"
"""The secret by which proxies believe each other, where trust domains have bundles."""


@dataclass(frozen=True, slots=True)
class TrustSlice:
    """Who vouches for the identities of each accepted trust domain."""

    bundles: tuple[Bundle, ...]

    @property
    def name(self) -> str:
        """Name it as every proxy does."""
        return TRUST
