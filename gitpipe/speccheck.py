"""Spec files before they are committed: would gitpipe take these pipelines?  Creates and changes nothing.

Of the files named, those that hold no pipeline are passed over: JSON and YAML serve many purposes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from gitpipe.commit import SPEC_BRANCH, check_name
from gitpipe.errors import BadSpec, GitpipeError, Refused
from gitpipe.graph import order
from gitpipe.pipelines import CommitOrigin, PipelineStore, absent_scripts
from gitpipe.provenance import read_origin
from gitpipe.repo import BLOB, HEADS, ZERO, Entry, Repo
from gitpipe.spec import Spec, load_specs
from gitpipe.spec_text import MAX_BYTES, documents

# How a text that cannot be parsed gives away that it was meant as a spec.
_PIPELINE = re.compile(rb"""["']?\bpipeline["']?\s*:""")
_BODY = re.compile(rb"""["']?\b(?:transform|input)["']?\s*:""")


def check_specs(repo: Repo, store: PipelineStore, paths: Sequence[str], index: Mapping[str, str]) -> list[str]:
    """What is wrong with the spec files among `paths`, a line each.

    That an input repo does not exist is no mistake: a spec may be committed before its data.

    Args:
        paths: from the top of the working tree; the files are read as they lie there.
        index: ``{"GIT_INDEX_FILE": …}`` where git's own hook was told of another index, else empty.
    """
    if repo.top is None:
        return []
    problems: dict[str, None] = {}
    found: dict[str, list[Spec]] = {}
    for path in dict.fromkeys(paths):
        try:
            found[path] = read_specs(repo.top / path, path)
        except GitpipeError as error:
            problems[str(error)] = None
    if not any(found.values()):
        return list(problems)
    recorded = {name: pipeline.spec for name, pipeline in store.all(store.head()).items()}
    # Files may hold variants of one pipeline; such a one is judged with its own file only.
    counts = Counter(spec.name for specs in found.values() for spec in specs)
    single = {spec.name: spec for specs in found.values() for spec in specs if counts[spec.name] == 1}
    tree = _index_tree(repo, index)
    for path, specs in found.items():
        for spec in specs:
            problems.update(dict.fromkeys(_misfits(repo, spec, path, recorded, tree)))
        try:
            order({**recorded, **single, **{spec.name: spec for spec in specs}})
        except BadSpec as error:
            problems[str(error)] = None
    return list(problems)


def read_specs(file: Path, path: str) -> list[Spec]:
    """The pipelines in a file; none where it is no spec.

    Raises:
        BadSpec: it is one, and a wrong one.
    """
    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return []
        data = file.read_bytes()
    except OSError as error:
        raise GitpipeError(f"cannot read {path}: {error.strerror}") from error
    if not (_PIPELINE.search(data) and _BODY.search(data)):
        return []
    try:
        values = [document.value for document in documents(data, path)]
    except BadSpec:
        # It cannot be parsed; in YAML full of templates the two words are no sign of a spec.
        if b"{{" in data or b"{%" in data:
            return []
        raise
    return load_specs(data, path) if any(map(_is_spec, values)) else []


def _is_spec(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    pipeline = value.get("pipeline")
    return isinstance(pipeline, dict) and "name" in pipeline and ("transform" in value or "input" in value)


def _misfits(repo: Repo, spec: Spec, path: str, recorded: Mapping[str, Spec], tree: str | None) -> list[str]:
    """Where one pipeline does not fit into the repository."""
    problems = []
    try:
        check_name("pipeline", spec.name)
        if spec.name == SPEC_BRANCH:
            raise BadSpec(f"pipeline name {spec.name!r} is reserved")
        head = repo.ref(HEADS + spec.output)
        # In a clone the outputs may be here without __spec__; then their own commits say whose they are.
        if head and spec.name not in recorded and read_origin(repo.commit(head).message).pipeline != spec.name:
            raise Refused(
                f"pipeline {spec.name} would write to branch {spec.output}, which exists and is not its own: rename one"
            )
    except GitpipeError as error:
        problems.append(f"{path}: {error}")
    if tree is not None and repo.entry(tree, path) is not None:
        try:
            code = CommitOrigin(repo, tree, path, _built(repo, spec, path)).code(spec)
            problems += [f"{path}: {line}" for line in absent_scripts(spec, code)]
        except GitpipeError as error:
            problems.append(_prefixed(path, f"{error}"))
    return problems


def _built(repo: Repo, spec: Spec, path: str) -> dict[str, Entry]:
    """Stand-ins for the code that git ignores: it is built where the pipeline is created, perhaps not here."""
    names = {str(PurePosixPath(path).parent / name): str(PurePosixPath(name)) for name in spec.code or ()}
    if not names:
        return {}
    stdin = "".join(f"{name}\0" for name in names).encode()
    said = repo.git("check-ignore", "-z", "--stdin", stdin=stdin, cwd=repo.top, accept=(0, 1))
    return {names[name]: Entry(BLOB, ZERO) for name in said.split("\0") if name in names}


def _prefixed(path: str, message: str) -> str:
    return message if message.startswith(path) else f"{path}: {message}"


def _index_tree(repo: Repo, index: Mapping[str, str]) -> str | None:
    """What is staged, as a tree; None amidst a conflict."""
    try:
        return repo.git("write-tree", env=index).strip()
    except GitpipeError:
        return None
