"""Where boxes and wires go: from left to right, on a grid of character cells that a terminal and an SVG share.

grandalf (DVC draws with it, so it is there) puts the nodes into layers and sorts each layer so that few wires cross.
Its coordinates are made for diagonal lines on paper; for straight wires between whole rows they are found here: rows
so that as many wires as possible need no bend, then, between two layers, a column for each wire that has one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from statistics import median_low

from gitpipe.views import DagInfo, DagNode

ROUNDS = 3.0  # of grandalf's sorting
SWEEPS = 4  # of straightening, from left to right and back in turn
LEAD = 1  # cells of a wire before its first bend, so that it is seen to leave the box
MAX_LABEL = 24
Width = Callable[[str], int]
"""How many cells a text takes."""


@dataclass(slots=True)
class Box:
    """A node; `x`, `y` is its upper left corner, `lines` is what stands in it."""

    node: DagNode
    lines: tuple[str, ...]
    w: int
    h: int
    layer: int = 0
    x: int = 0
    y: int = 0


@dataclass(slots=True)
class Wire:
    """From a box to those that read it: points of right-angled lines, one list for each straight run of bends."""

    source: str
    paths: list[list[tuple[int, int]]] = field(default_factory=list)


@dataclass(slots=True)
class Head:
    """Where a wire enters a box: the arrow's cell, just left of the box, and the label before it."""

    x: int
    y: int
    source: str
    target: str
    label: str


@dataclass(slots=True)
class Layout:
    """A drawing in cells; all coordinates are from 0 to below `w`, `h`."""

    w: int = 0
    h: int = 0
    boxes: list[Box] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Slot:
    """A place in a layer: a box, or a wire that passes it by."""

    box: Box | None
    source: str  # whose wire goes out of here
    target: str = ""  # where the passing wire ends
    row: int = 0  # of the upper edge

    @property
    def height(self) -> int:
        return self.box.h if self.box else 1

    @property
    def out(self) -> int:
        """The row, from the upper edge, in which the wire goes on."""
        return 1 if self.box else 0


@dataclass(slots=True, eq=False)
class _Link:
    """A wire's way from one layer to the next; `port` is the row below the target's upper edge that it enters."""

    start: _Slot
    end: _Slot
    port: int
    label: str = ""


@dataclass(slots=True, eq=False)
class _Net:
    """All links of one wire between two layers: from one row to several; `track` is the column of its bend.

    One that makes a detour ends in a row of its own, where `more` begins, which goes on to the others.
    """

    source: str
    row: int
    rows: list[int]
    track: int = -1
    more: _Net | None = None

    @property
    def bent(self) -> bool:
        return any(row != self.row for row in self.rows)

    @property
    def span(self) -> tuple[int, int]:
        return min([self.row, *self.rows]), max([self.row, *self.rows])


def lay_out(dag: DagInfo, lines_of: Callable[[DagNode], tuple[str, ...]], width: Width = len) -> Layout:
    """Place all nodes of `dag`, parts that do not hang together below each other, the largest first.

    Args:
        lines_of: what is to stand in a node's box.
    """
    whole = Layout()
    for part in _parts(dag):
        below = _lay_out_part(part, lines_of, width)
        for box in below.boxes:
            box.y += whole.h
        for wire in below.wires:
            wire.paths = [[(x, y + whole.h) for x, y in path] for path in wire.paths]
        for head in below.heads:
            head.y += whole.h
        whole.boxes += below.boxes
        whole.wires += below.wires
        whole.heads += below.heads
        whole.w, whole.h = max(whole.w, below.w), whole.h + below.h
    return whole


def _parts(dag: DagInfo) -> list[DagInfo]:
    """The connected parts, the largest first, else in the order of their nodes."""
    near: dict[str, set[str]] = {node.name: set() for node in dag.nodes}
    for edge in dag.edges:
        near[edge.source].add(edge.target)
        near[edge.target].add(edge.source)
    seen: set[str] = set()
    parts = []
    for node in dag.nodes:
        if node.name in seen:
            continue
        part, todo = {node.name}, [node.name]
        while todo:
            fresh = near[todo.pop()] - part
            part |= fresh
            todo += fresh
        seen |= part
        nodes = tuple(n for n in dag.nodes if n.name in part)
        parts.append(DagInfo(nodes, tuple(e for e in dag.edges if e.target in part)))
    return sorted(parts, key=lambda part: -len(part.nodes))


def _lay_out_part(dag: DagInfo, lines_of: Callable[[DagNode], tuple[str, ...]], width: Width) -> Layout:
    labels: dict[tuple[str, str], list[str]] = {}  # two globs on one repo are one wire
    for edge in dag.edges:
        labels.setdefault((edge.source, edge.target), []).append(edge.glob)
    reads = {node.name: [source for source, target in labels if target == node.name] for node in dag.nodes}
    boxes: dict[str, Box] = {}
    for node in dag.nodes:
        lines = lines_of(node)
        height = max(len(lines), len(reads[node.name]), 1) + 2
        boxes[node.name] = Box(node, lines, max(map(width, lines)) + 4, height)
    layers = _layers(boxes, list(labels))
    links = _links(layers, boxes, reads, labels)
    _place_rows(layers, links)
    return _draw(layers, links, width)


def _layers(boxes: Mapping[str, Box], pairs: Sequence[tuple[str, str]]) -> list[list[_Slot]]:
    """The layers from left to right, each sorted from top to bottom, as grandalf finds them."""
    from grandalf.graphs import Edge, Vertex, graph_core
    from grandalf.layouts import SugiyamaLayout

    if not pairs:
        return [[_Slot(box, name)] for name, box in boxes.items()]
    vertices = {name: Vertex(name) for name in boxes}
    for name, vertex in vertices.items():
        vertex.view = _Size(boxes[name].h)
    edges = [Edge(vertices[source], vertices[target], data=(source, target)) for source, target in pairs]
    # Not by `Graph`, which would look for the connected parts, and whose order differs from run to run.
    graph = graph_core(list(vertices.values()), edges)
    sugiyama = SugiyamaLayout(graph)
    sugiyama.route_edge = lambda *_: None
    sugiyama.init_all(roots=[v for v in graph.sV if not v.e_in()], inverted_edges=[], optimize=True)
    sugiyama.draw(ROUNDS)
    passing = {dummy: edge for edge, way in sugiyama.ctrls.items() for dummy in way.values()}
    layers: list[list[_Slot]] = []
    for rank, layer in enumerate(sugiyama.layers):
        slots = []
        for vertex in layer:
            if isinstance(vertex, Vertex):
                boxes[vertex.data].layer = rank
                slots.append(_Slot(boxes[vertex.data], vertex.data))
            else:
                source, target = passing[vertex].data
                slots.append(_Slot(None, source, target))
        layers.append(slots)
    return layers


class _Size:
    """What grandalf wants to know of a node, and where it writes what it found."""

    def __init__(self, height: int) -> None:
        self.w, self.h, self.xy = height, 1, (0.0, 0.0)


def _links(
    layers: Sequence[Sequence[_Slot]],
    boxes: Mapping[str, Box],
    reads: Mapping[str, Sequence[str]],
    labels: Mapping[tuple[str, str], Sequence[str]],
) -> list[list[_Link]]:
    """Between each layer and the next one: what is connected.  Ports of a box are in the order of their sources."""
    passing = {(s.source, s.target, rank): s for rank, layer in enumerate(layers) for s in layer if s.box is None}
    slots = {s.source: s for layer in layers for s in layer if s.box is not None}
    place = {slot: number for layer in layers for number, slot in enumerate(layer)}
    links: list[list[_Link]] = [[] for _ in layers]
    for name, names in reads.items():
        end = slots[name]
        last = boxes[name].layer
        ways = []
        for source in names:
            first = boxes[source].layer
            way = [slots[source], *(passing[source, name, rank] for rank in range(first + 1, last)), end]
            ways.append((place[way[-2]], source, way))
        for port, (_, source, way) in enumerate(sorted(ways, key=lambda each: each[:2]), start=1):
            for rank, (start, stop) in enumerate(pairwise(way), start=boxes[source].layer):
                label = ", ".join(labels[source, name]) if stop is end else ""
                links[rank].append(_Link(start, stop, port if stop is end else 0, "" if label == "/" else label))
    return links


def _place_rows(layers: Sequence[Sequence[_Slot]], links: Sequence[Sequence[_Link]]) -> None:
    """Give each slot its row: in order, without overlap, and so that wires run as straight as that allows."""
    for layer in layers:
        row = 0
        for slot in layer:
            slot.row = row
            row += slot.height
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for rank in range(1, len(layers)) if forward else range(len(layers) - 2, -1, -1):
            wishes: dict[_Slot, list[int]] = defaultdict(list)
            for link in links[rank - 1] if forward else links[rank]:
                out = link.start.row + link.start.out
                into = link.end.row + link.port
                if forward:
                    wishes[link.end].append(out - link.port)
                else:
                    wishes[link.start].append(into - link.start.out)
            _settle(layers[rank], wishes)
    top = min(slot.row for layer in layers for slot in layer)
    for layer in layers:
        for slot in layer:
            slot.row -= top


def _settle(layer: Sequence[_Slot], wishes: Mapping[_Slot, Sequence[int]]) -> None:
    """Move the slots of a layer as near to their wishes as their order and heights allow.

    Neighbours that would overlap move as one block, to the median of what its members wish.
    """
    blocks: list[tuple[list[int], int]] = []  # (wishes for the row of the first one in this layer, slots)
    above = 0
    for slot in layer:
        wanted = [row - above for row in wishes.get(slot) or [slot.row]]
        count = 1
        while blocks and median_low(blocks[-1][0]) > median_low(wanted):
            before, others = blocks.pop()
            wanted, count = before + wanted, count + others
        blocks.append((wanted, count))
        above += slot.height
    above, rest = 0, iter(layer)
    for wanted, count in blocks:
        start = median_low(wanted)
        for _ in range(count):
            slot = next(rest)
            slot.row = start + above
            above += slot.height


def _draw(layers: Sequence[Sequence[_Slot]], links: Sequence[Sequence[_Link]], width: Width) -> Layout:
    """Columns for layers and bends; the whole drawing."""
    drawing = Layout()
    wires: dict[str, Wire] = {}
    x = 0
    for rank, layer in enumerate(layers):
        wide = max((slot.box.w for slot in layer if slot.box), default=1)
        nets = _nets(links[rank])
        tracks = _give_tracks(nets)
        names = [(link, shorten(link.label, MAX_LABEL)) for link in links[rank]]
        room = max((width(label) + 2 for _, label in names if label), default=0)
        after = x + wide + LEAD + 2 * tracks + room + 2 if links[rank] else x + wide
        for slot in layer:
            if slot.box:
                slot.box.x, slot.box.y = x, slot.row
                drawing.boxes.append(slot.box)
            elif slot.box is None:
                path = [(x - 1, slot.row), (x + wide, slot.row)]
                wires.setdefault(slot.source, Wire(slot.source)).paths.append(path)
        ends = {
            link.start.row + link.start.out: x + (link.start.box.w if link.start.box else wide) for link in links[rank]
        }
        for net in nets:
            paths = _paths(net, ends[net.row], x + wide + LEAD, after - 1)
            wires.setdefault(net.source, Wire(net.source)).paths.extend(paths)
        for link, label in names:
            if link.port:
                row = link.end.row + link.port
                drawing.heads.append(Head(after - 1, row, link.start.source, link.end.source, label))
        x = after
    drawing.wires = list(wires.values())
    drawing.w = x
    drawing.h = 1 + max(
        [y for wire in drawing.wires for path in wire.paths for _, y in path]
        + [box.y + box.h - 1 for box in drawing.boxes]
    )
    return drawing


def shorten(text: str, limit: int) -> str:
    """`text` with its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: (limit - 1) // 2]}…{text[-(limit // 2) :]}"


# ---------------------------------------------------------------- bends between two layers


def _nets(links: Iterable[_Link]) -> list[_Net]:
    """The links, those of one wire that leave from one row together."""
    found: dict[tuple[str, int], _Net] = {}
    for link in links:
        row = link.start.row + link.start.out
        net = found.setdefault((link.start.source, row), _Net(link.start.source, row, []))
        net.rows.append(link.end.row + link.port)
    return list(found.values())


def _give_tracks(nets: Sequence[_Net]) -> int:
    """Give each net that has a bend a column of its own within the gap, from 0; how many there are.

    Two nets may share a column where their spans do not touch.  Where one net ends in the row in which another one
    begins, the one that begins has to bend first, or their lines would lie upon each other; where that goes round in
    a circle, one of the nets makes a detour over a free row.
    """
    todo = [net for net in nets if net.bent]
    used = {row for net in nets for row in (net.row, *net.rows)}
    before = _must_come_first(todo)
    while (knot := _knot(before)) is not None:
        net = todo[knot]
        free = _free_row(used, net.row)
        used.add(free)
        net.more = _Net(net.source, free, net.rows)
        net.rows = [free]
        todo.append(net.more)
        before = _must_come_first(todo)
    # One that goes down is crossed less where those that begin above it bend later, one that goes up the other way.
    rank = {i: -net.row if max(net.rows) > net.row else net.row for i, net in enumerate(todo)}
    left = set(range(len(todo)))
    taken: list[list[tuple[int, int]]] = []
    while left:
        number = min((i for i in left if not before[i] & left), key=lambda i: (rank[i], i))
        left.discard(number)
        low, high = todo[number].span
        track = max((todo[i].track + 1 for i in before[number]), default=0)
        while track < len(taken) and any(low <= last and first <= high for first, last in taken[track]):
            track += 1
        taken += [[] for _ in range(track + 1 - len(taken))]
        taken[track].append((low, high))
        todo[number].track = track
    return len(taken)


def _must_come_first(nets: Sequence[_Net]) -> list[set[int]]:
    """For each net those whose bend has to lie to the left of its own."""
    after = {net.more: i for i, net in enumerate(nets) if net.more}
    starts = {net.row: i for i, net in enumerate(nets) if net not in after}
    first = [{starts[row] for row in net.rows if starts.get(row, i) != i} for i, net in enumerate(nets)]
    for i, net in enumerate(nets):
        first[i] |= {after[net]} if net in after else set()
    return first


def _knot(before: Sequence[set[int]]) -> int | None:
    """A net of a circle, or None where there is no circle."""
    left = set(range(len(before)))
    while left:
        free = {i for i in left if not before[i] & left}
        if not free:
            at, seen = min(left), set[int]()
            while at not in seen:
                seen.add(at)
                at = min(before[at] & left)
            return at
        left -= free
    return None


def _free_row(used: set[int], near: int) -> int:
    """The row nearest to `near` in which no net begins or ends."""
    return next(row for away in count(1) for row in (near + away, near - away) if row >= 0 and row not in used)


def _paths(net: _Net, begin: int, first: int, end: int) -> list[list[tuple[int, int]]]:
    """The lines of a net: from column `begin` to its bend at `first` + 2 * track, from there to column `end`."""
    if not net.bent:
        return [[(begin, net.row), (end, net.row)]]
    bend = first + 2 * net.track
    if net.more:
        turn = first + 2 * net.more.track
        way = [(begin, net.row), (bend, net.row), (bend, net.more.row), (turn, net.more.row)]
        return [way, *_paths(net.more, turn, first, end)]
    return [[(begin, net.row), (bend, net.row), (bend, row), (end, row)] for row in dict.fromkeys(net.rows)]
