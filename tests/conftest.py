"""What all tests share: a sealed home and git configuration, real commands, and a scratch repository."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import Lab, new_lab

if TYPE_CHECKING:
    from tests.stagekit import Kit

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent  # not resolved: a venv's python is a symlink out of it

Shell = Callable[..., str]

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def pytest_configure() -> None:
    """What is begun with `&` in a script ignores Ctrl-C, and so would all that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What failed and passed when it was run once more is shown all the same: somebody has a bug to look for."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed the first time: {report.nodeid}")
        terminalreporter.line(report.longreprtext[-4000:])


@pytest.fixture(scope="session")
def command_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `gitpipe` and `git-pipe`: the installed ones, or stand-ins for a source tree."""
    if (BIN / "gitpipe").exists():
        return BIN
    folder = tmp_path_factory.mktemp("bin")
    for name in ("gitpipe", "git-pipe"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gitpipe "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def sealed(
    tmp_path_factory: pytest.TempPathFactory, command_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """HOME, git's configuration, identity and PATH do not depend on who runs the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        # PYTHONUNBUFFERED hides what goes wrong at the last flush of what was printed.
        if name.startswith(("GIT_", "GITPIPE", "PACH_", "DVC_", "PRE_COMMIT", "XDG_", "PYTHONUNBUFFERED")):
            monkeypatch.delenv(name)
    config = home / ".gitconfig"
    config.write_text("[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n[commit]\n\tgpgSign = false\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name, value in _IDENTITY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.pathsep.join([str(command_folder), str(BIN), os.environ["PATH"]]))
    if command_folder != BIN:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def sh(tmp_path: Path, sealed: Path) -> Shell:
    """Run a real command line and return what it printed: `sh("git status", cwd=repo)`.

    Standard error is part of the answer only with `stderr=True`; a status other than `status` fails the test.
    """

    def run(
        command: str, cwd: Path | None = None, *, status: int = 0, stderr: bool = False, timeout: float = 120
    ) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=cwd or tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr else subprocess.PIPE,
            timeout=timeout,
            encoding="utf-8",
        )
        said = f"$ {command}\n{done.stdout}{done.stderr or ''}"
        assert done.returncode == status, f"exit status {done.returncode}, not {status}\n{said}"
        return done.stdout

    return run


def attempt(command: str, cwd: Path, seconds: float) -> tuple[int, str]:
    """Run a command line that may fail; its status, and what it said on both streams."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        encoding="utf-8",
    )
    return done.returncode, done.stdout


@pytest.fixture
def scratch(tmp_path: Path, sh: Shell) -> Iterator[Path]:
    """A git repository with one commit on main; the runner that a test started there is ended."""
    repo = tmp_path / "repo"
    sh(f"git init -q -b main {repo} && cd {repo} && echo scratch > README && git add . && git commit -qm Begin")
    yield repo
    end_runner(repo)


def end_runner(repo: Path) -> None:
    """Stop the runner of `repo`, if one was started, the polite way first."""
    mark = repo / ".git" / "gitpipe" / "runner.pid"
    if not mark.exists():
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["gitpipe", "runner", "stop"], cwd=repo, capture_output=True, timeout=30)
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int(mark.read_text().split()[0])
        if b"gitpipe" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def lab(tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A scratch repository that is driven in this process; nothing runs there in the background."""
    monkeypatch.setenv("GITPIPE", "0")
    return new_lab(tmp_path / "lab")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """A place to run stages in, of which nothing is left behind."""
    from tests.stagekit import Kit  # looks for a sandbox when it is imported

    made = Kit(tmp_path)
    yield made
    made.close()


def read_terminal(master: int) -> str:
    """All that is shown in a pseudo-terminal until its other side is closed."""
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's way to say that the other side was closed
            break
        if not part:
            break
        shown += part
    return shown.decode().replace("\r\n", "\n")
