"""YAML text to plain data that still knows where each piece of it stands.

    applications:            >  {"applications": [{"name": "app1"}]}
      - name: app1              positions: ("applications", 0, "name") -> 2:11, its key 2:5

A key that is there twice is a mistake here, where YAML itself lets the last one win.  Anchors, aliases and
merge keys (``<<``) work; what refers to itself, grows past `NODES_MAX` by aliases of aliases, or nests deeper
than `NESTING_MAX` is refused.

Source: YAML 1.1 as PyYAML's safe loader reads it.
Knows nothing of what the data is for.
"""

from collections.abc import Iterator
from typing import Any

import attrs
import yaml

from trio_serve.instance.settings import Mistake, Path, shown

NODES_MAX = 100_000
"""How many values one file may come to, aliases written out."""

NESTING_MAX = 100
"""How deep a file may nest: PyYAML's time grows with the square of it, to seconds for a few kilobytes."""

_PLAIN = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@attrs.frozen
class Position:
    """Line and column, both from 1, as editors count."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@attrs.define
class Positions:
    """Where values and keys stand, by the path that leads to them."""

    values: dict[Path, Position] = attrs.field(factory=dict)
    keys: dict[Path, Position] = attrs.field(factory=dict)

    def of(self, mistake: Mistake) -> Position:
        """Where ``mistake`` is, or the nearest that encloses it when it is about something absent."""
        if mistake.at_key and mistake.path in self.keys:
            return self.keys[mistake.path]
        path = mistake.path
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Position(1, 1))


class UnreadableText(Exception):
    """The text is no YAML, or none that can be read: ``position`` says where, as far as is known."""

    def __init__(self, position: Position, text: str) -> None:
        super().__init__(text)
        self.position = position
        self.text = text


@attrs.frozen
class Document:
    """What one YAML text says, where, and which keys it has twice (the last of them is in ``data``)."""

    data: Any
    positions: Positions
    repeated_keys: list[tuple[Position, Mistake]]


def read_yaml(text: str | bytes) -> Document:
    """Read one YAML document.

    Raises:
        UnreadableText: when there is no data to be had from it.
    """
    try:
        loader = _Loader(text)
        reading = _Reading(loader)
        try:
            node = loader.get_single_node()
            data = None if node is None else reading.value_of(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise UnreadableText(_position(error.problem_mark or error.context_mark), said) from None
    except yaml.YAMLError as error:
        raise UnreadableText(Position(1, 1), " ".join(str(error).split())) from None
    except RecursionError:
        raise UnreadableText(Position(1, 1), "nests too deeply to be read") from None
    return Document(data, reading.positions, reading.repeated_keys)


class _Loader(yaml.SafeLoader):
    """PyYAML's, which stops where the text nests too deeply."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth == NESTING_MAX:
            begins = _position(self.peek_event().start_mark)  # type: ignore[no-untyped-call]  # has no types
            raise UnreadableText(begins, f"nests deeper than {NESTING_MAX}")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reading:
    """One walk over a tree of nodes."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.positions = Positions()
        self.repeated_keys: list[tuple[Position, Mistake]] = []
        self._loader = loader
        self._entries: dict[yaml.Node, dict[str, yaml.Node]] = {}
        self._enclosing: set[yaml.Node] = set()
        self._nodes = 0

    def value_of(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _unreadable(node, f"its aliases make more than {NODES_MAX} values")
        if node in self._enclosing:
            raise _unreadable(node, "refers to itself")
        self.positions.values[path] = _position(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _PLAIN:
            raise _unreadable(node, f"has the tag {node.tag}, which is not for plain data")
        self._enclosing.add(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return {key: self.value_of(item, (*path, key)) for key, item in self._items(node, path)}
            return [self.value_of(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._enclosing.discard(node)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:  # the 30th of February, or more digits than int() takes
            raise _unreadable(node, f"{shown(node.value)} cannot be read: {error}") from None

    def _items(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node]]:
        """The entries of ``node``, each key once and merge keys written out."""
        known = self._entries.get(node)  # an alias brings a node back that has been merged already
        if known is None:
            self._note_repeated_keys(node, path)
            self._loader.flatten_mapping(node)
            # What is merged comes first, so that what is written here wins.
            known = self._entries[node] = {self._key(key): item for key, item in node.value}
        for key, _ in node.value:
            self.positions.keys[(*path, self._key(key))] = _position(key.start_mark)
        yield from known.items()

    def _note_repeated_keys(self, node: yaml.MappingNode, path: Path) -> None:
        first: dict[str, Position] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, position = self._key(key_node), _position(key_node.start_mark)
            if key in first:
                text = f"is here for the second time, the first is in line {first[key].line}"
                self.repeated_keys.append((position, Mistake((*path, key), text, at_key=True)))
            first.setdefault(key, position)

    def _key(self, node: yaml.Node) -> str:
        """A key as text, whatever else YAML would make of it (``8000:``, ``on:``)."""
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise _unreadable(node, "a key must be a text")
        return str(node.value)


def _position(mark: yaml.Mark | None) -> Position:
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)


def _unreadable(node: yaml.Node, text: str) -> UnreadableText:
    return UnreadableText(_position(node.start_mark), text)
