"""Memory goes back when it is asked for."""

import ctypes
import gc
import os
import pathlib
import weakref

import pytest

from isthmus.base import memory

MIB = 1024 * 1024


class Node:
    """Something that can refer to itself."""


def resident_mib():
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB


def test_what_refers_only_to_itself_is_collected():
    node = Node()
    node.itself = node
    seen = weakref.ref(node)
    gc.disable()
    del node
    try:
        assert seen() is not None
        memory.give_back()
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_was_freed_below_something_in_use_goes_back_to_the_system():
    blocks = [bytes(100_000) for _ in range(400)]
    last = bytes(100_000)  # keeps the top of the heap
    blocks.clear()
    held = resident_mib()

    memory.give_back()

    assert held - resident_mib() > 20
    assert len(last) == 100_000


def test_a_c_library_that_has_no_such_call_is_no_trouble():
    assert memory.trimmer(object())(0) is None


def test_nothing_is_collected_while_much_is_made_at_once():
    with memory.without_collection():
        node = Node()
        node.itself = node
        seen = weakref.ref(node)
        del node
        made = [[] for _ in range(100_000)]
        assert seen() is not None

    assert gc.isenabled()
    assert made


def test_the_collector_works_again_after_a_fault():
    def fails():
        with memory.without_collection():
            raise KeyError

    with pytest.raises(KeyError):
        fails()

    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with memory.without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_stays_is_out_of_sight_until_all_is_looked_at():
    before = gc.get_freeze_count()
    try:
        with memory.without_collection(stays=True):
            made = [[] for _ in range(1000)]
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()
