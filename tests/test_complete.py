"""Shell completion: what is offered, in the words of each shell's protocol, and in real shells at a real prompt."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from gitpipe import cli
from gitpipe.cli import complete
from gitpipe.glance import Glance
from gitpipe.journal import JobState, Journal

from .lab import Lab, new_lab

COMMAND: Any = typer.main.get_command(cli.app)
FILES = {
    "a.csv": "1",
    "batches/1.csv": "2",
    "batches/2.csv": "3",
    "deep/er/only.csv": "4",
    "it's 5 o'clock.csv": "5",
    "my  file.csv": "6",
    "odd:na@me=x.csv": "7",
    "star*.csv": "8",
    "wörter.csv": "9",
    "$HOME.csv": "10",
}
MADE: list[Lab] = []


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """One repository for all tests of this module, which only read it."""
    monkeypatch.setenv("GITPIPE", "0")
    if not MADE:
        lab = new_lab(tmp_path_factory.mktemp("complete") / "shop")
        lab.data("training", {"x.csv": "1"})
        lab.data("training@staging", {"staged.csv": "2"})
        lab.data("attributes", {"new\nline.csv": "0", **FILES})
        lab.pipeline("model", {"training": "/"})
        lab.pipeline("inference", {"attributes": "/*", "model": "/"})
        lab.git("branch", "code")
        lab.project.data.start_commit(["attributes"], None)
        with Journal(lab.root / ".git/gitpipe/journal.sqlite").transaction() as db:
            for seq, state in enumerate((JobState.FAILED, JobState.SUCCESS)):
                db.execute(
                    "INSERT INTO jobs (set_id, pipeline, version, state, id) VALUES (?, 'model', 'v', ?, ?)",
                    (100 + seq, state.value, f"{seq}" * 32),
                )
                db.execute(
                    "INSERT INTO runs (seq, datum, ok, tries, seconds, bytes_in, bytes_out, error)"
                    " SELECT seq, ?, 1, 1, 0, 0, 0, '' FROM jobs WHERE id = ?",
                    (f"d{seq}" * 32, f"{seq}" * 32),
                )
        MADE.append(lab)
    monkeypatch.chdir(MADE[0].root)
    return MADE[0]


def offered(line: str) -> list[str]:
    """What is offered at the end of a line, as `complete.offers` says."""
    *words, last = complete.split(line)
    found, files = complete.offers(COMMAND, words, last)
    return ["<files>"] if files else [value for value, _ in found]


# ---------------------------------------------------------------- what is offered

REPOS = ["attributes", "inference", "model", "training"]
TOP = [*sorted({name.partition("/")[0] + "/" * ("/" in name) for name in FILES})]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("upda", ["update-pipeline"]),
        ("update ", ["pipeline"]),
        ("list re", ["repo"]),
        ("get l", ["logs", "log"]),
        ("run pi", ["pipeline"]),
        ("hooks ", ["install", "uninstall", "status"]),
        ("runner st", ["status", "stop"]),
        ("hooks-install ", []),
        ("get-lo", ["get-logs", "get-log"]),
        ("nonsense ", []),
        ("list nonsense ", []),
        ("list-file ", REPOS),
        ("list file ", REPOS),
        ("delete-repo ", REPOS),
        ("create-repo ", []),
        ("delete-repo training ", []),
        ("get-file tr", ["training"]),
        ("get-file training ", ["master", "staging", "x.csv"]),
        ("get-file training staging ", ["staged.csv"]),
        ("get-file training s", ["staging"]),
        ("get-file training@", ["training@master", "training@staging"]),
        ("get-file training@staging:", ["training@staging:staged.csv"]),
        ("get-file training@staging ", ["staged.csv"]),
        ("get-file training:", ["training:x.csv"]),
        ("get-file training: ", []),
        ("get-file training nonsense ", []),
        ("get-file training master x.csv ", []),
        ("get-file attributes batches/", ["batches/1.csv", "batches/2.csv"]),
        ("get-file attributes ba", ["batches/1.csv", "batches/2.csv"]),
        ("get-file attributes d", ["deep/er/only.csv"]),
        ("get-file attributes /d", ["/deep/er/only.csv"]),
        ("get-file attributes my", ["my  file.csv"]),
        ("get-file -r attributes master od", ["odd:na@me=x.csv"]),
        ("get-file attributes a.csv -o ", ["<files>"]),
        ("get-file -o x attributes wö", ["wörter.csv"]),
        ("copy-file training x.csv att", ["attributes"]),
        ("copy-file training x.csv attributes a", ["a.csv"]),
        ("copy-file training staging staged.csv attributes master a", ["a.csv"]),
        ("copy-file training:x.csv training@staging:", ["training@staging:staged.csv"]),
        ("copy-file training:x.csv training:x.csv ", []),
        ("diff-file training@staging att", ["attributes"]),
        ("diff-file training@staging st", ["staged.csv"]),
        ("delete-branch training ", ["master", "staging"]),
        ("create-branch training x --head st", ["staging"]),
        ("create-branch --head ", []),
        ("list-branch tr", ["training"]),
        ("start-commit training ", ["master", "staging"]),
        ("put-file -f ", ["<files>"]),
        ("put-file -rf ", ["<files>"]),
        ("put-file training --file=", ["<files>"]),
        ("create-pipeline -f a -f ", ["<files>"]),
        ("inspect-pipeline ", ["inference", "model"]),
        ("inspect-job m", ["model"]),
        ("inspect-job 1", ["1" * 12]),
        (f"inspect-job {'1' * 13}", ["1" * 32]),
        ("logs --job 0", ["0" * 12]),
        ("logs --pipeline ", ["inference", "model"]),
        ("logs --pipeline=mo", ["--pipeline=model"]),
        ("inspect-datum 111", ["1" * 12]),
        ("inspect-datum 1111 ", ["d1" * 6]),
        ("inspect-datum model ", ["d0" * 6, "d1" * 6]),
        ("logs --datum d0", ["d0" * 6]),
        ("explain in", ["inference"]),
        ("explain 111", ["1" * 12]),
        ("explain d0d0", ["d0" * 6]),
        (f"explain {'d1' * 32} --job m", ["model"]),
        ("diff model@master trai", ["training"]),
        ("diff --prov", ["--provenance"]),
        (f"logs --datum {'d0' * 7}", ["d0" * 32]),
        ("logs --ta", ["--tail"]),
        ("logs --tail ", []),
        ("list-job -p ", ["inference", "model"]),
        ("list-job --", ["--pipeline", "--limit", "--watch", "--raw", "--help"]),
        ("example i", None),
        ("wait attributes training@s", ["training@staging"]),
        ("log training@staging ", ["staged.csv"]),
        ("dag inf", ["inference"]),
        ("dag --format s", ["svg"]),
        ("delete-file attributes -- my", ["my  file.csv"]),
        ("-C ", ["<files>"]),
        ("-C / list-file ", []),
        ("-C .git get-file tr", ["training"]),
        ("-", ["--version", "--install-completion", "--show-completion", "--help"]),
        ("get-file --upload-pack=x ", REPOS),
        ("get-file -x ", REPOS),
        ("get-file -- --evil ", []),
    ],
)
def test_offers(shop: Lab, line: str, words: list[str] | None) -> None:
    found = offered(line)
    if words is None:
        assert "iris" in found
    else:
        assert sorted(found) == sorted(words)


def test_a_level_at_a_time_and_no_name_that_no_shell_could_be_told_of(shop: Lab) -> None:
    found = offered("get-file attributes ")
    assert found[0] == "master"
    assert sorted(found[1:]) == sorted(TOP)
    assert "new\nline.csv" in Glance(shop.root).paths("attributes")


def test_commits(shop: Lab) -> None:
    head = shop.head("training@staging")
    found = offered("inspect-commit training ")
    assert found[:2] == ["master", "staging"] and head[:12] in found
    assert offered(f"inspect-commit training {head[:5]}") == [head[:12]]
    assert offered(f"inspect-commit training {head[:20]}") == [head]
    assert offered(f"get-file training@{head[:12]}:") == [f"training@{head[:12]}:staged.csv"]
    (held,) = shop.project.repo.refs("refs/gitpipe-local/open")
    opened = held.rpartition("/")[2]
    assert opened in offered("finish-commit attributes ")
    assert opened not in offered("finish-commit training ")
    assert offered(f"get-file attributes {opened} a") == ["a.csv"]


def test_every_command_that_takes_a_name_completes_it(shop: Lab) -> None:
    """Words that mean something here have a completer, be it that of files; a new command is not forgotten."""
    free = {"create-repo"}
    kinds = ("REPO", "PIPELINE", "JOB", "COMMIT", "FILE", "PATH", "OUT", "LIST")
    for name, each in COMMAND.commands.items():
        for param in getattr(each, "params", ()):
            shown = str(param.metavar or "")
            if name not in free and any(kind in shown for kind in kinds):
                words = ["training", param.opts[0]] if param.param_type_name == "option" else []
                found = complete.offers(COMMAND, ["-C", str(shop.root), name, *words], "")
                assert any(found), f"{name} {shown} completes nothing"


def test_other_forms_of_data(lab: Lab) -> None:
    """Plain files in git and nested pointers, as DVC's own users have them; a listing that is not here."""
    md5 = "0" * 32
    lab.git("switch", "-q", "-c", "mixed")
    (lab.root / "data/sub").mkdir(parents=True)
    (lab.root / "data/plain.csv").write_text("1")
    (lab.root / "data/sub/.gitignore").write_text("/model.bin\n")
    (lab.root / "data/sub/model.bin.dvc").write_text(f"outs:\n- md5: {md5}\n  size: 1\n  path: model.bin\n")
    (lab.root / "data.dvc").write_text(f"outs:\n- md5: {md5}.dir\n  path: data\n")
    lab.git("add", "-f", "data", "data.dvc")
    lab.git("commit", "-qm", "Mixed")
    assert sorted(Glance(lab.root).paths("mixed")) == ["plain.csv", "sub/model.bin"]
    assert Glance(lab.root).paths("mixed", "--output=x") == []


def test_nothing_where_there_is_nothing(tmp_path: Path, sealed: Path, lab: Lab) -> None:
    for where in (tmp_path, tmp_path / "gone", lab.root):
        look = Glance(where)
        assert (look.repos(), look.pipelines(), look.jobs(), look.branches("x"), list(look.commits("x"))) == (
            [], [], [], [], []
        )  # fmt: skip
        assert look.paths("x") == []


# ---------------------------------------------------------------- the protocols


def ask(where: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-m", "gitpipe"], cwd=where, env=env, capture_output=True, encoding="utf-8")


def bash_words(*words: str) -> dict[str, str]:
    return {
        "_GITPIPE_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["gitpipe", *words]),
        "COMP_CWORD": str(len(words)),
    }


def tree(folder: Path) -> dict[str, int]:
    """All files but the one where SQLite's readers leave their marks while somebody has the journal open."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm")
    return {str(path): path.lstat().st_mtime_ns for path in found}


def test_silent_and_read_only(shop: Lab) -> None:
    before = tree(shop.root)
    for words in (("get-file", "attributes", ""), ("inspect-job", ""), ("list-file", "")):
        done = ask(shop.root, **bash_words(*words))
        assert done.returncode == 0 and done.stdout and not done.stderr
    assert tree(shop.root) == before


HEAVY = "dvc dvc_data ray git pygit2 pandas numpy sklearn rich yaml asyncio gitpipe.project gitpipe.repo"


def test_lean(shop: Lab) -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print(set({HEAVY.split()!r}) & set(sys.modules), file=sys.stderr))\n"
        "from gitpipe.cli import main\nmain()\n"
    )
    for words in (("get-file", "attributes", ""), ("inspect-job", "")):
        env = {**os.environ, **bash_words(*words)}
        done = subprocess.run([sys.executable, "-c", code], cwd=shop.root, env=env, capture_output=True, text=True)
        assert done.stdout and done.stderr == "set()\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"_GITPIPE_COMPLETE": "complete_bash"},
        {"_GITPIPE_COMPLETE": "complete_bash", "COMP_WORDS": "", "COMP_CWORD": "x"},
        {"_GITPIPE_COMPLETE": "complete_bash", "COMP_WORDS": "gitpipe get-file 'tr", "COMP_CWORD": "9"},
        {"_GITPIPE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "gitpipe get-file 'a\\"},
        {"_GITPIPE_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": "gitpipe -C /nowhere get-file "},
        bash_words("get-file", ""),
        bash_words("get-file", "a" * 100_000),
        bash_words("-C", "\udcff", "get-file", ""),
    ],
)
def test_never_an_error(tmp_path: Path, variables: dict[str, str]) -> None:
    done = ask(tmp_path, **variables)
    assert done.stderr == "" and done.stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []


def test_damage_is_no_error(lab: Lab) -> None:
    lab.data("training", {"x.csv": "1"})
    lab.pipeline("model", {"training": "/"})
    (lab.root / ".git/gitpipe/journal.sqlite").write_bytes(b"no database")
    for path in (lab.root / ".git/dvc/cache").rglob("*.dir"):
        path.chmod(0o644)
        path.write_bytes(b"no listing")
    for words in (("inspect-job", ""), ("get-file", "training", ""), ("list-file", "")):
        done = ask(lab.root, **bash_words(*words))
        assert done.stderr == ""
    assert done.stdout.split() == ["model", "training"]


@pytest.mark.parametrize(
    ("tokens", "words", "cut"),
    [
        (["gitpipe", "get-file", "tr"], ["gitpipe", "get-file", "tr"], ""),
        (["gitpipe", "get-file", "training", "@", "ma"], ["gitpipe", "get-file", "training@ma"], "training"),
        (["gitpipe", "logs", "--job", "=", "4"], ["gitpipe", "logs", "--job=4"], "--job="),
        (["gitpipe", "x", "r", "@", "b", ":", "p"], ["gitpipe", "x", "r@b:p"], "r@b:"),
        (["gitpipe", "x", "r", "@"], ["gitpipe", "x", "r@"], "r"),
        (["gitpipe", "x", "r", ":", "a", "b"], ["gitpipe", "x", "r:a", "b"], ""),
        (["gitpipe", "x", "my\\ fi"], ["gitpipe", "x", "my fi"], ""),
        (["gitpipe", "x", "'my fi"], ["gitpipe", "x", "my fi"], ""),
        (["gitpipe", "x", ""], ["gitpipe", "x", ""], ""),
    ],
)
def test_what_bash_splits_is_put_together(tokens: list[str], words: list[str], cut: str) -> None:
    assert complete.glue(tokens) == (words, cut)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("gitpipe get", ["gitpipe", "get"]),
        ("gitpipe get ", ["gitpipe", "get", ""]),
        ("gitpipe get 'my fi", ["gitpipe", "get", "my fi"]),
        ('gitpipe get "my\\', ["gitpipe", "get", "my\\"]),
        ("gitpipe get my\\ ", ["gitpipe", "get", "my "]),
        ("gitpipe #x", ["gitpipe", "#x"]),
        ("", [""]),
    ],
)
def test_split(line: str, words: list[str]) -> None:
    assert complete.split(line) == words


# ---------------------------------------------------------------- real shells

SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        'eval "$(_GITPIPE_COMPLETE=source_bash gitpipe)"',
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u -D; eval "$(_GITPIPE_COMPLETE=source_zsh gitpipe)"',
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "_GITPIPE_COMPLETE=source_fish gitpipe | source",
    ),
}
GIT_COMPLETION = [
    Path("/usr/share/bash-completion/completions/git"),
    Path("/usr/share/git/completion/git-completion.bash"),
]
SECONDS = 60

Typist = Callable[[str], list[str]]
"""Types a line with tabs at a prompt and presses return; the words that the shell called gitpipe with."""


def at_prompt(shell: str, folder: Path, scratch: Path, setup: str = "") -> Iterator[Typist]:
    """A shell in a terminal whose `gitpipe` completes as ours does, and else notes what it was called with."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    start, source = SHELLS[shell]
    real, note = shutil.which("gitpipe"), scratch / "called"
    (scratch / "bin").mkdir()
    for name in ("gitpipe", "git-pipe"):
        program = scratch / "bin" / name
        program.write_text(
            f'#!/bin/sh\n[ -n "$_GITPIPE_COMPLETE" ] && exec {shlex.quote(str(real))} "$@"\n'
            f"printf '%s\\n' \"$@\" > {note}.part && mv {note}.part {note}\n"
        )
        program.chmod(0o755)
    env = {**os.environ, "PATH": f"{scratch / 'bin'}:{os.environ['PATH']}", "TERM": "xterm", "PS1": "> "}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        start,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,  # fish does not live without job control
    )
    os.close(slave)
    shown = bytearray()

    def wait_for(path: Path) -> None:
        end = time.monotonic() + SECONDS
        while not path.exists():
            assert time.monotonic() < end and process.poll() is None, (
                f"{shell} shows:\n{shown.decode(errors='replace')}"
            )
            if select.select([master], [], [], 0.05)[0]:
                shown.extend(os.read(master, 65536))

    def type_line(line: str) -> list[str]:
        note.unlink(missing_ok=True)
        os.write(master, line.encode() + b"\r")
        wait_for(note)
        return note.read_text().splitlines()

    try:
        ready = scratch / "ready"
        os.write(master, f"{source}; {setup or ':'}; touch {ready}\r".encode())
        wait_for(ready)
        yield type_line
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.fixture
def typing(request: pytest.FixtureRequest, shop: Lab, tmp_path: Path) -> Iterator[SimpleNamespace]:
    for typist in at_prompt(request.param, shop.root, tmp_path):
        yield SimpleNamespace(line=typist, shell=request.param)


LINES = [
    ("gitpipe list-pi\t", ["list-pipeline"]),
    ("gitpipe inspect re\ttra\t", ["inspect", "repo", "training"]),
    ("gitpipe get-file attributes a\t", ["get-file", "attributes", "a.csv"]),
    ("gitpipe get-file attributes@ma\t", ["get-file", "attributes@master"]),
    ("gitpipe get-file training@staging:\t", ["get-file", "training@staging:staged.csv"]),
    ("gitpipe get-file attributes:deep\t", ["get-file", "attributes:deep/er/only.csv"]),
    ("gitpipe get-file attributes my\t", ["get-file", "attributes", "my  file.csv"]),
    ("gitpipe get-file 'attributes' 'my\t", ["get-file", "attributes", "my  file.csv"]),
    ("gitpipe get-file attributes it\t", ["get-file", "attributes", "it's 5 o'clock.csv"]),
    ("gitpipe get-file attributes odd\t", ["get-file", "attributes", "odd:na@me=x.csv"]),
    ("gitpipe get-file attributes:odd:\t", ["get-file", "attributes:odd:na@me=x.csv"]),
    ("gitpipe get-file attributes st\t", ["get-file", "attributes", "star*.csv"]),
    ("gitpipe get-file attributes w\t", ["get-file", "attributes", "wörter.csv"]),
    ("gitpipe get-file attributes \\$\t", ["get-file", "attributes", "$HOME.csv"]),
    ("gitpipe logs --pipeline mo\t--ta\t5", ["logs", "--pipeline", "model", "--tail", "5"]),
    ("gitpipe logs --pipeline=mo\t", ["logs", "--pipeline=model"]),
    ("gitpipe inspect-job 11\t", ["inspect-job", "1" * 12]),
    ("gitpipe create-pipeline -f READ\t", ["create-pipeline", "-f", "README"]),
]


@pytest.mark.parametrize("typing", sorted(SHELLS), indirect=True)
def test_at_a_prompt(typing: SimpleNamespace) -> None:
    wrong = {}
    for line, words in LINES:
        called = typing.line(line)
        if called != words:
            wrong[line] = called
    assert not wrong


def test_git_pipe_in_bash(shop: Lab, tmp_path: Path) -> None:
    """The lines that docs/commands.md says to put into ~/.bashrc."""
    script = next((path for path in GIT_COMPLETION if path.exists()), None)
    if script is None:
        pytest.skip("git's own completion for bash is not installed here")
    page = (Path(__file__).parent.parent / "docs/commands.md").read_text()
    (ours,) = [block for block in page.split("```") if "_git_pipe()" in block]
    (tmp_path / "ours.bash").write_text(ours.partition("\n")[2])
    for line in at_prompt("bash", shop.root, tmp_path, f"source {script}; source {tmp_path / 'ours.bash'}"):
        assert line("git pipe list-pi\t--raw") == ["list-pipeline", "--raw"]
        assert line("git pipe get-file training@staging:\t") == ["get-file", "training@staging:staged.csv"]
        assert line("git pipe get-file attributes my\t-r") == ["get-file", "attributes", "my  file.csv", "-r"]
