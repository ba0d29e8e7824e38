"""What a policy keeps out stays out, however a request is written: asked of a real Envoy.

What Envoy lets through is read in all the ways in which servers read paths and hosts; under none
of them may it be what the policy keeps out.
"""

import contextlib
import itertools
import socket
import threading
import time
import urllib.parse

import judged
import pytest

POLICIES = {
    "deny admin": [{"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin*"]}}]}]}],
    "deny exactly": [
        {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin/users"]}}]}]}
    ],
    "deny end": [{"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["*/users"]}}]}]}],
    "allow public": [{"rules": [{"to": [{"operation": {"paths": ["/public/*"]}}]}]}],
    "all but admin": [{"rules": [{"to": [{"operation": {"notPaths": ["/admin*"]}}]}]}],
    "deny host": [
        {"action": "DENY", "rules": [{"to": [{"operation": {"hosts": ["secret.example"]}}]}]}
    ],
    "allow host": [{"rules": [{"to": [{"operation": {"hosts": ["*.open.example"]}}]}]}],
    "deny header": [
        {
            "action": "DENY",
            "rules": [{"when": [{"key": "request.headers[x-role]", "values": ["guest"]}]}],
        }
    ],
    "allow header": [
        {"rules": [{"when": [{"key": "request.headers[x-role]", "values": ["boss"]}]}]}
    ],
    "deny method": [{"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}]}],
    "known callers": [{"rules": [{"from": [{"source": {"notNamespaces": ["elsewhere"]}}]}]}],
    "one caller": [
        {"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"]}}]}]}
    ],
    "not from one": [
        {
            "action": "DENY",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"]}}]}],
        }
    ],
    "from here": [{"rules": [{"from": [{"source": {"ipBlocks": ["127.0.0.0/8"]}}]}]}],
    "not understood": [{"rules": [{"to": [{"operation": {"colours": ["red"]}}]}]}],
    "nobody": [{}],
    "everybody": [{"rules": [{}]}],
}
GREETING = b"hello from the server\n"


SAMPLES = {"sidecar": 1000, "waypoint": 200}
"""How many of a thousand requests are asked at each place where policies are obeyed."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet_all, args=(server,), daemon=True).start()
        found = judged.Running(
            tmp_path_factory.mktemp("envoy"), POLICIES, backend=server.getsockname()[1]
        )
        try:
            deadline = time.monotonic() + 20
            while not found.is_up():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield found
        finally:
            found.close()


@pytest.fixture(params=SAMPLES)
def judge(request, running):
    return running.at(request.param, SAMPLES[request.param])


def greet_all(server):
    """Say something first to whoever comes, as databases do."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            connection.sendall(GREETING)
            connection.shutdown(socket.SHUT_WR)
            # Whoever closes with bytes unread takes back what was said.
            while connection.recv(65536):
                pass


# --- ways of writing


def targets(secret):
    """Return many ways of writing a path, and of hiding it in others."""
    head, tail = f"/{secret}", secret[1:]
    every = [f"%{code:02x}" for code in range(1, 256)]
    found = [f"{head}{one}" for one in every] + [f"{head}{one.upper()}x" for one in every]
    found += [f"/{one}{secret}" for one in every] + [f"/x/{one}/..{head}" for one in every]
    found += [f"{head}/{one}" for one in every] + [f"/x{one}{secret}" for one in every]
    found += [f"/%25{code:02x}{tail}" for code in range(256)]
    found += [f"/{secret[:2]}%{code:02X}{secret[3:]}" for code in range(256)]
    marks = [
        "/",
        "//",
        "/./",
        "/../",
        "\\",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "%252f",
        ";x/",
        ";/",
        "?",
        "#",
    ]
    marks += [
        "/.;/",
        "/..;/",
        "/%2e/",
        "/%2e%2e/",
        "/.%2e/",
        "/..%2f",
        "/..%5c",
        "/%c0%af",
        "/%00/",
    ]
    for before, after in itertools.product(marks, marks):
        found += [
            f"/x{before}{secret}{after}y",
            f"/{before}{secret}{after}",
            f"{before}..{after}{secret}",
        ]
    cases = [secret.upper(), secret.title(), secret.swapcase()]
    found += [f"/{case}" for case in cases]
    found += [f"http://other.example{one}" for one in [head, f"/{head}", f"/x/..{head}"]]
    return list(dict.fromkeys(one if one.startswith(("/", "http")) else f"/{one}" for one in found))


def readings(path):
    """Return all that servers may take a path for."""
    # A question mark that is not encoded ends the path for everybody.
    found, fresh = set(), {path.partition("?")[0]}
    steps = [
        lambda text: urllib.parse.unquote(text, errors="replace"),
        lambda text: text.split("?")[0],
        lambda text: text.split("#")[0],
        lambda text: text.replace("\\", "/"),
        lambda text: "/".join(part.split(";")[0] for part in text.split("/")),
        without_double_slashes,
        without_dots,
    ]
    while fresh:
        found |= fresh
        fresh = {step(text) for step in steps for text in fresh} - found
    return found


def without_double_slashes(text):
    while "//" in text:
        text = text.replace("//", "/")
    return text


def without_dots(text):
    kept = []
    for part in text.split("/"):
        if part == "..":
            kept = kept[:-1] or [""]
        elif part != ".":
            kept.append(part)
    return "/".join(kept)


def request(target, *, host="a.example", method="GET", more=()):
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def let_through(port, requests):
    """Return the headers of what is answered with 200, each with its request."""
    wire = judged.Wire(port)
    try:
        answers = [(one, wire.ask(one)) for one in requests]
    finally:
        wire.close()
    assert {status for _, (status, _) in answers} <= {200, 301, 307, 400, 403, 404, 0}
    return [(one, headers) for one, (status, headers) in answers if status == 200]


# --- paths


def is_kept_out(name, path):
    if name in {"deny admin", "all but admin"}:
        return path.startswith("/admin")
    if name == "deny exactly":
        return path == "/admin/users"
    if name == "deny end":
        return path.endswith("/users")
    return not path.startswith("/public/")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("deny admin", "admin"),
        ("all but admin", "admin"),
        ("deny exactly", "admin/users"),
        ("deny end", "admin/users"),
        ("allow public", "public/../admin"),
        ("allow public", "public"),
    ],
)
def test_no_way_of_writing_a_path_gets_around_a_policy(judge, name, secret):
    written = targets(secret)
    passed = let_through(judge.http[name], judge.some(map(request, written)))
    bypasses = [
        (one, path)
        for one, headers in passed
        for path in readings(headers["x-path"])
        if is_kept_out(name, path)
    ]

    assert len(written) >= 2000
    assert not bypasses


@pytest.mark.parametrize("name", ["deny admin", "all but admin", "deny exactly", "deny end"])
@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/b.c", "/a?x=/admin", "/caf%C3%A9", "/a%20b", "/mail/a%40b", "/mail/a@b", "/x/"],
)
def test_usual_paths_pass(judge, name, path):
    assert let_through(judge.http[name], [request(path)])


# --- hosts, headers, methods


def hosts(name):
    ports = ["", ":80", ":8080", ":", ":x", ":99999", ":080"]
    dots = ["", ".", "..", "%2e"]
    cases = [name, name.upper(), name.title(), name.swapcase()]
    before = ["", "x.", ".", "user@", "user:pass@", "x@y@", "not"]
    after = ["", ".evil.test", "@evil.test", "/", "?", "#", ",evil.test", "\\"]
    forms = itertools.product(before, cases, after, dots, ports)
    return ["".join(one) for one in forms]


def server_names(host):
    """Return the names that servers may make out of a host."""
    for text in {host, host.rpartition("@")[2], host.partition("@")[0], host.partition(",")[0]}:
        name = text.partition(":")[0].lower()
        yield from (name, name.rstrip("."), urllib.parse.unquote(name).rstrip("."))


def test_no_way_of_writing_a_host_gets_around_a_denial(judge):
    written = hosts("secret.example")
    asked = [request("/", host=one) for one in written]
    asked += [request(f"http://{one}/", host="other.example") for one in written]
    passed = let_through(judge.http["deny host"], judge.some(asked))

    assert len(asked) >= 2000
    assert passed
    assert not [one for one in passed if "secret.example" in server_names(one[1]["x-host"])]


def test_what_allows_a_host_allows_no_other(judge):
    asked = [request("/", host=one) for one in hosts("a.open.example")]
    asked += [request("/", host=one) for one in hosts("secret.example")]
    usual = [request("/", host=one) for one in ("a.open.example", "x.a.open.example")]
    passed = let_through(judge.http["allow host"], [*usual, *judge.some(asked)])
    names = {name for _, headers in passed for name in server_names(headers["x-host"])}

    assert len(asked) >= 2000
    assert {"a.open.example", "x.a.open.example"} <= names
    assert all(name.rstrip(".").endswith(".open.example") for name in names)


def header_lines(value, other):
    """Return many ways of sending a header with a value among others."""
    names = ["x-role", "X-Role", "X-ROLE", "x_role", "X_Role", "x-Role", "x-role "]
    spaces = ["", " ", "  ", "\t", " \t "]
    for name, before, after in itertools.product(names, spaces, spaces):
        padded = f"{before}{value}{after}"
        yield from (
            [f"{name}:{padded}"],
            [f"{name}:{padded}", f"{name}: {other}"],
            [f"{name}: {other}", f"{name}:{padded}"],
            [f"{name}: {other},{padded}"],
            [f"{name}:{padded},{other}"],
            [f"{name}: {other},{padded},{other}"],
            [f"{name}: {other}", f"X-role:{padded}", f"{name}: {other}"],
            [f"{name}: \xff,{padded}"],
            [f"{name}:{padded}", "x-other: 1"],
            ["x-role: " + other, f"{name}:{padded}"],
            [f"{name}:{padded},"],
            [f"{name}:,{padded}"],
        )


def test_a_denied_header_is_found_among_others(judge):
    asked = [
        request("/", more=lines, method=method)
        for lines in header_lines("guest", "boss")
        for method in ("GET", "PUT")
    ]
    assert len(asked) >= 2000
    assert not let_through(judge.http["deny header"], judge.some(asked))
    assert let_through(judge.http["deny header"], [request("/", more=["x-role: boss"])])


def test_an_allowed_header_must_stand_alone(judge):
    asked = [request("/", more=lines) for lines in header_lines("boss", "guest")]
    usual = request("/", more=["x-role: boss"])
    passed = let_through(judge.http["allow header"], [usual, *judge.some(asked)])

    assert passed
    assert not [one for one, _ in passed if b"guest" in one or b"_" in one or b"\xff" in one]


def test_no_way_of_writing_a_method_gets_around_a_denial(judge):
    written = ["".join(one) for one in itertools.product("Pp", "Oo", "Ss", "Tt")]
    assert not let_through(judge.http["deny method"], [request("/", method=one) for one in written])
    assert let_through(judge.http["deny method"], [request("/", method="PUT")])


# --- callers


@pytest.mark.parametrize("name", ["known callers", "not from one", "not understood", "nobody"])
def test_callers_without_an_identity_are_kept_out(judge, name):
    asked = [request(one) for one in targets("admin")]
    assert not let_through(judge.http[name], judge.some(asked))
    assert is_closed(judge.tcp[name])


@pytest.mark.parametrize("name", ["from here", "everybody"])
def test_who_is_allowed_gets_in(judge, name):
    # A waypoint believes the end of a tunnel where that began, and here there is no tunnel.
    gets_in = name == "everybody" or judge.place == "sidecar"
    assert bool(let_through(judge.http[name], [request("/")])) == gets_in
    assert is_closed(judge.tcp[name]) != gets_in


CLAIMED = "spiffe://cluster.local/ns/a/sa/b"


def claims():
    """Return many ways in which a client may say who he is."""
    names = [
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "forwarded",
        "baggage",
        "x-forwarded-for",
        "x-envoy-external-address",
        "x-istio-attributes",
        "authorization",
        "x-forwarded-network",
        "x-istio-source",
        "isthmus.tunnel.identity",
    ]
    values = [
        CLAIMED,
        f"URI={CLAIMED}",
        f"By={CLAIMED};URI={CLAIMED}",
        f"for={CLAIMED}",
        f"Bearer {CLAIMED}",
        "cluster.local/ns/a/sa/b",
        "waypoint",
        "127.0.0.1",
    ]
    for name, value in itertools.product(names, values):
        yield from ([f"{name}: {value}"], [f"{name}: x", f"{name}: {value}"])


@pytest.mark.parametrize("name", ["known callers", "one caller"])
def test_nobody_is_who_he_only_says_he_is(judge, name):
    asked = [request("/", more=lines) for lines in claims()]
    assert not let_through(judge.http[name], asked)


# --- the same policies for connections


def is_closed(port, first=b"x"):
    """Say whether a connection is closed without a byte from the server."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        try:
            connection.sendall(first)
            return connection.recv(100) == b""
        except ConnectionError:
            return True


BY_REQUESTS = [name for name in POLICIES if name.split()[0] in {"deny", "allow", "all"}]


@pytest.mark.parametrize("name", BY_REQUESTS)
def test_a_policy_about_requests_lets_no_connection_through_that_is_not_read(judge, name):
    asked = [request(one) for one in targets("admin")[:2000]]
    sent = judge.some(asked if name == "deny admin" else asked[::20])
    assert all(is_closed(judge.tcp[name], one) for one in sent)


def test_a_server_says_nothing_to_who_is_kept_out(judge):
    with socket.create_connection(("127.0.0.1", judge.tcp["nobody"]), 10) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(100)
