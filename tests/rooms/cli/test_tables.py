"""Tables stay readable in a narrow terminal, and are as Istio's own where a program reads them."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.cli import render, tables

ROWS = [
    ("NAME", "CLUSTER", "ISTIOD", "SUBSCRIBED TYPES"),
    ("sleep-1.sample", "cluster1", "istiod-1", "2 (CDS,LDS)"),
    ("web.sample", "cluster2", "", "4 (CDS,LDS,EDS,RDS)"),
]
WIDE = [
    "NAME               CLUSTER      ISTIOD       SUBSCRIBED TYPES",
    "sleep-1.sample     cluster1     istiod-1     2 (CDS,LDS)",
    "web.sample         cluster2                  4 (CDS,LDS,EDS,RDS)",
]
CLOSE = [
    "NAME            CLUSTER   ISTIOD    SUBSCRIBED TYPES",
    "sleep-1.sample  cluster1  istiod-1  2 (CDS,LDS)",
    "web.sample      cluster2            4 (CDS,LDS,EDS,RDS)",
]
IN_TWO = [
    "NAME            CLUSTER",
    "    ISTIOD    SUBSCRIBED TYPES",
    "sleep-1.sample  cluster1",
    "    istiod-1  2 (CDS,LDS)",
    "web.sample      cluster2",
    "              4 (CDS,LDS,EDS,RDS)",
]


@pytest.mark.parametrize(
    ("width", "lines"), [(None, WIDE), (80, WIDE), (60, CLOSE), (55, CLOSE), (33, IN_TWO)]
)
def test_a_table_has_less_between_its_columns_and_then_several_lines_for_each_row(width, lines):
    assert list(tables.laid_out(ROWS, gap=5, width=width)) == lines


@pytest.mark.parametrize("wide", [WIDE, CLOSE])
def test_what_a_command_has_written_is_laid_out_anew(wide):
    written = ["a remark", *wide, "", "x" * 81]

    assert list(tables.fitted(written, width=33)) == ["a remark", *IN_TWO, "", "x" * 32 + "…"]
    assert list(tables.fitted(written, width=81)) == written


@given(st.lists(st.text("aAB9 ()…", max_size=60), max_size=8), st.integers(20, 60))
def test_whatever_a_command_writes_no_word_of_a_line_that_fits_is_lost(written, width):
    fitted = list(tables.fitted(written, width=width))

    words = " ".join(fitted).split()
    for line in written:
        if len(line) <= width:
            assert all(word in words for word in line.split())


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stdout", "lines"), [(Terminal, IN_TWO), (io.StringIO, WIDE)])
def test_a_table_is_laid_out_for_the_terminal_and_never_for_a_program(monkeypatch, stdout, lines):
    monkeypatch.setenv("COLUMNS", "33")
    headings, *rows = ROWS
    with contextlib.redirect_stdout(stdout()) as written:
        render.table(headings, rows, gap=5)

    assert written.getvalue().splitlines() == lines
