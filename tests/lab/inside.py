"""What tests do inside a lab's networks: listen to a wire, knock at a port, ask for a certificate.

It runs as a program of its own, as the lab's user: `wires` starts it with its text as the program,
a task as JSON on standard input, and gets JSON back.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import os
import pathlib
import select
import socket
import ssl
import struct
import sys
import time

from isthmus.base import namespaces

EVERY_PROTOCOL = 0x0003
SOL_PACKET, ADD_MEMBERSHIP, STATISTICS = 263, 1, 6
PROMISCUOUS = 1
LARGEST_FRAME = 1 << 18
PATIENCE_S = 60.0
AT_ONCE = 16


def enter(pid, address):
    """Move into the network of a lab in which `address` lives; the lab's own when it is empty."""
    with contextlib.suppress(FileNotFoundError):
        theirs = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        ours = os.open("/proc/self/ns/user", os.O_RDONLY)
        if not namespaces.same(theirs, ours):
            namespaces.enter(theirs, flags=namespaces.NEWUSER)
    own = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    namespaces.enter(own, flags=namespaces.NEWNET)
    if address and not any(lives_in(path, address) for path in networks_of(pid)):
        raise LookupError(f"no network of the lab has the address {address}")


def networks_of(pid):
    """Yield paths of all network namespaces that processes of a lab live in or hold."""
    seen = set()
    for process in family(pid):
        folder = pathlib.Path(f"/proc/{process}")
        with contextlib.suppress(OSError):
            for path in (folder / "ns/net", *(folder / "fd").iterdir()):
                with contextlib.suppress(OSError):
                    name = str(path.readlink())
                    if name.startswith("net:[") and name not in seen:
                        seen.add(name)
                        yield path


def family(pid):
    """Return a process and all that came from it."""
    parents = {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [int(pid)]
    for each in found:
        found += parents.get(each, [])
    return found


def lives_in(path, address):
    """Move into a network; tell whether it has an address."""
    network = os.open(path, os.O_RDONLY)
    try:
        namespaces.enter(network, flags=namespaces.NEWNET)
    finally:
        os.close(network)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
        return True


def capture(task):
    """Write every frame of an interface, or of all, to a file until standard input ends."""
    interface = task["interface"]
    all_at_once = 0 if interface else socket.htons(EVERY_PROTOCOL)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, all_at_once) as wire:
        for option in (socket.SO_RCVBUF, 33):  # the second one is SO_RCVBUFFORCE
            with contextlib.suppress(OSError):
                wire.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
        if interface:
            wire.bind((interface, EVERY_PROTOCOL))
            wish = struct.pack("iHH8s", socket.if_nametoindex(interface), PROMISCUOUS, 0, b"")
            wire.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, wish)
        say("listening")
        with pathlib.Path(task["file"]).open("wb") as file:
            while True:
                ready, _, _ = select.select([wire, sys.stdin], [], [])
                if wire in ready:
                    frame = wire.recv(LARGEST_FRAME)
                    file.write(struct.pack("!I", len(frame)) + frame)
                elif sys.stdin in ready:
                    break
        _, dropped = struct.unpack("II", wire.getsockopt(SOL_PACKET, STATISTICS, 8))
    return {"dropped": dropped}


def knock(task):
    """Try each of some conversations; tell what came back."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda each: attempt(**each), task["attempts"]))


def attempt(
    *,
    host,
    port,
    tls=True,
    sni="",
    wire_sni="",
    alpn=(),
    certificate="",
    key="",
    send="",
    timeout=5.0,
):
    """Send something to a port; return the bytes that came, on the wire and within TLS."""
    heard = {"raw": 0, "text": "", "handshake": False, "end": "", "names": []}
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host, port), timeout=timeout) as link:
            if tls:
                secret(link, heard, deadline, sni, wire_sni, alpn, certificate, key, send)
            else:
                link.sendall(send.encode())
                while content := received(link, heard, deadline):
                    heard["text"] += content.decode(errors="replace")
    except (OSError, ValueError) as error:
        heard["end"] = f"{type(error).__name__}: {error}"
    return heard


def received(link, heard, deadline):
    """Read once from a link, and count."""
    link.settimeout(max(0.01, deadline - time.monotonic()))
    content = link.recv(65536)
    heard["raw"] += len(content)
    return content


def secret(link, heard, deadline, sni, wire_sni, alpn, certificate, key, send):
    """Speak TLS over a link; `wire_sni` takes the place of the server name on the wire."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if certificate:
        with contextlib.ExitStack() as files:
            context.load_cert_chain(*(written(each, files) for each in (certificate, key)))
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    asked = sni or ("x" * len(wire_sni) if wire_sni else None)
    session = context.wrap_bio(coming, going, server_hostname=asked)
    is_first, is_sent, request = True, False, send.encode()
    while True:
        try:
            if not heard["handshake"]:
                session.do_handshake()
                heard["handshake"] = True
                served = session.getpeercert(binary_form=True)
                heard["served"] = base64.b64encode(served or b"").decode()
            if not is_sent:
                session.write(request)
                is_sent = True
            content = session.read(65536)
            if not content:
                return
            heard["text"] += content.decode(errors="replace")
            continue
        except ssl.SSLWantReadError:
            pass
        written_out = going.read()
        if is_first and wire_sni:
            name = wire_sni.encode("latin-1")
            assert asked.encode() in written_out
            written_out = written_out.replace(asked.encode(), name)
        is_first = False
        link.sendall(written_out)
        content = received(link, heard, deadline)
        if not content:
            return
        coming.write(content)


def written(text, files):
    """Return the path of a file in memory."""
    fd = os.memfd_create("pem")
    files.callback(os.close, fd)
    os.write(fd, text.encode())
    return f"/proc/self/fd/{fd}"


def sign(task):
    """Ask the certificate service; tell its status, or the chain that it gave."""
    return asyncio.run(asked(**task["request"]))


async def asked(*, target, name, roots, csr, token="", cluster=""):
    """Ask the certificate service of a control plane."""
    import grpc

    from isthmus_proto.istio.v1.auth import ca_pb2

    metadata = [("clusterid", cluster)] if cluster else []
    if token:
        metadata.append(("authorization", f"Bearer {token}"))
    options = [("grpc.ssl_target_name_override", name)] if name else []
    credentials = grpc.ssl_channel_credentials(roots.encode())
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        call = channel.unary_unary(
            "/istio.v1.auth.IstioCertificateService/CreateCertificate",
            request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
            response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
        )
        wish = ca_pb2.IstioCertificateRequest(csr=csr, validity_duration=3600)
        try:
            answer = await call(wish, metadata=metadata, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            return {"status": error.code().name, "details": error.details(), "chain": []}
    return {"status": "OK", "details": "", "chain": list(answer.cert_chain)}


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Do one task."""
    task = json.loads(sys.stdin.readline())
    enter(task["pid"], task["address"])
    done = {"capture": capture, "knock": knock, "sign": sign}[task["do"]](task)
    say(json.dumps(done))


if __name__ == "__main__":
    main()
