"""What should not get into a commit that a person makes: judged before git makes it.

A commit on the output of a pipeline, files that belong to DVC and not into git, and a message that passes for one of
gitpipe's own.  Each judge returns lines for the person, none where all is well, and changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gitpipe.datatree import DATA, POINTER
from gitpipe.errors import GitpipeError, UsageError
from gitpipe.pipelines import PipelineStore
from gitpipe.provenance import trailers
from gitpipe.repo import HEADS, Repo

MAX_SIZE = 10_000_000
MODEL_SIZE = 1_000_000
# Files that programs write, and that git can neither merge nor show: these are a mistake at a smaller size.
# fmt: off
MODEL_ENDINGS = (
    ".ckpt", ".feather", ".gguf", ".h5", ".hdf5", ".joblib",
    ".keras", ".mlmodel", ".model", ".npy", ".npz", ".onnx", ".parquet", ".pb", ".pickle", ".pkl", ".pt",
    ".pth", ".rdata", ".rds", ".safetensors", ".tflite",
)
# fmt: on
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# Values as gitpipe writes them; `Job: 4711` in a message says nothing to it, and `Provenance:` is never a person's.
_OWN = re.compile(r"(?:provenance:.*|pipeline:\s*\S+@[0-9a-f]{40,64}|job:\s*[0-9a-f]{32})\s*\Z", re.IGNORECASE)
_SCISSORS = re.compile(r"^\S+ -{24} >8 -{24}$", re.MULTILINE)
_GITHEAD = re.compile(r"GITHEAD_([0-9a-f]{40,64})\Z")


@dataclass(frozen=True, slots=True)
class Change:
    """A file as a commit would have it: its path, git's id of the content."""

    path: str
    sha: str


def parse_size(text: str) -> int:
    """``10MB``, ``512KiB``, ``1000`` -> bytes.

    Raises:
        UsageError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise UsageError(f"--max-size={text}: expected a size such as 10MB or 512KiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def output_branch(repo: Repo, store: PipelineStore) -> list[str]:
    """Whether the branch that is checked out is the output of a pipeline."""
    ref = repo.head_ref()
    branch = ref.removeprefix(HEADS) if ref else ""
    if not branch or branch not in store.owners(store.head()):
        return []
    return [
        f"{branch} is the output of a pipeline: commits there are made by gitpipe "
        "(git switch to another branch; --no-verify overrides)"
    ]


def staged(repo: Repo, index: Mapping[str, str], since: tuple[str, str] | None = None) -> list[Change]:
    """The files that the commit would add or change; of a merge, those that neither side has so.

    Args:
        index: ``{"GIT_INDEX_FILE": …}`` where git's own hook was told of another index, else empty.
        since: judge what came between these two commits instead.
    """
    what = [f"{since[0]}...{since[1]}"] if since else ["--cached"]
    listed = repo.git("diff", *what, "--raw", "-z", "--no-renames", "--no-abbrev", "--diff-filter=AMT", env=index)
    words = listed.split("\0")
    found = [Change(path, word.split(" ")[3]) for word, path in zip(words[::2], words[1::2], strict=False)]
    for other in () if since else _merged(repo):
        found = [each for each in found if (entry := repo.entry(other, each.path)) is None or entry.sha != each.sha]
    return found


def _merged(repo: Repo) -> Iterator[str]:
    """The commits that are being merged.  git tells `pre-merge-commit` of them in its environment only."""
    path = repo.git_dir / "MERGE_HEAD"
    named = path.read_text().split() if path.is_file() else []
    yield from dict.fromkeys([*named, *(m[1] for name in os.environ if (m := _GITHEAD.match(name)))])


def unfit_for_git(
    repo: Repo, changes: Collection[Change], index: Mapping[str, str], max_size: int = MAX_SIZE
) -> list[str]:
    """Files that would go into git itself and belong to DVC: too large, models, or below ``data/`` of a data repo.

    Args:
        max_size: bytes; models (by the ending of the name) may have a megabyte at most.
    """
    data_repo = bool(repo.git("ls-files", "--", POINTER, env=index))
    lines = []
    for change, size in _sizes(repo, changes):
        name = change.path.rpartition("/")[2].lower()
        limit = min(max_size, MODEL_SIZE) if name.endswith(MODEL_ENDINGS) else max_size
        in_data = change.path.startswith(f"{DATA}/") and not name.endswith((".dvc", ".gitignore"))
        if data_repo and in_data:
            lines.append(
                f"{change.path} is data, which DVC keeps on this branch, and would go into git itself: "
                f"`git rm --cached {change.path}`, then `gitpipe add {DATA}`"
            )
        elif size > limit:
            lines.append(
                f"{change.path} has {_megabytes(size)}, and {_megabytes(limit)} is the limit for a file in git: "
                f"`git rm --cached {change.path}`, then `dvc add` it or put it into a data repo"
            )
    return lines


def _sizes(repo: Repo, changes: Collection[Change]) -> Iterator[tuple[Change, int]]:
    if not changes:
        return
    stdin = "".join(f"{change.sha}\n" for change in changes).encode()
    said = repo.git("cat-file", "--batch-check=%(objecttype) %(objectsize)", stdin=stdin)
    for change, line in zip(changes, said.splitlines(), strict=True):
        kind, _, size = line.partition(" ")
        if kind == "blob":  # a submodule's commit is not here
            yield change, int(size)


def _megabytes(size: int) -> str:
    return f"{size / 10**6:.1f} MB" if size >= 10**5 else f"{size} bytes"


def forged_trailers(repo: Repo, message: str) -> list[str]:
    """Whether a message ends in the trailers by which gitpipe, and everybody who asks git, know an output's origin.

    A rebase, a cherry-pick and an amend take over the message of a commit that is there: no claim of theirs is new.

    Args:
        message: the text as the editor left it, with git's comments.
    """
    cut = _SCISSORS.search(message)
    found = _claims(
        repo, repo.git("stripspace", "--strip-comments", stdin=_bytes(message[: cut.start() if cut else None]))
    )
    if not found or any((repo.git_dir / name).is_dir() for name in ("rebase-merge", "rebase-apply")):
        return []
    for other in ("CHERRY_PICK_HEAD", "HEAD"):
        if (sha := repo.resolve(other)) and _claims(repo, repo.commit(sha).message) == found:
            return []
    return [
        f"the message ends in {found[0][:60]!r}, by which gitpipe marks the outputs of pipelines: "
        "take that line out (--no-verify overrides)"
    ]


def _claims(repo: Repo, text: str) -> list[str]:
    """Those of the trailers of a message that gitpipe alone writes."""
    own = [f"{key}: {value}" for key, values in trailers(text).items() for value in values]
    # git is laxer about where trailers begin: some other lines may stand among them.
    gits = repo.git("interpret-trailers", "--parse", "--no-divider", stdin=_bytes(text)).splitlines()
    return [line for line in dict.fromkeys([*own, *gits]) if _OWN.match(line)]


def read_message(path: Path) -> str:
    """The message that git is about to use.

    Raises:
        GitpipeError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise GitpipeError(f"cannot read the commit message {path}: {error.strerror}") from error


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
