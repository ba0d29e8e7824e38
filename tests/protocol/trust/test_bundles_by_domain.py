"""Whom a real Envoy believes: each trust domain is vouched for by its own bundle and by no other.

All intermediates are below one root. Both walls are tried alone: name constraints where the bundle
would let a certificate through, and bundles where no constraint stands in its way.
"""

import time

import believing
import pytest
from believing import below, bundle, minted

from isthmus.resources.envoy import tls
from isthmus.testing import certificates as material
from isthmus.testing import envoys, pace

A, B, C = "a.local", "b.local", "c.local"
OK, REFUSED = "HTTP/1.1 200 OK", ""
LIMIT_S = pace.patience(10.0)
CALLED = "called"
"""An account at the other end of calls."""

A_AND_B = (bundle(A, below("a")), bundle(B, below("b")))


def until(met):
    deadline = time.monotonic() + LIMIT_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module", params=[tls.server_socket, tls.tunnel_end])
def server(request, tmp_path_factory):
    """A server of the mesh, in trust domain a.local, that admits all domains that are listed."""
    folder = tmp_path_factory.mktemp("server")
    believing.list_bundles(folder, *A_AND_B)
    fields = request.param((A, B), by_domain=True)
    found = believing.transport(folder, fields, shows=minted(A, by="a"))
    listener = believing.listening(folder, "in", found, filters=[envoys.answering()])
    with believing.running(folder, [listener]):
        yield folder


@pytest.mark.parametrize("domain", [A, B])
def test_identities_of_a_listed_domain_get_in_by_their_own_intermediate(server, domain):
    assert believing.asked(server, "in", minted(domain, by=domain[0])) == OK


@pytest.mark.parametrize(("domain", "by"), [(A, "b"), (B, "a"), (A, "c"), (C, "c"), (C, "a")])
def test_bundles_alone_refuse_whatever_an_intermediate_mints_for_another_domain(server, domain, by):
    before = believing.counted(server, "fail_verify_error")

    assert believing.asked(server, "in", minted(domain, by=by)) == REFUSED
    assert believing.counted(server, "fail_verify_error") == before + 1


def test_name_constraints_alone_refuse_it_where_a_bundle_is_the_shared_root(tmp_path):
    root = material.root_certificate(now=believing.NOW)
    believing.list_bundles(tmp_path, bundle(A, root), bundle(B, root))
    fields = tls.server_socket((A, B), by_domain=True)
    found = believing.transport(tmp_path, fields, shows=minted(A, by="a"))
    listener = believing.listening(tmp_path, "in", found, filters=[envoys.answering()])
    with believing.running(tmp_path, [listener]):
        assert believing.asked(tmp_path, "in", minted(A, by="b")) == OK
        assert believing.asked(tmp_path, "in", minted(A, by="b", limits=(B,))) == REFUSED
        assert believing.asked(tmp_path, "in", minted(B, by="b", limits=(B,))) == OK


def test_name_constraints_hold_where_an_intermediate_is_listed_for_a_domain_not_its_own(tmp_path):
    limited = below("b", limits=(B,))
    believing.list_bundles(tmp_path, bundle(A, below("a"), limited), bundle(B, limited))
    found = believing.transport(
        tmp_path, tls.server_socket((A, B), by_domain=True), shows=minted(A, by="a")
    )
    listener = believing.listening(tmp_path, "in", found, filters=[envoys.answering()])
    with believing.running(tmp_path, [listener]):
        assert believing.asked(tmp_path, "in", minted(A, by="b", limits=(B,))) == REFUSED
        assert believing.asked(tmp_path, "in", minted(B, by="b", limits=(B,))) == OK


def test_names_are_compared_as_well(tmp_path):
    """A server that admits one domain admits no other one, whatever else is listed."""
    believing.list_bundles(tmp_path, *A_AND_B)
    found = believing.transport(
        tmp_path, tls.server_socket((B,), by_domain=True), shows=minted(A, by="a")
    )
    listener = believing.listening(tmp_path, "in", found, filters=[envoys.answering()])
    with believing.running(tmp_path, [listener]):
        assert believing.asked(tmp_path, "in", minted(B, by="b")) == OK
        assert believing.asked(tmp_path, "in", minted(A, by="a")) == REFUSED


def test_a_domain_that_is_listed_no_more_is_refused_from_then_on(tmp_path):
    believing.list_bundles(tmp_path, *A_AND_B)
    found = believing.transport(
        tmp_path, tls.server_socket((A, B), by_domain=True), shows=minted(A, by="a")
    )
    listener = believing.listening(tmp_path, "in", found, filters=[envoys.answering()])
    with believing.running(tmp_path, [listener]):
        assert believing.asked(tmp_path, "in", minted(B, by="b")) == OK
        believing.list_bundles(tmp_path, A_AND_B[0])
        until(lambda: believing.asked(tmp_path, "in", minted(B, by="b")) == REFUSED)
        assert believing.asked(tmp_path, "in", minted(A, by="a")) == OK
        believing.list_bundles(tmp_path, *A_AND_B)
        until(lambda: believing.asked(tmp_path, "in", minted(B, by="b")) == OK)


def test_nobody_gets_back_in_by_what_was_agreed_before_the_domain_was_removed(tmp_path):
    """A session that is taken up again is one whose certificates nobody looks at any more."""
    believing.list_bundles(tmp_path, *A_AND_B)
    found = believing.transport(
        tmp_path, tls.server_socket((A, B), by_domain=True), shows=minted(A, by="a")
    )
    listener = believing.listening(tmp_path, "in", found, filters=[envoys.answering()])
    with believing.running(tmp_path, [listener]):
        client = believing.Client(tmp_path, "in", minted(B, by="b"))
        assert (client.asked(), client.was_resumed) == (OK, False)
        assert (client.asked(), client.was_resumed) == (OK, True)
        believing.list_bundles(tmp_path, A_AND_B[0])
        until(lambda: believing.asked(tmp_path, "in", minted(B, by="b")) == REFUSED)
        assert client.asked() == REFUSED


# --- clients


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client in a.local that calls an account of b.local, and servers that show something."""
    folder = tmp_path_factory.mktemp("client")
    believing.list_bundles(folder, *A_AND_B)
    shown = {
        "right": minted(B, by="b", account=CALLED),
        "forged": minted(B, by="a", account=CALLED),
        "other": minted(B, by="b", account="other"),
        "near": minted(A, by="a", account=CALLED),
    }
    expected = str(believing.identity(B, CALLED))
    fields = tls.client_socket("x", identities=[expected], speaks_http2=False, by_domain=True)
    calling = believing.transport(folder, fields, shows=minted(A, by="a"))
    listeners, clusters = [], []
    for name, chain in shown.items():
        listeners += [_server(folder, f"at-{name}", chain), _front(folder, name)]
        clusters.append(_leading(folder, name, calling))
    with believing.running(folder, listeners, clusters):
        yield folder


def _server(folder, name, chain):
    certificates = [
        {
            "certificate_chain": {"inline_string": chain},
            "private_key": {"inline_string": believing.KEY},
        }
    ]
    context = {
        "@type": "type.googleapis.com/"
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": certificates},
    }
    socket = {"name": "tls", "typed_config": context}
    return believing.listening(folder, name, socket, filters=[envoys.answering()])


def _front(folder, name):
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
    }
    chain = {"filters": [{"name": "tcp", "typed_config": proxy}]}
    return {
        "name": name,
        "address": {"pipe": {"path": str(folder / name)}},
        "filter_chains": [chain],
    }


def _leading(folder, name, socket):
    address = {"pipe": {"path": str(folder / f"at-{name}")}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "transport_socket": socket,
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


@pytest.mark.parametrize(
    ("name", "answer"), [("right", OK), ("forged", REFUSED), ("other", REFUSED), ("near", REFUSED)]
)
def test_clients_believe_a_server_by_its_domains_bundle_and_by_its_name(client, name, answer):
    assert believing.plainly_asked(client, name) == answer
