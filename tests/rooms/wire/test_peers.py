import pytest

from isthmus.wire import callers, peers

CERTIFICATE = {"x509_pem_cert": [b"..."]}
SLEEP = b"spiffe://cluster.local/ns/sample/sa/sleep"


def shown(*metadata, verified=None) -> callers.Credentials:
    return peers.shown(metadata, verified=verified or {}, peer="ipv4:10.0.0.1:5")


def test_token_and_cluster_are_taken_from_metadata():
    found = shown(("authorization", "Bearer abc"), ("clusterid", "cluster2"))

    assert (found.token, found.claimed_cluster) == ("abc", "cluster2")


@pytest.mark.parametrize("value", ["Basic abc", "abc", "Bearerabc"])
def test_other_authorization_is_no_token(value):
    assert shown(("authorization", value)).token == ""


def test_two_claims_are_no_claim():
    found = shown(
        ("clusterid", "a"),
        ("clusterid", "b"),
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
    )

    assert (found.token, found.claimed_cluster) == ("", "")


def test_a_verified_certificate_shows_its_identity():
    found = shown(verified=CERTIFICATE | {"peer_uri": [SLEEP]})

    assert found.peer_identities == (SLEEP.decode(),)


def test_no_certificate_shows_no_identity():
    assert shown(verified={"peer_uri": [SLEEP]}).peer_identities == ()


@pytest.mark.parametrize("names", [[], [SLEEP, SLEEP], [b"https://example.com"]])
def test_a_certificate_needs_exactly_one_workload_name(names):
    with pytest.raises(callers.CallerRefused):
        shown(verified=CERTIFICATE | {"peer_uri": names})
