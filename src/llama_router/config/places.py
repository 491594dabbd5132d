"""Where each value of a YAML or JSON text begins and ends, to the character.

The parser says where a node begins; where a section ends it counts the blank lines and comments
behind it, which belong to nobody. What is empty or an alias it places elsewhere altogether. Here a
value is what a person would mark with a mouse.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.tokens import ScalarToken

_ALIAS = re.compile(r"[^\S\n]*(\*[^\s,\[\]{}]+)")
_BLOCK_MARK = re.compile(r"([&!]\S+\s+)*[|>][+\-0-9]*")
_COMMENT = re.compile(r"#[^\n]*")
_LINE_END = re.compile(r"\r?\n|\Z")
# Anchors and tags, with the blanks and comments behind them.
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*(?:\s+|#[^\n]*)*)+")


class PlaceError(Exception):
    """A value cannot be found in the text; the message says why."""


def line_end(text: str, index: int) -> int:
    """Say where the line ends that the character is on, before its line break."""
    match = _LINE_END.search(text, index)
    return match.start() if match else len(text)


def compose(text: str, *, is_json: bool) -> "Place":
    """Return the root of a text that was parsed before. Raises PlaceError for one without any."""
    # In JSON a tab is a space; it takes as many characters.
    source = text.replace("\t", " ") if is_json else text
    root = YAML(typ="safe", pure=True).compose(source)
    if root is None:
        raise PlaceError("holds nothing")
    return Place(text, root, root.start_mark.index, root.start_mark.column, owner=-1)


def comments_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield where each comment of a YAML text begins that was parsed before, and the comment."""
    end = 0
    for token in YAML(typ="safe", pure=True).scan(text):
        start = token.start_mark.index
        gaps = [(end, start)]
        end = max(end, token.end_mark.index)
        mark = _BLOCK_MARK.match(text, start) if isinstance(token, ScalarToken) else None
        if mark is not None and token.style in {"|", ">"}:
            gaps.append((mark.end(), line_end(text, mark.end())))
        for gap in gaps:
            yield from _comments_between(text, *gap)
    yield from _comments_between(text, end, len(text))


def _comments_between(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    for comment in _COMMENT.finditer(text, start, end):
        yield comment.start(), comment[0].rstrip()


@dataclass(frozen=True)
class Part:
    """A key with its value, or an item; ``start`` is where the key begins, or the item's dash."""

    key: str | int
    start: int
    value: "Place"

    @property
    def end(self) -> int:
        """Where it ends."""
        return max(self.value.end, self.value.owner, self.start + 1)


@dataclass(frozen=True)
class Place:
    """A value: ``text[start:end]``.

    ``column`` is that of its key or dash. ``owner`` is the first character behind the colon or dash
    that it belongs to; -1 for the root, and for items in brackets. ``in_flow``: it is between
    brackets, where every value stands on one line.
    """

    text: str
    node: Any
    start: int
    column: int
    owner: int
    is_empty: bool = False
    is_alias: bool = False
    in_flow: bool = False

    @property
    def is_mapping(self) -> bool:
        """Whether it holds keys and values."""
        return isinstance(self.node, MappingNode) and not self.is_alias

    @property
    def is_list(self) -> bool:
        """Whether it holds items."""
        return isinstance(self.node, SequenceNode) and not self.is_alias

    @property
    def is_flow(self) -> bool:
        """Whether it is a mapping or list in brackets."""
        return (self.is_mapping or self.is_list) and bool(self.node.flow_style)

    @property
    def quote(self) -> str:
        """What stands around it: a quotation mark, or nothing."""
        style = getattr(self.node, "style", None)
        return style if style in {"'", '"'} and not self.is_alias else ""

    @property
    def is_block_text(self) -> bool:
        """Whether it is text that begins with ``|`` or ``>``."""
        return (
            isinstance(self.node, ScalarNode)
            and self.node.style in {"|", ">"}
            and not self.is_alias
        )

    @property
    def is_below(self) -> bool:
        """Whether it begins on a line below its key or dash, whatever anchor it has there."""
        return self.owner >= 0 and "\n" in self.text[self.owner : self.body]

    @cached_property
    def body(self) -> int:
        """Where a section begins behind its anchor and tag: at its first key, dash or bracket."""
        if not (self.is_mapping or self.is_list) or self.text[self.start : self.start + 1] not in (
            "&",
            "!",
        ):
            return self.start
        if self.is_mapping and not self.is_flow:
            return int(self.node.value[0][0].start_mark.index)
        match = _PROPERTIES.match(self.text, self.start)
        return match.end() if match else self.start

    @property
    def body_column(self) -> int:
        """How far in that is, in characters."""
        return self.body - (self.text.rfind("\n", 0, self.body) + 1)

    @cached_property
    def end(self) -> int:
        """Where it ends, without the blank lines and comments behind it."""
        if self.is_empty:
            return self.start
        if self.is_alias:
            match = _ALIAS.match(self.text, self.start)
            return match.end(1) if match else self.start
        end = int(self.node.end_mark.index)
        if self.is_block_text:
            return self.start + len(self.text[self.start : end].rstrip())
        if self.is_flow or isinstance(self.node, ScalarNode):
            return end
        return self.parts[-1].end

    @property
    def mark_end(self) -> int:
        """Where the ``|`` or ``>`` ends with which block text begins."""
        match = _BLOCK_MARK.match(self.text, self.start)
        return match.end() if match else self.start

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What it holds, in the order of the text. Raises PlaceError."""
        if self.is_mapping:
            return tuple(self._pairs())
        if self.is_list:
            return tuple(self._bracketed() if self.is_flow else self._items())
        return ()

    def part(self, key: str | int) -> Part | None:
        """Return what is at a key or index; None when there is nothing."""
        for part in self.parts:
            if part.key == key and isinstance(part.key, int) == isinstance(key, int):
                return part
        return None

    def _pairs(self) -> Iterator[Part]:
        end = self.body
        for key, value in self.node.value:
            start = key.start_mark.index
            if not end <= start < self.node.end_mark.index or not isinstance(key, ScalarNode):
                raise PlaceError("has a key that is an alias, or no text")
            colon = re.compile(r"\s*:").match(self.text, key.end_mark.index)
            if colon is None:
                raise PlaceError("has a key without a colon behind it")
            part = Part(key.value, start, self._of(value, colon.end(), key.start_mark.column))
            end = part.end
            yield part

    def _items(self) -> Iterator[Part]:
        column, dash = self.body_column, self.body
        next_dash = re.compile(rf"\n {{{column}}}-(?=\s|\Z)")
        for index, item in enumerate(self.node.value):
            part = Part(index, dash, self._of(item, dash + 1, column))
            yield part
            following = next_dash.search(self.text, part.end)
            dash = following.end() - 1 if following else -1
            if dash < 0 and index + 1 < len(self.node.value):
                raise PlaceError("has items that do not stand below each other")

    def _bracketed(self) -> Iterator[Part]:
        end = self.body + 1
        for index, item in enumerate(self.node.value):
            start = item.start_mark.index
            if not end <= start < self.node.end_mark.index or start == item.end_mark.index:
                raise PlaceError("has an alias, or nothing, between brackets")
            column = item.start_mark.column
            part = Part(index, start, Place(self.text, item, start, column, -1, in_flow=True))
            end = part.end
            yield part

    def _of(self, node: Any, owner: int, column: int) -> "Place":  # noqa: ANN401 - as above
        in_flow = self.is_flow or self.in_flow
        alias = _ALIAS.match(self.text, owner)
        if alias is not None:
            start = alias.start(1)
            return Place(self.text, node, start, column, owner, is_alias=True, in_flow=in_flow)
        start = int(node.start_mark.index)
        if isinstance(node, ScalarNode) and start == node.end_mark.index:
            return Place(self.text, node, owner, column, owner, is_empty=True, in_flow=in_flow)
        return Place(self.text, node, start, column, owner, in_flow=in_flow)
