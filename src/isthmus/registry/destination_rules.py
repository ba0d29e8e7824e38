"""DestinationRule objects: how clients talk to a service and its subsets.

Source: spec sections 3.4, 8.1 and 8.2.
"""

from isthmus.kube import objects
from isthmus.mesh.policies import DestinationRule, Subset
from isthmus.registry import addresses, config, fields, naming, traffic_policies


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> DestinationRule | None:
    """Say what a DestinationRule means; None without a host."""
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    host = spec.text("host")
    if not host:
        spec.problem("host", "must name a service")
        return None
    before = spec.noted
    selector = _selector(spec)
    if spec.noted != before:
        # Without it the rule would hold for clients that it was not made for.
        return None
    spec.refuse_others({"host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"})
    return DestinationRule(
        namespace=origin.namespace,
        name=origin.name,
        host=naming.qualified(host, namespace=origin.namespace, domain=origin.domain),
        policy=traffic_policies.read(spec.part("trafficPolicy")),
        subsets=_subsets(spec),
        export_to=spec.texts("exportTo"),
        created=object_.metadata.creation_timestamp,
        selector=selector,
    )


def _selector(spec: fields.Fields) -> tuple[tuple[str, str], ...] | None:
    """Return the labels of clients that a rule holds for; None where it selects none.

    A selector without labels stands for all clients of the rule's namespace.
    """
    if "workloadSelector" not in spec:
        return None
    part = spec.part("workloadSelector")
    part.refuse_others({"matchLabels"}, "is not supported, so that this rule is left out")
    return part.pairs("matchLabels")


def _subsets(spec: fields.Fields) -> tuple[Subset, ...]:
    """Return the subsets; of one name the first counts.

    Letters are alike in both cases: names become part of a server name.
    """
    found: dict[str, Subset] = {}
    for part in spec.parts("subsets"):
        name = part.text("name")
        if not name or name.lower() in found:
            part.problem("name", "must name each subset once, capital letters or not")
            continue
        if not addresses.is_label(name):
            # It becomes part of a server name: a gateway would refuse all others with it.
            part.problem("name", f"must be a label of DNS, and is `{ascii(name[:40])[1:-1]}`")
            continue
        part.refuse_others({"name", "labels", "trafficPolicy"})
        own = part.part("trafficPolicy")
        policy = traffic_policies.read(own) if own else None
        found[name.lower()] = Subset(name, part.pairs("labels"), policy)
    return tuple(found.values())
