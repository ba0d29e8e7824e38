"""What goes wrong, as data: a code, what happened, what still works, a hint.

Every room roots its own tree of errors here and draws it in its own docstring. Only the command
line turns an error into text. A code is never used twice; each has a page in docs/errors.
"""

from dataclasses import dataclass


class IsthmusError(Exception):
    """An error that a person can act on.

    Subclasses set `code`; the fields say the rest.

    Attributes:
        code: Such as `ISM-FLEET-003`: the room, then a number that is never used again.
        happened: What went wrong, lower case, literals in backticks, no full stop.
        detail: The facts behind it, one line each.
        still_working: What goes on working meanwhile, or empty.
        hint: The next step, or empty.
    """

    code: str = "ISM-BASE-001"

    def __init__(
        self,
        happened: str,
        *,
        detail: str = "",
        still_working: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(happened)
        self.happened = happened
        self.detail = detail
        self.still_working = still_working
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one object that stops nothing else.

    Attributes:
        code: As for `IsthmusError`.
        subject: The object, as `Kind namespace/name` with its cluster where that matters.
        happened: What is wrong with it.
        still_working: What goes on working meanwhile.
        hint: The next step.
    """

    code: str
    subject: str
    happened: str
    still_working: str = ""
    hint: str = ""
