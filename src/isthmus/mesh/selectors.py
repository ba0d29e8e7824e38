"""Kubernetes' label selectors, as values.

Source: spec section 7.3.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Operator(enum.Enum):
    """What a requirement asks of a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What the value of one label must be; a label that is missing is in no set."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Say whether some labels are as required."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects what fulfils all requirements; everything where there are none."""

    requirements: tuple[Requirement, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Say whether something with some labels is selected."""
        return all(one.holds(labels) for one in self.requirements)


EVERYTHING = Selector()


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """Which Services one entry of `meshConfig.serviceScopeConfigs` shares with other clusters."""

    namespaces: Selector = EVERYTHING
    services: Selector = EVERYTHING
