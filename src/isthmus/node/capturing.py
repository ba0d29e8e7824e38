"""Puts the packet rules of an enrolled pod into its network, and takes them out again.

Acts inside the pod's network namespace; all rules are replaced in one step. What a pod that was let
go keeps concerns connections that the proxy has, and no other.

Source: spec section 5.4; `capture.enrolled`.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from isthmus.base import namespaces, netlink, nftables
from isthmus.capture import enrolled
from isthmus.node import redirect

LOOPBACK_LINK = 1


def capture(
    network: str | int,
    *,
    probed_from: Sequence[str] = (),
    captures_dns: bool = False,
    captures_arriving: bool = True,
) -> None:
    """Let the pod's traffic go through its node's proxy.

    Args:
        network: The pod's network namespace, as a path or a descriptor.
        probed_from: See `capture.enrolled`.
        captures_dns: See `capture.enrolled`.
        captures_arriving: See `capture.enrolled`.

    Raises:
        OSError: The kernel refused, or the pod is gone.
    """
    made = enrolled.rules_of(
        probed_from=probed_from, captures_dns=captures_dns, captures_arriving=captures_arriving
    )
    with _inside(network):
        _let_answers_return()
        nftables.apply(redirect.messages(made))


def release(network: str | int) -> None:
    """Let new connections of the pod go by themselves; those that the proxy has go on.

    Raises:
        OSError: The kernel refused, or the pod is gone.
    """
    with _inside(network):
        nftables.apply(redirect.messages(enrolled.rules_of_released(), kept=enrolled.KEPT))


def _let_answers_return() -> None:
    back = netlink.route("0.0.0.0/0", link=LOOPBACK_LINK, table=enrolled.TABLE, local=True)
    for message in (back, netlink.mark_rule(enrolled.HANDED_OVER, table=enrolled.TABLE)):
        try:
            netlink.send([message])
        except netlink.RefusedError as error:
            if not netlink.is_present(error):
                raise


@contextlib.contextmanager
def _inside(network: str | int) -> Iterator[None]:
    if isinstance(network, int):
        with namespaces.entered(network):
            yield
        return
    fd = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespaces.entered(fd):
            yield
    finally:
        os.close(fd)
