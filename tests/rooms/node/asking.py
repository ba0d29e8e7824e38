"""Asks a server for a name, always from the same port; prints the addresses that it gets."""

import argparse
import socket
import sys

import dns_world

from isthmus.base import dns

PORT = 40053
MARK = 1337


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("server")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--mark", action="store_true")
    wanted = parser.parse_args()
    message = dns.asking(wanted.name, dns.A, number=7)
    kind = socket.SOCK_STREAM if wanted.stream else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as asking:
        asking.settimeout(5)
        if wanted.mark:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        if not wanted.stream:
            asking.bind(("0.0.0.0", PORT))
        asking.connect((wanted.server, dns.PORT))
        asking.sendall(dns.framed(message) if wanted.stream else message)
        reply = asking.recv(dns.LONGEST)
    _, records = dns_world.read(reply[2:] if wanted.stream else reply)
    sys.stdout.write(" ".join(content for _, _, content, _ in records))


if __name__ == "__main__":
    main()
