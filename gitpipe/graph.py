"""How pipelines hang together: who reads whose output.  Knows specs only, no commits and no jobs.

A pipeline reads git branches and owns one: that of its own name, or ``<name>@<output_branch>``.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from gitpipe.commit import git_branch
from gitpipe.errors import BadSpec
from gitpipe.inputs import Cron
from gitpipe.spec import Spec


class Circle(BadSpec):
    """Pipelines that wait for each other: ``circle``, from the first round to the first."""

    def __init__(self, names: Sequence[str]) -> None:
        self.circle = names
        super().__init__(
            f"pipelines read each other in a circle: {' → '.join(names)}; one of them must read something else"
        )


def reads(spec: Spec) -> set[str]:
    """The git branches that a pipeline reads (``training``, ``training@staging``)."""
    return {git_branch(leaf.repo, leaf.branch) for leaf in spec.input.leaves()}


def cron_repos(spec: Spec) -> set[str]:
    """The repos that the clock writes to for a pipeline."""
    return {leaf.repo for leaf in spec.input.leaves() if isinstance(leaf, Cron)}


def sources(specs: Mapping[str, Spec]) -> set[str]:
    """The git branches that some pipeline reads and none owns."""
    return {branch for spec in specs.values() for branch in reads(spec)} - set(owners(specs))


def owners(specs: Mapping[str, Spec]) -> dict[str, str]:
    """Git branch -> the pipeline that writes it."""
    return {spec.output: name for name, spec in specs.items()}


def order(specs: Mapping[str, Spec], moved: Mapping[str, str] | None = None) -> list[str]:
    """The names of `specs`, each after all that it reads; by name where that leaves a choice.

    Args:
        moved: git branch -> the one that it follows by a trigger, which closes a circle as well as reading does.

    Raises:
        Circle: naming it: ``a → b → a`` (a's output goes to b, b's to a).
    """
    waits_for = _above(specs, moved)
    readers = inverted(waits_for)
    missing = {name: len(needs) for name, needs in waits_for.items()}
    ready = sorted(name for name, count in missing.items() if not count)
    out: list[str] = []
    while ready:
        name = heapq.heappop(ready)
        out.append(name)
        for reader in readers.get(name, ()):
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(out) < len(specs):
        cycle = _cycle({name: needs - set(out) for name, needs in waits_for.items() if name not in out})
        raise Circle(cycle)
    return out


def _followed(branches: set[str], moved: Mapping[str, str]) -> set[str]:
    """`branches`, and those that they get their commits from by triggers."""
    found, todo = set(branches), list(branches)
    while todo:
        watched = moved.get(todo.pop())
        if watched is not None and watched not in found:
            found.add(watched)
            todo.append(watched)
    return found


def upstream(specs: Mapping[str, Spec], name: str) -> set[str]:
    """All pipelines that pipeline `name` is made from, directly or not; none where it is no pipeline."""
    return reachable(_above(specs), name)


def downstream(specs: Mapping[str, Spec], name: str) -> set[str]:
    """All pipelines that are made from pipeline `name`, or else from git branch `name`, directly or not."""
    readers = _readers(specs)
    below = {each: readers.get(spec.output, set()) for each, spec in specs.items()}
    below.setdefault(name, readers.get(name, set()))
    return reachable(below, name)


def _above(specs: Mapping[str, Spec], moved: Mapping[str, str] | None = None) -> dict[str, set[str]]:
    """Pipeline -> the pipelines that it reads, also through branches that are `moved` to what those write."""
    owner = owners(specs)
    return {
        name: {owner[branch] for branch in _followed(reads(spec), moved or {}) if branch in owner}
        for name, spec in specs.items()
    }


def _readers(specs: Mapping[str, Spec]) -> dict[str, set[str]]:
    """Git branch -> the pipelines that read it."""
    return inverted({name: reads(spec) for name, spec in specs.items()})


def inverted(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The edges the other way round."""
    out: dict[str, set[str]] = {}
    for name, others in edges.items():
        for other in others:
            out.setdefault(other, set()).add(name)
    return out


def reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """Where edges lead from `start`, itself only if it is on a circle."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        for each in edges.get(todo.pop(), ()):
            if each not in seen:
                seen.add(each)
                todo.append(each)
    return seen


def _cycle(waits_for: Mapping[str, set[str]]) -> list[str]:
    """One cycle, in the direction in which data would flow, beginning and ending with its first name.

    Every name in `waits_for` waits for another one there, so going on from any ends in a circle.
    """
    path = [min(waits_for)]
    while path.count(path[-1]) == 1:
        path.append(min(waits_for[path[-1]]))
    circle = path[path.index(path[-1]) : -1]
    circle.reverse()
    first = circle.index(min(circle))
    return [*circle[first:], *circle[:first], circle[first]]
