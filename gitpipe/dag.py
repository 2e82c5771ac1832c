"""What reads what, as a value to be drawn: repos and pipelines as nodes, inputs as edges.

Knows specs and names; reads no repository and draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gitpipe.commit import git_branch, repo_of
from gitpipe.errors import NotFound
from gitpipe.graph import downstream, order, reads, sources, upstream
from gitpipe.inputs import Input, Pfs
from gitpipe.spec import Spec
from gitpipe.views import DagEdge, DagInfo, DagNode


def make_dag(
    specs: Mapping[str, Spec], states: Mapping[str, str], repos: Iterable[str], only: Iterable[str] = ()
) -> DagInfo:
    """The graph of a repository.

    Args:
        specs: pipeline -> its spec.
        states: pipeline -> its state, as `PipelineInfo.state`.
        repos: all repos, also those that no pipeline reads.
        only: repos and pipelines; where there are any, what is neither up- nor downstream of one is left out.

    Raises:
        NotFound: one of `only` is neither.
    """
    read = sources(specs)
    names = sorted(read | set(repos) - set(specs))
    if only:
        kept = _around(specs, names, only)
        names = [name for name in names if name in kept]
    nodes = [DagNode(name, "repo") for name in names]
    edges: list[DagEdge] = []
    for name in order(specs):
        if only and name not in kept:
            continue
        spec = specs[name]
        nodes.append(DagNode(name, "pipeline", states.get(name, ""), how(spec.input), spec.input.describe()))
        for leaf in spec.input.leaves():
            edge = DagEdge(git_branch(leaf.repo, leaf.branch), name, leaf.glob)
            if edge not in edges and (not only or edge.source in kept):
                edges.append(edge)
    return DagInfo(tuple(nodes), tuple(edges))


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


def _around(specs: Mapping[str, Spec], repos: Iterable[str], only: Iterable[str]) -> set[str]:
    """The nodes that `only` names, and all up- and downstream of them; a repo stands for all its branches."""
    known = [*repos, *specs]
    kept: set[str] = set()
    for name in only:
        meant = [each for each in known if name in (each, repo_of(each)[0])]
        if not meant:
            raise NotFound(f"no repo or pipeline {name!r}: see `gitpipe list-repo` and `gitpipe list-pipeline`")
        for each in meant:
            above = upstream(specs, each)
            kept |= {each} | downstream(specs, each) | above
            kept |= {branch for one in {each, *above} & specs.keys() for branch in reads(specs[one])}
    return kept
