"""Names of what carries trust between clusters.

Source: spec sections 1.1 and 1.6.
"""

SECRET = "cacerts"
"""The Secret that holds a cluster's signing authority."""

CERTIFICATE = "ca-cert.pem"
KEY = "ca-key.pem"
ROOTS = "root-cert.pem"
CHAIN = "cert-chain.pem"
FILES = (CERTIFICATE, KEY, ROOTS, CHAIN)
"""The files of that Secret, as the walkthroughs make it."""

TLS_CERTIFICATE = "tls.crt"
TLS_KEY = "tls.key"
TLS_ROOTS = "ca.crt"
TLS_FILES = (TLS_CERTIFICATE, TLS_KEY, TLS_ROOTS)
"""The files of a Secret of type kubernetes.io/tls, as cert-manager makes it."""
