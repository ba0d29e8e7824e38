from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from isthmus.wire import sds


def secret(version: str, name: str = "default") -> sds.Secret:
    return sds.roots(name, roots_pem=f"roots {version}", version=version)


def stated(*names: str, nonce: str = "") -> discovery_pb2.DiscoveryRequest:
    return discovery_pb2.DiscoveryRequest(resource_names=names, response_nonce=nonce)


def names_of(answer) -> list[str]:
    return [secret_pb2.Secret.FromString(each.value).name for each in answer.resources]


def test_certificates_are_written_as_istios_command_line_reads_them():
    own = sds.certificate("default", chain_pem="chain", key_pem="key", version="1")
    roots = secret_pb2.Secret.FromString(secret("1").body)

    found = secret_pb2.Secret.FromString(own.body).tls_certificate
    assert found.certificate_chain.inline_bytes == b"chain"
    assert found.private_key.inline_bytes == b"key"
    assert roots.validation_context.trusted_ca.inline_bytes == b"roots 1"


def test_a_request_is_answered_once_the_secret_is_there():
    stream = sds.Stated()
    stream.heard(stated("default"))

    assert stream.due({}) is None
    assert names_of(stream.due({"default": secret("1")})) == ["default"]


def test_an_acknowledgement_calls_for_no_answer():
    stream, held = sds.Stated(), {"default": secret("1")}
    stream.heard(stated("default"))
    answer = stream.due(held)

    stream.heard(stated("default", nonce=answer.nonce))

    assert stream.due(held) is None


def test_a_changed_secret_is_sent_again():
    stream = sds.Stated()
    stream.heard(stated("default"))
    stream.due({"default": secret("1")})

    assert stream.due({"default": secret("2")}).version_info == "2"


def test_more_names_are_answered_with_all_of_them():
    stream = sds.Stated()
    held = {"default": secret("1"), "ROOTCA": secret("9", "ROOTCA")}
    stream.heard(stated("default"))
    answer = stream.due(held)

    stream.heard(stated("ROOTCA", "default", nonce=answer.nonce))

    assert names_of(stream.due(held)) == ["ROOTCA", "default"]


def test_a_late_answer_to_an_old_offer_is_ignored():
    stream, held = sds.Stated(), {"default": secret("1")}
    stream.heard(stated("default"))
    stream.due(held)

    stream.heard(stated("other", nonce="99"))

    assert stream.names == ("default",)


def test_a_secret_that_others_asked_for_is_not_sent():
    stream = sds.Stated()
    stream.heard(stated("ROOTCA"))

    assert stream.due({"default": secret("1")}) is None


def subscribed(*names: str, **more) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=names, **more)


def test_deltas_carry_only_what_changed():
    stream = sds.Deltas()
    stream.heard(subscribed("default", "ROOTCA"))
    first = stream.due({"default": secret("1"), "ROOTCA": secret("1", "ROOTCA")})

    second = stream.due({"default": secret("2"), "ROOTCA": secret("1", "ROOTCA")})

    assert [each.name for each in first.resources] == ["ROOTCA", "default"]
    assert [(each.name, each.version) for each in second.resources] == [("default", "2")]


def test_what_a_proxy_knows_from_before_is_not_sent_again():
    stream = sds.Deltas()
    stream.heard(subscribed("default", initial_resource_versions={"default": "1"}))

    assert stream.due({"default": secret("1")}) is None
    assert stream.due({"default": secret("2")}) is not None


def test_subscribing_again_brings_the_secret_again():
    stream, held = sds.Deltas(), {"default": secret("1")}
    stream.heard(subscribed("default"))
    stream.due(held)

    stream.heard(subscribed("default"))

    assert stream.due(held) is not None


def test_what_was_given_up_is_sent_no_more():
    stream = sds.Deltas()
    stream.heard(subscribed("default"))
    stream.heard(discovery_pb2.DeltaDiscoveryRequest(resource_names_unsubscribe=["default"]))

    assert stream.due({"default": secret("1")}) is None


def test_streams_are_woken_by_changes_until_they_end():
    shelf, woken = sds.Shelf(), []
    unfollow = shelf.follow(lambda: woken.append(dict(shelf.secrets)))

    shelf.put({"default": secret("1")})
    unfollow()
    shelf.put({})

    assert [list(each) for each in woken] == [["default"]]


def test_keys_are_in_no_text():
    made = sds.certificate("default", chain_pem="chain", key_pem="the-key", version="1")

    assert "the-key" not in repr(made)
