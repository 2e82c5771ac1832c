"""Repositories for tests of what people do with git and data: real git, real hooks, and commands without a start-up.

A hook starts Python for 0.2 s each time.  Here its interpreter is a script that hands the working tree over to the
test's own process, where the same function answers; `test_switching` also goes through the real ones once.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from gitpipe import hooks
from gitpipe.cli import run
from gitpipe.errors import GitpipeError
from gitpipe.project import init, open_project

STUB = """#!/bin/sh
case "$*" in *gitpipe.runner*) exit 0 ;; esac
printf '%s\\n' "$GITPIPE_WORKTREE" >{ask}
cat {answer} >&2
"""


class HookServer:
    """Answers for the Python half of the hooks, one at a time, as long as it is open."""

    def __init__(self, folder: Path) -> None:
        self.ask, self.answer, self.stub = folder / "ask", folder / "answer", folder / "python"
        os.mkfifo(self.ask)
        os.mkfifo(self.answer)
        self.stub.write_text(STUB.format(ask=self.ask, answer=self.answer))
        self.stub.chmod(0o755)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while top := self.ask.read_text().rstrip("\n"):
            try:
                lines = [f"gitpipe: {line}" for line in open_project(Path(top)).checkouts.refresh(Path(top))]
            except GitpipeError as error:
                lines = [f"gitpipe: {error}"]
            except Exception as error:  # a bug: the test sees it in what git printed
                lines = [f"BUG {error!r}"]
            self.answer.write_text("".join(line + "\n" for line in lines))

    def close(self) -> None:
        """End the thread."""
        self.ask.write_text("\n")
        self._thread.join(10)


class Desk:
    """A working tree and a person who types commands into it."""

    def __init__(self, top: Path) -> None:
        self.top, self.data = top, top / "data"

    def git(self, *args: str, status: int | None = 0) -> str:
        """Run git; what it and the hooks printed, both streams."""
        done = subprocess.run(
            ["git", *args], cwd=self.top, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=60
        )
        said = done.stdout + done.stderr
        assert status is None or done.returncode == status, f"git {' '.join(args)}: {done.returncode}\n{said}"
        assert "BUG" not in said, said
        return said

    def pipe(self, *args: str, status: int | None = 0) -> str:
        """Run a gitpipe command line in this process; what it printed, both streams."""
        out, before = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), Path.cwd()
        os.chdir(self.top)
        os.environ["GITPIPE"] = "0"  # no runner is needed here; `git` above runs without, so that its hooks work
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                code = run(list(args))
        finally:
            os.chdir(before)
            del os.environ["GITPIPE"]
        out.flush()
        said = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
        assert status is None or code == status, f"gitpipe {' '.join(args)}: {code}\n{said}"
        return said

    def write(self, **files: str) -> None:
        """Write files below ``data/``; ``a__b`` is ``a/b``."""
        for name, text in files.items():
            path = self.data / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, **files: str) -> str:
        """Write files, add and commit them; the sha."""
        self.write(**files)
        self.pipe("add", "data")
        self.git("commit", "-qm", f"add {' '.join(files)}")
        return self.git("rev-parse", "HEAD").strip()

    def files(self) -> dict[str, str]:
        """Path -> text of all that lies below ``data/``."""
        return {p.relative_to(self.data).as_posix(): p.read_text() for p in self.data.rglob("*") if p.is_file()}

    def kept(self) -> dict[str, str]:
        """Name -> text of the files that were kept aside for this working tree."""
        from gitpipe.kept import kept_sets

        git_dir = Path(self.git("rev-parse", "--absolute-git-dir").strip())
        found = [kept.where(path) for kept in kept_sets(git_dir) for path in kept.lying()]
        return {path.name: path.read_text() for path in found}

    def repo(self, name: str) -> list[str]:
        """The paths that a repo holds at its tip, as gitpipe lists them."""
        return listed(self.top, f"refs/heads/{name}")

    def worktree(self, name: str) -> Desk:
        """A new working tree beside this one, on the branch `name`."""
        self.git("worktree", "add", "-q", f"../{name}", name)
        return Desk(self.top.parent / name)


def listed(top: Path, commit: str) -> list[str]:
    """The paths in a commit's listing."""
    from gitpipe.datatree import read_listing

    project = open_project(top)
    sha = project.repo.resolve(commit)
    assert sha, commit
    return list(read_listing(project.repo, project.blobs, sha))


@contextlib.contextmanager
def served(repo: Path) -> Iterator[Desk]:
    """`repo` with gitpipe, its hooks served, and the empty repos training and attributes."""
    init(repo)
    folder = repo.parent / f"{repo.name}-hooks"
    folder.mkdir()
    server = HookServer(folder)
    hooks.install(repo / ".git" / "hooks", str(server.stub), "-I")
    try:
        desk = Desk(repo)
        desk.pipe("create-repo", "training")
        desk.pipe("create-repo", "attributes")
        yield desk
    finally:
        server.close()


def real_hooks(repo: Path) -> None:
    """Install the hooks that start the real interpreter."""
    hooks.install(repo / ".git" / "hooks", sys.executable, hooks.interpreter_flags())
