"""Where a program ends: whatever was raised becomes an error that a person can act on.

Every program's `main` uses it, so that no traceback is ever the answer; `ISTHMUS_DEBUG=1` shows
it to whoever looks for a fault of ours.

    IsthmusError
    ├── SystemRefused        the operating system refused: disk, rights, limits
    └── Unexpected           a fault of ours
"""

import errno
import os
import traceback
from collections.abc import Mapping
from pathlib import Path

from isthmus.base import errors

DEBUG = "ISTHMUS_DEBUG"
LONGEST = 500
_SOURCE = Path(__file__).resolve().parents[1]


class SystemRefused(errors.IsthmusError):
    """The operating system refused: the disk, a right, a limit."""

    code = "ISM-BASE-002"


class Unexpected(errors.IsthmusError):
    """Something that nobody foresaw: a fault of ours."""

    code = "ISM-BASE-003"


def explained(error: BaseException) -> errors.IsthmusError:
    """Return the error that a person sees for whatever ended a program."""
    cause = _innermost(error)
    if isinstance(cause, errors.IsthmusError):
        return cause
    if isinstance(cause, OSError) and cause.strerror:
        named = f": `{cause.filename}`" if cause.filename else ""
        return SystemRefused(
            f"{cause.strerror.lower()}{named}", hint=_HINTS.get(cause.errno or 0, "")
        )
    said = str(cause).splitlines()
    return Unexpected(
        f"unexpected {type(cause).__name__}{f': {said[0][:LONGEST]}' if said else ''}",
        detail=_place(cause),
        hint=f"this is a fault of Isthmus; set {DEBUG}=1 and run it again to see more",
    )


def text(error: errors.IsthmusError) -> str:
    """Return the lines that a program without colours prints."""
    lines = [f"error[{error.code}]: {error.happened}"]
    lines += [f"  {line}" for line in error.detail.splitlines()]
    lines += [f"  still working: {error.still_working}"] if error.still_working else []
    lines += [f"hint: {error.hint}"] if error.hint else []
    return "".join(f"{line}\n" for line in lines)


def trace(error: BaseException, environment: Mapping[str, str] = os.environ) -> str:
    """Return the traceback when `ISTHMUS_DEBUG` asks for it, else nothing."""
    if environment.get(DEBUG, "") in {"", "0"}:
        return ""
    return "".join(traceback.format_exception(error))


_HINTS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "your quota is used up; free some space and run it again",
    errno.EACCES: "choose a place that you may write to, or correct its permissions",
    errno.EPERM: "choose a place that you may write to, or correct its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
}


def _innermost(error: BaseException) -> BaseException:
    """Return the one that says most of several that were raised together."""
    while isinstance(error, BaseExceptionGroup):
        inside: tuple[BaseException, ...] = error.exceptions
        told = [each for each in inside if isinstance(each, errors.IsthmusError)]
        error = told[0] if told else inside[0]
    return error


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _SOURCE in Path(frame.filename).parents]
    if not own:
        return ""
    return f"at isthmus/{Path(own[-1].filename).relative_to(_SOURCE)}:{own[-1].lineno}"
