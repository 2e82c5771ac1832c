"""What people type to say where: ``REPO [BRANCH|COMMIT] [PATH]`` or ``REPO@BRANCH:PATH``, as one value.

The second word is a branch or commit if it names one in that repo, else a path; ``master`` may be left out.  Ids of
jobs and of commits that were started here keep resolving after the commit is finished.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gitpipe.commit import DEFAULT_BRANCH, check_name, check_path, git_branch, repo_of
from gitpipe.errors import BadData, BadName, NotFound, UsageError
from gitpipe.journal import Journal
from gitpipe.provenance import read_origin, trailers
from gitpipe.repo import HEADS, Repo

OPEN = "refs/gitpipe-local/open/"
HEX = re.compile(r"[0-9a-f]{4,64}\Z")
NEW = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")  # what may become a branch
ID = re.compile(r"[0-9a-f]{32}\Z")
MAX_PART, MAX_PATH = 255, 3000
"""Bytes of a file's name on all common file systems; of a whole path, with room for the folders above ``data/``."""
SUFFIX = re.compile(r"(.+?)((?:\^\d*|~\d*)+)\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """A repo, a branch of it, a commit there (None: it has none yet), an open commit's id or "", a path or ""."""

    repo: str
    branch: str  # the git branch
    commit: str | None
    open: str
    path: str
    at_head: bool = True

    @property
    def ref(self) -> str:
        return HEADS + self.branch


class Places:
    """Resolves words against one repository."""

    def __init__(self, repo: Repo, journal: Journal) -> None:
        self.repo, self.journal = repo, journal

    def locate(self, words: Sequence[str], *, path: bool = True, known: bool = True) -> Place:
        """The place that `words` mean.

        Args:
            path: whether a path may be among them.
            known: whether the repo has to exist.

        Raises:
            NotFound: no such repo, branch or commit.
            UsageError: too many words.
            BadName: an impossible path.
        """
        if not words or not words[0]:
            raise UsageError("name a repo, e.g. `training`, `training master` or `training@master`")
        first, rest = words[0], list(words[1:])
        at, branch_word = "", ""
        head, colon, tail = first.partition(":")
        name, at, branch_word = head.partition("@")
        chosen = bool(at)
        if colon:
            rest.insert(0, tail)
        check_name("repo", name)
        if at:
            place = self._revision(name, branch_word)
            if place is None and known:
                raise _no_revision(name, branch_word)
            place = place or Place(name, git_branch(name, branch_word), None, "", "")
        elif rest and not colon and (found := self._revision(name, rest[0])) is not None:
            place, chosen = found, True
            rest.pop(0)
        else:
            place = self._revision(name, DEFAULT_BRANCH) or Place(name, name, None, "", "")
        if place.commit is None and not place.open and known:
            raise NotFound(f"repo {name} does not exist: see `gitpipe list-repo`, or `gitpipe create-repo {name}`")
        if len(rest) > (1 if path else 0):
            if not path or (len(rest) == 2 and not colon and not chosen):
                raise _no_revision(name, rest[0])
            raise UsageError(f"too many words: {' '.join(rest)!r}; expected REPO [BRANCH|COMMIT] [PATH]")
        if rest:
            return Place(place.repo, place.branch, place.commit, place.open, clean_path(rest[0]), place.at_head)
        return place

    def _revision(self, name: str, word: str) -> Place | None:
        """The branch, commit, open commit or job of repo `name` that `word` names, or None."""
        if word.startswith("-") or not word:
            return None
        branch = git_branch(name, word)
        if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", word):
            sha = self.repo.ref(HEADS + branch)
            if sha is not None:
                return Place(name, branch, sha, "", "")
        if ID.match(word) and (found := self._by_id(name, word)):
            return found
        suffixed = SUFFIX.match(word)
        if suffixed:
            below = self._revision(name, suffixed[1])
            sha = self.repo.resolve(f"{below.commit}{suffixed[2]}") if below and below.commit else None
            return Place(name, below.branch, sha, "", "", False) if below and sha else None
        if HEX.match(word):
            opened = [r for r in self.repo.refs(OPEN.rstrip("/")) if r.startswith(OPEN + word)]
            if len(opened) == 1 and (found := self._by_id(name, opened[0].removeprefix(OPEN))):
                return found
            sha = self.repo.resolve(word)
            if sha is not None:
                home = self._home(name, sha)
                if home:
                    return Place(name, home, sha, "", "", False)
        return None

    def _home(self, name: str, sha: str) -> str | None:
        """The git branch of repo `name` that a commit belongs to (it may have been amended away since)."""
        origin = read_origin(self.repo.commit(sha).message)
        if origin.pipeline == name:
            return self._written_to(name, sha)
        refs = self.repo.git("for-each-ref", "--format=%(refname)", f"--contains={sha}", "refs/heads").split()
        mine = [r.removeprefix(HEADS) for r in refs if r == HEADS + name or r.startswith(f"{HEADS}{name}@")]
        if mine:
            return mine[0]
        # Amended, rebased or reset away: it is of this repo if its branch was once there, or a result was made from it.
        for ref in self.repo.refs("refs/heads"):
            if repo_of(ref.removeprefix(HEADS))[0] == name and self.repo.reflog_says(ref, sha) is not None:
                return ref.removeprefix(HEADS)
        # Of whichever branch of the repo: that may be gone since, and its reflog with it.
        wanted = f"^Provenance: ({name}(@[^@]+)?)@{sha}$"
        made = self.repo.git("log", "-n", "1", "--branches", "-E", f"--grep={wanted}", "--format=%B")
        named = re.search(wanted, made, re.MULTILINE)
        return named[1] if named else None

    def _written_to(self, name: str, sha: str) -> str:
        """The branch that an output commit of pipeline `name` was made for, as its own record says."""
        entry = self.repo.entry(sha, ".gitpipe/job.json")
        try:
            spec = json.loads(self.repo.blob(entry.sha))["spec"] if entry else {}
            return git_branch(name, str(spec.get("output_branch") or DEFAULT_BRANCH))
        except (ValueError, KeyError, TypeError, AttributeError):
            return name

    def _by_id(self, name: str, word: str) -> Place | None:
        held = self.repo.ref(OPEN + word)
        if held:
            found = trailers(self.repo.commit(held).message)
            branch = found.get("Branch", [name])[0]
            if branch == name or branch.startswith(f"{name}@"):
                return Place(name, branch, held, word, "", False)
            return None
        for job in self.journal.jobs("id = ? AND pipeline = ? AND output IS NOT NULL", [word, name]):
            return Place(name, self._written_to(name, job.output or ""), job.output, "", "", False)
        for branch, sha in self.repo.refs("refs/heads").items():
            if repo_of(branch.removeprefix(HEADS))[0] != name:
                continue
            for key in ("Commit-Id", "Job"):
                found_sha = self.repo.git("log", "-n", "1", "--format=%H", f"--grep=^{key}: {word}$", sha, "--").strip()
                if found_sha:
                    return Place(name, branch.removeprefix(HEADS), found_sha, "", "", False)
        return None


def _no_revision(name: str, word: str) -> NotFound:
    """The next step is to make the branch, as Pachyderm does by itself, unless the word was to be a commit's id."""
    make = f", or `gitpipe create-branch {name} {word}`" if NEW.match(word) and not HEX.match(word) else ""
    return NotFound(f"{name} has no branch or commit {word!r}: see `gitpipe list-commit {name}`{make}")


def clean_path(path: str) -> str:
    """A typed path as it stands in listings: no leading or trailing slash; ``/`` and ``.`` are "" (all).

    Raises:
        BadName: it leads out of the repo or cannot be stored.
    """
    stripped = path.strip("/")
    while stripped.startswith("./"):
        stripped = stripped[2:].lstrip("/")
    if stripped in ("", "."):
        return ""
    try:
        check_path(stripped)
        parts = stripped.encode("utf-8").split(b"/")
    except (BadData, UnicodeEncodeError) as error:
        raise BadName(f"bad path {path!r}: it must be relative, without '..' or '.git', and UTF-8") from error
    # Else the repo could be put into, but never be checked out.
    if max(map(len, parts)) > MAX_PART or len(stripped) > MAX_PATH:
        raise BadName(f"bad path {path[:40]!r}…: file systems take {MAX_PART} bytes a name, and {MAX_PATH} in all")
    return stripped
