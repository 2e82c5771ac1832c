"""What the benchmarks share: a sealed scratch repository, pairs of timed commands, and the table.

Times on a shared machine mean little; the ratio of two medians from interleaved runs means something.  So each
benchmark runs its peer in between its own rounds, and the table shows ratios.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent  # not resolved: a venv's python is a symlink out of it


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ours, peer: medians in seconds (of `commit`: the fastest).
        target: what is to hold, in words; "" where the figure only informs.
        held: whether it does; None where there is no target.
        figure: what to show instead of the ratio, or "".
    """

    what: str
    against: str
    ours: float
    peer: float
    rounds: int
    target: str = ""
    held: bool | None = None
    figure: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.peer


def at_most(what: str, against: str, ours: list[float], peer: list[float], ratio: float) -> Row:
    """A row whose ratio of medians is to be at most `ratio`."""
    one, two = statistics.median(ours), statistics.median(peer)
    return Row(what, against, one, two, len(ours), f"at most {ratio:g}x", one / two <= ratio)


def informs(what: str, against: str, ours: list[float], peer: list[float], figure: str = "") -> Row:
    """A row without a target."""
    return Row(what, against, statistics.median(ours), statistics.median(peer), len(ours), figure=figure)


def pairs(rounds: int, ours: Callable[[], float], peer: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of `rounds` interleaved runs of both, in turns first, after one of each that does not count."""
    one, two = [], []
    ours(), peer()
    for number in range(rounds):
        if number % 2:
            two.append(peer())
            one.append(ours())
        else:
            one.append(ours())
            two.append(peer())
    return one, two


def seal(home: Path) -> None:
    """Make this process and what it starts independent of who runs it."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "GITPIPE", "DVC_", "XDG_")):
            del os.environ[name]
    config = home / ".gitconfig"
    config.write_text("[init]\n\tdefaultBranch = main\n[user]\n\tname = Bench\n\temail = bench@example.org\n")
    os.environ.update(
        HOME=str(home),
        GIT_CONFIG_GLOBAL=str(config),
        GIT_CONFIG_NOSYSTEM="1",
        DVC_NO_ANALYTICS="1",
        DVC_SITE_CACHE_DIR=str(home / "dvc-site"),
        LC_ALL="C.UTF-8",
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
    )


def sh(command: str, cwd: Path) -> None:
    """Run a command line; SystemExit with what it said where it fails."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"$ {command}\n{done.stdout.decode(errors='replace')}exit status {done.returncode} in {cwd}")


def timed(command: str, cwd: Path) -> float:
    """Wall seconds of a command line."""
    started = time.perf_counter()
    sh(command, cwd)
    return time.perf_counter() - started


COPY = '{{"pipeline": {{"name": "{name}"}}, "input": {{"pfs": {{"repo": "{repo}", "glob": "/*"}}}}, \
"transform": {{"cmd": ["sh", "-c", "cp -r /pfs/{repo}/* /pfs/out/"]}}}}\n'


@dataclass
class DataRepo:
    """A gitpipe repository whose data repo `src` is checked out in a worktree of its own."""

    top: Path
    data: Path
    count: int = field(default=0)

    @property
    def src(self) -> Path:
        """The worktree of `src`."""
        return self.data.parent

    def head(self, branch: str) -> str:
        """The commit a branch points to; "" where there is none.  No process is started."""
        try:
            return (self.top / ".git" / "refs" / "heads" / branch).read_text().strip()
        except FileNotFoundError:
            return ""

    def add(self) -> None:
        """Change the data and stage it."""
        self.count += 1
        (self.data / "x.csv").write_text(f"{self.count}\n")
        sh("gitpipe add data", self.src)

    def commit_and_wait(self, branch: str, seconds: float = 600.0) -> float:
        """Seconds from the start of `git commit` until `branch` has moved."""
        before = self.head(branch)
        started = time.perf_counter()
        sh("git commit -q -m more", self.src)
        while self.head(branch) == before:
            if time.perf_counter() - started > seconds:
                sys.exit(f"{branch} did not move within {seconds:g} s: see {self.top}/.git/gitpipe/runner.log")
            time.sleep(0.002)
        return time.perf_counter() - started

    def settle(self) -> None:
        """Wait until the runner has done all that it was nudged for, so that it works beside nothing that is timed."""
        nudges = self.top / ".git" / "gitpipe" / "nudge"
        while nudges.is_dir() and any(nudges.iterdir()):
            time.sleep(0.01)
        time.sleep(0.1)

    def stop_runner(self) -> None:
        sh("gitpipe runner stop", self.top)


@contextmanager
def data_repo(folder: Path, pipelines: dict[str, str]) -> Iterator[DataRepo]:
    """A fresh repository with `src` and pipelines that copy (name -> the repo that it reads); its runner is ended."""
    top = folder / "repo"
    sh(f"git init -q {top}", folder)
    sh("gitpipe init", top)
    for name, repo in pipelines.items():
        (top / name).mkdir()
        (top / name / "spec.json").write_text(COPY.format(name=name, repo=repo))
    sh("git add . && git commit -q --allow-empty -m Begin && gitpipe create-repo src", top)
    for name in pipelines:
        sh(f"gitpipe create-pipeline -f {name}/spec.json", top)
    sh("git worktree add -q ../src src", top)
    repo = DataRepo(top, folder / "src" / "data")
    try:
        yield repo
    finally:
        repo.stop_runner()
        shutil.rmtree(top, ignore_errors=True)
        shutil.rmtree(repo.src, ignore_errors=True)


def dvc_repo(folder: Path) -> Path:
    """A fresh repository of git and DVC alone."""
    top = folder / "dvc-repo"
    sh(f"git init -q {top}", folder)
    sh("dvc init -q && git commit -q -m Begin", top)
    return top


def small_files(data: Path, count: int, seed: int = 0) -> None:
    """`count` files of about 1 kB, all different, in 20 folders."""
    for number in range(count):
        if number < 20:
            (data / f"class{number:02}").mkdir(parents=True, exist_ok=True)
        (data / f"class{number % 20:02}" / f"{number:06}.txt").write_text(f"{seed} {number}\n" * (1000 // 10))
    os.sync()


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| gitpipe | against | ratio | target | | seconds | pairs |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        verdict = {True: "holds", False: "MISSED", None: ""}[row.held]
        figure = row.figure or f"{row.ratio:.2f}x"
        medians = f"{row.ours:.3f} / {row.peer:.3f}"
        lines.append(f"| {row.what} | {row.against} | {figure} | {row.target} | {verdict} | {medians} | {row.rounds} |")
    return "\n".join(lines)
