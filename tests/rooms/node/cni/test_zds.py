"""What is said to a node's proxy, in which order, as transcripts of packets."""

import pytest

from isthmus.node.cni import zds

HELLO = bytes.fromhex("0801")
"""`version: V1`, as ztunnel sends it."""
ACK = bytes.fromhex("0a00")
REFUSAL = b"\x0a\x06\x0a\x04full"
ONE, TWO = zds.Add("u1", "one", "ns", "sa"), zds.Add("u2", "two", "ns", "sa")


def greeted(*pods):
    talk = zds.Talk()
    assert talk.heard(HELLO) == zds.Greeted(1)
    talk.begin(pods)
    return talk


def said(talk, *answers):
    """Return what was said while `answers` came."""
    found = []
    for answer in answers:
        found.append(talk.due())
        talk.heard(answer)
    return found


def test_nothing_is_said_before_the_proxy_greets():
    talk = zds.Talk()
    talk.say(ONE)

    assert talk.due() is None


def test_a_proxy_hears_of_all_pods_and_that_these_were_all():
    talk = greeted(ONE, TWO, zds.Keep("u3"))

    assert said(talk, ACK, ACK, ACK, ACK) == [ONE, TWO, zds.Keep("u3"), zds.SnapshotSent()]
    assert talk.is_idle


def test_many_are_said_before_the_first_is_acknowledged_but_not_all():
    pods = [zds.Add(f"u{number}", "p", "ns", "sa") for number in range(zds.MOST_AT_ONCE + 1)]
    talk = greeted(*pods)

    assert [talk.due() for _ in pods] == [*pods[:-1], None]
    assert talk.heard(ACK) == zds.Acknowledged(pods[0], "")
    assert talk.due() == pods[-1]


def test_who_joins_and_leaves_meanwhile_comes_after_the_snapshot():
    talk = zds.Talk()
    talk.say(TWO)
    talk.say(zds.Delete("u1"))
    talk.heard(HELLO)
    talk.begin([ONE])

    assert said(talk, ACK, ACK, ACK, ACK) == [ONE, zds.SnapshotSent(), TWO, zds.Delete("u1")]


def test_answers_are_about_what_was_said_in_its_order_and_stop_nothing():
    talk = greeted(ONE, TWO)
    talk.due()
    talk.due()

    assert talk.heard(REFUSAL) == zds.Acknowledged(ONE, "full")
    assert talk.heard(ACK) == zds.Acknowledged(TWO, "")
    assert talk.due() == zds.SnapshotSent()


def test_what_is_skipped_is_not_waited_for():
    talk = greeted(ONE, TWO)
    talk.due()
    talk.skip()

    assert talk.due() == TWO


@pytest.mark.parametrize("packet", [b"", bytes.fromhex("0802"), b"\xff"])
def test_another_greeting_breaks_the_protocol(packet):
    with pytest.raises(zds.ProtocolBroken):
        zds.Talk().heard(packet)


@pytest.mark.parametrize("packet", [b"", b"\xff", b"\x12\x00"])
def test_another_answer_breaks_the_protocol(packet):
    talk = greeted(ONE)
    talk.due()

    with pytest.raises(zds.ProtocolBroken):
        talk.heard(packet)


def test_an_answer_that_nobody_waits_for_breaks_the_protocol():
    talk = greeted()
    said(talk, ACK)

    with pytest.raises(zds.ProtocolBroken, match="nobody has said"):
        talk.heard(ACK)


@pytest.mark.parametrize(
    ("order", "packet"),
    [
        (ONE, "0a130a027531120d0a036f6e6512026e731a027361"),
        (zds.Delete("u1"), "120412027531"),
        (zds.SnapshotSent(), "1a00"),
        (zds.Keep("u1"), "2a040a027531"),
    ],
)
def test_orders_on_the_wire(order, packet):
    assert zds.packet_of(order).hex() == packet


def test_the_longest_names_fit_into_what_a_proxy_reads():
    longest = zds.Add("u" * 36, "n" * 253, "s" * 63, "a" * 253)

    assert len(zds.packet_of(longest)) <= zds.LARGEST_BYTES
