"""Where a program ends: every cause becomes an error with a code; nobody sees a traceback."""

import errno

import pytest

from isthmus.base import boundary, errors


class KnownError(errors.IsthmusError):
    code = "ISM-TEST-900"


def raised(error):
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001, RUF100  # the boundary sees them all
        return caught


def test_an_error_of_ours_is_told_as_it_is():
    known = KnownError("it broke", hint="mend it")

    assert boundary.explained(known) is known


def test_of_several_errors_the_one_that_is_known_is_told():
    known = KnownError("it broke")
    group = ExceptionGroup("tasks", [ExceptionGroup("more", [ValueError("x"), known])])

    assert boundary.explained(group) is known


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "may write"), (errno.EMFILE, "ulimit")],
)
def test_what_the_system_refuses_names_the_file_and_a_way_out(number, hint):
    told = boundary.explained(OSError(number, "No Such Luck", "/some/file"))

    assert told.code == "ISM-BASE-002"
    assert told.happened == "no such luck: `/some/file`"
    assert hint in told.hint


def test_anything_else_is_a_fault_of_ours_in_one_line():
    told = boundary.explained(raised(KeyError("name\nsecond line")))

    assert told.code == "ISM-BASE-003"
    assert "\n" not in told.happened
    assert "ISTHMUS_DEBUG=1" in told.hint


def test_a_fault_of_ours_says_where_it_was():
    with pytest.raises(AttributeError) as caught:
        boundary.text("no error")

    assert boundary.explained(caught.value).detail.startswith("at isthmus/base/boundary.py:")


def test_the_traceback_is_shown_only_to_whoever_asks():
    error = raised(ValueError("x"))

    assert boundary.trace(error, {}) == ""
    assert boundary.trace(error, {"ISTHMUS_DEBUG": "0"}) == ""
    assert "Traceback" in boundary.trace(error, {"ISTHMUS_DEBUG": "1"})


def test_an_error_without_colours_has_all_its_parts():
    error = KnownError("it broke", detail="one\ntwo", still_working="the rest", hint="mend it")

    assert boundary.text(error) == (
        "error[ISM-TEST-900]: it broke\n  one\n  two\n  still working: the rest\nhint: mend it\n"
    )
