"""A quick look at a repository, for shell completion: names of repos, branches, pipelines, paths, jobs.

Somebody waits at the keyboard, so what takes long to load is not used, nor GitPython, which is why git is started here
as well.  Nothing is written, nothing fetched, nothing checked; what cannot be read is simply not there, and the command
that is being typed will say why.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gitpipe.blobs.pointers import read_pointer
from gitpipe.commit import DEFAULT_BRANCH, SPEC_BRANCH, git_branch, repo_of
from gitpipe.errors import GitpipeError
from gitpipe.nudges import state_dir

SECONDS = 2.0  # for git: whoever waits longer has pressed another key
HEADS = "refs/heads/"
OPEN = "refs/gitpipe-local/open/"
HEX = re.compile(r"[0-9a-f]{4,64}\Z")
# As gitpipe and DVC write a pointer to a folder; PyYAML, which reads all others, takes 25 ms to load.
PLAIN = re.compile(
    rb"outs:\n- md5: ([0-9a-f]{32}\.dir)\n(?:  size: \d+\n)?(?:  nfiles: \d+\n)?  hash: md5\n  path: (\w+)\n\Z"
)
# A shell may stand in a hook's environment; as everywhere in gitpipe, the folder says which repository is meant.
FORGET = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
# Where a clone is partial, git would fetch what is asked for.
QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}


class Glance:
    """The repository that folder `where` lies in; every answer is empty where there is none."""

    def __init__(self, where: Path) -> None:
        self.where = where

    # -- names -------------------------------------------------------------------------------------------------------

    def repos(self) -> list[str]:
        """All repos: branches that hold data, and what pipelines read or write."""
        found = {name for name, _ in self._inputs()} | set(self.pipelines())
        plain = [name for name in self._heads if "@" not in name and name != SPEC_BRANCH]
        held = self._objects([f"{HEADS}{name}:data.dvc" for name in plain])
        found |= {name for name, pointer in zip(plain, held, strict=True) if pointer is not None}
        return sorted(found)

    def branches(self, repo: str) -> list[str]:
        """The branches of a repo, ``master`` first."""
        mine = [repo_of(name)[1] for name in self._heads if repo_of(name)[0] == repo]
        return sorted(mine, key=lambda branch: (branch != DEFAULT_BRANCH, branch))

    def pipelines(self) -> list[str]:
        """All pipelines."""
        return sorted(self._pipelines)

    def commits(self, repo: str, limit: int = 20) -> Iterator[tuple[str, str]]:
        """(sha, subject) of the newest commits of a repo, its open ones first."""
        shape = "--format=%(refname:lstrip=3)%09%(contents:trailers:key=Branch,valueonly=true)"
        for line in self._lines("for-each-ref", shape, OPEN.rstrip("/")):
            oid, _, branch = line.partition("\t")
            if branch and repo_of(branch)[0] == repo:
                yield oid, "open"
        refs = [HEADS + git_branch(repo, branch) for branch in self.branches(repo)]
        if refs:
            for line in self._lines("log", "-n", str(limit), "--format=%H%x09%s", *refs, "--"):
                sha, _, subject = line.partition("\t")
                yield sha, subject

    def jobs(self, start: str = "", limit: int = 50) -> list[tuple[str, str, str]]:
        """(id, pipeline, state) of the newest jobs whose id begins with `start`."""
        query = "SELECT id, pipeline, state FROM jobs WHERE id > ?1 AND id < ?1 || 'g' ORDER BY seq DESC LIMIT ?2"
        return [(oid, pipeline, state) for oid, pipeline, state in self._rows(query, start, limit)]

    def datums(self, of: str = "", start: str = "", limit: int = 100) -> list[tuple[str, str]]:
        """(id, pipeline) of datums whose id begins with `start`: of a job, by its first digits, a pipeline, or all."""
        meant = "SELECT seq, pipeline FROM jobs WHERE ?1 = '' OR pipeline = ?1 OR substr(id, 1, length(?1)) = ?1"
        query = (
            f"WITH meant AS ({meant}) "
            "SELECT datum, pipeline FROM runs JOIN meant USING (seq) WHERE datum > ?2 AND datum < ?2 || 'g' UNION "
            "SELECT datum, pipeline FROM datums WHERE pipeline IN (SELECT pipeline FROM meant) "
            "AND datum > ?2 AND datum < ?2 || 'g' LIMIT ?3"
        )
        return [(oid, pipeline) for oid, pipeline in self._rows(query, of, start, limit)]

    def _rows(self, query: str, *values: str | int) -> list[tuple[str, ...]]:
        """What the journal answers; nothing where there is none."""
        import sqlite3

        path = state_dir(self._common) / "journal.sqlite" if self._common else None
        if path is None or not path.is_file():
            return []
        # A journal that nobody has open would get files of SQLite's own beside it, but for `immutable`.
        mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
            return [tuple(map(str, row)) for row in db.execute(query, values)]

    # -- files -------------------------------------------------------------------------------------------------------

    def is_revision(self, repo: str, word: str) -> bool:
        """Whether `word` names a branch of `repo`, or looks like a commit."""
        return word in self.branches(repo) or bool(HEX.match(word.partition("~")[0].partition("^")[0]))

    def paths(self, repo: str, word: str = DEFAULT_BRANCH, start: str = "") -> list[str]:
        """The files at a branch or commit of a repo, where their listing is on this machine.

        Args:
            start: only those that begin so are needed; others may be among the answer.
        """
        if word in self.branches(repo):
            rev = HEADS + git_branch(repo, word)
        else:
            rev = next((sha for sha, about in self.commits(repo) if about == "open" and sha == word), "")
            rev = OPEN + rev if rev else word
        if rev.startswith("-"):
            return []
        found: list[str] = []
        pointers: list[tuple[str, str]] = []
        for record in self._git("ls-tree", "-r", "-z", rev, "--", "data", "data.dvc").split(b"\0"):
            entry, _, name = record.decode("utf-8", "replace").partition("\t")
            sha = entry.rpartition(" ")[2]
            if name == "data.dvc":
                pointers.append((sha, ""))
            elif name.endswith(".dvc"):
                pointers.append((sha, name.removeprefix("data/").rpartition("/")[0]))
            elif name and not name.endswith(".gitignore"):
                found.append(name.removeprefix("data/"))
        texts = self._objects([sha for sha, _ in pointers])
        for (_, folder), text in zip(pointers, texts, strict=True):
            with contextlib.suppress(GitpipeError):
                found += self._tracked(text or b"", folder, start)
        return found

    def _tracked(self, pointer: bytes, folder: str, start: str) -> Iterator[str]:
        """The paths below ``data`` that one ``.dvc`` file, which lies in `folder` below it, points to."""
        plain = PLAIN.match(pointer)
        outs = [(plain[2].decode(), plain[1].decode())] if plain else [(o.path, o.md5) for o in read_pointer(pointer)]
        for path, md5 in outs:
            base = f"{folder}/{path}".strip("/") if folder or path != "data" else ""
            if not md5.endswith(".dir"):
                yield base
                continue
            listing = self._cache / "files" / "md5" / md5[:2] / md5[2:]
            with contextlib.suppress(OSError, ValueError):
                for path in _listed(listing.read_bytes(), "" if base else start):
                    yield f"{base}/{path}".lstrip("/")

    # -- what git says -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def _heads(self) -> list[str]:
        return [
            ref.removeprefix(HEADS) for ref in self._lines("for-each-ref", "--format=%(refname)", HEADS.rstrip("/"))
        ]

    @functools.cached_property
    def _pipelines(self) -> list[str]:
        if SPEC_BRANCH not in self._heads:
            return []
        names = self._git("ls-tree", "-d", "-z", "--name-only", HEADS + SPEC_BRANCH).decode("utf-8", "replace")
        return [name for name in names.split("\0") if name and not name.startswith(".")]

    def _inputs(self) -> Iterator[tuple[str, str]]:
        """(repo, branch) of all that pipelines read."""
        for text in self._objects([f"{HEADS}{SPEC_BRANCH}:{name}/spec.json" for name in self._pipelines]):
            with contextlib.suppress(ValueError, AttributeError):
                yield from _leaves(json.loads(text or b"{}").get("input"))

    @functools.cached_property
    def _common(self) -> Path | None:
        said = os.fsdecode(self._git("rev-parse", "--git-common-dir").rstrip(b"\n"))
        return self.where / said if said else None

    @functools.cached_property
    def _cache(self) -> Path:
        said = os.fsdecode(self._git("config", "--get", "gitpipe.cache").rstrip(b"\n"))
        return Path(said) if said else (self._common or self.where) / "dvc" / "cache"

    def _objects(self, names: Sequence[str]) -> list[bytes | None]:
        """The contents of git objects; None for one that is not there.  Names with a line break are not there."""
        if not names:
            return []
        asked = "".join(f"{name if name.isprintable() else '-'}\n" for name in names)
        out = self._git("cat-file", "--batch", stdin=asked.encode("utf-8", "surrogateescape"))
        found: list[bytes | None] = []
        at = 0
        for _ in names:
            end = out.find(b"\n", at)
            head = out[at:end].split() if end >= 0 else []
            at = end + 1
            if len(head) == 3 and head[2].isdigit():
                size = int(head[2])
                found.append(out[at : at + size])
                at += size + 1
            else:
                found.append(None)
        return found

    def _lines(self, *args: str) -> list[str]:
        return self._git(*args).decode("utf-8", "replace").splitlines()

    def _git(self, *args: str, stdin: bytes = b"") -> bytes:
        """What one git command prints; nothing where it fails."""
        kept = {name: value for name, value in os.environ.items() if name not in FORGET}
        try:
            done = subprocess.run(
                ["git", *args],
                cwd=self.where,
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**kept, **QUIET},
                timeout=SECONDS,
            )
        except (OSError, subprocess.SubprocessError):
            return b""
        return done.stdout if done.returncode == 0 else b""


def _listed(listing: bytes, start: str) -> Iterator[str]:
    """The paths of a ``.dir`` object that begin with `start`, found in the text: 100,000 entries parse in 0.3 s."""
    wanted = re.escape(json.dumps(start)[1:-1].encode())
    for text in re.findall(rb'"relpath": "(%s(?:[^"\\]|\\.)*)"' % wanted, listing):
        yield json.loads(b'"%s"' % text) if b"\\" in text else text.decode("utf-8", "replace")


def _leaves(form: Any) -> Iterator[tuple[str, str]]:
    """(repo, branch) of the leaves of an input as a spec records it."""
    for kind, body in form.items() if isinstance(form, dict) else ():
        if kind == "pfs":
            yield str(body["repo"]), str(body.get("branch", DEFAULT_BRANCH))
        elif kind == "cron":
            yield str(body["repo"]), DEFAULT_BRANCH
        for inner in body if isinstance(body, list) else ():
            yield from _leaves(inner)
