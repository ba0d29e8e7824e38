"""What can go wrong with a graph itself, as opposed to with what it computes.

    errors.IsthmusError
    └── GraphMisused
        ├── TransactionReentered   ISM-ENGINE-001  a change, or a declaration, inside of a change
        ├── ReadOutOfOrder         ISM-ENGINE-002  a read of what is computed later, or elsewhere
        ├── NameTaken              ISM-ENGINE-003  two collections of one name
        ├── HandleClosed           ISM-ENGINE-004  a reader or transaction used after its end
        ├── KeyOutsideReplacement  ISM-ENGINE-005  a replacement that writes beyond its own range
        └── NoValueYet             ISM-ENGINE-006  a single that has never had an answer

What a *derivation* raises is no error of the engine: it becomes a finding of code
ISM-ENGINE-010, and two derivations' claim to one key a finding of code ISM-ENGINE-011.
"""

from typing import Final

from isthmus.base import errors

DERIVATION_FAILED: Final = "ISM-ENGINE-010"
KEY_CONTESTED: Final = "ISM-ENGINE-011"


class GraphMisused(errors.IsthmusError):
    """A graph was used in a way that it refuses."""

    code = "ISM-ENGINE-000"


class TransactionReentered(GraphMisused):
    """A graph was changed or extended while it was computing or publishing."""

    code = "ISM-ENGINE-001"


class ReadOutOfOrder(GraphMisused):
    """A derivation read something that is declared after it, or in another graph."""

    code = "ISM-ENGINE-002"


class NameTaken(GraphMisused):
    """A name was declared twice."""

    code = "ISM-ENGINE-003"


class HandleClosed(GraphMisused):
    """A reader or a transaction was used after it had ended."""

    code = "ISM-ENGINE-004"


class KeyOutsideReplacement(GraphMisused):
    """A replacement holds a key that it does not claim to replace."""

    code = "ISM-ENGINE-005"


class NoValueYet(GraphMisused):
    """A single was read whose derivation has never succeeded."""

    code = "ISM-ENGINE-006"
