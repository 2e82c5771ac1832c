"""Read and write git: refs, objects, history, worktrees.  The only module that imports git or starts it.

Knows nothing of data, pipelines or jobs.  Refs are full names (``refs/heads/model``), so that a tag or a folder of
the same name is never meant by mistake.  Reads go through one long-lived ``cat-file --batch``, writes of objects are
made in this process, and refs move only by compare-and-swap in one ``update-ref`` transaction.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import stat
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

# Where git is not installed, GitPython fails at import unless told not to; `Repo` has a line for that case.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import git
from git.exc import GitCommandError, GitCommandNotFound, InvalidGitRepositoryError, NoSuchPathError
from gitdb import IStream

from gitpipe.errors import SCARCE, BadData, GitpipeError, NotARepo, NotFound

# What `git rev-parse --local-env-vars` lists: git sets some of these for hooks, and every git that is started from
# there would then work on the wrong repository or index.
LOCAL_ENV = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_QUARANTINE_PATH",
    "GIT_NAMESPACE",
    "GIT_REFLOG_ACTION",
)
ZERO = "0" * 40
CONFIG_SECONDS = 5.0
GC_SECONDS = 600.0  # so long a move of refs waits for a `git gc --prune=now` to end
MAX_KEPT = 1 << 20  # bytes of an object that is kept in memory until a ref names it
NEAR = 16  # so many commits are walked one by one before `git rev-list` is started
HEADS = "refs/heads/"
# What `git rev-parse` is asked about a folder; the answers come a line each, in this order.
QUESTIONS = (
    "--git-dir",
    "--git-common-dir",
    "--is-bare-repository",
    "--show-object-format",
    "--is-inside-work-tree",
    "--show-cdup",
)
_SHA = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
BLOB, EXE, LINK, TREE, SUBMODULE = "100644", "100755", "120000", "040000", "160000"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a git tree; ``mode`` as in `BLOB`, `EXE`, `LINK`, `TREE`, `SUBMODULE`."""

    mode: str
    sha: str


@dataclass(frozen=True, slots=True)
class Commit:
    """A parsed commit object; ``time`` is the committer's, in POSIX seconds."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: str
    author_time: int
    author_zone: str
    time: int
    message: str
    committer: str = ""

    @property
    def subject(self) -> str:
        return self.message.split("\n", 1)[0]


@dataclass(frozen=True, slots=True)
class Signature:
    """Who and when: ``Name <mail>``, POSIX seconds, zone ``+0000``."""

    who: str
    time: int
    zone: str = "+0000"

    def __str__(self) -> str:
        return f"{self.who} {self.time} {self.zone}"


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """Move `ref` from `old` to `new` (None: it must not exist before, or is deleted); equal values only verify."""

    ref: str
    new: str | None
    old: str | None


@dataclass(frozen=True, slots=True)
class Worktree:
    """A working tree: its top folder, its own git dir, the full ref that it is on (None: detached)."""

    top: Path
    git_dir: Path
    ref: str | None
    head: str | None


def clear_git_environment() -> None:
    """Forget what git set for its hooks, so that this process sees only the repository that it is told of."""
    for name in LOCAL_ENV:
        os.environ.pop(name, None)


class Repo:
    """One git repository, seen from one of its working trees (or from a bare one)."""

    def __init__(self, where: Path) -> None:
        """Open the repository that `where` lies in.

        Raises:
            NotARepo: there is none, or git is not installed.
        """
        index = os.environ.get("GIT_INDEX_FILE", "")
        clear_git_environment()
        try:
            self._git = git.Git(str(where))
            out = self.git("rev-parse", *QUESTIONS, cwd=where)
        except GitCommandNotFound as error:
            raise NotARepo("git is not installed or not on PATH: install git 2.30 or newer") from error
        except GitpipeError as error:
            if "dubious ownership" in str(error):
                raise NotARepo(f"{error}") from error
            raise NotARepo(f"{where} is not in a git repository: run `git init` first") from error
        except (OSError, NoSuchPathError) as error:
            raise NotARepo(f"{where}: {getattr(error, 'strerror', None) or 'no such folder'}") from error
        git_dir, common, bare, self._object_format, inside, *up = out.splitlines()
        self.git_dir = (where / git_dir).resolve()
        self.common = (where / common).resolve()
        self.bare = bare == "true"
        self.top: Path | None = (where.resolve() / "".join(up)).resolve() if inside == "true" else None
        self.index = self._given_index(index)
        try:
            self._repo = git.Repo(str(self.top or self.git_dir), expand_vars=False)  # a `$` may be part of a name
        except (InvalidGitRepositoryError, NoSuchPathError, ValueError) as error:
            raise NotARepo(f"{where}: git repository of a kind that is not supported ({error})") from error
        self._lock = threading.RLock()
        self._packed: tuple[tuple[int, int, int] | None, dict[str, str]] = (None, {})
        self._thread = threading.local()

    def _given_index(self, named: str) -> str:
        """The index that our caller (a desktop, a hook) uses for this working tree instead of the usual one, or "".

        A hook of another repository has that one's index in its environment.
        """
        if not named or self.top is None:
            return ""
        path = self.top / named  # as git takes it
        beside = path.parent.resolve()
        return "" if beside != self.git_dir and (beside / "HEAD").is_file() else str(path)

    # -- starting git ------------------------------------------------------------------------------------------------

    def git(
        self,
        *args: str,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        accept: Sequence[int] = (0,),
    ) -> str:
        """Run one git command; its standard output as text (bytes that are not UTF-8 survive by surrogate escape).

        Args:
            accept: exit statuses that are no failure.

        Raises:
            GitpipeError: the command failed; one line with git's own words.
        """
        return self.git_bytes(*args, stdin=stdin, cwd=cwd, env=env, accept=accept).decode("utf-8", "surrogateescape")

    def git_bytes(
        self,
        *args: str,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        accept: Sequence[int] = (0,),
    ) -> bytes:
        """As `git`, undecoded."""
        where = cwd or self.top or self.git_dir
        runner = git.Git(str(where))
        # GITPIPE=0: what gitpipe does with git must not wake gitpipe's own hooks.
        extra = {"GITPIPE": "0", "LC_ALL": "C.UTF-8", **(env or {})}
        # GitPython would go to the current folder instead, which may be another repository.
        if not os.access(where, os.X_OK):
            raise GitpipeError(f"git {_verb(args)} failed: there is no folder {where}")
        try:
            source = _stdin_file(stdin)
            try:
                status, out, err = runner.execute(
                    # A signature shown amid the log would be read as part of it.
                    ["git", "-c", "log.showSignature=false", *args],
                    istream=source,
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    env=extra,
                )
            finally:
                if source is not None:
                    source.close()
        except GitCommandError as error:
            raise GitpipeError(f"git {args[0]} could not be started in {where}: {error}") from error
        if status not in accept:
            text = err if isinstance(err, str) else bytes(err).decode("utf-8", "replace")
            raise GitpipeError(f"git {_verb(args)} failed: {_one_line(text) or f'exit status {status}'}")
        return bytes(out) if not isinstance(out, str) else out.encode("utf-8", "surrogateescape")

    # -- settings ----------------------------------------------------------------------------------------------------

    def config(self, prefix: str = "") -> dict[str, list[str]]:
        """All settings whose key begins with `prefix` (lower-case), each with its values in order, in one call."""
        found: dict[str, list[str]] = {}
        for item in self.git("config", "--list", "-z").split("\0"):
            key, _, value = item.partition("\n")
            if key and key.lower().startswith(prefix.lower()):
                found.setdefault(key.lower() if "." not in key[len(prefix) :] else key, []).append(value)
        return found

    def set_config(self, key: str, value: str) -> None:
        """Set a local setting."""
        self._write_config(key, value)

    def add_config(self, key: str, value: str) -> None:
        """Add one more value of a local setting."""
        self._write_config("--add", key, value)

    def drop_config(self, key: str, value: str) -> None:
        """Remove a value of a local setting, however often it is there."""
        self._write_config("--unset-all", key, f"^{re.escape(value)}$", accept=(0, 5))

    def _write_config(self, *args: str, accept: Sequence[int] = (0,)) -> None:
        """Two commands at once are no reason for one to fail: git does not wait for the lock of its settings."""
        end = time.monotonic() + CONFIG_SECONDS
        while True:
            try:
                self.git("config", "--local", *args, accept=accept)
                return
            except GitpipeError as error:
                locked = "could not lock config file" in str(error) and "File exists" in str(error)
                if not locked or time.monotonic() > end:
                    raise
            time.sleep(0.02)

    # -- refs --------------------------------------------------------------------------------------------------------

    def refs(self, *prefixes: str) -> dict[str, str]:
        """Full ref name -> sha of all refs under the prefixes (``refs/heads``), in one call."""
        out = self.git("for-each-ref", "--format=%(objectname) %(refname)", *prefixes)
        return {name: sha for sha, _, name in (line.partition(" ") for line in out.splitlines())}

    def ref(self, name: str) -> str | None:
        """The sha that the full ref name points to, or None.

        Refs as files are read here, as git reads them (loose, then packed): the runner asks for them all the time.
        """
        if ".." in name or (self.common / "reftable").exists():
            return self.refs(name).get(name)
        try:
            text = (self.common / name).read_text().strip()
        except OSError as error:
            if error.errno in SCARCE:  # not to be taken for a ref that is not there
                raise GitpipeError(f"cannot read {name}: {error.strerror}") from error
            return self._packed_refs().get(name)
        # A symbolic ref is rare enough to ask git.
        return text if _SHA.match(text) else self.refs(name).get(name)

    def _packed_refs(self) -> dict[str, str]:
        """What ``packed-refs`` says; read again only when git has replaced it."""
        path = self.common / "packed-refs"
        try:
            status = path.stat()
        except FileNotFoundError:
            return {}
        mark = (status.st_ino, status.st_mtime_ns, status.st_size)
        known, found = self._packed
        if known != mark:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            found = {name: sha for sha, _, name in (line.partition(" ") for line in lines) if _SHA.match(sha)}
            self._packed = (mark, found)
        return found

    def head_ref(self) -> str | None:
        """The full ref that HEAD stands on (it may not exist yet), or None where HEAD is detached."""
        try:
            return self.git("symbolic-ref", "-q", "HEAD").strip() or None
        except GitpipeError:
            return None

    def update_refs(self, updates: Sequence[RefUpdate], reason: str, *, settle: bool = True) -> bool:
        """Make all updates or none; False where an old value did not hold.

        ``core.fsync=reference``: the ref reaches the disk before this returns (I7); what it points to must be there
        already, see `sync`.

        A ``git gc --prune=now`` removes what no ref names, be it a moment old.  What this thread has written is looked
        for before the refs move, and afterwards until a gc that did not see them move has ended.

        Args:
            settle: that last part, too; else the caller is to call `settle`, when it holds no lock any more.
        """
        self._restore()
        if not self._update_refs(updates, reason):
            return False
        if settle:
            self.settle()
        return True

    def settle(self) -> None:
        """Wait for a gc that did not see refs move, and bring back what it took away; see `update_refs`."""
        end = time.monotonic() + GC_SECONDS
        while self._gc_runs() and time.monotonic() < end:
            time.sleep(0.02)
        self._restore()
        self._written().clear()

    def _written(self) -> dict[str, tuple[str, bytes]]:
        """Sha -> (kind, data) of what this thread has written since it moved a ref."""
        found: dict[str, tuple[str, bytes]] | None = getattr(self._thread, "written", None)
        if found is None:
            found = self._thread.written = {}
        return found

    def _restore(self) -> None:
        """Write again what is not there any more; durable as before."""
        lost = [
            (kind, data)
            for sha, (kind, data) in self._written().items()
            if not os.path.exists(f"{self.common}/objects/{sha[:2]}/{sha[2:]}")  # packed by now, it may be: no harm
        ]
        for kind, data in lost:
            self._write(kind, data)
        if lost:
            self.sync()

    def _gc_runs(self) -> bool:
        """Whether a ``git gc`` is at work here that spares nothing new, by the file that keeps a second one away.

        The usual one leaves alone what is younger than two weeks, and is not waited for.  One that was killed leaves
        the file, and its process id goes to somebody else.
        """
        try:
            pid, _, host = (self.common / "gc.pid").read_text("utf-8", "replace").strip().partition(" ")
            if host != os.uname().nodename:
                return False
            words = Path(f"/proc/{int(pid)}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return False
        if b"gc" not in words:
            return False
        spares = self.config("gc.pruneexpire").get("gc.pruneexpire", [""])[-1] not in ("now", "all")
        return not spares or any(word.startswith(b"--prune=") for word in words)

    def _update_refs(self, updates: Sequence[RefUpdate], reason: str) -> bool:
        lines = ["start"]
        for u in updates:
            if u.new == u.old:
                lines.append(f"verify {u.ref} {u.new or ZERO}")
            elif u.new is None:
                lines.append(f"delete {u.ref} {u.old}")
            else:
                lines.append(f"update {u.ref} {u.new} {u.old or ZERO}")
        lines += ["prepare", "commit", ""]
        try:
            self.git(
                "-c",
                "core.fsync=reference",
                "update-ref",
                "--stdin",
                "--create-reflog",
                "-m",
                reason,
                stdin="\n".join(lines).encode(),
                env={"GIT_COMMITTER_NAME": "gitpipe", "GIT_COMMITTER_EMAIL": "gitpipe@localhost"},
            )
        except GitpipeError as error:
            text = str(error)
            if "cannot lock ref" in text or "but expected" in text or "reference already exists" in text:
                if "Unable to create" in text and "File exists" in text:
                    raise GitpipeError(f"{text}: another git is at work, or was killed; remove the lock file") from None
                if re.search("unable to create", text, re.IGNORECASE):
                    raise  # the disk is full or read-only
                return False
            raise
        return True

    # -- reading objects ---------------------------------------------------------------------------------------------

    def read(self, sha: str) -> tuple[str, bytes]:
        """(type, content) of an object.

        Raises:
            NotFound: the object is not in this repository (shallow or partial clone, or lost).
        """
        with self._lock:
            try:
                _, kind, _, data = self._repo.git.get_object_data(sha)
            except (ValueError, BrokenPipeError, OSError) as error:
                # The helper process may have died, or the object is not there: a fresh one decides which.
                self._repo.git.clear_cache()
                try:
                    _, kind, _, data = self._repo.git.get_object_data(sha)
                except (ValueError, OSError):
                    raise NotFound(
                        f"git object {sha} is not in this repository: fetch it, or see `git fsck`"
                    ) from error
        return (kind.decode() if isinstance(kind, bytes) else str(kind)), data

    def blob(self, sha: str) -> bytes:
        """The content of a blob."""
        return self.read(sha)[1]

    def tree(self, sha: str) -> dict[str, Entry]:
        """Name -> entry of a tree (or of a commit's tree)."""
        kind, data = self.read(sha)
        if kind == "commit":
            kind, data = self.read(data[5:].split(b"\n", 1)[0].decode())
        if kind != "tree":
            raise NotFound(f"git object {sha} is a {kind}, not a tree")
        entries: dict[str, Entry] = {}
        at, width = 0, len(sha) // 2
        while at < len(data):
            space = data.index(b" ", at)
            nul = data.index(b"\0", space)
            mode = data[at:space].decode().rjust(6, "0")
            name = data[space + 1 : nul].decode("utf-8", "surrogateescape")
            entries[name] = Entry(mode, data[nul + 1 : nul + 1 + width].hex())
            at = nul + 1 + width
        return entries

    def entry(self, treeish: str, path: str) -> Entry | None:
        """The entry at `path` (relative, POSIX) below a tree or commit, or None."""
        node = Entry(TREE, treeish)
        for part in path.split("/"):
            if node.mode != TREE:
                return None
            below = self.tree(node.sha).get(part)
            if below is None:
                return None
            node = below
        return node

    def walk(self, tree: str, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """All entries below a tree that are no trees: (path, entry), depth first, in git's order."""
        for name, entry in self.tree(tree).items():
            if entry.mode == TREE:
                yield from self.walk(entry.sha, f"{prefix}{name}/")
            else:
                yield f"{prefix}{name}", entry

    def commit(self, sha: str) -> Commit:
        """A parsed commit.

        Raises:
            NotFound: it is not here, or is no commit.
        """
        kind, data = self.read(sha)
        if kind != "commit":
            raise NotFound(f"{sha} is a {kind}, not a commit")
        return parse_commit(sha, data)

    def resolve(self, name: str) -> str | None:
        """The full sha of a commit-ish (``rev-parse``), or None."""
        if name.startswith("-"):
            return None
        try:
            return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
        except GitpipeError:
            return None

    def log(self, revisions: Sequence[str], *options: str, paths: Sequence[str] = ()) -> Iterator[Commit]:
        """Parsed commits of ``git log REVISIONS``, newest first, in one pass (one process, no read per commit)."""
        if not revisions:
            return
        out = self.git_bytes(
            "rev-list",
            "--header",
            "--encoding=UTF-8",  # whatever i18n.logOutputEncoding says
            *options,
            "--stdin",
            stdin=_lines([*revisions, *(["--", *paths] if paths else [])]),
        )
        for record in out.split(b"\0"):
            sha, _, raw = record.lstrip(b"\n").partition(b"\n")
            if sha:
                yield parse_commit(sha.decode(), _unindent(raw))

    def first_parents(self, new: str, old: str | None, paths: Sequence[str] = ()) -> list[Commit] | None:
        """The first-parent commits after `old` up to `new`, oldest first; None where `old` is not on that chain.

        With `paths`, only those that changed one of them.
        """
        if old == new:
            return []
        near = self._near_parents(new, old) if old else None
        if near is not None:
            return [c for c in near if not paths or self._touches(c, paths)]
        if old and not self._has(old):
            return None  # abandoned, and pruned since
        # Down to `old` and not further, if it lies on the chain.  (--boundary names it as second parent, too.)
        if old and old not in self.git("rev-list", "--first-parent", new, "--not", f"{old}^@", "--").split():
            return None
        found = list(self.log([new, *([f"^{old}"] if old else [])], "--first-parent", paths=paths))
        return found[::-1]

    def _has(self, sha: str) -> bool:
        try:
            self.read(sha)
        except NotFound:
            return False
        return True

    def _near_parents(self, new: str, old: str) -> list[Commit] | None:
        """The first-parent commits from `old` to `new` where those are a few steps, without a process; else None."""
        chain: list[Commit] = []
        sha = new
        for _ in range(NEAR):
            try:
                commit = self.commit(sha)
            except NotFound:  # the edge of a shallow clone: git knows about those
                return None
            chain.append(commit)
            if not commit.parents:
                return None
            sha = commit.parents[0]
            if sha == old:
                return chain[::-1]
        return None

    def _touches(self, commit: Commit, paths: Sequence[str]) -> bool:
        """Whether a commit changed one of the paths against its first parent."""
        before = commit.parents[0]
        return any(self.entry(commit.tree, path) != self.entry(before, path) for path in paths)

    def reflog_says(self, ref: str, sha: str, cwd: Path | None = None) -> str | None:
        """How `ref` (for HEAD: that of the working tree `cwd`) came to stand on `sha`: the newest reflog entry's
        message for it, or None."""
        try:
            out = self.git("reflog", "show", "-n", "200", "--format=%H %gs", ref, "--", cwd=cwd)
        except GitpipeError:
            return None
        for line in out.splitlines():
            found, _, message = line.partition(" ")
            if found == sha:
                return message
        return None

    def reflog_messages(self, ref: str, cwd: Path | None = None) -> list[str]:
        """The messages of the reflog of `ref` (for HEAD: that of the working tree `cwd`), the newest first; none where
        no log is kept."""
        try:
            return self.git("reflog", "show", "--format=%gs", ref, "--", cwd=cwd).splitlines()
        except GitpipeError:
            return []

    def reflogs_say(self, sha: str) -> list[str]:
        """The messages of all entries, in any ref's reflog here, by which that ref came to stand on `sha`."""
        out = self.git("log", "--no-show-signature", "--walk-reflogs", "--all", "--format=%H %gs")
        return [message for found, _, message in (line.partition(" ") for line in out.splitlines()) if found == sha]

    def reflog(self, ref: str, limit: int, cwd: Path | None = None) -> list[str]:
        """The shas that `ref` (for HEAD: that of the working tree `cwd`) stood on lately, the newest first, each once;
        none where no log is kept."""
        try:
            out = self.git("reflog", "show", "-n", str(limit), "--format=%H", ref, "--", cwd=cwd)
        except GitpipeError:
            return []
        return list(dict.fromkeys(out.split()))

    # -- writing objects ---------------------------------------------------------------------------------------------

    def write(self, kind: str, data: bytes) -> str:
        """Write one object; its sha.  Not durable before `sync`."""
        sha = self._write(kind, data)
        if len(data) <= MAX_KEPT:
            self._written()[sha] = kind, data
        return sha

    def _write(self, kind: str, data: bytes) -> str:
        try:
            if self._object_format == "sha1":
                return self._write_loose(kind, data)
            stream = IStream(kind.encode(), len(data), BytesIO(data))
            with self._lock:
                self._repo.odb.store(stream)  # a process for each object
            return str(stream.hexsha.decode())
        except OSError as error:
            raise GitpipeError(f"cannot write a git object in {self.common}: {error.strerror or error}") from error
        except GitCommandError as error:
            why = _one_line(str(error.stderr))
            raise GitpipeError(f"cannot write a git object in {self.common}: {why}") from error

    def _write_loose(self, kind: str, data: bytes) -> str:
        """Write one object as git does: a temporary file whose name `git gc` knows, renamed into place."""
        whole = f"{kind} {len(data)}\0".encode() + data
        sha = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        folder = f"{self.common}/objects/{sha[:2]}"
        path = f"{folder}/{sha[2:]}"
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)  # as git does: one that is used anew is not to be pruned as old
            return sha
        self._make_fanout(folder)
        descriptor, scratch = tempfile.mkstemp(prefix="tmp_obj_", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(zlib.compress(whole, 1))
                os.fchmod(file.fileno(), 0o444)
            os.rename(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
        return sha

    def _make_fanout(self, folder: str) -> None:
        """Make a folder of ``objects``, with the mode of that where the repository is shared by a group."""
        try:
            os.mkdir(folder)
        except FileExistsError:
            return
        mode = stat.S_IMODE(os.stat(self.common / "objects").st_mode)
        if mode & stat.S_ISGID:
            os.chmod(folder, mode)

    def write_blob(self, data: bytes) -> str:
        """Write a blob; its sha."""
        return self.write("blob", data)

    def write_tree(self, entries: Mapping[str, Entry]) -> str:
        """Write one tree; its sha.  Names hold no slash."""

        def order(item: tuple[str, Entry]) -> bytes:
            name = item[0].encode("utf-8", "surrogateescape")
            return name + b"/" if item[1].mode == TREE else name

        data = b"".join(
            e.mode.lstrip("0").encode() + b" " + n.encode("utf-8", "surrogateescape") + b"\0" + bytes.fromhex(e.sha)
            for n, e in sorted(entries.items(), key=order)
        )
        return self.write("tree", data)

    def write_paths(self, files: Mapping[str, Entry], base: str | None = None) -> str:
        """Write a tree from full paths (an entry of mode `TREE` grafts a whole tree), over the tree `base` if given."""
        here: dict[str, Entry] = dict(self.tree(base)) if base else {}
        below: dict[str, dict[str, Entry]] = {}
        for path, entry in files.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = entry
            else:
                here[name] = entry
        for name, inner in below.items():
            old = here.get(name)
            here[name] = Entry(TREE, self.write_paths(inner, old.sha if old and old.mode == TREE else None))
        return self.write_tree(here)

    def write_commit(
        self, tree: str, parents: Sequence[str], message: str, author: Signature, committer: Signature | None = None
    ) -> str:
        """Write a commit object, unsigned and in UTF-8 whatever the user's settings say (I4); its sha."""
        lines = [f"tree {tree}", *(f"parent {p}" for p in parents)]
        lines += [f"author {author}", f"committer {committer or author}", "", message.rstrip("\n") + "\n"]
        return self.write("commit", "\n".join(lines).encode("utf-8", "surrogateescape"))

    def user(self) -> Signature:
        """Who commits here, now, as git itself would say.

        Raises:
            GitpipeError: git knows no name or mail.
        """
        try:
            text = self.git("var", "GIT_COMMITTER_IDENT").strip()
        except GitpipeError as error:
            raise GitpipeError("git does not know who you are: `git config user.name …` and `user.email …`") from error
        who, time, zone = text.rsplit(" ", 2)
        return Signature(who, int(time), zone)

    def sync(self) -> None:
        """Make all objects that were written durable: one ``syncfs`` of the object store's file system (I7)."""
        syncfs(self.common / "objects")

    # -- worktrees ---------------------------------------------------------------------------------------------------

    def worktrees(self) -> list[Worktree]:
        """All working trees whose folder is there, the main one first; a bare repository has none of its own."""
        found = []
        for place, block in enumerate(self.git("worktree", "list", "--porcelain", "-z").split("\0\0")):
            fields = dict(line.partition(" ")[::2] for line in block.strip("\0\n").split("\0"))
            top = Path(fields.get("worktree", ""))
            if "bare" in fields or not fields.get("worktree") or not top.is_dir():
                continue
            if os.path.lexists(top / ".git"):
                git_dir = worktree_git_dir(top)
            elif place > 0:
                continue  # it is just being removed
            else:
                # Of a submodule, and after `init --separate-git-dir`, git names the git dir instead.
                main, git_dir = self._main_top(), self.common
                if main is None:
                    continue
                top = main
            found.append(Worktree(top, git_dir, fields.get("branch"), fields.get("HEAD")))
        return found

    def _main_top(self) -> Path | None:
        """The main working tree, where the common git dir does not lie in it; None where only git's user knows."""
        configured = self.git("config", "core.worktree", cwd=self.common, accept=(0, 1)).rstrip("\n")
        top = (self.common / configured).resolve() if configured else self.top if self.git_dir == self.common else None
        return top if top is not None and (top / ".git").exists() else None

    def tracked_clean(self, tree: Worktree, commit: str) -> bool:
        """Whether the index and the tracked files of a working tree are just those of `commit`."""
        try:
            self.git("update-index", "-q", "--refresh", cwd=tree.top)
        except GitpipeError:
            return False
        out = self.git("diff-index", "--name-only", "-z", commit, "--", cwd=tree.top)
        return not out and not (tree.git_dir / "index.lock").exists()

    def move_worktree(self, tree: Worktree, old: str, new: str) -> None:
        """Bring index and tracked files of a clean working tree from `old` to `new`; a local change stops it."""
        self.git("read-tree", "-m", "-u", old, new, cwd=tree.top)

    def close(self) -> None:
        """End the helper processes."""
        with self._lock:
            self._repo.close()


def worktree_git_dir(top: Path) -> Path:
    """The git dir of the working tree at `top`: ``.git`` itself, or where its ``.git`` file points."""
    dot = top / ".git"
    if dot.is_dir():
        return dot.resolve()
    text = dot.read_text().partition("gitdir:")[2].strip()
    return (top / text).resolve()


def parse_commit(sha: str, data: bytes) -> Commit:
    """Parse a raw commit object.

    Raises:
        BadData: it is no commit.
    """
    head, _, body = data.partition(b"\n\n")
    tree, parents, author, committer = "", [], "", ""
    encoding = re.search(rb"^encoding ([\w.:-]+)$", head, re.MULTILINE)
    if encoding:  # i18n.commitEncoding of whoever wrote it
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            head, body = (part.decode(encoding[1].decode()).encode() for part in (head, body))
    for line in head.decode("utf-8", "surrogateescape").split("\n"):
        key, _, value = line.partition(" ")
        if key == "tree" and not tree:
            tree = value
        elif key == "parent":
            parents.append(value)
        elif key == "author" and not author:
            author = value
        elif key == "committer" and not committer:
            committer = value
    match = re.match(r"(.*?) ?(-?\d+) ([+-]\d{4})$", author)
    when = re.match(r"(.*?) ?(-?\d+) [+-]\d{4}$", committer)
    if not tree or match is None or when is None:
        raise BadData(f"commit {sha} is malformed: see `git fsck`")
    message = body.decode("utf-8", "replace")
    return Commit(sha, tree, tuple(parents), match[1], int(match[2]), match[3], int(when[2]), message, when[1])


_LIBC: ctypes.CDLL | None = None


def syncfs(path: Path) -> None:
    """Flush the file system that `path` lies on; where the C library has no ``syncfs``, all of them."""
    global _LIBC
    if _LIBC is None:
        _LIBC = ctypes.CDLL(None, use_errno=True)
    if not hasattr(_LIBC, "syncfs"):
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.syncfs(fd):
            code = ctypes.get_errno()
            raise GitpipeError(f"cannot flush {path} to disk: {os.strerror(code)}")
    finally:
        os.close(fd)


def _stdin_file(data: bytes | None) -> BytesIO | None:
    if data is None:
        return None
    # GitPython hands `istream` to the process as it is, so it must be a real file, not bytes in memory; where the
    # system has files that are nowhere on disk, a full /tmp is no obstacle.
    there = hasattr(os, "memfd_create")
    file = os.fdopen(os.memfd_create("gitpipe"), "w+b") if there else tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    file.seek(0)
    return file  # type: ignore[return-value]


def _lines(items: Iterable[str]) -> bytes:
    return "".join(f"{item}\n" for item in items).encode("utf-8", "surrogateescape")


def _unindent(raw: bytes) -> bytes:
    """``rev-list --header`` indents the message by four spaces."""
    head, gap, body = raw.partition(b"\n\n")
    lines = [line[4:] if line.startswith(b"    ") else line for line in body.split(b"\n")]
    return head + gap + b"\n".join(lines)


def _verb(args: Sequence[str]) -> str:
    skip = False
    for arg in args:
        if skip or arg.startswith("-"):
            skip = arg == "-c" and not skip
            continue
        return arg
    return args[0]


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return "; ".join(lines[:3])
