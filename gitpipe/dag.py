"""What reads what, as a value to be drawn: repos and pipelines as nodes, inputs and triggers as edges.

Knows specs and names; reads no repository and draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gitpipe.commit import git_branch, repo_of
from gitpipe.errors import NotFound
from gitpipe.graph import inverted, order, owners, reachable
from gitpipe.inputs import Input, Pfs, Trigger
from gitpipe.spec import Spec
from gitpipe.views import DagEdge, DagInfo, DagNode


def make_dag(
    specs: Mapping[str, Spec],
    states: Mapping[str, str],
    repos: Iterable[str],
    only: Iterable[str] = (),
    triggers: Mapping[str, Trigger] | None = None,
) -> DagInfo:
    """The graph of a repository.

    Args:
        specs: pipeline -> its spec.
        states: pipeline -> its state, as `PipelineInfo.state`.
        repos: all repos, also those that no pipeline reads.
        only: repos and pipelines; where there are any, what is neither up- nor downstream of one is left out.
        triggers: git branch -> what moves it.

    Raises:
        NotFound: one of `only` is neither.
    """
    owner = owners(specs)
    moves = {branch: trigger for branch, trigger in (triggers or {}).items() if branch not in owner}
    follow = {branch: git_branch(repo_of(branch)[0], trigger.branch) for branch, trigger in moves.items()}
    edges: dict[str, list[DagEdge]] = {
        branch: [DagEdge(owner.get(follow[branch], follow[branch]), branch, trigger.conditions())]
        for branch, trigger in moves.items()
    }
    for name, spec in specs.items():
        branches = ((git_branch(leaf.repo, leaf.branch), leaf.glob) for leaf in spec.input.leaves())
        edges[name] = list(dict.fromkeys(DagEdge(owner.get(branch, branch), name, glob) for branch, glob in branches))
    above = {name: {edge.source for edge in found} for name, found in edges.items()}
    named = (set(repos) | above.keys() | {source for found in above.values() for source in found}) - set(specs)
    nodes = _in_order(sorted(named), order(specs, follow), above)
    kept = _around(nodes, above, only) if only else set(nodes)
    return DagInfo(
        tuple(_node(name, specs.get(name), states) for name in nodes if name in kept),
        tuple(edge for name in nodes if name in kept for edge in edges.get(name, ()) if edge.source in kept),
    )


def _in_order(repos: Iterable[str], pipelines: Iterable[str], above: Mapping[str, set[str]]) -> list[str]:
    """Each node after all that it reads: repos, then pipelines, each with the branches that it moves up behind it."""
    moved = [name for name in repos if name in above]
    found: list[str] = []
    for start in [*(name for name in repos if name not in above), *pipelines]:
        todo = [start]
        while todo:
            name = todo.pop()
            found.append(name)
            todo += [branch for branch in reversed(moved) if name in above[branch]]
    return found


def _node(name: str, spec: Spec | None, states: Mapping[str, str]) -> DagNode:
    if spec is None:
        return DagNode(name, "repo")
    return DagNode(name, "pipeline", states.get(name, ""), how(spec.input), spec.input.describe())


def how(input: Input) -> str:
    """How several inputs meet: ``cross``, ``cross(training, union(a, b))``; "" where there is only one."""
    if isinstance(input, Pfs):
        return ""
    sides = getattr(input, "inputs", ())
    if all(isinstance(side, Pfs) for side in sides):
        return input.kind
    inner = (git_branch(side.repo, side.branch) if isinstance(side, Pfs) else _whole(side) for side in sides)
    return f"{input.kind}({', '.join(inner)})"


def _whole(input: Input) -> str:
    """An inner input with what it is made of."""
    found = how(input)
    if found.endswith(")"):
        return found
    return f"{found}({', '.join(git_branch(leaf.repo, leaf.branch) for leaf in input.leaves())})"


def _around(nodes: Iterable[str], above: Mapping[str, set[str]], only: Iterable[str]) -> set[str]:
    """The nodes that `only` names, and all up- and downstream of them; a repo stands for all its branches."""
    below = inverted(above)
    kept: set[str] = set()
    for name in only:
        meant = [each for each in nodes if name in (each, repo_of(each)[0])]
        if not meant:
            raise NotFound(f"no repo or pipeline {name!r}: see `gitpipe list-repo` and `gitpipe list-pipeline`")
        for each in meant:
            kept |= {each} | reachable(above, each) | reachable(below, each)
    return kept
