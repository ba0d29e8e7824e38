"""Graphs to derive in, and what is done to them and in them by tests."""

from isthmus.engine import reader


def put(graph_, source, **values):
    with graph_.transaction() as change:
        for key, value in values.items():
            change.put(source, key, value)


def clear(graph_, source):
    with graph_.transaction() as change:
        change.replace(source, lambda _: True, {})


def refuse_odd(_, key, value):
    if value % 2:
        raise ValueError("odd")
    return [(key, value)]


def fail_after(_):
    raise ZeroDivisionError


def keep_when_odd(_, key, value):
    if value % 2:
        raise reader.KeepLast
    return [(key, value)]
