import ipaddress

import pytest

from isthmus.capture import arguments, redirects, rules

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
    "--log_output_level=default:info",
]


def injected(*more: str) -> redirects.Redirect:
    return arguments.parse([*INJECTED, *more])


def test_the_injected_arguments_capture_everything_but_the_agents_ports():
    assert injected() == redirects.Redirect(excluded_inbound_ports=(15090, 15021, 15020))


def test_quoted_emptiness_is_empty():
    assert arguments.parse(["-x", '""']).excluded_outbound_ranges == ()


def test_long_options_and_equal_signs_are_read():
    read = arguments.parse(
        ["--istio-local-outbound-ports-exclude=3306,9042", "--istio-service-cidr", "10.0.0.0/8"]
    )

    assert read.excluded_outbound_ports == (3306, 9042)
    assert read.outbound_ranges == ("10.0.0.0/8",)


def test_flags_take_no_value():
    assert arguments.parse(["--run-validation", "--skip-rule-apply", "-p", "1"]).outbound_port == 1


def test_every_field_can_be_asked_for():
    read = arguments.parse(
        [
            "-p",
            "1",
            "-z",
            "2",
            "-e",
            "3",
            "-u",
            "4",
            "-g",
            "5",
            "-b",
            "6",
            "-d",
            "7",
            "-o",
            "8",
            "-q",
            "*",
            "-i",
            "10.1.0.0/16",
            "-x",
            "10.2.0.1",
            "-c",
            "eth1,eth2",
        ]
    )

    assert read == redirects.Redirect(
        outbound_port=1,
        inbound_port=2,
        tunnel_port=3,
        proxy_uid=4,
        proxy_gid=5,
        inbound_ports=(6,),
        excluded_inbound_ports=(7,),
        excluded_outbound_ports=(8,),
        outbound_ports=None,
        outbound_ranges=("10.1.0.0/16",),
        excluded_outbound_ranges=("10.2.0.1/32",),
        excluded_interfaces=("eth1", "eth2"),
    )


def test_ranges_of_ipv6_are_dropped():
    assert arguments.parse(["-x", "fd00::/8,10.0.0.0/8"]).excluded_outbound_ranges == (
        "10.0.0.0/8",
    )


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["-p", "0"], "no port"),
        (["-p", "65536"], "no port"),
        (["-d", "15020,x"], "no port"),
        (["-p", "1,2"], "takes one port"),
        (["-u", "root"], "takes a number"),
        (["-i", "10.0.0.0/33"], "no address range"),
        (["-m", "TPROXY"], "interception mode is not supported"),
        (["--teleport", "1"], "unknown option"),
        (["-p"], "has no value"),
    ],
)
def test_what_cannot_be_meant_is_refused(argv, named):
    with pytest.raises(redirects.ArgumentsRefused, match=named):
        arguments.parse(argv)


PACKET = {
    "source": "10.1.0.5",
    "to": "10.9.0.1",
    "interface": "eth0",
    "mark": 0,
    "uid": 0,
    "gid": 0,
    "from_port": 40000,
}


def outcome(
    wanted: redirects.Redirect, way: rules.Way, transport=rules.Transport.TCP, **facts
) -> int | rules.Zone | None:
    """Walk a packet through the rules, as the kernel would."""
    packet = PACKET | facts
    for rule in rules.rules(wanted):
        if (rule.way, rule.transport) == (way, transport) and all(
            holds(each, packet) for each in rule.matches
        ):
            return rule.to
    return None


def holds(match: rules.Match, packet: dict) -> bool:
    name, wanted = FACTS[type(match)](match)
    if name in ("source", "to"):
        found = ipaddress.ip_address(packet[name]) in ipaddress.ip_network(wanted)
    else:
        found = packet[name] == wanted
    return found is not getattr(match, "negated", False)


FACTS = {
    rules.Port: lambda match: ("port", match.number),
    rules.SourcePort: lambda match: ("from_port", match.number),
    rules.Source: lambda match: ("source", match.cidr),
    rules.Destination: lambda match: ("to", match.cidr),
    rules.Interface: lambda match: ("interface", match.name),
    rules.Mark: lambda match: ("mark", match.number),
    rules.User: lambda match: ("uid", match.uid),
    rules.Group: lambda match: ("gid", match.gid),
}

ARRIVING, LEAVING = rules.Way.ARRIVING, rules.Way.LEAVING


@pytest.mark.parametrize(
    ("way", "port", "packet", "goes_to"),
    [
        (ARRIVING, 5000, {}, 15006),
        (ARRIVING, 15008, {}, None),
        (ARRIVING, 15021, {}, None),
        (LEAVING, 80, {}, 15001),
        (LEAVING, 15012, {"mark": 1337}, None),
        (LEAVING, 15012, {"uid": 1337}, None),
        (LEAVING, 15012, {"gid": 1337}, None),
        (LEAVING, 5000, {"interface": "lo", "source": "127.0.0.6"}, None),
        (LEAVING, 5000, {"interface": "lo", "source": "127.0.0.6", "mark": 1337}, None),
        (LEAVING, 15000, {"interface": "lo", "to": "127.0.0.1", "source": "127.0.0.1"}, None),
        (LEAVING, 5000, {"interface": "lo", "to": "10.1.0.5"}, None),
        (LEAVING, 5000, {"interface": "lo", "to": "10.1.0.5", "mark": 1337}, 15006),
        (LEAVING, 15008, {"interface": "lo", "to": "10.1.0.5", "uid": 1337}, None),
        (LEAVING, 80, {"to": "127.0.0.1"}, None),
    ],
)
def test_packets_go_where_istios_rules_send_them(way, port, packet, goes_to):
    assert outcome(injected(), way, port=port, **packet) == goes_to


def test_only_listed_inbound_ports_are_captured():
    wanted = arguments.parse(["-b", "80"])

    assert outcome(wanted, ARRIVING, port=80) == 15006
    assert outcome(wanted, ARRIVING, port=81) is None


def test_an_empty_list_of_inbound_ports_captures_none():
    assert outcome(arguments.parse(["-b", ""]), ARRIVING, port=80) is None


def test_only_listed_destinations_are_captured():
    wanted = arguments.parse(["-i", "10.9.0.0/16", "-q", "9000"])

    assert outcome(wanted, LEAVING, port=80, to="10.9.1.1") == 15001
    assert outcome(wanted, LEAVING, port=80, to="10.8.1.1") is None
    assert outcome(wanted, LEAVING, port=9000, to="10.8.1.1") == 15001


def test_excluded_destinations_and_ports_go_straight():
    wanted = injected("-o", "3306", "-x", "10.8.0.0/16", "-c", "eth7")

    assert outcome(wanted, LEAVING, port=3306) is None
    assert outcome(wanted, LEAVING, port=80, to="10.8.1.1") is None
    assert outcome(wanted, LEAVING, port=80, interface="eth7") is None
    assert outcome(wanted, ARRIVING, port=80, interface="eth7") is None


UDP = rules.Transport.UDP
LEAVING_RAW, ARRIVING_RAW = rules.Way.LEAVING_RAW, rules.Way.ARRIVING_RAW
SERVER = "10.96.0.10"


def asking(*more: str, servers=(SERVER,), **environment) -> redirects.Redirect:
    return arguments.parse([*INJECTED, *more], servers=servers, **environment)


@pytest.mark.parametrize("transport", rules.Transport)
@pytest.mark.parametrize(
    ("packet", "goes_to"),
    [
        ({}, 15053),
        ({"to": "8.8.8.8"}, 15001),
        ({"port": 5353}, 15001),
        ({"mark": 1337}, None),
        ({"uid": 1337}, None),
        ({"gid": 1337}, None),
    ],
)
def test_only_questions_of_the_pod_to_its_own_servers_go_to_the_agent(transport, packet, goes_to):
    found = outcome(
        asking("--redirect-dns"), LEAVING, transport, **{"to": SERVER, "port": 53, **packet}
    )

    # Datagrams that are no such questions are left alone.
    assert found == (None if transport is UDP and goes_to == 15001 else goes_to)


def test_the_environment_says_the_same_as_the_option():
    assert asking(redirects_dns=True) == asking("--redirect-dns")
    assert asking("--redirect-dns=false") == asking() == injected()


def test_all_servers_are_meant_where_that_is_asked_for():
    wanted = asking("--capture-all-dns")

    assert outcome(wanted, LEAVING, UDP, port=53, to="8.8.8.8") == 15053
    assert outcome(wanted, LEAVING, port=53, to="8.8.8.8") == 15053


def test_no_datagram_is_touched_where_names_are_not_captured():
    assert {rule.transport for rule in rules.rules(injected())} == {rules.Transport.TCP}
    assert {rule.transport for rule in rules.rules(asking())} == {rules.Transport.TCP}


@pytest.mark.parametrize(
    ("way", "packet", "zone"),
    [
        (LEAVING_RAW, {"to": SERVER, "port": 53}, rules.OF_POD),
        (LEAVING_RAW, {"to": "127.0.0.1", "from_port": 15053, "mark": 1337}, rules.OF_POD),
        (LEAVING_RAW, {"to": SERVER, "port": 53, "mark": 1337}, rules.OF_AGENT),
        (ARRIVING_RAW, {"source": SERVER, "from_port": 53}, rules.OF_AGENT),
        (ARRIVING_RAW, {"source": "10.1.1.1", "from_port": 53}, None),
    ],
)
def test_a_question_and_its_reply_are_followed_in_one_zone(way, packet, zone):
    assert outcome(asking("--redirect-dns"), way, UDP, **{"port": 40001, **packet}) == zone
