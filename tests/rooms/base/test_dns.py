"""DNS on the wire: what is read, what is written, and what a stranger's bytes can do."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.base import dns

labels = st.text("abcxyz0189-_", min_size=1, max_size=20)
hosts = st.lists(labels, min_size=1, max_size=6).map(".".join)


@given(hosts, st.integers(0, 65535), st.integers(0, 65535), st.sampled_from([0, 512, 1232, 9000]))
def test_a_question_is_read_as_it_was_asked(host, kind, number, limit):
    question = dns.question_of(dns.asking(host, kind, number=number, limit=limit))

    assert (question.name, question.kind, question.number) == (host, kind, number)
    assert question.is_usual
    assert question.limit == max(512, min(limit, 1232))


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(message):
    try:
        question = dns.question_of(message)
    except dns.MalformedError:
        assert len(dns.refusal(message, code=dns.MALFORMED)) in (0, 12)
    else:
        assert len(dns.reply(question)) == 12 + len(question.section)


@given(hosts, st.binary(max_size=40), st.integers(0, 60))
def test_a_question_that_was_tampered_with_is_read_or_refused(host, noise, at):
    message = bytearray(dns.asking(host, dns.A, number=7, limit=1232))
    message[at : at + len(noise)] = noise
    test_any_bytes_are_read_or_refused.hypothesis.inner_test(bytes(message))


def test_capitals_are_understood_and_given_back():
    question = dns.question_of(dns.asking("HelloWorld.Sample", dns.A))
    record = dns.address_record(question.name, "10.0.0.1", ttl_s=30)

    assert question.name == "helloworld.sample"
    assert b"\x0aHelloWorld\x06Sample\x00" in dns.reply(question, [record])


def test_a_reply_that_is_too_long_says_so_and_holds_no_records():
    question = dns.question_of(dns.asking("a.b", dns.A))
    records = [dns.address_record("a.b", f"10.0.0.{last}", ttl_s=30) for last in range(60)]

    short = dns.reply(question, records, longest=question.limit)

    assert len(short) == 12 + len(question.section)
    assert struct.unpack_from(">H", short, 2)[0] & dns.TRUNCATED
    assert len(dns.reply(question, records)) > 512


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 11,
        struct.pack(">HHHHHH", 1, 0, 2, 0, 0, 0) + b"\0\0\1\0\1" * 2,
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3fshort",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\1a" * 200 + b"\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0x8000, 1, 0, 0, 0) + b"\1a\0\0\1\0\1",
    ],
)
def test_what_is_no_question_is_refused(message):
    with pytest.raises(dns.MalformedError):
        dns.question_of(message)


def test_an_answer_is_never_answered():
    reply = dns.reply(dns.question_of(dns.asking("a.b", dns.A, number=1)))

    assert dns.refusal(reply, code=dns.MALFORMED) == b""


def test_a_label_that_hides_a_dot_is_no_host():
    message = dns.asking("aXb.c", dns.A).replace(b"aXb", b"a.b")

    assert dns.question_of(message).name == ""


@pytest.mark.parametrize(
    ("number", "name", "matches"), [(1, "a.b", True), (2, "a.b", False), (1, "a.c", False)]
)
def test_only_a_reply_to_the_same_question_counts(number, name, matches):
    asked = dns.question_of(dns.asking("a.b", dns.A, number=1))
    reply = dns.reply(dns.question_of(dns.asking(name, dns.A, number=number)))

    assert dns.answers(reply, asked) is matches
    assert not dns.answers(reply[:11], asked)


def test_the_word_of_how_it_went_can_be_changed_alone():
    reply = dns.reply(dns.question_of(dns.asking("a.b", dns.A)), code=dns.NO_SUCH_NAME)

    changed = dns.with_code(reply, dns.NO_ERROR)

    assert dns.code_of(reply) == dns.NO_SUCH_NAME
    assert dns.code_of(changed) == dns.NO_ERROR
    assert dns.with_code(changed, dns.NO_SUCH_NAME) == reply


@pytest.mark.parametrize("name", ["a" * 64, ".".join(["abcdefg"] * 40)])
def test_names_that_cannot_be_are_not_written(name):
    with pytest.raises(dns.MalformedError):
        dns.encoded(name)
