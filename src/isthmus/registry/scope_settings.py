"""Reads `serviceScopeConfigs`: which Services other clusters may reach under their own name.

An entry of which anything is not understood is left out as a whole: what is shared by mistake is
worse than what is not shared.

Source: spec section 7.3.
"""

from collections.abc import Iterable
from typing import Final

from isthmus.mesh.selectors import Operator, Requirement, ScopeRule, Selector
from isthmus.registry import fields

LOCAL, GLOBAL = "LOCAL", "GLOBAL"
OPERATORS: Final = {one.value: one for one in Operator}


def read(parts: Iterable[fields.Fields]) -> tuple[ScopeRule, ...]:
    """Return the entries that share something; of all that fit a Service one is enough."""
    return tuple(rule for part in parts if (rule := _rule(part)) is not None)


def _rule(part: fields.Fields) -> ScopeRule | None:
    before = part.noted
    part.refuse_others({"namespaceSelector", "servicesSelector", "scope"})
    scope = part.text("scope") or LOCAL
    if scope not in {LOCAL, GLOBAL}:
        part.problem("scope", f"is unknown: `{scope[:40]}`")
    rule = ScopeRule(_selector(part, "namespaceSelector"), _selector(part, "servicesSelector"))
    return rule if scope == GLOBAL and part.noted == before else None


def _selector(part: fields.Fields, key: str) -> Selector:
    selector = part.part(key)
    selector.refuse_others({"matchLabels", "matchExpressions"})
    exact = (
        Requirement(name, Operator.IN, frozenset({value}))
        for name, value in selector.pairs("matchLabels")
    )
    return Selector((*exact, *_requirements(selector)))


def _requirements(selector: fields.Fields) -> Iterable[Requirement]:
    for one in selector.parts("matchExpressions"):
        one.refuse_others({"key", "operator", "values"})
        key, operator = one.text("key"), one.choice("operator", OPERATORS, default=None)
        values = frozenset(one.texts("values"))
        needs_values = operator in {Operator.IN, Operator.NOT_IN}
        if not key:
            one.problem("key", "must name a label")
        elif operator is None:
            one.problem("operator", "must be one of In, NotIn, Exists and DoesNotExist")
        elif needs_values != bool(values):
            one.problem("values", "must be there with In and NotIn, and only there")
        else:
            yield Requirement(key, operator, values)
