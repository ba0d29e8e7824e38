"""The versions that objects, user agents and `isthmus version` name."""

from typing import Final

VERSION: Final = "0.1.0"
"""The version of this program."""

PROXY_VERSION: Final = "1.30.3"
"""Tag of Istio's own proxy image that the injector and the installer name by default."""
