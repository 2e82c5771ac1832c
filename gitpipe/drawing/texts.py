"""The drawing for a terminal: boxes and wires on a grid of characters, or, where that is too wide, one line a node.

Both are plain text of a given width at most; colours are marked by the caller's `paint`.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from gitpipe.drawing.layout import Box, Layout, Wire, lay_out
from gitpipe.views import DagInfo, DagNode

UP, RIGHT, DOWN, LEFT = 1, 2, 4, 8
Paint = Callable[[str, str], str]
"""(text, a node's state or "repo") -> the text, coloured where that is wanted."""


@dataclass(frozen=True, slots=True)
class Pen:
    """The characters to draw with.  `lines` is indexed by the sum of the sides that a line goes to."""

    lines: str
    repo: str  # corners: upper left, upper right, lower left, lower right
    pipeline: str
    head: str
    dot: tuple[str, str]  # a repo, a pipeline, where each is one line
    plain: bool  # nothing but ASCII


UNICODE = Pen(" │─└││┌├─┘─┴┐┤┬┼", "╭╮╰╯", "┌┐└┘", "▶", ("○", "■"), False)
ASCII = Pen(" |-+||++-+-+++++", "..''", "++++", ">", ("o", "#"), True)
WORDS = {"⨯": "x", "⋈": "join", "∪": "+", "…": "~", "·": "-"}


def draw(dag: DagInfo, limit: int | None, *, pen: Pen = UNICODE, paint: Paint = lambda text, _: text) -> str:
    """The drawing, lines without blanks at their ends.

    Args:
        limit: columns that there are; None: as many as it takes.
    """
    layout = lay_out(dag, lambda node: box_lines(node, pen), width)
    if limit is None or layout.w <= limit:
        return boxes(layout, pen, paint)
    return rails(dag, limit, pen, paint)


def box_lines(node: DagNode, pen: Pen) -> tuple[str, ...]:
    """What stands in the box of a node: name, state, and how its inputs meet."""
    lines = (node.name, *((" · ".join(filter(None, (node.state, node.how))),) if node.kind == "pipeline" else ()))
    return tuple(readable(line, pen) for line in lines if line)


def readable(text: str, pen: Pen) -> str:
    """`text` as one line that the pen's characters can carry."""
    if pen.plain:
        text = "".join(WORDS.get(char, char) for char in text)
    return "".join(
        char if char.isprintable() and (char.isascii() or not pen.plain) else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def width(text: str) -> int:
    """Columns that a terminal needs for `text`."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


# ---------------------------------------------------------------- boxes


@dataclass(slots=True)
class _Cell:
    """What is drawn in one cell: a character of a text, or the sides that the lines of each wire go to."""

    text: str | None = None
    state: str = ""
    sides: dict[str, int] = field(default_factory=dict)


class _Grid:
    """Cells that grow as they are written to."""

    def __init__(self, w: int, h: int) -> None:
        self.rows = [[_Cell() for _ in range(w)] for _ in range(h)]

    def text(self, x: int, y: int, text: str, state: str = "") -> None:
        for char in text:
            cell = self.rows[y][x]
            if unicodedata.combining(char):
                self.rows[y][x - 1].text = (self.rows[y][x - 1].text or "") + char
                continue
            cell.text, cell.state = char, state
            if width(char) == 2:  # the cell behind it is taken as well
                self.rows[y][x + 1].text = ""
                x += 1
            x += 1

    def line(self, source: str, x0: int, y0: int, x1: int, y1: int) -> None:
        if (x0, y0) == (x1, y1):
            return
        dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
        ahead, back = {(1, 0): (RIGHT, LEFT), (-1, 0): (LEFT, RIGHT), (0, 1): (DOWN, UP), (0, -1): (UP, DOWN)}[dx, dy]
        x, y = x0, y0
        while True:
            sides = self.rows[y][x].sides
            sides[source] = sides.get(source, 0) | (back if (x, y) != (x0, y0) else 0)
            if (x, y) == (x1, y1):
                return
            sides[source] |= ahead
            x, y = x + dx, y + dy

    def lines(self, pen: Pen, paint: Paint) -> list[str]:
        return ["".join(self._runs(row, pen, paint)).rstrip() for row in self.rows]

    def _runs(self, row: list[_Cell], pen: Pen, paint: Paint) -> list[str]:
        """Cells next to each other that are painted alike, as one text each."""
        runs: list[tuple[str, str]] = []
        for cell in row:
            char = _char(cell, pen)
            if runs and runs[-1][1] == cell.state:
                runs[-1] = (runs[-1][0] + char, cell.state)
            else:
                runs.append((char, cell.state))
        return [paint(text, state) if state else text for text, state in runs]


def _char(cell: _Cell, pen: Pen) -> str:
    """The character of a cell.  Where two wires cross, the upright one lies on top: ``─│─`` is no junction."""
    if cell.text is not None:
        return cell.text
    if len(cell.sides) > 1:
        return pen.lines[UP | DOWN]
    return pen.lines[next(iter(cell.sides.values()), 0)]


def boxes(layout: Layout, pen: Pen, paint: Paint) -> str:
    """Boxes from left to right, with wires between them."""
    grid = _Grid(layout.w, layout.h)
    for wire in layout.wires:
        _wire(grid, wire)
    for head in layout.heads:
        grid.text(head.x, head.y, pen.head)
        label = readable(head.label, pen)
        if label:
            grid.text(head.x - 2 - width(label), head.y, f" {label} ")
    for box in layout.boxes:
        _box(grid, box, pen)
    return "\n".join(grid.lines(pen, paint)) + "\n"


def _wire(grid: _Grid, wire: Wire) -> None:
    for path in wire.paths:
        for (x0, y0), (x1, y1) in itertools.pairwise(path):
            grid.line(wire.source, x0, y0, x1, y1)


def _box(grid: _Grid, box: Box, pen: Pen) -> None:
    corners = pen.repo if box.node.kind == "repo" else pen.pipeline
    flat, upright = pen.lines[LEFT | RIGHT] * (box.w - 2), pen.lines[UP | DOWN]
    state = box.node.state or box.node.kind
    grid.text(box.x, box.y, corners[0] + flat + corners[1], state)
    for y in range(box.y + 1, box.y + box.h - 1):
        grid.text(box.x, y, upright + " " * (box.w - 2) + upright, state)
    grid.text(box.x, box.y + box.h - 1, corners[2] + flat + corners[3], state)
    for y, line in enumerate(box.lines, start=1):
        grid.text(box.x + 2, box.y + y, line, state)


# ---------------------------------------------------------------- one line a node


def rails(dag: DagInfo, limit: int, pen: Pen, paint: Paint) -> str:
    """One line a node, each after all that it reads; the rails beside them lead to those who read it.

    Cut to `limit` columns: of the rails the left ones are the oldest, of the text the end matters least.
    """
    readers = {node.name: [edge.target for edge in dag.edges if edge.source == node.name] for node in dag.nodes}
    left = {name: len(set(targets)) for name, targets in readers.items()}
    open_rails: list[str | None] = []  # the node whose rail it is
    rows: list[tuple[str, DagNode]] = []
    for node in dag.nodes:
        sources = list(dict.fromkeys(edge.source for edge in dag.edges if edge.target == node.name))
        cells = [0 if rail is None else UP | DOWN for rail in open_rails]
        into = [place for place, rail in enumerate(open_rails) if rail in sources]
        for place in into:
            left[open_rails[place] or ""] -= 1
        mine = _free_place(open_rails, into[-1] + 1 if into else 0)
        ends = [place for place in into if left[open_rails[place] or ""] == 0]
        row = _rail_row(cells, into, ends, mine, pen, node.kind)
        for place in ends:
            open_rails[place] = None
        if mine == len(open_rails):
            open_rails.append(None)
        open_rails[mine] = node.name if left[node.name] else None
        while open_rails and open_rails[-1] is None:
            open_rails.pop()
        rows.append((row, node))
    margin = max((len(row) for row, _ in rows), default=0) + 1
    margin = min(margin, max(limit // 2, 3))
    lines = []
    for row, node in rows:
        about = "  ".join(filter(None, (node.name, node.state, node.input)))
        text = cut(readable(about, pen), limit - margin, pen)
        lines.append(f"{cut(row, margin - 1, pen).ljust(margin)}{paint(text, node.state or node.kind)}".rstrip())
    return "\n".join(lines) + "\n"


def _free_place(open_rails: list[str | None], first: int) -> int:
    """The first place from `first` on that no rail takes."""
    while first < len(open_rails) and open_rails[first] is not None:
        first += 1
    return first


def _rail_row(cells: list[int], into: list[int], ends: list[int], mine: int, pen: Pen, kind: str) -> str:
    """The row of a node at place `mine`, with lines to it from the rails `into`, of which `ends` go no further."""
    chars = [pen.lines[sides] for sides in cells] + [" "] * (mine + 1 - len(cells))
    gaps = [" "] * len(chars)
    for place in range(into[0], mine) if into else ():
        gaps[place] = pen.lines[LEFT | RIGHT]
        if place in into:
            below = 0 if place in ends else DOWN
            chars[place] = pen.lines[UP | RIGHT | below | (LEFT if place != into[0] else 0)]
        elif chars[place] == " ":
            chars[place] = pen.lines[LEFT | RIGHT]
    if into:
        gaps[mine - 1] = pen.head
    chars[mine] = pen.dot[kind == "pipeline"]
    return "".join(char + gap for char, gap in zip(chars, gaps, strict=True)).rstrip()


def cut(text: str, limit: int, pen: Pen) -> str:
    """`text` in at most `limit` columns, with a mark where something is left out."""
    if width(text) <= limit:
        return text
    mark = readable("…", pen)
    while text and width(text) + width(mark) > limit:
        text = text[:-1]
    return text + mark
