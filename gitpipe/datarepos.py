"""Data repos without a checkout: create them, put and get files, open and finish commits, list and inspect.

A repo is a git branch.  Knows nothing of pipelines but which branches they own, and nothing of jobs.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gitpipe.blobs.dvc import DvcStore
from gitpipe.checkout import Checkouts
from gitpipe.commit import SPEC_BRANCH, CommitRef, Listing, check_name, files_below, folder_clash, repo_of
from gitpipe.datatree import POINTER, data_key, data_size, read_listing, write_tree
from gitpipe.errors import BadData, BadName, GitpipeError, NotFound, Refused, UsageError
from gitpipe.globs import cut
from gitpipe.graph import sources
from gitpipe.journal import Journal
from gitpipe.pipelines import PipelineStore
from gitpipe.places import OPEN, Place, Places, clean_path
from gitpipe.provenance import Origin, made_for, read_origin, trailers
from gitpipe.repo import HEADS, Commit, RefUpdate, Repo
from gitpipe.scratch import scratch_folder
from gitpipe.views import CommitInfo, FileDetails, FileInfo, RepoInfo

RESERVED = (SPEC_BRANCH, "HEAD")
"""Branches of these names would be taken for something else, by gitpipe or by git."""

MAX_LIST = 64 << 20
"""Bytes of a list of sources (`put-file -i`)."""

Progress = Callable[[int, int], None]
"""Called as (files done, files in all)."""


class DataRepos:
    """The data repos of one git repository."""

    def __init__(
        self,
        repo: Repo,
        blobs: DvcStore,
        journal: Journal,
        pipelines: PipelineStore,
        checkouts: Checkouts,
        nudge: Callable[[], None],
    ) -> None:
        self.repo, self.blobs, self.journal, self.pipelines = repo, blobs, journal, pipelines
        self.checkouts, self.nudge = checkouts, nudge
        self.places = Places(repo, journal)

    # -- repos -------------------------------------------------------------------------------------------------------

    def create_repo(self, name: str, description: str = "") -> None:
        """Make a branch that holds no files yet.

        Raises:
            Refused: a branch or pipeline of that name exists.
        """
        check_name("repo", name)
        if name in RESERVED:
            raise BadName(f"repo name {name!r} is reserved: choose another name")
        self.refuse_output([name], "choose another name")
        if self.repo.ref(HEADS + name):
            what = "repo" if self._is_repo(name) else "branch"
            raise Refused(f"{what} {name} exists already: see `gitpipe list-repo`")
        tree = write_tree(self.repo, self.blobs, {}, config=self.pipelines.branch_config())
        text = " ".join(description.split())
        message = f"create-repo {name}" + (f"\n\n{text}" if text else "")
        commit = self.repo.write_commit(tree, [], message, self.repo.user())
        self._sync()
        if not self.repo.update_refs([RefUpdate(HEADS + name, commit, None)], f"gitpipe: create-repo {name}"):
            raise Refused(f"branch {name} exists already, or a branch below {name}/: choose another name")

    def delete_repo(self, name: str, force: bool = False) -> None:
        """Delete a repo with all its branches; commits that some result was made from are kept (I8).

        Raises:
            Refused: a pipeline reads or owns it, or it is checked out, or the branch is no data repo.
        """
        self.refuse_output([name], f"`gitpipe delete-pipeline {name}`")
        place = self.locate([name], path=False)
        readers = self.readers(name)
        if readers and not force:
            raise Refused(f"{name} is read by pipeline {', '.join(readers)}: delete that first, or use -f")
        if name == SPEC_BRANCH:
            raise Refused(f"{name} holds the pipelines: `gitpipe delete-pipeline NAME` deletes one")
        if not self._is_repo(name):
            raise Refused(f"branch {name} is not a data repo: if you want to be rid of it, `git branch -D {name}`")
        heads = self.repo.refs(HEADS + place.branch)
        mine = {r: s for r, s in self.repo.refs("refs/heads").items() if repo_of(r.removeprefix(HEADS))[0] == name}
        for tree in self.repo.worktrees():
            if tree.ref in mine:
                raise Refused(f"{name} is checked out in {tree.top}: switch to another branch there first")
        moves = [RefUpdate(ref, None, sha) for ref, sha in {**heads, **mine}.items()]
        moves += [move for ref in mine for move in self.drop_open(ref.removeprefix(HEADS))]
        head = self.pipelines.head()
        triggers = dict.fromkeys(b for b in self.pipelines.set_triggers(head) if repo_of(b)[0] == name)
        if triggers:
            who = self.repo.user()
            self.pipelines.put({}, {}, f"delete-repo {name}", who, expect=head, triggers=triggers, also=moves)
        elif not self.repo.update_refs(moves, f"gitpipe: delete-repo {name}"):
            raise Refused(f"{name} was changed by somebody else just now: run the command again")
        self.nudge()

    def list_repo(self) -> list[RepoInfo]:
        """All repos, newest first."""
        heads = self.repo.refs("refs/heads")
        found = [self._main(name, heads) for name in self._repo_branches(heads)]
        return sorted(found, key=lambda r: (-r.created, r.name))

    def names(self) -> list[str]:
        """The names of all repos, sorted."""
        return self._repo_branches(self.repo.refs("refs/heads"))

    def inspect_repo(self, name: str) -> RepoInfo:
        """One repo."""
        if self.is_output(name) and self.repo.ref(HEADS + name) is None:
            return self._main(name, self.repo.refs("refs/heads"))  # as in the list
        place = self.locate([name], path=False)
        if not self._is_repo(place.repo):
            raise NotFound(f"branch {name} is not a data repo: see `gitpipe list-repo`")
        return self._info(place.branch, place.commit)

    def _repo_branches(self, heads: Mapping[str, str]) -> list[str]:
        pipelines = self.pipelines.all(self.pipelines.head())
        read = sources({n: p.spec for n, p in pipelines.items()})
        named = {repo_of(b)[0] for b in read} | set(pipelines)
        for ref, sha in heads.items():
            branch = ref.removeprefix(HEADS)
            if "@" not in branch and branch != SPEC_BRANCH and POINTER in self.repo.tree(sha):
                named.add(branch)
        return sorted(n for n in named if HEADS + n in heads or n in pipelines)

    def _is_repo(self, name: str) -> bool:
        return name in self._repo_branches(self.repo.refs("refs/heads"))

    def _main(self, name: str, heads: Mapping[str, str]) -> RepoInfo:
        """A repo by its master, or where it has none by what its pipeline writes (nothing yet, maybe)."""
        branch = name if HEADS + name in heads else self._output(name) or name
        return self._info(branch, heads.get(HEADS + branch))

    def _output(self, name: str) -> str | None:
        """The branch that the pipeline of that name writes; None where there is none."""
        owned = self.pipelines.owners(self.pipelines.head())
        return next((branch for branch, owner in owned.items() if owner == name), None)

    def _info(self, branch: str, head: str | None) -> RepoInfo:
        pipelines = self.pipelines.versions(self.pipelines.head())
        name = repo_of(branch)[0]
        if head is None:
            return RepoInfo(name, branch, self.pipelines.created(name), 0, 0, "", name in pipelines)
        root = self.repo.git("rev-list", "--first-parent", "--reverse", head, "--").split("\n", 1)[0]
        size, files = data_size(self.repo, self.blobs, head)
        return RepoInfo(name, branch, self._created(branch, root), size, files, head, name in pipelines)

    def _created(self, branch: str, root: str) -> float:
        """The root commit's date; an output branch's is reproducible, so the moment of its first job tells more."""
        for job in self.journal.jobs("output = ? AND started IS NOT NULL", [root]):
            return float(job.started or 0)
        return float(self.repo.commit(root).time)

    # -- files in ----------------------------------------------------------------------------------------------------

    def put_file(
        self,
        words: Sequence[str],
        sources: Sequence[str],
        *,
        recursive: bool = False,
        append: bool = False,
        from_list: str | None = None,
        message: str | None = None,
        stdin: BinaryIO | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Put files into the branch or the open commit that `words` name; the new commit's sha.

        Raises:
            Refused: the repo is a pipeline's output, or is checked out with uncommitted changes.
            NotFound: a source does not exist.
        """
        place = self._writable(words)
        todo = list(sources) + (_lines_of(from_list) if from_list is not None else [])
        if not todo:
            raise UsageError("put-file: name what to put with -f FILE (or -f - for standard input)")
        if todo.count("-") and (not place.path or words[-1].endswith("/")):
            raise UsageError("put-file: data from standard input needs a path, e.g. `put-file training iris.csv -f -`")
        with scratch_folder(Path(tempfile.gettempdir()), "gitpipe-put-") as scratch:
            # A slash at the end names a folder to put into, as with cp.
            target = place.path + ("/" if words[-1].endswith("/") else "")
            pairs = list(self._sources(target, todo, recursive, scratch, stdin))
            put: Listing = {}
            for done, (path, file) in enumerate(pairs):
                put[path] = self.blobs.put_file(file)[0]
                if progress:
                    progress(done + 1, len(pairs))
        what = next(iter(put)) if len(put) == 1 else f"{len(put)} files"
        subject = message or " ".join(f"put-file {what}".split())
        return self._put(place, put, subject, append=append)

    def _appended(self, place: Place, listing: Listing, put: Listing) -> Listing:
        """`put`, each file behind what `listing` has of it: as it is now, after whoever was faster."""
        self._here(place, {path: listing[path] for path in put if path in listing})
        return {
            path: self.blobs.put_bytes(self.blobs.read(listing[path]) + self.blobs.read(md5))
            if path in listing
            else md5
            for path, md5 in put.items()
        }

    def _sources(
        self, target: str, names: Sequence[str], recursive: bool, scratch: Path, stdin: BinaryIO | None
    ) -> Iterator[tuple[str, Path]]:
        """(path in the repo, file to read) of all that is put; `target` ends in "/" for a folder, "" is none named."""
        several = len(names) > 1
        for number, name in enumerate(names):
            if name == "-":
                copy = scratch / str(number)
                with copy.open("wb") as sink:
                    shutil.copyfileobj(stdin or sys.stdin.buffer, sink)
                yield target, copy
                continue
            if "://" in name:
                yield _joined(target, _base(name), several), _download(name, scratch / str(number))
                continue
            path = Path(name)
            if path.is_dir():
                if not recursive:
                    raise UsageError(f"{name} is a folder: put-file -r takes it with all its files")
                base = target.strip("/") if target else ("" if path.name in ("", "..") else path.name)
                yield from self._folder(path, f"{base}/{path.name}" if several and base else base)
            elif path.is_file():
                yield _joined(target, path.name, several), path
            elif path.exists():
                raise BadData(f"{name} is neither a file nor a folder: gitpipe stores regular files only")
            else:
                raise NotFound(f"{name} does not exist: nothing was put")

    def _folder(self, folder: Path, base: str) -> Iterator[tuple[str, Path]]:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder).as_posix()
            if ".git" in relative.split("/") or path.is_dir():
                continue
            if not path.is_file():
                raise BadData(f"{path} is neither a file nor a folder: gitpipe stores regular files only")
            yield clean_path(f"{base}/{relative}"), path

    def delete_file(self, words: Sequence[str], message: str | None = None) -> str:
        """Delete a file, or a folder with all its files; the new commit's sha."""
        place = self._writable(words)
        if not place.path:
            raise UsageError("delete-file: name the file, e.g. `delete-file training iris.csv`")

        def change(listing: Listing) -> Listing:
            inside = f"{place.path}/"
            left = {p: m for p, m in listing.items() if p != place.path and not p.startswith(inside)}
            if len(left) == len(listing):
                raise NotFound(f"{place.repo} has no file {place.path}: see `gitpipe list-file {place.repo}`")
            return left

        return self._change(place, change, message or " ".join(f"delete-file {place.path}".split()))

    def copy_file(
        self, source: Sequence[str], target: Sequence[str], *, append: bool = False, message: str | None = None
    ) -> str:
        """Copy a file, or a folder with all its files, from any commit into a repo; the new commit's sha.

        No bytes move: the same blobs are named once more.

        Raises:
            NotFound: nothing is at `source`.
            Refused: `target` is the output of a pipeline, or would be both a file and a folder.
        """
        place, listing = self._files(source)
        files = self.below(place, listing)
        to = self._writable(target)
        name = PurePosixPath(place.path).name
        inside = not to.path or target[-1].endswith("/")  # a slash at the end names a folder to copy into, as with cp
        base = f"{to.path}/{name}".strip("/") if inside else to.path
        put = {clean_path(f"{base}/{path}"): md5 for path, md5 in files.items()}
        if append:
            self._here(place, {f"{place.path}/{path}".strip("/"): md5 for path, md5 in files.items()})
        subject = message or " ".join(f"copy-file {place.repo}:{place.path or '/'} {base or '/'}".split())
        return self._put(to, put, subject, append=append)

    def _put(self, place: Place, put: Listing, subject: str, *, append: bool) -> str:
        def change(listing: Listing) -> Listing:
            merged = {**listing, **(self._appended(place, listing, put) if append else put)}
            clash = folder_clash(merged)
            if clash:
                raise Refused(f"{place.repo}: {clash} would be both a file and a folder: delete-file it first")
            return merged

        return self._change(place, change, subject)

    def locate(self, words: Sequence[str], *, path: bool = True) -> Place:
        """Where `words` lead; a pipeline that has written nothing yet is told from a repo that is not there."""
        try:
            return self.places.locate(words, path=path)
        except NotFound:
            name = _repo_word(words)
            if self.repo.ref(HEADS + name) or not self.is_output(name):
                raise
            output = self._output(name) or name
            if self.repo.ref(HEADS + output) and len(words) == 1 and "@" not in words[0]:
                where = f"{name}@{repo_of(output)[1]}"
                raise NotFound(f"{name} has no branch master: its pipeline writes {where}") from None
            raise NotFound(f"pipeline {name} has no output yet: `gitpipe wait`, or see `gitpipe status`") from None

    def check_repo(self, name: str) -> None:
        """Raises Refused where the branch `name` is no data repo."""
        if not self._is_repo(name):
            raise Refused(f"branch {name} is not a data repo: `gitpipe create-repo NAME` makes one")

    def readers(self, name: str, branch: str | None = None) -> list[str]:
        """The pipelines that read a repo, or just that branch of it."""
        specs = {n: p.spec for n, p in self.pipelines.all(self.pipelines.head()).items()}
        return sorted(
            n
            for n, spec in specs.items()
            if any(leaf.repo == name and branch in (None, leaf.branch) for leaf in spec.input.leaves())
        )

    def is_output(self, name: str) -> bool:
        """Whether `name` is a pipeline, so that the repo of that name is written by it alone."""
        return name in self.pipelines.versions(self.pipelines.head())

    def is_owned(self, branch: str) -> bool:
        """Whether a pipeline writes the git branch `branch`."""
        return branch in self.pipelines.owners(self.pipelines.head())

    def refuse_output(self, words: Sequence[str], instead: str) -> None:
        """Raises Refused where `words` name the output of a pipeline, also before there is any."""
        name = _repo_word(words)
        if self.is_output(name):
            raise Refused(f"{name} is the output of a pipeline: {instead}")

    def _writable(self, words: Sequence[str]) -> Place:
        self.refuse_output(words, "put files into one of its inputs")
        place = self.locate(words)
        self.check_repo(place.repo)
        if not place.open and not place.at_head:
            raise Refused(f"{place.repo}@{(place.commit or '')[:12]} is finished: put to the branch, or start-commit")
        if not place.open:
            opened = self._open_on(place.branch)
            if len(opened) > 1:
                raise Refused(
                    f"{place.repo} has {len(opened)} open commits: name one, see `gitpipe list-commit {place.repo}`"
                )
            if opened:
                return Place(place.repo, place.branch, opened[0][1], opened[0][0], place.path, False)
        return place

    def _change(self, place: Place, change: Callable[[Listing], Listing], subject: str) -> str:
        """Apply a change of the listing to the open commit or to the branch, again if somebody was faster."""
        for _ in range(20):
            base = self.repo.ref(OPEN + place.open) if place.open else self.repo.ref(place.ref)
            if base is None:
                raise NotFound(f"{place.repo}@{place.open or place.branch} is gone: start again")
            before = read_listing(self.repo, self.blobs, base)
            listing = change(before)
            if listing == before and not place.open:
                return base
            tree = write_tree(
                self.repo, self.blobs, dict(sorted(listing.items())), base=base, config=self.pipelines.branch_config()
            )
            if place.open:
                held = self.repo.commit(base)
                commit = self.repo.write_commit(tree, held.parents, held.message, self.repo.user())
                self._sync()
                if self.repo.update_refs([RefUpdate(OPEN + place.open, commit, base)], "gitpipe: put-file"):
                    return commit
                continue
            commit = self.repo.write_commit(tree, [base], subject, self.repo.user())
            self._sync()
            if self.checkouts.move_branch(place.ref, commit, base, f"gitpipe: {subject}", strict=True):
                self.nudge()
                return commit
        raise GitpipeError(f"branch {place.branch} keeps moving: try again when it has come to rest")

    def _sync(self) -> None:
        self.blobs.sync()
        self.repo.sync()

    # -- open commits ------------------------------------------------------------------------------------------------

    def start_commit(self, words: Sequence[str], message: str | None = None) -> str:
        """Open a commit; its provisional id, which later commands accept.  The branch moves at `finish_commit`."""
        self.refuse_output(words, "start a commit in one of its inputs")
        place = self.locate(words, path=False)
        self.check_repo(place.repo)
        if place.open or not place.at_head or place.commit is None:
            raise Refused(f"start-commit needs a branch, not a commit: `gitpipe start-commit {place.repo}`")
        commit_id = secrets.token_hex(16)
        text = f"{message or 'open commit'}\n\nCommit-Id: {commit_id}\nBranch: {place.branch}"
        held = self.repo.write_commit(self.repo.commit(place.commit).tree, [place.commit], text, self.repo.user())
        self.repo.sync()
        self.repo.update_refs([RefUpdate(OPEN + commit_id, held, None)], "gitpipe: start-commit")
        return commit_id

    def finish_commit(self, words: Sequence[str], message: str | None = None, *, force: bool = False) -> str:
        """Finish an open commit: its branch moves, by a merge of file lists if it has moved meanwhile; the sha.

        Args:
            force: where a file was changed on both sides, the open commit's counts.

        Raises:
            Refused: a file was changed on both sides, or the commit is finished already.
            NotFound: there is no open commit, or none is named and there are several.
        """
        place = self._the_open(words)
        for _ in range(20):
            sha, head = self.repo.ref(OPEN + place.open), self.repo.ref(place.ref)
            if sha is None or head is None:
                raise NotFound(f"{place.repo}@{place.open} is gone: its branch was deleted or it was finished before")
            held = self.repo.commit(sha)
            tree = held.tree if held.parents == (head,) else self._rebased(place, held, head, force)
            commit = self.repo.write_commit(tree, [head], _finished(held, message, place.open), self.repo.user())
            self._sync()
            done = [RefUpdate(OPEN + place.open, None, sha)]
            if self.checkouts.move_branch(place.ref, commit, head, "gitpipe: finish-commit", strict=True, also=done):
                self.nudge()
                return commit
        raise GitpipeError(f"branch {place.branch} keeps moving: try again when it has come to rest")

    def delete_commit(self, words: Sequence[str]) -> None:
        """Drop an open commit with what was put into it.

        Raises:
            Refused: the commit is finished: others may stand on it.
            NotFound: there is no open commit, or none is named and there are several.
        """
        place = self._the_open(words)
        sha = self.repo.ref(OPEN + place.open)
        if sha is None or not self.repo.update_refs(
            [RefUpdate(OPEN + place.open, None, sha)], "gitpipe: delete-commit"
        ):
            raise NotFound(f"{place.repo}@{place.open} is gone already, or was just put to: see `gitpipe list-commit`")

    def _the_open(self, words: Sequence[str]) -> Place:
        """The open commit that `words` name, or the only one of the branch that they name."""
        place = self.locate(words, path=False)
        if place.open:
            return place
        if not place.at_head:
            sha = (place.commit or "")[:12]
            raise Refused(f"{place.repo}@{sha} is finished already: `git revert` on its branch takes back what it did")
        opened = self._open_on(place.branch)
        if len(opened) != 1:
            what = "no open commit" if not opened else f"{len(opened)} open commits, name one"
            raise NotFound(f"{place.repo} has {what}: see `gitpipe list-commit {place.repo}`, `gitpipe start-commit`")
        return Place(place.repo, place.branch, opened[0][1], opened[0][0], "", False)

    def _rebased(self, place: Place, held: Commit, head: str, force: bool) -> str:
        base = read_listing(self.repo, self.blobs, held.parents[0])
        ours, theirs = (read_listing(self.repo, self.blobs, c) for c in (held.sha, head))
        merged = dict(theirs)
        for path in sorted({*base, *ours}):
            if ours.get(path) == base.get(path):
                continue
            if theirs.get(path) not in (base.get(path), ours.get(path)) and not force:
                raise Refused(
                    f"{place.repo}: {path} was changed on the branch too since start-commit: "
                    "finish-commit -f takes it from this commit, delete-commit drops this commit"
                )
            if path in ours:
                merged[path] = ours[path]
            else:
                merged.pop(path, None)
        return write_tree(self.repo, self.blobs, dict(sorted(merged.items())), base=head)

    def drop_open(self, branch: str) -> list[RefUpdate]:
        """The moves that take the open commits of a branch away, with it: another of its name is to begin without."""
        return [RefUpdate(OPEN + commit_id, None, sha) for commit_id, sha in self._open_on(branch)]

    def _open_on(self, branch: str) -> list[tuple[str, str]]:
        """(id, sha) of the open commits on a branch."""
        return [
            (ref.removeprefix(OPEN), sha)
            for ref, sha in self.repo.refs(OPEN).items()
            if trailers(self.repo.commit(sha).message).get("Branch") == [branch]
        ]

    # -- files out ---------------------------------------------------------------------------------------------------

    def list_file(self, words: Sequence[str]) -> list[FileInfo]:
        """The files and folders directly below a path; the file itself where the path is one."""
        place, listing = self._files(words)
        if place.path in listing:
            md5 = listing[place.path]
            return [FileInfo(place.path, "file", self.blobs.size(md5), md5)]
        inside = f"{place.path}/" if place.path else ""
        sizes: dict[str, int] = {}
        found: dict[str, FileInfo] = {}
        for path, md5 in listing.items():
            if not path.startswith(inside):
                continue
            name, slash, _ = path[len(inside) :].partition("/")
            full = inside + name
            if slash:
                sizes[full] = sizes.get(full, 0) + (self.blobs.size(md5) or 0)
                found[full] = FileInfo(full, "dir", sizes[full])
            else:
                found[full] = FileInfo(full, "file", self.blobs.size(md5), md5)
        if place.path and not found:
            raise NotFound(f"{place.repo} has no file {place.path}: see `gitpipe list-file {place.repo}`")
        return [found[name] for name in sorted(found)]

    def glob_file(self, words: Sequence[str]) -> list[FileInfo]:
        """The files and folders that a glob matches."""
        if len(words) < 2 and ":" not in "".join(words[:1]):
            raise UsageError("glob-file: name a repo and a pattern, e.g. `glob-file training '/*'`")
        first, colon, pattern = words[0].partition(":")
        place = self.locate([first] if colon else list(words[:-1]), path=False)
        pattern = pattern if colon else words[-1]
        listing = read_listing(self.repo, self.blobs, place.commit) if place.commit else {}
        found = []
        for match in cut(pattern, listing):
            path = match.path.strip("/")
            size = sum(self.blobs.size(md5) or 0 for _, md5 in match.files)
            found.append(FileInfo(path or "/", "file" if path in listing else "dir", size, listing.get(path, "")))
        return found

    def get_file(
        self, words: Sequence[str], recursive: bool = False, out: Path | None = None, sink: BinaryIO | None = None
    ) -> None:
        """Write a file to `sink` or `out`; with `recursive` a folder's files below `out`."""
        place, listing = self._files(words)
        if place.path in listing:
            self._get_one(place, listing[place.path], out, sink)
            return
        below = self.below(place, listing)
        if not recursive:
            what = place.path or "/"
            raise UsageError(f"{what} is a folder of {place.repo}: get-file -r -o FOLDER takes it with all its files")
        target = out if out is not None else Path(PurePosixPath(place.path).name or place.repo)
        self._here(place, below)
        for path, md5 in below.items():
            self._write(md5, target / path, folders=True)

    def inspect_file(self, words: Sequence[str]) -> FileDetails:
        """One file or folder of a repo (``/`` is all of it)."""
        place, listing = self._files(words)
        files = self.below(place, listing) if place.path or listing else {}
        md5 = listing.get(place.path, "")
        sizes = [self.blobs.size(each) for each in files.values()]
        return FileDetails(
            repo=place.repo,
            branch=repo_of(place.branch)[1],
            commit=place.open or place.commit or "",
            path=f"/{place.path}",
            type="file" if md5 else "dir",
            size=None if None in sizes else sum(size or 0 for size in sizes),
            md5=md5,
            files=len(files),
            here=not self.blobs.missing(files.values()),
        )

    def below(self, place: Place, listing: Listing) -> Listing:
        """The files at a place, by their path below it; a single file has the path "".

        Raises:
            NotFound: there is none.
        """
        found = files_below(listing, place.path)
        if not found:
            raise NotFound(f"{place.repo} has no file {place.path or '/'}: see `gitpipe list-file {place.repo}`")
        return found

    def _get_one(self, place: Place, md5: str, out: Path | None, sink: BinaryIO | None) -> None:
        self._here(place, {place.path: md5})
        if out is not None:
            self._write(md5, out / PurePosixPath(place.path).name if out.is_dir() else out)
            return
        with Path(self.blobs.path_of(md5)).open("rb") as source:
            shutil.copyfileobj(source, sink or sys.stdout.buffer)

    def _write(self, md5: str, file: Path, *, folders: bool = False) -> None:
        """Write whole or not at all: a name of its own first, then the right one."""
        scratch = file.with_name(f".{secrets.token_hex(8)}.part")  # not longer for a name that is as long as it may be
        try:
            if folders:
                file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists() and not file.is_file():  # /dev/null is not to become a file
                with Path(self.blobs.path_of(md5)).open("rb") as source, file.open("wb") as target:
                    shutil.copyfileobj(source, target)
                return
            shutil.copyfile(self.blobs.path_of(md5), scratch)
            scratch.replace(file)
        except OSError as error:
            raise GitpipeError(f"cannot write {file}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink()

    def _here(self, place: Place, files: Listing) -> None:
        missing = self.blobs.missing(files.values())
        if missing and (missing := self.blobs.fetch(missing)):
            path = next(p for p, m in files.items() if m == missing[0])
            raise BadData(
                f"{place.repo}:{path} is neither here nor on a remote: `dvc pull` on {place.branch}, or put it again"
            )

    def _files(self, words: Sequence[str]) -> tuple[Place, Listing]:
        place = self.locate(words)
        return place, read_listing(self.repo, self.blobs, place.commit) if place.commit else {}

    # -- commits -----------------------------------------------------------------------------------------------------

    def list_commit(self, words: Sequence[str]) -> list[CommitInfo]:
        """The commits of a repo's branch, newest first; open ones before them."""
        place = self.locate(words, path=False)
        found = [self.commit_info(place.branch, self.repo.commit(sha), i) for i, sha in self._open_on(place.branch)]
        if place.commit:
            chain = self.repo.log([place.commit], "--first-parent")
            found += [self.commit_info(place.branch, c) for c in chain if data_key(self.repo, c.tree)]
        return found

    def inspect_commit(self, words: Sequence[str]) -> CommitInfo:
        """One commit, with its provenance closure and the commits that recorded the pipelines in it."""
        place = self.locate(words, path=False)
        if place.commit is None:
            raise NotFound(f"{place.repo} has no commit yet")
        info = self.commit_info(place.branch, self.repo.commit(place.commit), place.open)
        return replace(info, specs=self._spec_commits(info))

    def _spec_commits(self, info: CommitInfo) -> tuple[CommitRef, ...]:
        versions = [info.pipeline]
        for ref in info.provenance:
            origin = read_origin(self.repo.commit(ref.sha).message)
            if made_for(ref.branch, origin):
                versions.append(f"{origin.pipeline}@{origin.version}")
        found = [self.pipelines.recorded_at(*version.split("@", 1)) for version in versions if version]
        return tuple(CommitRef(SPEC_BRANCH, sha) for sha in dict.fromkeys(found) if sha)

    def commit_info(self, branch: str, commit: Commit, open_id: str = "") -> CommitInfo:
        """A commit as commands show it; when its job ran is in the journal, as the commit is reproducible (I4)."""
        origin = read_origin(commit.message)
        if not made_for(branch, origin):
            origin = Origin()  # made by a person, who cherry-picked an output commit's message
        started, finished = float(commit.author_time), float(commit.time)
        for job in self.journal.jobs("output = ? AND started IS NOT NULL", [commit.sha]) if origin.job else ():
            started, finished = float(job.started or started), float(job.finished or finished)
        name, rest = repo_of(branch)
        return CommitInfo(
            repo=name,
            branch=rest,
            sha=open_id or commit.sha,
            parent=commit.parents[0] if commit.parents else None,
            started=started,
            finished=None if open_id else finished,
            size=data_size(self.repo, self.blobs, commit.sha)[0],
            subject=commit.subject,
            author=commit.author,
            job=origin.job,
            pipeline=f"{origin.pipeline}@{origin.version}" if origin.pipeline else "",
            provenance=origin.provenance,
        )


def _repo_word(words: Sequence[str]) -> str:
    """The repo's name in ``REPO@BRANCH:PATH``."""
    return words[0].partition(":")[0].partition("@")[0] if words else ""


def _finished(held: Commit, message: str | None, commit_id: str) -> str:
    subject = message or (held.subject if held.subject != "open commit" else "finish-commit")
    return f"{subject}\n\nCommit-Id: {commit_id}"


def _joined(target: str, name: str, several: bool) -> str:
    folder = target.rstrip("/")
    return clean_path(f"{folder}/{name}".lstrip("/")) if several or folder != target or not target else target


def _base(url: str) -> str:
    name = PurePosixPath(url.split("?", 1)[0].split("://", 1)[1]).name
    if not name:
        raise UsageError(f"{url}: name the path to put it to, e.g. `put-file training iris.csv -f {url}`")
    return name


def _download(url: str, target: Path) -> Path:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: put-file takes files, folders, '-', http:// and https://")
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=60) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    except (URLError, OSError, ValueError) as error:
        why = error if isinstance(error, HTTPError) else getattr(error, "reason", None) or error
        raise NotFound(f"cannot read {url}: {getattr(why, 'strerror', None) or why}") from error
    return target


def _lines_of(name: str) -> list[str]:
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_LIST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise NotFound(f"cannot read the list {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadData(f"cannot read the list {name}: it is not UTF-8 text") from error
    if len(data) > MAX_LIST or "\0" in text:
        raise BadData(f"cannot read the list {name}: expected a source a line, at most {MAX_LIST >> 20} MiB of them")
    # Not splitlines: a name may hold one of the other characters that Unicode calls a line's end.
    return [line.strip() for line in text.split("\n") if line.strip()]
