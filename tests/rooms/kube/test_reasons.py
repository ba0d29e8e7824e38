"""Why no answer came: each cause has its own words and its own hint."""

import socket
import ssl

import pytest

from isthmus.kube import reasons


class WrappedError(OSError):
    """An error of a connection, which carries the kernel's inside."""

    def __init__(self, inner):
        super().__init__("cannot connect ssl:default")
        self.os_error = inner


def told(error):
    return reasons.unreachable(error, server="https://a:6443", name="c1", limit_s=30)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens there"),
        (socket.gaierror(-2, "Name or service not known"), "its name is not known"),
        (OSError(113, "Connect call failed"), "no route to host"),
        (TimeoutError("Connection timeout to host"), "no connection within 10 s"),
        (TimeoutError(), "no answer within 30 s"),
        (ssl.SSLError(1, "[SSL] wrong version number"), "no TLS: "),
        (ValueError(), "ValueError"),
    ],
)
def test_each_cause_is_told_in_its_own_words(error, detail):
    assert told(error).detail.startswith(f"https://a:6443: {detail}")
    assert told(error).hint


def test_the_cause_inside_counts_not_its_wrapping():
    assert told(WrappedError(ConnectionRefusedError(111, "x"))).detail.endswith(
        "nothing listens there"
    )


def test_a_foreign_certificate_points_to_the_kubeconfig():
    error = ssl.SSLCertVerificationError(1, "[SSL] failed")
    error.verify_message = "self-signed certificate"

    assert "not trusted: self-signed certificate" in told(error).detail
    assert "certificate-authority-data" in told(error).hint
