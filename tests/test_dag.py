"""`gitpipe dag`: the graph of a repository, and each form in which it is drawn."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import random
import re
import shutil
import struct
import subprocess
import sys
import termios
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

from gitpipe import cli, drawing
from gitpipe.drawing import layout, markup, png, svg, texts
from gitpipe.errors import NotFound
from gitpipe.inputs import Trigger
from gitpipe.views import DagEdge, DagInfo, DagNode

from .conftest import read_terminal
from .lab import Lab

SVG = "{http://www.w3.org/2000/svg}"
PNG = b"\x89PNG\r\n\x1a\n"


def graph(text: str) -> DagInfo:
    """``"model < training; infer < attributes:/* model"``: each pipeline and what it reads, upstream first."""
    pipelines = {name.strip(): rest.split() for name, _, rest in (line.partition("<") for line in text.split(";"))}
    edges = [
        DagEdge(source, name, glob or "/")
        for name, reads in pipelines.items()
        for source, _, glob in (read.partition(":") for read in reads)
    ]
    repos = sorted({edge.source for edge in edges} - pipelines.keys())
    nodes = [DagNode(name, "repo") for name in repos]
    for name, reads in pipelines.items():
        nodes.append(DagNode(name, "pipeline", "running", "cross" if len(reads) > 1 else "", f"({' '.join(reads)})"))
    return DagInfo(tuple(nodes), tuple(edges))


def many(count: int, seed: int) -> DagInfo:
    """`count` pipelines that read up to four of a few repos and of those before them."""
    dice = random.Random(seed)
    names = [f"pipe{number}" for number in range(count)]
    lines = []
    for number, name in enumerate(names):
        known = [f"repo{n}" for n in range(1 + count // 6)] + names[max(0, number - 9) : number]
        reads = dice.sample(known, min(len(known), dice.choice([1, 1, 2, 3, 4])))
        lines.append(f"{name} < {' '.join(read + dice.choice(['', '', ':/*.csv']) for read in reads)}")
    return graph(";".join(lines))


DIAMOND = graph("b < a; c < a; d < b c")
IRIS = graph("model < training; inference < attributes:/* model")


# ---------------------------------------------------------------- the graph


@pytest.fixture
def shop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A diamond, a repo that nobody reads, and pipelines that read another branch and several repos."""
    for name in ("raw", "lone", "other"):
        lab.project.data.create_repo(name)
    lab.git("branch", "other@staging", "other")
    lab.pipeline("left", {"raw": "/*"})
    lab.pipeline("right", {"raw": "/"})
    lab.pipeline("bottom", {"left": "/", "right": "/"})
    leaf = {"pfs": {"repo": "other", "branch": "staging", "glob": "/(*).csv", "join_on": "$1"}}
    lone = {"pfs": {"repo": "right", "glob": "/(*)", "join_on": "$1"}}
    lab.pipeline("side", {}, "true", input={"union": [{"pfs": {"repo": "raw", "glob": "/"}}, {"join": [leaf, lone]}]})
    lab.project.pipelines.stop("left")
    monkeypatch.chdir(lab.root)
    return lab


def test_the_graph_of_a_repository(shop: Lab) -> None:
    found = shop.project.dag()
    nodes = {node.name: node for node in found.nodes}
    assert [n for n in nodes if nodes[n].kind == "repo"] == ["lone", "other", "other@staging", "raw"]
    assert {n: nodes[n].state for n in nodes if nodes[n].kind == "pipeline"} == {
        "left": "stopped", "right": "running", "bottom": "running", "side": "running"
    }  # fmt: skip
    assert (nodes["right"].how, nodes["bottom"].how) == ("", "cross")
    assert nodes["side"].how == "union(raw, join(other@staging, right))"
    assert [(e.source, e.target, e.glob) for e in found.edges] == [
        ("raw", "left", "/*"),
        ("raw", "right", "/"),
        ("left", "bottom", "/"),
        ("right", "bottom", "/"),
        ("raw", "side", "/"),
        ("other@staging", "side", "/(*).csv"),
        ("right", "side", "/(*)"),
    ]
    order = list(nodes)
    assert all(order.index(e.source) < order.index(e.target) for e in found.edges)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["left"], "raw left bottom"),
        (["raw"], "raw left right bottom side"),
        (["other"], "other other@staging side"),
        (["bottom"], "raw left right bottom"),
        (["lone"], "lone"),
        (["lone", "left"], "lone raw left bottom"),
    ],
)
def test_up_and_downstream_of_some(shop: Lab, only: list[str], names: str) -> None:
    found = shop.project.dag(only)
    assert {node.name for node in found.nodes} == set(names.split())
    assert {name for edge in found.edges for name in (edge.source, edge.target)} <= set(names.split())


def test_a_name_that_is_not_there(shop: Lab) -> None:
    with pytest.raises(NotFound, match="'nope'"):
        shop.project.dag(["left", "nope"])


# ---------------------------------------------------------------- where things lie

GRAPHS = [
    DIAMOND,
    IRIS,
    graph("p < a b c; q < c b a; r < b a c; s < r q p a b c"),  # crosses itself however it is sorted
    graph("x < a; y < b; z < a b; u < x y z; v < z y x"),
    *(many(count, seed) for seed, count in enumerate([1, 3, 6, 10, 15, 25, 50, 50])),
]


@pytest.mark.parametrize("dag", GRAPHS, ids=lambda dag: f"{len(dag.nodes)}n{len(dag.edges)}e")
def test_boxes_do_not_overlap_and_wires_lead_where_they_should(dag: DagInfo) -> None:
    found = layout.lay_out(dag, lambda node: (node.name, node.state), len)
    taken: dict[tuple[int, int], str] = {}
    for box in found.boxes:
        for x in range(box.x, box.x + box.w):
            for y in range(box.y, box.y + box.h):
                assert 0 <= x < found.w and 0 <= y < found.h
                assert taken.setdefault((x, y), box.node.name) == box.node.name
    flat: dict[tuple[int, int], str] = {}
    upright: dict[tuple[int, int], str] = {}
    near: dict[tuple[str, tuple[int, int]], set[tuple[int, int]]] = defaultdict(set)
    for wire in found.wires:
        for path in wire.paths:
            for (x0, y0), (x1, y1) in itertools.pairwise(path):
                assert x0 == x1 or y0 == y1
                length = abs(x1 - x0) + abs(y1 - y0)
                dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
                cells = [(x0 + n * dx, y0 + n * dy) for n in range(length + 1)]
                for cell in cells:
                    assert cell not in taken, f"{wire.source} runs through {taken[cell]}"
                    assert (flat if dy == 0 else upright).setdefault(cell, wire.source) == wire.source
                for here, there in itertools.pairwise(cells):
                    near[wire.source, here].add(there)
                    near[wire.source, there].add(here)
    boxes = {box.node.name: box for box in found.boxes}
    for source, target in {(edge.source, edge.target) for edge in dag.edges}:
        (head,) = [h for h in found.heads if (h.source, h.target) == (source, target)]
        assert head.x == boxes[target].x - 1 and boxes[target].y < head.y < boxes[target].y + boxes[target].h - 1
        start = (boxes[source].x + boxes[source].w, boxes[source].y + 1)
        seen, todo = {start}, [start]
        while todo:
            fresh = near[source, todo.pop()] - seen
            seen |= fresh
            todo += fresh
        assert (head.x, head.y) in seen, f"no line from {source} to {target}"
    # Both ends of a wire are its own: no other wire begins, bends or ends in a cell where this one does.
    ends = [(wire.source, cell) for wire in found.wires for path in wire.paths for cell in path]
    owner: dict[tuple[int, int], str] = {}
    for source, cell in ends:
        assert owner.setdefault(cell, source) == source


def test_the_same_graph_is_drawn_the_same() -> None:
    code = "import sys; sys.path.insert(0, '.')\nfrom tests.test_dag import *\nprint(texts.draw(many(20, 4), None))"
    root = Path(__file__).parent.parent
    drawn = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, cwd=root, capture_output=True
        ).stdout
        for seed in "123"
    }
    assert len(drawn) == 1 and drawn.pop().strip()


# ---------------------------------------------------------------- in a terminal


def test_a_diamond() -> None:
    assert texts.draw(DIAMOND, None) == (
        "╭───╮     ┌─────────┐\n"
        "│ a │─┬──▶│ b       │─┐\n"
        "╰───╯ │   │ running │ │\n"
        "      │   └─────────┘ │   ┌─────────────────┐\n"
        "      │   ┌─────────┐ └──▶│ d               │\n"
        "      └──▶│ c       │────▶│ running · cross │\n"
        "          │ running │     └─────────────────┘\n"
        "          └─────────┘\n"
    )


def test_globs_and_ascii() -> None:
    drawn = texts.draw(IRIS, None, pen=texts.ASCII)
    assert drawn.isascii()
    assert "+-- /* >| inference " in drawn and "| training |-->| model " in drawn
    assert "running - cross" in drawn


def test_what_is_too_wide_becomes_a_line_a_node() -> None:
    assert texts.draw(IRIS, 40) == (
        "○       attributes\n"
        "│ ○     training\n"
        "│ └▶■   model  running  (training)\n"
        "└───┴▶■ inference  running  (attributes…\n"
    )


@pytest.mark.parametrize("limit", [5, 20, 60, 100])
def test_nothing_is_wider_than_the_terminal(limit: int) -> None:
    for dag in GRAPHS:
        drawn = texts.draw(dag, limit)
        assert max(map(texts.width, drawn.splitlines())) <= limit
        if limit >= 60:
            assert all(re.search(rf"\b{node.name}\b", drawn) for node in dag.nodes)


def test_odd_names() -> None:
    odd = ["données", "日本", "a\x1b[31mb", 'say "hi"', "<b>&amp;", "back\\slash", "new\nline", "#;]|", "e\u0301t"]
    nodes = [DagNode(name, "repo") for name in odd] + [DagNode("p", "pipeline", "failing", "cross", "x")]
    dag = DagInfo(tuple(nodes), tuple(DagEdge(name, "p", f'/"{name}"<&|') for name in odd))
    for pen in (texts.UNICODE, texts.ASCII):
        for limit in (None, 50):
            drawn = texts.draw(dag, limit, pen=pen)
            assert "\x1b" not in drawn and (pen is texts.UNICODE or drawn.isascii())
    lines = texts.draw(DagInfo((nodes[1],)), None).splitlines()
    assert len({texts.width(line) for line in lines}) == 1
    root = ET.fromstring(svg.draw(dag).encode())
    shown = ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]
    assert {'say "hi"', "<b>&amp;", "back\\slash", "new\\nline", "#;]|", "日本"} <= set(shown)
    flow = markup.mermaid(dag)
    assert "say #34;hi#34;" in flow and "\nline" not in flow
    assert all(line.count('"') in (0, 2) for line in flow.splitlines())
    quoted = re.findall(r'label="((?:[^"\\]|\\.)*)"', markup.dot(dag))
    assert len(quoted) == len(nodes) + len(odd) and 'say \\"hi\\"' in quoted and "back\\\\slash" in quoted


# ---------------------------------------------------------------- other forms


def test_svg() -> None:
    root = ET.fromstring(svg.draw(IRIS).encode())
    boxes = list(root.iter(f"{SVG}g"))
    assert sorted(box.get("class") or "" for box in boxes) == ["pipeline", "pipeline", "repo", "repo"]
    shown = ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]
    assert {"training", "attributes", "model", "inference", "/*", "running · cross"} <= set(shown)
    assert len([p for p in root.iter(f"{SVG}path") if p.get("class") == "head"]) == len(IRIS.edges)
    wide, high = float(root.get("width") or 0), float(root.get("height") or 0)
    for rect in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(key) or 0) for key in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= wide and y + h <= high
    assert not list(root.iter(f"{SVG}circle"))
    assert len(list(ET.fromstring(svg.draw(DIAMOND).encode()).iter(f"{SVG}circle"))) == 1


def test_mermaid() -> None:
    lines = markup.mermaid(IRIS).splitlines()
    assert lines[0] == "flowchart LR"
    ids = {found[2]: found[1] for line in lines if (found := re.match(r' +(n\d+)\W+"(\w+)', line))}
    assert ids.keys() == {"training", "attributes", "model", "inference"}
    edges = {tuple(re.split(r" -->(?:\|.*\|)? ", line.strip())) for line in lines if "-->" in line}
    assert edges == {(ids[edge.source], ids[edge.target]) for edge in IRIS.edges}
    assert any('|"/#42;"|' in line for line in lines)


def test_dot_reads_our_dot(tmp_path: Path) -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed here")
    for dag in (IRIS, DIAMOND, many(20, 1)):
        done = subprocess.run(["dot", "-Tjson"], input=markup.dot(dag).encode(), capture_output=True, check=True)
        drawn = json.loads(done.stdout)
        assert done.stderr == b""
        names = [each["label"].split("\\n")[0] for each in drawn["objects"]]
        assert names == [node.name for node in dag.nodes]
        edges = [(names[e["tail"]], names[e["head"]], e.get("label") or "/") for e in drawn["edges"]]
        assert sorted(edges) == sorted((e.source, e.target, e.glob) for e in dag.edges)


def test_png_by_graphviz() -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed here")
    assert png.draw(IRIS).startswith(PNG)


def test_png_without_graphviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        import cairosvg  # noqa: F401
    except (ImportError, OSError):
        with pytest.raises(NotFound, match=r"apt-get install graphviz.*--format svg"):
            png.draw(IRIS)
    else:
        assert png.draw(IRIS).startswith(PNG)


# ---------------------------------------------------------------- the command


def gitpipe(*args: str) -> int:
    return cli.run(list(args))


def test_an_empty_repository(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(lab.root)
    assert gitpipe("dag") == 0
    out, err = capsys.readouterr()
    assert out == "No repos and no pipelines yet: `gitpipe create-repo NAME` makes a repo.\n" and err == ""
    assert gitpipe("dag", "--raw") == 0
    assert json.loads(capsys.readouterr().out) == {"nodes": [], "edges": []}
    for form in drawing.FORMATS.keys() - {"png"}:
        assert gitpipe("dag", "-o", str(tmp_path / "x"), "--format", form) == 0
        assert capsys.readouterr() == ("", "")
    assert gitpipe("dag", "nope") == 1


def test_files_and_formats(shop: Lab, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    found = shop.project.dag()
    for ending, form in drawing.ENDINGS.items():
        if form == "png" and shutil.which("dot") is None:
            continue
        file = tmp_path / f"dag{ending}"
        file.write_text("old")
        assert gitpipe("dag", "-o", str(file)) == 0
        assert gitpipe("dag", "--format", form) == 0
        assert capsysbinary.readouterr().out == file.read_bytes() == drawing.FORMATS[form](found)
    assert gitpipe("dag", "side", "--raw") == 0
    document = json.loads(capsysbinary.readouterr().out)
    assert [node["name"] for node in document["nodes"]] == ["other@staging", "raw", "right", "side"]
    assert document["edges"][-1] == {"source": "right", "target": "side", "glob": "/(*)"}
    assert {path.suffix for path in tmp_path.glob("dag*")} <= drawing.ENDINGS.keys()


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["-o", "dag.pdf"], 2, "dag.pdf"),
        (["-o", "dag"], 2, "--format"),
        (["--format", "pdf"], 2, "text, mermaid, dot, svg, png"),
        (["-o", "nowhere/dag.svg"], 1, "nowhere/dag.svg: No such file"),
        (["-o", "specs", "-f", "svg"], 1, "is a folder"),
        (["nope"], 1, "'nope'"),
        ([""], 1, "''"),
    ],
)
def test_what_cannot_be(shop: Lab, capsys: pytest.CaptureFixture[str], args: list[str], status: int, said: str) -> None:
    before = sorted(path for path in shop.root.rglob("*") if ".git" not in path.parts)
    assert gitpipe("dag", *args) == status
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
    assert sorted(path for path in shop.root.rglob("*") if ".git" not in path.parts) == before


def in_terminal(where: Path, columns: int, *args: str, **variables: str) -> str:
    """What ``gitpipe`` shows in a terminal of so many columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", **variables}
    env.pop("COLUMNS", None)
    command = [sys.executable, "-m", "gitpipe", *args]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=where, env=env):
        os.close(slave)
        shown = read_terminal(master)
    os.close(master)
    return shown


def test_as_the_terminal_is(shop: Lab) -> None:
    wide = in_terminal(shop.root, 150, "dag")
    assert "▶" in wide and "\x1b[32m" in wide
    assert "\x1b" not in in_terminal(shop.root, 150, "dag", NO_COLOR="1")
    narrow = in_terminal(shop.root, 40, "dag", NO_COLOR="1")
    assert "■" in narrow and max(map(len, narrow.splitlines())) <= 40
    ascii_only = in_terminal(shop.root, 150, "dag", NO_COLOR="1", PYTHONIOENCODING="ascii")
    assert ascii_only.isascii() and "-->|" in ascii_only
    assert "give a file" in in_terminal(shop.root, 150, "dag", "--format", "png")


def test_a_trigger_is_an_edge(lab: Lab) -> None:
    """From the watched branch, or the pipeline that writes it, to the branch that is moved; no other branch has one."""
    lab.data("a", {"x": "1"})
    lab.pipeline("model", {"a": "/"}, input={"pfs": {"repo": "a", "glob": "/", "trigger": {"commits": 1}}})
    lab.ran()
    project = lab.project
    project.branches.create(["model@old"], head="master")
    project.branches.create(["model@prod"], trigger=Trigger(commits=2, size="1MB"), head="master")
    leaf = {"pfs": {"repo": "model", "branch": "prod", "glob": "/"}}
    lab.pipeline("infer", {"model": "/"}, input=leaf)
    found = lab.project.dag()
    prod = DagEdge("model", "model@prod", "Size(1MB) or Commits(2)")
    first = (DagEdge("a", "a@model-trigger-1", "Commits(1)"), DagEdge("a@model-trigger-1", "model"))
    assert set(found.edges) == {*first, prod, DagEdge("model@prod", "infer")}
    names = [node.name for node in found.nodes]
    assert all(names.index(edge.source) < names.index(edge.target) for edge in found.edges)
    assert [node.name for node in lab.project.dag(["infer"]).nodes] == [
        *("a", "a@model-trigger-1", "model", "model@prod", "infer")
    ]
    shown = drawing.FORMATS["text"](found).decode()
    assert "Commits(1)" in shown and "Size(1MB) or Commits(2)" in shown
