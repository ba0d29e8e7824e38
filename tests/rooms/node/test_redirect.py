import errno
import select
import socket
import threading

import pytest

from isthmus.base import namespaces, netlink, nftables
from isthmus.capture import enrolled
from isthmus.node import redirect

INJECTED = [
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-x",
    "",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
]


def in_a_network_of_its_own(work):
    """Run `work` in a thread with a network of its own; skip where the kernel forbids that."""

    def enter():
        namespaces.unshare(namespaces.NEWNET)
        return work()

    try:
        return namespaces.in_thread(enter)
    except PermissionError:
        pytest.skip("needs the right to make network namespaces")


def test_connections_are_redirected_unless_they_bear_the_mark():
    def work():
        netlink.send([netlink.up(1)])
        netlink.send([netlink.address(1, "10.7.0.1", prefix=32)])
        redirect.run([*INJECTED, "-c", "none"])
        # A second run replaces the rules of the first.
        redirect.run(INJECTED)
        with socket.create_server(("0.0.0.0", 15006)) as proxy:
            proxy.settimeout(5)
            return [reached(proxy, mark=1337), reached(proxy, mark=0)]

    assert in_a_network_of_its_own(work) == [True, False]


def test_while_rules_are_replaced_no_connection_goes_past_the_proxy():
    def work():
        netlink.send([netlink.up(1)])
        netlink.send([netlink.address(1, "10.7.0.1", prefix=32)])
        redirect.run(INJECTED)
        is_over, found = threading.Event(), []
        with socket.create_server(("0.0.0.0", 15006)) as proxy:
            proxy.settimeout(5)

            def call():
                while not is_over.is_set():
                    found.append(reached(proxy, mark=1337))

            calling = threading.Thread(target=call)
            calling.start()
            for _ in range(100):
                redirect.run(INJECTED)
            is_over.set()
            calling.join()
        return found

    found = in_a_network_of_its_own(work)
    assert len(found) > 100
    assert all(found)


def reached(proxy: socket.socket, *, mark: int) -> bool:
    """Tell whether a connection to the pod's own address ends at the proxy."""
    with socket.socket() as client:
        client.settimeout(5)
        if mark:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            client.connect(("10.7.0.1", 5000))
        except ConnectionRefusedError:
            return False
        accepted, _ = proxy.accept()
        accepted.close()
        return True


def test_a_call_to_a_nodes_proxy_that_is_away_waits_until_it_is_there():
    def work():
        netlink.send([netlink.up(1)])
        nftables.apply(redirect.messages(enrolled.rules_of()))
        with socket.socket() as refused:
            code = refused.connect_ex(("127.0.0.1", 9))
        with socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", enrolled.TUNNEL_PORT))
            was_answered = select.select([], [waiting], [], 0.2)[1]
            with socket.create_server(("127.0.0.1", enrolled.TUNNEL_PORT)) as proxy:
                proxy.settimeout(10)
                accepted, _ = proxy.accept()
                # A connection that was made is still ended at once.
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                accepted.close()
                select.select([waiting], [], [], 10)
                error = waiting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code, was_answered, error

    assert in_a_network_of_its_own(work) == (errno.ECONNREFUSED, [], errno.ECONNRESET)
