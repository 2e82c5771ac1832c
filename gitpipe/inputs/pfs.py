"""The input that all others are made of: one branch of one repo, cut by a glob."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from gitpipe.commit import DEFAULT_BRANCH, check_name, git_branch
from gitpipe.datum import InputFiles
from gitpipe.errors import BadSpec
from gitpipe.globs import Glob, cut
from gitpipe.inputs.base import Read, Row
from gitpipe.inputs.trigger import Trigger

BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")
REFERENCE = re.compile(r"\$(?:(\d+)|\{(\d+)\})")
OUT = "out"


@dataclass(frozen=True, slots=True)
class Pfs:
    """Branch `branch` of repo `repo`, cut by `glob`; seen as ``/pfs/<name>``.

    Attributes:
        name: "" stands for the repo's name.
        lazy: files may be brought when they are first opened.
        empty_files: files appear with their names but without bytes.
        join_on, group_by: the key, with ``$1`` for what the glob's first group captured.
        outer_join: in a ``join``, matches without a partner are kept.
        trigger: when `branch`, which the pipeline has for itself, moves up to the branch that it watches.

    Raises:
        BadSpec, BadName: a name, branch, glob or key that cannot be.
    """

    name: str
    repo: str
    branch: str = DEFAULT_BRANCH
    glob: str = "/"
    lazy: bool = False
    empty_files: bool = False
    join_on: str = ""
    outer_join: bool = False
    group_by: str = ""
    trigger: Trigger | None = None

    kind: ClassVar[str] = "pfs"

    def __post_init__(self) -> None:
        check_name("repo", self.repo)
        if not self.name:
            object.__setattr__(self, "name", self.repo)
        check_input_name(self.name)
        check_branch(self.branch)
        check_keys(self.glob, self.join_on, self.group_by)
        if self.trigger is not None:
            check_branch(self.trigger.branch)
            if self.trigger.branch == self.branch:
                raise BadSpec(f"a trigger cannot watch {self.branch!r}, the branch that it moves")

    def leaves(self) -> Iterator[Pfs]:
        yield self

    def names(self) -> frozenset[str]:
        return frozenset((self.name,))

    def cut(self, read: Read) -> Iterator[Row]:
        commit, listing = read(self)
        # The fields by place and looked up once: one job asks for 100,000 of these.
        name, empty_files, lazy, join_on, group_by = (
            self.name,
            self.empty_files,
            self.lazy,
            self.join_on,
            self.group_by,
        )
        for path, files, captures in cut(self.glob, listing):
            keys = (expand(join_on, captures), expand(group_by, captures)) if join_on or group_by else ("", "")
            yield (InputFiles(name, commit, path, files, empty_files, lazy, *keys),)

    def describe(self) -> str:
        return f"{git_branch(self.repo, self.branch)}:{self.glob}"

    def to_dict(self) -> dict[str, Any]:
        always = ("name", "repo", "branch", "glob")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["trigger"] = self.trigger and self.trigger.to_dict()
        return {self.kind: {k: v for k, v in values.items() if k in always or v}}


def check_input_name(name: str) -> str:
    """Return `name` if ``/pfs/<name>`` can be an input's folder.

    Raises:
        BadSpec: it is the output's folder.
        BadName: it has characters that it cannot have.
    """
    if name == OUT:
        raise BadSpec("an input cannot be named 'out', which is where the output goes; give it another \"name\"")
    return check_name("input", name)


def check_branch(branch: str) -> str:
    """Return `branch` if git could carry it, else raise BadSpec."""
    if not BRANCH.match(branch) or ".." in branch or branch.endswith((".", ".lock")):
        raise BadSpec(f"branch name {branch!r}: use letters, digits, '_', '-', '.' and '/'")
    return branch


def check_keys(glob: str, *keys: str) -> None:
    """Raise BadSpec where `glob` makes no sense or one of `keys` refers to a group that it does not have."""
    groups = 0 if glob == "/" else Glob(glob).groups
    for key in keys:
        for number in _references(key):
            if not 1 <= number <= groups:
                count = f"{groups} group{'' if groups == 1 else 's'}"
                raise BadSpec(f"{key!r} refers to ${number}, but glob {glob!r} has {count} in round brackets")


def expand(key: str, captures: tuple[str, ...]) -> str:
    """`key` with ``$1``, ``${1}`` … replaced by what the glob's groups captured."""
    return key and REFERENCE.sub(lambda found: captures[int(found.group(1) or found.group(2)) - 1], key)


def _references(key: str) -> Iterator[int]:
    for found in REFERENCE.finditer(key):
        yield int(found.group(1) or found.group(2))
