"""What packet rules do with the traffic of a pod whose node's proxy takes it."""

from isthmus.capture import enrolled, rules


def of(way, **more):
    return [one for one in enrolled.rules_of(**more) if one.way is way]


def test_whatever_arrives_goes_to_the_proxy_but_tunnels_are_there_already():
    _, *found = of(rules.Way.ARRIVING)

    assert found == [
        rules.Rule(rules.Way.ARRIVING, (rules.Port(15008),)),
        rules.Rule(rules.Way.ARRIVING, (), 15006),
    ]


def test_the_nodes_probes_go_to_the_pod_itself():
    _, first, *_ = of(rules.Way.ARRIVING, probed_from=("10.0.0.1/32",))

    assert first == rules.Rule(rules.Way.ARRIVING, (rules.Source("10.0.0.1/32"),))


def test_only_marks_and_loopback_are_left_alone_on_the_way_out():
    """No user is: programs of a pod may run as any, also as the one that sidecars run as."""
    _, *alone, last = of(rules.Way.LEAVING)

    assert last == rules.Rule(rules.Way.LEAVING, (), 15001)
    assert {type(match) for rule in alone for match in rule.matches} == {
        rules.Mark,
        rules.Interface,
        rules.Destination,
    }


def test_questions_for_names_go_to_the_proxy_but_its_own():
    found = of(rules.Way.LEAVING, captures_dns=True)
    by_datagram = [rule for rule in found if rule.transport is rules.Transport.UDP]

    assert rules.Rule(rules.Way.LEAVING, (rules.Port(53),), 15053) in found
    assert by_datagram[0].matches == (rules.Port(53), rules.Mark(1337))
    assert by_datagram[0].to is None
    assert (by_datagram[-1].matches, by_datagram[-1].to) == ((rules.Port(53),), 15053)


def test_connections_of_names_are_told_apart_from_the_proxys():
    zones = {rule.matches: rule.to for rule in of(rules.Way.LEAVING_RAW, captures_dns=True)}

    assert zones == {
        (rules.Port(53), rules.Mark(1337)): rules.OF_AGENT,
        (rules.SourcePort(15053),): rules.OF_POD,
        (rules.Port(53),): rules.OF_POD,
    }
    assert not of(rules.Way.LEAVING_RAW)


def test_answers_to_what_either_proxy_hands_over_come_back_to_it():
    (arriving,) = of(rules.Way.ARRIVING_ROUTED)
    remembered, *_ = of(rules.Way.LEAVING_ROUTED)

    assert (arriving.matches, arriving.to) == ((rules.Mark(1337),), rules.Remember(0x111))
    assert (remembered.matches, remembered.to) == ((rules.Mark(0x111),), rules.Remember(0x111))


def test_calls_wait_for_a_proxy_that_is_away_instead_of_being_refused():
    *_, out, plain, tunnel = of(rules.Way.LEAVING_ROUTED)

    assert [rule.matches for rule in (out, plain, tunnel)] == [
        (rules.SourcePort(port), rules.Refusal()) for port in (15001, 15006, 15008)
    ]
    assert {rule.to for rule in (out, plain, tunnel)} == {rules.Silence()}
    assert rules.Silence() not in {rule.to for rule in enrolled.rules_of_released()}


def test_connections_that_were_there_before_stay_as_they_are():
    for way in (rules.Way.ARRIVING, rules.Way.LEAVING):
        first, *_ = of(way)
        assert (first.matches, first.to) == ((rules.UnderWay(),), None)


def test_a_pod_that_was_let_go_still_answers_what_the_proxy_has():
    """Without its ways the kernel would no longer translate connections that it has translated."""
    ways = {rule.way for rule in enrolled.rules_of_released()}

    assert ways == {rules.Way.LEAVING_ROUTED, rules.Way.ARRIVING_ROUTED}
    assert enrolled.KEPT == (rules.Way.ARRIVING, rules.Way.LEAVING)


def test_a_pod_may_take_plain_calls_itself_but_no_tunnels():
    found = of(rules.Way.ARRIVING, captures_arriving=False)

    assert all(rule.to is None for rule in found)
    assert rules.Rule(rules.Way.LEAVING, (), 15001) in of(
        rules.Way.LEAVING, captures_arriving=False
    )
