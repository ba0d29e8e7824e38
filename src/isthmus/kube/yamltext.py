"""Reads YAML that a stranger wrote, into texts, lists and mappings and nothing else.

No loader is involved: the tree is built from parser events, so that no tag can name a type and
no alias can multiply what is read. Every scalar is a text; null is the empty text. RefusedError are
more than 64 KiB, more than 16 levels, anchors, aliases, tags, directives, repeated keys, keys
that are no text and more than one document.

Source: security rules RS-2 and PY (reliability.md 5.1, 5.9).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

Node = str | list["Node"] | dict[str, "Node"]

MOST_BYTES = 64 * 1024
MOST_LEVELS = 16
# A remote kubeconfig has some sixty; the bound keeps a hostile one below a tenth of a second.
MOST_EVENTS = 2_000
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class RefusedError(ValueError):
    """The text is no YAML that we read; the message says why."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read."""

    node: list[Node] | dict[str, Node]
    key: str | None = None
    seen: set[str] = field(default_factory=set)

    def add(self, value: Node) -> None:
        if isinstance(self.node, list):
            self.node.append(value)
        elif self.key is not None:
            self.node[self.key] = value
            self.key = None
        elif isinstance(value, str):
            if value in self.seen:
                raise RefusedError(f"key `{value[:60]}` is given twice")
            self.seen.add(value)
            self.key = value
        else:
            raise RefusedError("a key is not a text")


def read(text: str) -> Node:
    """Return what `text` says.

    Raises:
        RefusedError: The text is too large, too deep or uses more than plain YAML.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise RefusedError(f"it is larger than {MOST_BYTES // 1024} KiB")
    root: list[Node] = []
    stack = [_Open(root)]
    documents = 0
    for event in _events(text):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            _refuse_second_document(event, documents)
        else:
            _take(event, stack)
    return root[0] if root else ""


def _take(event: yaml.Event, stack: list[_Open]) -> None:
    match event:
        case yaml.AliasEvent():
            raise RefusedError("it uses a YAML alias")
        case yaml.ScalarEvent():
            _refuse_decoration(event)
            stack[-1].add(_text(event))
        case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
            _refuse_decoration(event)
            if len(stack) > MOST_LEVELS:
                raise RefusedError(f"it is nested more than {MOST_LEVELS} levels deep")
            node: list[Node] | dict[str, Node] = (
                {} if isinstance(event, yaml.MappingStartEvent) else []
            )
            stack[-1].add(node)
            stack.append(_Open(node))
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            stack.pop()
        case _:
            pass


def _refuse_second_document(event: yaml.DocumentStartEvent, count: int) -> None:
    if count > 1:
        raise RefusedError("it holds more than one document")
    if event.version or event.tags:
        raise RefusedError("it uses a YAML directive")


def _events(text: str) -> Iterator[yaml.Event]:
    # The pure-Python loader: the C one ends the process on deeply nested input.
    try:
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if count > MOST_EVENTS:
                raise RefusedError("it holds far more than a kubeconfig does")
            yield event
    except yaml.YAMLError as error:
        raise RefusedError(f"it is not YAML: {_first_line(error)}") from error
    except RecursionError as error:
        raise RefusedError("it is nested too deeply") from error


def _refuse_decoration(event: yaml.NodeEvent) -> None:
    if event.anchor is not None:
        raise RefusedError("it uses a YAML anchor")
    if getattr(event, "tag", None) is not None:
        raise RefusedError("it uses a YAML tag")


def _text(event: yaml.ScalarEvent) -> str:
    value = str(event.value)
    return "" if event.style is None and value in _NULLS else value


def _first_line(error: yaml.YAMLError) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
