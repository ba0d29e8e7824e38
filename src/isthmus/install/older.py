"""What the values of older charts mean today.

Users keep files of values for years. A value that has an equivalent is obeyed; one whose matter is
always so, or gone, is accepted, and `settings_check` says so.

Source: spec sections 6.1 and 6.3; the walkthroughs of Istio 1.1 and 1.6.
"""

from isthmus.install import labels
from isthmus.install.control_plane import Manifest
from isthmus.install.options import Options

STRICT_NAME = "default"


def strict(options: Options) -> Manifest:
    """Return the policy that `global.mtls.enabled` stands for: only mutual TLS is accepted."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": labels.metadata(options, STRICT_NAME, component="Pilot"),
        "spec": {"mtls": {"mode": "STRICT"}},
    }


def has_own_discovery(options: Options) -> bool:
    """Say whether proxies here are injected here, but discover through another cluster."""
    return bool(options.pilot and options.remote_address and not options.remote)
