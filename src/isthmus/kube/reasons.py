"""Why no answer came from an API server, in words that say what to look at.

Decides the words only; the waiting and trying again are others'.
"""

import os
import socket
import ssl

from isthmus.kube import problems

CONNECT_S = 10.0
"""How long making a connection may take."""


def unreachable(
    error: BaseException, *, server: str, name: str, limit_s: float
) -> problems.Unreachable:
    """Return the error that a person sees for what the connection ended with."""
    where = f"cluster `{name}`" if name else "the API server"
    said, hint = _told(_cause(error), limit_s)
    return problems.Unreachable(f"cannot reach {where}", detail=f"{server}: {said}", hint=hint)


def _cause(error: BaseException) -> BaseException:
    # Errors of a connection carry the kernel's or the TLS library's own error inside.
    for name in ("certificate_error", "os_error"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return inner
    return error


def _told(error: BaseException, limit_s: float) -> tuple[str, str]:
    address = "check the address, and that its API server is up"
    match error:
        case TimeoutError() if "onnect" in str(error):
            told = f"no connection within {CONNECT_S:g} s", f"{address}; packets may be dropped"
        case TimeoutError():
            told = f"no answer within {limit_s:g} s", f"{address} and not overloaded"
        case ssl.SSLCertVerificationError():
            told = (
                f"its certificate is not trusted: {error.verify_message}",
                "the kubeconfig's certificate-authority-data belongs to another API server",
            )
        case ssl.SSLError():
            told = f"no TLS: {error.strerror or error}", f"{address} and speaks HTTPS there"
        case ConnectionRefusedError():
            told = "nothing listens there", address
        case socket.gaierror():
            told = "its name is not known", "check the name, and that this machine can resolve it"
        case OSError(errno=int(number)) if number > 0:
            # The kernel's words, not those of whoever passed the error on.
            told = os.strerror(number).lower(), address
        case _:
            told = str(error) or type(error).__name__, address
    return told
