"""Questions for names: what the table answers, what is passed on, and what bad bytes do."""

import asyncio
import os

import dns_world as world
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.base import dns, metrics, tasks
from isthmus.node import answering, listening, names, resolvconf, resolvers
from isthmus.node import settings as settings_of

FULL = "hello.sample.svc.cluster.local"
TABLE = world.table(
    **world.service("hello", "sample", "240.240.0.9"),
    **world.service("near", "default", "10.96.0.7"),
    **world.service("dual", "default", "10.96.0.8", "fd00::8"),
    **world.service("db-0__db", "default", "10.0.0.1"),
    **world.service("db", "default", *(f"10.0.0.{last}" for last in range(1, 101))),
)


async def asked(name, kind=dns.A, *, upstream=None, body=TABLE):
    """Return how it went and what was answered, as a pod's resolver sees it."""
    made = world.answers(upstream or world.Elsewhere(), body)
    message = dns.asking(name, kind)
    return world.read(made.at_once(message) or await made.asked(message, by_stream=False))


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (FULL, FULL),
        ("HELLO.Sample.svc.cluster.local", FULL),
        ("hello.sample", FULL),
        ("hello.sample.svc", FULL),
        ("near", "near.default.svc.cluster.local"),
        ("db-0.db", "db-0.db.default.svc.cluster.local"),
        *((f"hello.sample.{domain}", FULL) for domain in world.SEARCH),
        (f"{FULL}.default.svc.cluster.local", FULL),
        ("near.default.svc.cluster.local", "near.default.svc.cluster.local"),
    ],
)
async def test_each_way_to_write_a_name_finds_it(name, host):
    code, records = await asked(name)

    address = records[-1]
    assert code == dns.NO_ERROR
    assert (address[1], address[3]) == (dns.A, 30)
    if name.lower() == host:
        assert len(records) == 1
    else:
        assert records[0] == (name, dns.CNAME, host, 30)
        assert address[0] == host


@pytest.mark.parametrize("name", ["hello", "sample", "example.com", "hello.other", "local", ""])
async def test_what_is_not_known_here_is_passed_on(name):
    upstream = world.Elsewhere()

    assert await asked(name, upstream=upstream) == (dns.NO_ERROR, [(name, dns.A, "192.0.2.1", 5)])
    assert upstream.asked == [(name, dns.A, False)]


async def test_a_missing_family_is_an_empty_answer_and_nobody_is_asked():
    upstream = world.Elsewhere()

    assert await asked(FULL, dns.AAAA, upstream=upstream) == (dns.NO_ERROR, [])
    assert await asked("dual.default.svc.cluster.local", dns.AAAA, upstream=upstream) == (
        dns.NO_ERROR,
        [("dual.default.svc.cluster.local", dns.AAAA, "fd00::8", 30)],
    )
    assert upstream.asked == []


async def test_a_known_name_is_never_said_not_to_exist():
    upstream = world.Elsewhere(absent={FULL, "nowhere"})

    assert await asked(FULL, dns.SRV, upstream=upstream) == (dns.NO_ERROR, [])
    assert await asked("nowhere", dns.SRV, upstream=upstream) == (dns.NO_SUCH_NAME, [])


async def test_before_the_first_table_everything_is_passed_on():
    upstream = world.Elsewhere()
    await asked(FULL, upstream=upstream, body=None)

    assert upstream.asked == [(FULL, dns.A, False)]


async def test_a_table_that_cannot_be_read_leaves_the_last_one():
    made = world.answers(world.Elsewhere(), TABLE)

    assert made.take(b"\xff\xff\xff") != ""
    assert made.at_once(dns.asking(FULL, dns.A)) is not None


async def test_without_an_answer_from_anybody_the_pod_is_told_to_try_again():
    registered = metrics.Metrics()
    made = world.answers(world.Elsewhere(failing={"gone"}), TABLE, registered)

    code, _ = world.read(await made.asked(dns.asking("gone", dns.A), by_stream=False))

    assert code == dns.FAILED
    assert "istio_agent_dns_upstream_requests_total 1" in registered.text()
    assert "istio_agent_dns_upstream_failures_total 1" in registered.text()


async def test_questions_that_wait_are_bounded():
    upstream = world.Elsewhere()
    upstream.may_answer.clear()
    made = world.answers(upstream, TABLE)
    message = dns.asking("slow", dns.A)
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(made.asked(message, by_stream=False))
            for _ in range(answering.MOST_WAITING)
        ]
        while len(upstream.asked) < answering.MOST_WAITING:  # noqa: ASYNC110  # tasks begin
            await asyncio.sleep(0)
        beyond = await made.asked(message, by_stream=False)
        upstream.may_answer.set()

    assert world.read(beyond)[0] == dns.FAILED
    assert {world.read(one.result())[0] for one in waiting} == {dns.NO_ERROR}


async def test_addresses_of_a_headless_service_take_turns():
    made = world.answers(world.Elsewhere(), TABLE)
    message = dns.asking("db", dns.A, limit=1232)
    replies = [made.at_once(message, longest=dns.LONGEST) for _ in range(20)]

    assert len({world.read(reply)[1][1] for reply in replies}) > 5
    assert {len(world.read(reply)[1]) for reply in replies} == {101}


async def test_what_does_not_fit_a_datagram_is_asked_again_by_stream():
    async with world.served(world.answers(world.Elsewhere(), TABLE)) as port:
        message = dns.asking("db.default.svc.cluster.local", dns.A)
        short = await world.datagram(port, message)
        (whole,) = await world.stream(port, message)

    assert int.from_bytes(short[2:4], "big") & dns.TRUNCATED
    assert len(world.read(whole)[1]) == 100


async def test_both_transports_answer_and_pass_on():
    upstream = world.Elsewhere()
    async with world.served(world.answers(upstream, TABLE)) as port:
        messages = [dns.asking(FULL, dns.A), dns.asking("example.com", dns.A, number=9)]
        by_datagram = [await world.datagram(port, each) for each in messages]
        by_stream = await world.stream(port, *messages)

    assert [world.read(one) for one in by_datagram] == [world.read(one) for one in by_stream]
    assert upstream.asked == [("example.com", dns.A, False), ("example.com", dns.A, True)]


async def test_sockets_that_a_former_process_left_are_gone_on_with_and_anything_else_is_closed():
    """Questions wait in them; what is no pair of sockets is taken for nothing."""
    sockets = listening.alone(settings_of.Address("127.0.0.1", 0))
    port = sockets.stream.getsockname()[1]
    left = [os.dup(each) for each in sockets.descriptors]
    sockets.close()
    asking = asyncio.get_running_loop().create_task(world.datagram(port, dns.asking(FULL, dns.A)))

    taken = listening.taken_over(left)

    async with (
        tasks.Nursery() as nursery,
        listening.serving(
            world.answers(world.Elsewhere(), TABLE), sockets=taken, nursery=nursery
        ) as place,
    ):
        assert place[1] == port
        assert world.read(await asking)[1][0][2] == "240.240.0.9"
    for odd in ([], [os.open(os.devnull, os.O_RDONLY)], [os.dup(1), os.dup(1)]):
        assert listening.taken_over(odd) is None


async def test_bad_bytes_hurt_nobody_else():
    async with world.served(world.answers(world.Elsewhere(), TABLE)) as port:
        refused = await world.datagram(port, b"\0\7\1\0" + b"\xff" * 40)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\3abc")
        assert await reader.read() == b""
        writer.close()
        good = await world.datagram(port, dns.asking(FULL, dns.A))

    assert dns.code_of(refused) == dns.MALFORMED
    assert len(world.read(good)[1]) == 1


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_ignored_or_passed_on(message):
    made = world.answers(world.Elsewhere.__new__(world.Elsewhere), TABLE)

    reply = made.at_once(message)

    assert reply is None or len(reply) == 0 or reply[:2] == message[:2]


# --- the pod's own servers


async def test_servers_are_asked_one_after_the_other_and_get_the_very_bytes():
    upstream = world.Elsewhere()
    async with world.served(world.answers(upstream)) as port:
        servers = resolvers.Servers(("127.0.0.2", "127.0.0.1"), port=port, patience_s=1)
        message = dns.asking("example.com", dns.A, number=77, limit=1232)
        question = dns.question_of(message)
        replies = [await servers.ask(message, question, by_stream=way) for way in (False, True)]

    assert [dns.answers(reply, question) for reply in replies] == [True, True]
    assert upstream.asked == [("example.com", dns.A, False), ("example.com", dns.A, True)]


async def test_a_silent_server_is_given_up():
    with world.socket.socket(world.socket.AF_INET, world.socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        servers = resolvers.Servers(("127.0.0.1",), port=silent.getsockname()[1], patience_s=0.05)
        message = dns.asking("example.com", dns.A)
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await servers.ask(message, dns.question_of(message), by_stream=False)


async def test_a_reply_to_another_question_is_not_taken():
    with world.socket.socket(world.socket.AF_INET, world.socket.SOCK_DGRAM) as liar:
        liar.bind(("127.0.0.1", 0))
        liar.setblocking(False)
        servers = resolvers.Servers(("127.0.0.1",), port=liar.getsockname()[1], patience_s=2)
        message = dns.asking("example.com", dns.A, number=5)
        question = dns.question_of(message)

        async def lie():
            loop = asyncio.get_running_loop()
            asked, peer = await loop.sock_recvfrom(liar, 512)
            forged = dns.asking("example.com", dns.A, number=6)
            await loop.sock_sendto(liar, dns.reply(dns.question_of(forged)), peer)
            await loop.sock_sendto(liar, dns.reply(dns.question_of(asked), code=3), peer)

        async with asyncio.TaskGroup() as group:
            lying = group.create_task(lie())
            reply = await servers.ask(message, question, by_stream=False)

    assert lying.done()
    assert dns.code_of(reply) == dns.NO_SUCH_NAME


def test_resolv_conf_is_read_as_resolvers_do():
    found = resolvconf.parsed(
        "# by kubelet\nsearch old.example\nnameserver 10.96.0.10\nnameserver fd00::a ; second\n"
        "nameserver nonsense\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
    )

    assert found.servers == ("10.96.0.10", "fd00::a")
    assert found.search == ("a.svc.cluster.local", "svc.cluster.local")


def test_the_forms_of_names_follow_from_the_pods_domain():
    forms = names.forms_of(namespace="a", domain="a.svc.example.org", search=("X.org.", "x.org"))

    assert forms == names.Forms("a", "example.org", ("x.org",))
    assert names.forms_of(namespace="a", domain="", search=()).domain == "cluster.local"


FORMS = names.Forms("default", "cluster.local", ("default.svc.cluster.local",))
PATTERNS = world.table(
    **{"*.example.com": ["192.0.2.7"], "a.example.com": ["192.0.2.8"], "*.local": ["192.0.2.9"]}
)


@pytest.mark.parametrize(
    ("name", "address"),
    [("b.example.com", "192.0.2.7"), ("c.b.example.com", "192.0.2.7"), ("b.local", "192.0.2.9")],
)
async def test_a_pattern_answers_for_what_is_below_it(name, address):
    assert names.read(PATTERNS, forms=FORMS).find(name) == names.Found(name, (address,))
    assert await asked(name, body=PATTERNS) == (dns.NO_ERROR, [(name, dns.A, address, 30)])


def test_a_name_goes_before_any_pattern():
    found = names.read(PATTERNS, forms=FORMS).find("a.example.com")

    assert found == names.Found("a.example.com", ("192.0.2.8",))


@pytest.mark.parametrize("name", ["example.com", "www.world.org.default.svc.cluster.local"])
def test_no_pattern_answers_for_its_own_suffix_or_for_what_search_domains_were_appended_to(name):
    assert names.read(PATTERNS, forms=FORMS).find(name) is None
