"""What differs between two versions of a pipeline, two sets of input commits, two listings: said in full.

Shared by all that explains or compares; compares values and git objects only, never what some machine happened to run.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitpipe.blobs import BlobStore
from gitpipe.commit import CommitRef, Listing
from gitpipe.errors import BadData, GitpipeError
from gitpipe.pipelines import Pipeline
from gitpipe.provenance import Origin, made_for, read_origin
from gitpipe.repo import Commit, Entry, Repo
from gitpipe.spec import HOST, Spec
from gitpipe.views import CodeChange, EnvironmentChange, FieldChange, FileChange, Move, VersionChange

RECORD = ".gitpipe/job.json"
WORDED = ("cmd", "stdin", "err_cmd", "err_stdin")
"""Fields that are compared word by word."""

TRANSFORM_ONLY = ("pipeline", "transform", "salt", "writable_inputs", "ignored")
"""Parts of a recorded spec that `Spec.transform_parts` has, or that say nothing by themselves."""

UNTOLD = ("engine", "host", "packages")
"""Parts of what a run ran in that make no result another one, or that are told one by one."""


# ---------------------------------------------------------------- an output commit


@dataclass(frozen=True, slots=True)
class Made:
    """An output commit and what its own record says it was made from, which travels with it to any clone."""

    commit: Commit
    origin: Origin
    pipeline: Pipeline
    inputs: tuple[CommitRef, ...]
    processed: int
    recovered: int = 0

    @property
    def ref(self) -> CommitRef:
        return CommitRef(self.pipeline.spec.output, self.commit.sha)

    @property
    def digest(self) -> str:
        """What all datums of it have in common in their ids."""
        return self.pipeline.digest


def read_made(repo: Repo, commit: Commit, branch: str) -> Made | None:
    """What an output commit on `branch` says of itself; None for a commit that a person made.

    Raises:
        BadData: its record is damaged.
    """
    origin = read_origin(commit.message)
    entry = repo.entry(commit.tree, RECORD) if made_for(branch, origin) else None
    if entry is None:
        return None
    try:
        record = json.loads(repo.blob(entry.sha))
        spec = Spec.from_json(json.dumps(record["spec"]).encode(), RECORD)
        inputs = tuple(CommitRef(str(i["branch"]), str(i["commit"])) for i in record["inputs"])
        code = record["code"]
        pipeline = Pipeline(origin.pipeline, origin.version, spec, str(code) if code else None)
        pipeline = pipeline.ran_in(str(record.get("image", "")), origin.job)
        counts = record["datums"]
        return Made(commit, origin, pipeline, inputs, int(counts["processed"]), int(counts.get("recovered", 0)))
    except (ValueError, KeyError, TypeError, GitpipeError) as error:
        raise BadData(f"{RECORD} of {branch}@{commit.sha[:12]} cannot be read: {error}") from error


def closure_of(made: Made | None) -> dict[str, str]:
    """Branch -> commit of all that a commit was made from; of one that a person made, nothing."""
    return {ref.branch: ref.sha for ref in made.origin.provenance} if made else {}


# ---------------------------------------------------------------- files


def files(blobs: BlobStore, old: Listing, new: Listing) -> list[FileChange]:
    """The files that differ, by path."""
    return [
        FileChange(
            path,
            old.get(path, ""),
            new.get(path, ""),
            blobs.size(old[path]) if path in old else None,
            blobs.size(new[path]) if path in new else None,
        )
        for path in sorted({path for path, _ in old.items() ^ new.items()})
    ]


def verb(change: FileChange) -> str:
    """``added``, ``removed`` or ``changed``."""
    return "added" if not change.old else "removed" if not change.new else "changed"


# ---------------------------------------------------------------- commits


def moves(repo: Repo, old: Mapping[str, str], new: Mapping[str, str]) -> list[Move]:
    """The branches that stand at different commits, by name."""
    found = []
    for branch in sorted(old.keys() | new.keys()):
        before, after = old.get(branch), new.get(branch)
        if before != after:
            found.append(_move(repo, branch, before, after))
    return found


def _move(repo: Repo, branch: str, old: str | None, new: str | None) -> Move:
    try:
        subject = repo.commit(new).subject if new else ""
        behind, ahead = 0, 0
        if old and new:
            text = repo.git("rev-list", "--count", "--left-right", "--first-parent", f"{old}...{new}", "--")
            behind, ahead = map(int, text.split())
    except GitpipeError:  # not in this clone
        return Move(branch, old, new)
    return Move(branch, old, new, ahead, behind, subject)


# ---------------------------------------------------------------- versions of a pipeline


def version(repo: Repo, old: Pipeline | None, new: Pipeline | None) -> VersionChange | None:
    """What differs between two versions of one pipeline; None where they are the same."""
    one = new or old
    if one is None or (old and new and (old.version, old.image) == (new.version, new.image)):
        return None
    if old is None or new is None:
        return VersionChange(one.name, old.version if old else None, new.version if new else None)
    try:
        code, unknown = tuple(code_changes(repo, old.code, new.code)), ""
    except GitpipeError:
        code, unknown = (), "its code differs, and one of the two is not in this clone"
    return VersionChange(
        one.name, old.version, new.version, tuple(fields(old, new)), code, old.spec.salt != new.spec.salt, unknown
    )


def fields(old: Pipeline, new: Pipeline) -> list[FieldChange]:
    """The fields of the specs that differ: those that make datums others first."""
    before, after = (p.parts for p in (old, new))
    names = [name for name in dict.fromkeys([*before, *after]) if name not in ("code", "salt", "image", "job")]
    found = [change for name in names for change in _compare(name, before.get(name), after.get(name), True)]
    images = [_image(p) for p in (old, new)]
    if images[0] != images[1]:
        text = " → ".join(images)
        found.insert(0, FieldChange("image", images[0], images[1], text, old.image != new.image))
    rest = [{k: v for k, v in p.spec.to_dict().items() if k not in TRANSFORM_ONLY} for p in (old, new)]
    for name in dict.fromkeys([*rest[0], *rest[1]]):
        # Which files are the code is said by the files themselves.
        if name != "code" or old.code == new.code:
            matters = name in ("input", "reprocess_spec")
            found += _compare(name, rest[0].get(name), rest[1].get(name), matters)
    cuts = [p.spec.input.describe() for p in (old, new)]
    if cuts[0] != cuts[1]:  # in two words, instead of leaf by leaf
        whole = FieldChange("input", rest[0]["input"], rest[1]["input"], " → ".join(cuts))
        found = [*(change for change in found if not change.field.startswith("input.")), whole]
    return found


def _image(pipeline: Pipeline) -> str:
    """``python:3.12 (sha256:0123456789ab)``, or ``host``, with the name of the image that was not used."""
    name, used = pipeline.spec.transform.image, pipeline.image
    if used == HOST:
        return f"{HOST} ({name} not used)" if name else HOST
    return name if used == name else f"{name} ({used[:19]})"


def code_changes(repo: Repo, old: str | None, new: str | None) -> list[CodeChange]:
    """The files that differ between two trees of code, by path.

    Raises:
        NotFound: a tree is not in this repository.
    """
    if old == new:
        return []
    before: dict[str, Entry] = dict(repo.walk(old)) if old else {}
    after: dict[str, Entry] = dict(repo.walk(new)) if new else {}
    return [
        CodeChange(path, "added" if path not in before else "removed" if path not in after else "changed")
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def _compare(name: str, old: Any, new: Any, matters: bool) -> Iterator[FieldChange]:
    """The innermost fields that differ."""
    if old == new:
        return
    if isinstance(old, dict | None) and isinstance(new, dict | None):
        for key in dict.fromkeys([*(old or {}), *(new or {})]):
            yield from _compare(f"{name}.{key}", (old or {}).get(key), (new or {}).get(key), matters)
    elif name not in WORDED and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _compare(f"{name}[{index}]", before, after, matters)
    elif name in WORDED:
        yield FieldChange(name, old, new, words(old or [], new or []), matters)
    else:
        yield FieldChange(name, old, new, f"{_shown(old)} → {_shown(new)}", matters)


def words(old: Sequence[str], new: Sequence[str]) -> str:
    """What differs between two command lines: ``-e 1 → -e 2``, ``+ --fast``, ``- --slow``.

    An option that stands before a value that differs is shown with it.
    """
    before, after = (" ".join(each).split() for each in (old, new))
    if before == after:  # in how words are joined only
        return f"{json.dumps(list(old), ensure_ascii=False)} → {json.dumps(list(new), ensure_ascii=False)}"
    found = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        if kind == "replace" and i and k and before[i - 1] == after[k - 1] and before[i - 1].startswith("-"):
            i, k = i - 1, k - 1
        gone, come = " ".join(before[i:j]), " ".join(after[k:m])
        found.append(f"{gone} → {come}" if gone and come else f"+ {come}" if come else f"- {gone}")
    return ", ".join(found)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def reasons(change: VersionChange) -> Iterator[str]:
    """Of a change of version what makes datums others, each in a few words."""
    yield from (f"{field.field}: {field.text}" for field in change.fields if field.matters)
    yield from (f"code: {file.path} {file.change}" for file in change.code)
    if change.unknown:
        yield change.unknown
    if change.reprocess:
        yield "--reprocess"


# ---------------------------------------------------------------- what two runs ran in


def environments(
    pipeline: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[EnvironmentChange]:
    """What the places in which a pipeline ran differ in: interpreter, packages, program, image, system, CPU."""
    before, after = (_parts(places) for places in (old, new))
    return [
        EnvironmentChange(
            pipeline, what, ", ".join(sorted(before.get(what, ()))), ", ".join(sorted(after.get(what, ())))
        )
        for what in sorted(before.keys() | after.keys(), key=lambda what: (not what.startswith("package "), what))
        if before.get(what) != after.get(what)
    ]


def _parts(places: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Each part of the places -> its values; a job may have run in several."""
    found: dict[str, set[str]] = {}
    for place in places:
        parts = {name: value for name, value in place.items() if name not in UNTOLD}
        packages = place.get("packages") or {}
        for name, value in {**parts, **{f"package {name}": version for name, version in packages.items()}}.items():
            found.setdefault(name, set()).add(str(value))
    return found
