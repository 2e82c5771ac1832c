"""The graph in languages that others draw from: Mermaid (GitHub shows it in Markdown) and DOT (Graphviz).

Names of nodes are made up and what people named goes into quoted labels, so that no name can end a label.
"""

from __future__ import annotations

from gitpipe.drawing.svg import COLOURS
from gitpipe.drawing.texts import UNICODE, box_lines, readable
from gitpipe.views import DagInfo, DagNode

MERMAID = {char: f"#{ord(char)};" for char in '"#&;<>\\`|()[]{}*_~'}
"""What Mermaid, or the Markdown in its labels, would take for something else: as character entities."""


def mermaid(dag: DagInfo) -> str:
    """A Mermaid flowchart."""
    ids = _ids(dag)
    lines = ["flowchart LR"]
    for node in dag.nodes:
        before, after = ("([", "])") if node.kind == "repo" else ("[", "]")
        label = "<br/>".join(_mermaid_text(line) for line in box_lines(node, UNICODE))
        lines.append(f'    {ids[node.name]}{before}"{label}"{after}:::{_state(node)}')
    for edge in dag.edges:
        arrow = "-->" if edge.glob == "/" else f'-->|"{_mermaid_text(edge.glob)}"|'
        lines.append(f"    {ids[edge.source]} {arrow} {ids[edge.target]}")
    for state in dict.fromkeys(map(_state, dag.nodes)):
        fill, line = COLOURS[state]
        lines.append(f"    classDef {state} fill:{fill},stroke:{line},color:#222")
    return "\n".join(lines) + "\n"


def dot(dag: DagInfo) -> str:
    """A DOT digraph."""
    ids = _ids(dag)
    lines = [
        "digraph gitpipe {",
        '    graph [rankdir=LR, charset="UTF-8"];',
        '    node [fontname="monospace", fontsize=11, style="filled,rounded", shape=box];',
        '    edge [fontname="monospace", fontsize=10, color="#666666", fontcolor="#8a4b08"];',
    ]
    for node in dag.nodes:
        fill, line = COLOURS[_state(node)]
        label = r"\n".join(_dot_text(text) for text in box_lines(node, UNICODE))
        style = "" if node.kind == "repo" else ", style=filled"
        lines.append(f'    {ids[node.name]} [label="{label}", fillcolor="{fill}", color="{line}"{style}];')
    for edge in dag.edges:
        label = "" if edge.glob == "/" else f' [label="{_dot_text(edge.glob)}"]'
        lines.append(f"    {ids[edge.source]} -> {ids[edge.target]}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _ids(dag: DagInfo) -> dict[str, str]:
    return {node.name: f"n{number}" for number, node in enumerate(dag.nodes)}


def _state(node: DagNode) -> str:
    state = node.state or node.kind
    return state if state in COLOURS else "stopped"


def _mermaid_text(text: str) -> str:
    return "".join(MERMAID.get(char, char) for char in readable(text, UNICODE))


def _dot_text(text: str) -> str:
    return readable(text, UNICODE).replace("\\", "\\\\").replace('"', '\\"')
