"""What holds for every plan, whatever there is."""

import ipaddress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.gke import clusters, firewalls, needs, planning, plans, ports, ranges, wishes

VPC = clusters.Network("project-1", "vpc")
OTHER = clusters.Network("project-1", "other")
REGIONS = ("us-central1", "us-central1-a", "europe-west1")


def net(text):
    return ipaddress.ip_network(text)


@st.composite
def one_cluster(draw, number):
    name = f"cluster-{number}"
    tag = f"gke-{name}-0000000{number}-node"
    private = draw(st.booleans())
    blocks = draw(
        st.lists(
            st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "10.2.128.0/17"]),
            unique=True,
        )
    )
    return clusters.Cluster(
        name,
        clusters.Place("project-1", draw(st.sampled_from(REGIONS)), name),
        draw(st.sampled_from([VPC, VPC, VPC, OTHER])),
        pods=tuple(
            net(f"10.{number}.{part}.0/18")
            for part in draw(st.sets(st.sampled_from([0, 64, 128]), min_size=1))
        ),
        control_planes=(net(f"172.16.{number}.0/28"),) if private else (),
        private_endpoint=f"172.16.{number}.2" if private or draw(st.booleans()) else "",
        public_endpoint="" if private else "192.0.2.7",
        has_private_nodes=private,
        has_global_access=draw(st.booleans()),
        authorized=clusters.AuthorizedNetworks(
            draw(st.booleans()), tuple(clusters.Block(net(text), "theirs") for text in blocks)
        ),
        nodes=(frozenset({tag, "web"}),),
    )


RANGES = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.2.64.0/18", "10.3.0.0/17"]
TRAFFIC = [
    clusters.Traffic("all"),
    clusters.Traffic("tcp"),
    clusters.Traffic("udp"),
    clusters.Traffic("tcp", ((80, 8080),)),
    clusters.Traffic("tcp", ((5000, 5000),)),
]


@st.composite
def some_rule(draw):
    tags = [f"gke-cluster-{number}-0000000{number}-node" for number in (1, 2, 3)]
    names = ["theirs", "more", "isthmus-cluster-1-pods", "isthmus-cluster-2-webhooks"]
    return clusters.Rule(
        draw(st.sampled_from(names)),
        draw(st.sampled_from([VPC, OTHER])),
        allows=draw(st.booleans()),
        is_ingress=draw(st.sampled_from([True, True, False])),
        is_enabled=draw(st.sampled_from([True, True, False])),
        priority=draw(st.sampled_from([100, 900, 1000])),
        traffic=tuple(draw(st.lists(st.sampled_from(TRAFFIC), min_size=1, max_size=2))),
        sources=tuple(map(net, draw(st.sets(st.sampled_from(RANGES), max_size=2)))),
        destinations=tuple(map(net, draw(st.sets(st.sampled_from(RANGES), max_size=1)))),
        target_tags=tuple(sorted(draw(st.sets(st.sampled_from(tags), max_size=2)))),
        names_sources=draw(st.booleans()),
        names_accounts=draw(st.sampled_from([False, False, True])),
        description=draw(st.sampled_from(["", "isthmus gke: pods of cluster-1"])),
    )


@st.composite
def cases(draw):
    """A file, a world that it is about, and what the pods in it serve."""
    count = draw(st.integers(2, 3))
    found = tuple(draw(one_cluster(number)) for number in range(1, count + 1))
    leads = draw(st.sampled_from([None, "cluster-1"]))
    members = tuple(
        wishes.Member(each.title, each.place, each.title, leads or each.title) for each in found
    )
    asked = wishes.Wishes(
        members,
        callers=tuple(
            clusters.Block(net(text), "asked")
            for text in draw(st.sets(st.sampled_from(["192.0.2.0/25", "198.51.100.0/24"])))
        ),
    )
    listed = {(each.network, each.name): each for each in draw(st.lists(some_rule(), max_size=4))}
    rules = {
        network: tuple(rule for (where, _), rule in listed.items() if where == network)
        for network in (VPC, OTHER)
    }
    serving = st.sampled_from([(), ((5000, 5000),), ((80, 80), (8080, 8090))])
    served = {each.title: plans.Served(draw(serving)) for each in found}
    return asked, clusters.World(found, rules), served


def after(world, plan):
    """The world in which all steps of a plan were carried out."""
    rules = {network: {rule.name: rule for rule in some} for network, some in world.rules.items()}
    found = {each.title: each for each in world.clusters}
    for step in plan.steps:
        match step:
            case plans.CreateRule(rule=rule) | plans.ChangeRule(rule=rule):
                rules.setdefault(rule.network, {})[rule.name] = rule
            case plans.AddNetworks():
                old = found[step.cluster.title]
                authorized = replace(old.authorized, blocks=step.after)
                found[old.title] = replace(old, authorized=authorized)
            case plans.GlobalAccess():
                old = found[step.cluster.title]
                found[old.title] = replace(old, has_global_access=True)
    return replace(
        world,
        clusters=tuple(found.values()),
        rules={network: tuple(some.values()) for network, some in rules.items()},
    )


@settings(max_examples=40)
@given(cases(), st.booleans())
def test_a_plan_that_was_carried_out_leaves_nothing_to_plan(case, always_own):
    asked, world, served = case
    plan = planning.plan(asked, world, served, always_own=always_own)

    again = planning.plan(asked, after(world, plan), served, always_own=always_own)

    assert again.steps == ()


@settings(max_examples=40)
@given(cases())
def test_who_may_call_an_api_server_may_do_so_afterwards(case):
    asked, world, served = case

    then = after(world, planning.plan(asked, world, served))

    for before, now in zip(world.clusters, then.clusters, strict=True):
        count = len(before.authorized.blocks)
        assert now.authorized.blocks[:count] == before.authorized.blocks
        assert now.authorized.enabled == before.authorized.enabled


@settings(max_examples=40)
@given(cases())
def test_nothing_is_wider_than_what_was_asked_for(case):
    asked, world, served = case
    found = {each.title: each for each in world.clusters}

    for step in planning.plan(asked, world, served).steps:
        if isinstance(step, plans.CreateRule | plans.ChangeRule):
            title = step.rule.description.rpartition(" ")[2]
            here = found[title]
            callers = [each for each in world.clusters if each.network == here.network]
            pods = [pod for each in callers if each.title != title for pod in each.pods]
            assert ranges.uncovered(step.rule.sources, by=(*pods, *here.control_planes)) == ()
            assert ranges.uncovered(step.rule.destinations, by=here.pods) == ()
            assert step.rule.target_tags == (f"gke-{title}-0000000{title[-1]}-node",)
            own = (*served[title].ports, *needs.DISCOVERY, *needs.INJECTION)
            assert ports.covers(ports.united(own), step.rule.tcp)
            assert [each.protocol for each in step.rule.traffic] == ["tcp"]
        elif isinstance(step, plans.AddNetworks):
            pods = [pod for each in world.clusters for pod in each.pods]
            wanted = (*pods, *(block.cidr for block in asked.callers))
            assert ranges.uncovered((block.cidr for block in step.added), by=wanted) == ()


@settings(max_examples=40)
@given(cases())
def test_after_a_plan_that_nothing_stops_pods_reach_each_other(case):
    asked, world, served = case
    plan = planning.plan(asked, world, served)
    if plan.is_stopped:
        return
    then = after(world, plan)

    for here in then.clusters:
        for there in needs.neighbours(here, then):
            tag = needs.node_tag(here, then.rules[here.network])
            flow = firewalls.Flow(there.pods, here.pods, tag, served[here.title].ports)
            assert firewalls.verdict(flow, then.rules[here.network]).is_whole


ADDRESSES = st.sampled_from(["10.1.0.1", "10.2.0.1", "10.2.64.1", "10.2.127.9", "10.3.0.1"])
FLOW = firewalls.Flow(
    (net("10.2.0.0/16"),), (net("10.1.0.0/16"),), "gke-cluster-1-00000001-node", ((79, 9000),)
)


def lets_through(rules, *, source, destination, port):
    """One packet, judged as the cloud's documentation says, rule by rule."""
    for rule in sorted(rules, key=lambda each: (each.priority, each.allows)):
        tagged = not rule.target_tags or FLOW.tag in rule.target_tags
        named = rule.sources or (() if rule.names_sources else (net("0.0.0.0/0"),))
        if (
            rule.is_ingress
            and rule.is_enabled
            and tagged
            and any(source in each for each in named)
            and any(destination in each for each in rule.destinations or (net("0.0.0.0/0"),))
            and any(low <= port <= high for low, high in rule.tcp)
        ):
            return rule.allows
    return False


@given(
    st.lists(some_rule().filter(lambda rule: not rule.names_accounts), max_size=5),
    ADDRESSES,
    ADDRESSES,
    st.integers(79, 9000),
)
def test_what_is_said_to_get_through_does(rules, source, destination, port):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if source not in FLOW.sources[0] or destination not in FLOW.destinations[0]:
        return

    if firewalls.verdict(FLOW, rules).is_whole:
        assert lets_through(rules, source=source, destination=destination, port=port)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted).map(tuple)))
def test_a_set_of_ports_has_exactly_its_ports(spans):
    wanted = {port for low, high in spans for port in range(low, high + 1)}

    united = ports.united(spans)

    assert {port for low, high in united for port in range(low, high + 1)} == wanted
    assert ports.count(united) == len(wanted)
    assert ports.united(map(ports.span_of, ports.texts(united))) == united
