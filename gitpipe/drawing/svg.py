"""The drawing as SVG: the same boxes and wires as in the terminal, in one document without scripts or outside fonts."""

from __future__ import annotations

import itertools
from html import escape

from gitpipe.drawing.layout import Layout, Wire, lay_out
from gitpipe.drawing.texts import UNICODE, box_lines, readable, width
from gitpipe.views import DagInfo

CELL, ROW = 8, 18  # pixels of a character cell
MARGIN = 12
FONT = 13
COLOURS = {
    "repo": ("#eef4fb", "#4a7fb5"),
    "running": ("#eef8f0", "#3f8f56"),
    "stopped": ("#f1f1f1", "#808080"),
    "untrusted": ("#fdf6e3", "#b58900"),
    "failing": ("#fdecea", "#c0392b"),
}
"""State -> fill and line of a box; a state without colours has those of a stopped one."""

STYLE = (
    f"text{{font-family:monospace;font-size:{FONT}px;fill:#222}}"
    ".wire{fill:none;stroke:#666;stroke-width:1.4}.head{fill:#666}.about{fill:#666}"
    ".label{fill:#8a4b08}"
)


def draw(dag: DagInfo) -> str:
    """The drawing as an SVG document."""
    layout = lay_out(dag, lambda node: box_lines(node, UNICODE), width)
    parts = [_wire(wire) for wire in layout.wires]
    parts += _junctions(layout)
    for head in layout.heads:
        x, y = _across(head.x + 1), _middle(head.y)
        parts.append(f'<path class="head" d="M{x} {y}l-8 -4v8z"/>')
        if head.label:
            room = (width(head.label) + 1) * CELL
            parts.append(f'<rect fill="#fff" x="{x - 10 - room}" y="{y - 8}" width="{room}" height="16"/>')
            parts.append(f'<text class="label" text-anchor="end" x="{x - 13}" y="{y + 4}">{_text(head.label)}</text>')
    for box in layout.boxes:
        fill, line = COLOURS.get(box.node.state or box.node.kind, COLOURS["stopped"])
        x, y = _across(box.x), box.y * ROW + MARGIN + 3
        round_ = 9 if box.node.kind == "repo" else 2
        about = f"{box.node.name} reads {box.node.input}" if box.node.input else f"repo {box.node.name}"
        parts.append(f'<g class="{box.node.kind}"><title>{_text(about)}</title>')
        parts.append(
            f'<rect x="{x}" y="{y}" width="{box.w * CELL}" height="{box.h * ROW - 6}" rx="{round_}"'
            f' fill="{fill}" stroke="{line}" stroke-width="1.4"/>'
        )
        for row, text in enumerate(box.lines, start=1):
            kind = ' class="about"' if row > 1 else ' font-weight="600"'
            parts.append(f'<text{kind} x="{x + 2 * CELL}" y="{_middle(box.y + row) + 4}">{_text(text)}</text>')
        parts.append("</g>")
    wide, high = layout.w * CELL + 2 * MARGIN, layout.h * ROW + 2 * MARGIN
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{wide}" height="{high}" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _wire(wire: Wire) -> str:
    """All lines of one wire; where it enters a box it ends below the arrow's head."""
    moves = []
    for path in wire.paths:
        (x0, y0), *others = [(_across(x) + CELL / 2, _middle(y)) for x, y in path]
        moves.append(f"M{x0 - CELL:g} {y0:g}" + "".join(f"L{x:g} {y:g}" for x, y in others))
    return f'<path class="wire" d="{" ".join(moves)}"><title>{_text(wire.source)}</title></path>'


def _junctions(layout: Layout) -> list[str]:
    """A dot where a wire parts, so that it is not taken for two wires that cross."""
    found = []
    for wire in layout.wires:
        sides: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for path in wire.paths:
            for (x0, y0), (x1, y1) in itertools.pairwise(path):
                dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
                for n in range(abs(x1 - x0) + abs(y1 - y0)):
                    here, there = (x0 + n * dx, y0 + n * dy), (x0 + (n + 1) * dx, y0 + (n + 1) * dy)
                    sides.setdefault(here, set()).add((dx, dy))
                    sides.setdefault(there, set()).add((-dx, -dy))
        for (x, y), ways in sorted(sides.items()):
            if len(ways) > 2:
                found.append(f'<circle class="head" cx="{_across(x) + CELL / 2:g}" cy="{_middle(y)}" r="2.5"/>')
    return found


def _across(x: int) -> int:
    return x * CELL + MARGIN


def _middle(y: int) -> int:
    return y * ROW + MARGIN + ROW // 2


def _text(text: str) -> str:
    """Escaped for XML, which cannot carry control characters at all."""
    return escape(readable(text, UNICODE))
