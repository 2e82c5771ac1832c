"""When something is wrong, seen as a user: one clear line, the right exit status, nothing half-done.

Most cases run in this process, through the one handler that the command line has; a few start real processes, to see
that the handler stands where it should.  After every refusal refs, index, working tree and settings are what they were.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gitpipe import cli
from tests.conftest import Shell, end_runner

COPY = ["sh", "-c", "cp -r /pfs/training/* /pfs/out/"]
BAD_NAMES = ["a b", "", "..", "a/b", "ü", "a\nb", "a\udcff", "*", "\x1b[31mred", "@", ":", "x" * 3 + "\0"]
BAD_PATHS = ["../x", "/../x", "a/../../x", "a//b", ".git/config", "a/.GIT/hooks/x", "a\0b", "a\udcff", "./../x"]


def spec(name: str = "p", cmd: Any = COPY, **fields: Any) -> dict[str, Any]:
    """A pipeline that reads `training`, with some fields changed (None: left out)."""
    made = {
        "pipeline": {"name": name},
        "transform": {"cmd": cmd},
        "input": {"pfs": {"repo": "training", "glob": "/*"}},
        "datum_tries": 1,
        **fields,
    }
    return {key: value for key, value in made.items() if value is not None}


def run(*args: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """One command line in this process: (status, standard output, standard error)."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    folder = Path.cwd()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.run(list(args))
    finally:
        sys.stdin = before
        os.chdir(folder)
    out.flush()
    return status, out.buffer.getvalue().decode(errors="replace"), err.getvalue()


def state(repo: Path) -> str:
    """All that a refused command must not have changed."""
    script = """git for-each-ref; git config --local --list; git ls-files -s
    git status --porcelain -z -uall | tr '\\0' '\\n'"""
    done = subprocess.run(["sh", "-c", script], cwd=repo, capture_output=True, text=True, errors="replace")
    return done.stdout


Case = tuple[list[str], int, str]
"""What is typed, the exit status, and words of the line that answers."""


def refuses(repo: Path, cases: list[Case]) -> None:
    """Every case ends with its status and one line that has the words; all of them together change nothing."""
    before, wrong = state(repo), []
    for args, expected, words in cases:
        status, _, err = run(*args)
        if status != expected or err.count("\n") != 1 or not err.startswith("gitpipe: ") or words not in err:
            wrong.append(f"{args}: {status} {err!r}, not {expected} {words!r}")
    if (now := state(repo)) != before:
        wrong.append(f"one of them changed\n{before}\n--- to ---\n{now}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def repo(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the data repo `training`; nobody is nudged, what runs is run in the foreground."""
    monkeypatch.setenv("GITPIPE", "0")
    monkeypatch.chdir(scratch)
    assert run("init")[0] == 0
    for key, value in (("engine", "local"), ("linger", "1")):
        subprocess.run(["git", "config", f"gitpipe.{key}", value], check=True)
    (scratch / "a.csv").write_text("1\n")
    (scratch / "b.csv").write_text("2\n")
    assert run("create-repo", "training")[0] == 0
    assert run("put-file", "training", "/", "-f", "a.csv", "-f", "b.csv")[0] == 0
    return scratch


def pipelines(repo: Path, *specs: dict[str, Any]) -> None:
    """Create pipelines, each from a file of its own folder."""
    files = []
    for each in specs:
        folder = repo / "pipelines" / each["pipeline"]["name"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(each))
        files += ["-f", str(folder / "spec.json")]
    status, _, err = run("create-pipeline", *files)
    assert status == 0, err


# ---------------------------------------------------------------- typed wrongly


def test_typed_wrongly(repo: Path) -> None:
    """Exit status 2, and where to read how it is typed."""
    refuses(
        repo,
        [
            (["nosuch"], 2, "No such command 'nosuch'"),
            (["list"], 2, "list-repo"),
            (["--nosuch"], 2, "gitpipe --help"),
            (["-C"], 2, "requires an argument"),
            (["hooks"], 2, "hooks --help"),
            (["runner", "nosuch"], 2, "No such command"),
            (["create-repo"], 2, "REPO"),
            (["create-repo", "-x"], 2, "No such option"),
            (["put-file", "training", "--nosuch"], 2, "put-file --help"),
            (["put-file", "training", "-a", "-o", "-f", "a.csv"], 2, "exclude each other"),
            (["put-file", "training", "-f", "-"], 2, "needs a path"),
            (["put-file", "training", "-f", "pipelines", "-i", os.devnull], 1, "pipelines does not exist"),
            (["put-file", "training", "-i", os.devnull], 2, "-f FILE"),
            (["put-file", "training", "-f", "ftp://host/x"], 2, "http"),
            (["put-file", "training", "a", "b", "c", "-f", "a.csv"], 2, "too many words"),
            (["put-file", "training", "-f", "."], 2, "put-file -r"),
            (["get-file", "training", "/"], 2, "get-file -r"),
            (["get-file", "-r", "training", "/"], 2, "-o OUT"),
            (["delete-file", "training"], 2, "name the file"),
            (["glob-file", "training"], 2, "a pattern"),
            (["logs", "--tail", "-1"], 2, "--tail"),
            (["list-job", "--limit", "0"], 2, "--limit"),
            (["wait", "--timeout", "soon"], 2, "--timeout"),
            (["add"], 2, "PATH"),
        ],
    )


def test_names_and_places_that_lead_nowhere(repo: Path) -> None:
    """A name that is no name, a repo, branch, file, pipeline or job that is not there, a path out of the repo."""
    takes_repo = ["inspect-repo", "delete-repo", "list-file", "list-commit", "inspect-commit", "log"]
    takes_repo += ["start-commit", "finish-commit"]
    takes_pipeline = ["inspect-pipeline", "run-pipeline", "start-pipeline", "stop-pipeline", "delete-pipeline"]
    cases: list[Case] = [(["create-repo", "--", name], 1, "use letters, digits") for name in [*BAD_NAMES, "-x"]]
    cases += [(["create-repo", name], 1, "reserved") for name in ("HEAD", "__spec__")]
    cases += [(["create-repo", name], 1, "exists already") for name in ("main", "training")]
    cases += [([verb, "nosuch"], 1, "repo nosuch does not exist") for verb in takes_repo]
    cases += [([verb, "a b"], 1, "use letters, digits") for verb in takes_repo]
    cases += [([verb, "nosuch"], 1, "pipeline nosuch does not exist") for verb in takes_pipeline]
    for path in BAD_PATHS:
        cases.append((["put-file", "training", path, "-f", "a.csv"], 1, "bad path"))
    cases.append((["put-file", "training@master:../x", "-f", "a.csv"], 1, "bad path"))
    cases += [([verb, "training", "../x"], 1, "bad path") for verb in ("get-file", "list-file", "delete-file")]
    cases += [([verb, "training", "no.csv"], 1, "no file no.csv") for verb in ("get-file", "list-file", "delete-file")]
    cases += [
        (["put-file", "training@nosuch:x", "-f", "a.csv"], 1, "no branch or commit 'nosuch'"),
        (["list-file", "training@"], 1, "no branch or commit"),
        (["list-commit", "training", "nosuch"], 1, "no branch or commit 'nosuch'"),
        (["inspect-commit", "training", "deadbeef"], 1, "no branch or commit 'deadbeef'"),
        (["start-commit", "training@nosuch"], 1, "no branch or commit"),
        (["finish-commit", "training"], 1, "no open commit"),
        (["put-file", "training", "-f", "no.csv"], 1, "no.csv does not exist"),
        (["put-file", "training", "-i", "no.txt"], 1, "cannot read the list no.txt: No such file"),
        (["put-file", "training", "-f", "http://127.0.0.1:9/x"], 1, "cannot read http://127.0.0.1:9/x: Connection"),
        (["put-file", "training", "-f", "/dev/null"], 1, "neither a file nor a folder"),
        (["put-file", "training", "a.csv/b", "-f", "b.csv"], 1, "both a file and a folder"),
        (["put-file", "main", "x", "-f", "a.csv"], 1, "main is not a data repo"),
        (["inspect-repo", "main"], 1, "main is not a data repo"),
        (["get-file", "training", "a.csv", "-o", "/nosuch/x"], 1, "cannot write /nosuch/x"),
        (["get-file", "-r", "training", "/", "-o", "/proc/x"], 1, "cannot write /proc/x"),
        (["glob-file", "training", "/["], 1, "never closed"),
        (["inspect-job", "nosuch"], 1, "no job or pipeline 'nosuch'"),
        (["logs", "--job", "nosuch"], 1, "no job or pipeline 'nosuch'"),
        (["logs", "--pipeline", "nosuch"], 1, "pipeline nosuch does not exist"),
        (["logs", "-f", "--job", "nosuch"], 1, "no job or pipeline 'nosuch'"),
        (["list-job", "-w", "--pipeline", "nosuch"], 1, "pipeline nosuch does not exist"),
        (["list-job", "--pipeline", "nosuch"], 1, "pipeline nosuch does not exist"),
        (["run-pipeline", "p", "nosuch@master"], 1, "nosuch has no branch or commit 'master'"),
        (["run-pipeline", "p", "training@nosuch"], 1, "no branch or commit 'nosuch'"),
        (["example", "nosuch"], 1, "there is: "),
        (["-C", "/nosuch", "status"], 1, "there is no such folder"),
        (["-C", "a.csv", "status"], 1, "not a folder"),
        (["add", "data"], 1, "main is not a data repo"),
    ]
    refuses(repo, cases)


def test_what_is_not_a_data_repo_is_not_deleted_as_one(repo: Path, sh: Shell) -> None:
    """delete-repo takes neither a code branch nor the pipelines' own branch, nor one that is read or checked out."""
    pipelines(repo, spec())
    sh("git branch feature && git worktree add -q ../training training", cwd=repo)
    refuses(
        repo,
        [
            (["delete-repo", "feature"], 1, "git branch -D feature"),
            (["delete-repo", "main"], 1, "main"),
            (["delete-repo", "__spec__"], 1, "holds the pipelines"),
            (["delete-repo", "training"], 1, "read by pipeline p"),
            (["delete-repo", "training", "-f"], 1, "checked out"),
            (["delete-repo", "p"], 1, "gitpipe delete-pipeline p"),
        ],
    )


def test_output_repo_as_target(repo: Path, sh: Shell) -> None:
    """Refused, before there is any output and after; readers are told which of the two it is."""
    pipelines(repo, spec())
    targets: list[Case] = [
        (["put-file", "p", "x", "-f", "a.csv"], 1, "p is the output of a pipeline"),
        (["put-file", "p@master:x", "-f", "a.csv"], 1, "p is the output of a pipeline"),
        (["delete-file", "p", "a.csv"], 1, "p is the output of a pipeline"),
        (["start-commit", "p"], 1, "p is the output of a pipeline"),
        (["create-repo", "p"], 1, "p is the output of a pipeline"),
    ]
    early: list[Case] = [
        ([verb, "p"], 1, "pipeline p has no output yet")
        for verb in ("list-file", "list-commit", "inspect-commit", "log")
    ]
    refuses(repo, [*targets, *early, (["inspect-job", "p"], 1, "no job")])
    assert run("run")[0] == 0
    refuses(repo, targets)
    sh("git worktree add -q ../p p && mkdir -p ../p/data && echo 3 > ../p/data/c.csv", cwd=repo)
    os.chdir(repo.parent / "p")
    refuses(repo.parent / "p", [(["add", "data"], 1, "p is the output of a pipeline")])


# ---------------------------------------------------------------- specs


def bomb(member: str) -> str:
    """A few lines of YAML that would expand to billions of values."""
    lines = ["a: &a {x: 1}"]
    lines += [f"{b}: &{b} {member.format(','.join(['*' + a] * 20))}" for a, b in pairwise("abcdefghijkl")]
    return "\n".join(lines)


TEXT: list[tuple[str | bytes, str]] = [
    ("", "empty"),
    ("[]", "empty"),
    ("{bad", "spec.json:1: not valid JSON"),
    ("hello", "expected an object"),
    ("{}", "pipeline: is missing"),
    (b"\x7fELF\x00\x01\xff", "binary"),
    ('{"a": "caf\u00e9"}'.encode("latin-1"), "not UTF-8"),
    (b"\0" * (10 << 20), "too large"),
    (b" " * (10 << 20), "too large"),
    (b" " * (11 << 20), "too large"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 50_000, "nested too deeply"),
    ("pipeline: [unclosed\n", "not valid YAML"),
    ("- " * 100_000, "nested too deeply"),  # YAML in block form; the C library crashes the process at this depth
    ("pipeline: " + "{a: " * 50_000, "nested too deeply"),
    (bomb("[{}]"), "expands to more than"),
    (bomb("\n  <<: [{}]"), "expands to more than"),
    ("a: &a [*a]\n", "holds itself"),
    ("pipeline: {name: a, name: b}\n", "'name' stands twice"),
    ('{"pipeline": {"name": "a", "name": "b"}}', "'name' stands twice"),
    ('{"a": ' + "9" * 5000 + "}", "too many digits"),
    ("a: " + "9" * 5000 + "\n", "too many digits"),
    ("pipeline: " + "1:" * 9999 + "1\n", "too many digits"),
    ('{"description": "' + "x" * (10 << 20) + '"}', "too large"),
    ('{"pipeline": {"name": "p"}}'.encode("utf-16"), "binary"),
    ('pipeline: !!python/object/apply:os.system ["id"]\n', "not valid YAML"),
]
"""Contents of a file that is no spec, and words of the line that says so."""

FIELDS: list[tuple[dict[str, Any], str]] = [
    (spec(pipeline={}), "pipeline.name: is missing"),
    (spec(""), "pipeline.name"),
    (spec("a b"), "pipeline.name"),
    (spec("-x"), "do not begin with '-'"),
    (spec("\x1b[31mred"), "\\x1b[31mred"),
    (spec(3), "pipeline.name: expected a string"),  # type: ignore[arg-type]
    (spec("__spec__"), "is taken"),
    (spec("HEAD"), "is taken"),
    (spec("main"), "branch main"),
    (spec("training", input={"pfs": {"repo": "other", "glob": "/"}}), "branch training"),
    (spec(input={"pfs": {"repo": "nosuch", "glob": "/"}}), "gitpipe create-repo nosuch"),
    (spec(input={"pfs": {"repo": "training", "glob": "/["}}), "never closed"),
    (spec(input={"pfs": {"repo": "training", "glob": ""}}), "glob"),
    (spec(input={"pfs": {"repo": "training"}}), "input.pfs.glob: is missing"),
    (spec(input={"pfs": {"repo": "p", "glob": "/"}}), "its own output"),
    (spec(input={"pfs": {"repo": "training", "glob": "/", "name": "out"}}), "'out'"),
    (spec(input={"cross": []}), "input.cross"),
    (spec(input={"cross": [{"pfs": {"repo": "training", "glob": "/"}}] * 2}), "two inputs"),
    (spec(input=None), "input: is missing"),
    (spec(input=[]), "expected an object"),
    (spec(cmd="sh"), "expected a list of strings"),
    (spec(cmd=[]), "transform.cmd"),
    (spec(cmd=[1]), "transform.cmd[0]: expected a string"),
    (spec(cmd=[""]), "expected the name of a program"),
    (spec(transform={}), '"cmd"'),
    (spec(parallelism_spec={"constant": -1}), "at least 0"),
    (spec(parallelism_spec={"constant": "x"}), "a whole number"),
    (spec(parallelism_spec={"constant": 10**9}), "at most 10000"),
    (spec(parallelism_spec={"coefficient": float("nan")}), "a finite number"),
    (spec(parallelism_spec={"coefficient": float("inf")}), "a finite number"),
    (spec(datum_tries=10**400), "at most 10000"),
    (spec(datum_tries="three"), "a whole number"),
    (spec(datum_tries=True), "a whole number"),
    (spec(datum_timeout="soon"), "a duration"),
    (spec(datum_timeout="9" * 400 + "h"), "at most 277777 hours"),
    (spec(description="\ud800"), "half a surrogate pair"),
    (spec(cmd=["a\0b"]), "NUL character"),
    (spec(input={"pfs": {"repo": "training", "glob": "/\ud800"}}), "half a surrogate pair"),
    (spec(code=["../x"]), "below the spec's folder"),
    (spec(code=["nosuch.py"]), "code 'nosuch.py'"),
    (spec(foo=1), "foo: is not a field here"),
]


def test_specs_that_are_wrong(repo: Path, tmp_path: Path) -> None:
    """One line with the file, the field and what was expected; nothing is created."""
    folder = tmp_path / "specs"
    folder.mkdir()
    texts: list[tuple[str | bytes, str]] = [*TEXT, *((json.dumps(fields), words) for fields, words in FIELDS)]
    circle = [spec(a, input={"pfs": {"repo": b, "glob": "/"}}) for a, b in ("xy", "yx")]
    texts += [(json.dumps(circle), "in a circle: x → y → x"), (json.dumps([spec(), spec()]), "twice")]
    cases: list[Case] = []
    for number, (text, words) in enumerate(texts):
        file = folder / str(number) / "spec.json"
        file.parent.mkdir()
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        cases.append((["create-pipeline", "-f", str(file)], 1, words))
    good = folder / "good.json"
    good.write_text(json.dumps(spec()))
    cases += [
        (["create-pipeline", "-f", str(good), "-f", str(folder / "1" / "spec.json")], 1, "empty"),  # all or none
        (["create-pipeline", "-f", str(good), "-f", str(good)], 1, "twice"),
        (["update-pipeline", "-f", str(good)], 1, "create-pipeline"),
        (["create-pipeline", "-f", "nosuch.json"], 1, "cannot read the spec nosuch.json"),
        (["create-pipeline", "-f", str(folder)], 1, "is a folder"),
        (["create-pipeline", "-f", ""], 1, "names no file"),
        (["create-pipeline"], 1, "<stdin>: empty"),
        (["create-pipeline", "-f", "a\nb\udcff.json"], 1, "a\\nb\\udcff.json"),
    ]
    refuses(repo, cases)
    pipelines(repo, spec())
    refuses(
        repo,
        [
            (["create-pipeline", "-f", str(good)], 1, "update-pipeline"),
            (["update-pipeline", "-f", str(folder / "2" / "spec.json")], 1, "not valid JSON"),
        ],
    )


# ---------------------------------------------------------------- repositories of all kinds

EVERY = [
    "init",
    "status",
    "create-repo a",
    "list-repo",
    "inspect-repo a",
    "delete-repo a",
    "put-file a -f x",
    "get-file a x",
    "inspect-file a x",
    "copy-file a x a y",
    "diff-file a x",
    "list-file a",
    "glob-file a /*",
    "delete-file a x",
    "start-commit a",
    "delete-commit a",
    "finish-commit a",
    "list-commit a",
    "inspect-commit a",
    "subscribe-commit a",
    "create-branch a b",
    "list-branch a",
    "delete-branch a b",
    "create-pipeline -f x",
    "update-pipeline -f x",
    "list-pipeline",
    "inspect-pipeline x",
    "run-pipeline x",
    "run-cron x",
    "start-pipeline x",
    "stop-pipeline x",
    "delete-pipeline x",
    "list-job",
    "inspect-job x",
    "stop-job x",
    "restart-datum x y",
    "list-datum x",
    "inspect-datum x y",
    "logs",
    "explain x",
    "diff a",
    "list-worker",
    "wait",
    "run",
    "add data",
    "log",
    "dag",
    "trust --yes",
    "hooks status",
    "hooks install",
    "hooks uninstall",
    "runner status",
    "runner stop",
]
"""Every command that needs a repository."""


def test_every_command_is_in_the_table() -> None:
    import typer

    from gitpipe.cli.app import app

    have = {line.split()[0] for line in EVERY}
    assert set(typer.main.get_command(app).commands) == have | {"version", "example", "schema"}  # type: ignore[attr-defined]


def test_no_repository_no_init_no_git(tmp_path: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command says which of the three is missing."""
    for name in ("plain", "fresh"):
        (tmp_path / name).mkdir()
    sh("git init -q fresh", cwd=tmp_path)
    os.chdir(tmp_path / "plain")
    refuses(tmp_path, [(line.split(), 1, "not in a git repository: run `git init`") for line in EVERY])
    assert not any((tmp_path / "plain").iterdir())
    os.chdir(tmp_path / "fresh")
    refuses(tmp_path / "fresh", [(line.split(), 1, "run `gitpipe init`") for line in EVERY if line != "init"])
    assert not (tmp_path / "fresh" / ".git" / "gitpipe").exists()
    here = Path(sh("command -v gitpipe").strip())
    said = sh(f"PATH=/nosuch {here} status", cwd=tmp_path / "fresh", status=1, stderr=True)  # what an import says too
    assert said == "gitpipe: git is not installed or not on PATH: install git 2.30 or newer\n"
    monkeypatch.setenv("PATH", "/nosuch")
    for line in EVERY:
        assert run(*line.split()) == (1, "", said)


def test_bare_empty_detached(tmp_path: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data goes in and results come out also there; `add`, which needs a branch checked out, says so."""
    monkeypatch.setenv("GITPIPE", "0")
    (tmp_path / "x.csv").write_text("1\n")
    (tmp_path / "spec.json").write_text(json.dumps(spec()))
    sh("git init -q --bare bare; git init -q empty; git init -q detached; cd detached; echo 1 >README")
    sh("git add README; git commit -qm x; git switch -q --detach", cwd=tmp_path / "detached")
    for kind, words in (
        ("bare", "bare repository"),
        ("empty", "there is no data/"),
        ("detached", "HEAD is detached"),
    ):
        os.chdir(tmp_path / kind)
        for line in (
            "init",
            "create-repo training",
            "put-file training -f ../x.csv",
            "create-pipeline -f ../spec.json",
        ):
            status, _, err = run(*line.split())
            assert status == 0, f"{kind}: {line}: {err}"
        sh("git config gitpipe.engine local", cwd=tmp_path / kind)
        assert run("run")[0] == 0
        assert run("get-file", "p", "x.csv")[1] == "1\n"
        refuses(tmp_path / kind, [(["add", "data"], 1, words)])


def test_paths_that_cannot_be(tmp_path: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done where git's worktrees or SQLite would fail later; a `$` is part of a name like any other."""
    monkeypatch.setenv("HERE", "elsewhere")
    names = {"line\nbreak": "has a line break", "/".join(["long" * 50] * 3): "at most 480 work", "a $HERE": ""}
    for name, problem in names.items():
        top = tmp_path / name
        top.mkdir(parents=True)
        sh("git init -q", top)
        said = sh("gitpipe init", top, status=1 if problem else 0, stderr=True)
        assert problem in said and "Warning" not in said
        assert bool(sh("git config --get-regexp ^gitpipe || true", top)) is not bool(problem)


def test_git_does_not_know_who_you_are(repo: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without user.name, as without HOME, commits are refused; what only reads goes on, and so do jobs."""
    pipelines(repo, spec())
    for name in list(os.environ):
        if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER", "EMAIL")):
            monkeypatch.delenv(name)
    sh("git config user.useConfigOnly true", cwd=repo)
    changes = ["create-repo q", "put-file training n -f a.csv", "delete-file training a.csv", "start-commit training"]
    changes += ["update-pipeline -f pipelines/p/spec.json --reprocess", "delete-pipeline p"]
    for home in (True, False):
        if not home:
            monkeypatch.delenv("HOME")
            monkeypatch.delenv("GIT_CONFIG_GLOBAL")
        refuses(repo, [(line.split(), 1, "git config user.name") for line in changes])
        assert run("run")[0] == run("status")[0] == run("list-file", "p")[0] == 0


# ---------------------------------------------------------------- names of files

ODD = ["a b", "ä/ü", "é", "e\u0301", "-rf", "*", "[x]", "a@b:c", "$HOME", "'\"", "tab\t", "line\nbreak", "u\u2028v"]
ODD += ["a..b", ".hidden", "\\", "\x1b[31mred", "x" * 255]


def test_odd_file_names(repo: Path) -> None:
    """Any name that is UTF-8 goes in, through a stage and out again, byte for byte; others are refused."""
    source = repo.parent / "odd"
    for name in ODD:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    assert run("create-repo", "odd")[0] == 0
    assert run("put-file", "odd", "/", "-r", "-f", str(source))[0] == 0
    pipelines(
        repo,
        spec("copy", ["cp", "-r", "/pfs/odd/.", "/pfs/out/"], input={"pfs": {"repo": "odd", "glob": "/"}}),
    )
    assert run("run")[0] == 0
    for place in ("odd", "copy"):
        for name in ODD:
            assert run("get-file", f"{place}@master:{name}")[:2] == (0, name), name
        status, out, _ = run("list-file", place, "--raw")
        assert status == 0
        assert {json.loads(line)["name"] for line in out.splitlines()} == {name.split("/")[0] for name in ODD}
        assert len(run("list-file", place)[1].splitlines()) == len(ODD) + 1  # a line break does not break a table
    out_folder = repo.parent / "out"
    assert run("get-file", "-r", "copy", "/", "-o", str(out_folder))[0] == 0
    assert {name: (out_folder / name).read_text() for name in ODD} == {name: name for name in ODD}
    for name in ODD:
        assert run("delete-file", "odd", "--", name)[0] == 0, name
    assert run("list-file", "odd")[1].count("\n") == 1
    assert run("run")[0] == 0
    (source / os.fsdecode(b"a\xff")).write_text("x")
    refuses(repo, [(["put-file", "odd", "/", "-r", "-f", str(source)], 1, "bad path")])


# ---------------------------------------------------------------- disks and damage


@contextmanager
def mounted(*args: str) -> Iterator[None]:
    """A mount; the test is skipped, visibly, where that is not allowed.  ``mount ARGS``, the last one is the place."""
    done = subprocess.run(["mount", *args], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", args[-1]], check=True)


READS = [
    "status",
    "list-repo",
    "inspect-repo training",
    "list-file training",
    "get-file p a.csv",
    "glob-file training /*",
    "list-commit training",
    "inspect-commit p",
    "list-pipeline",
    "inspect-pipeline p",
    "list-job",
    "inspect-job p",
    "logs",
    "list-worker",
    "log --provenance p",
    "runner status",
    "hooks status",
]


def test_read_only_disk(repo: Path, sh: Shell) -> None:
    """What reads works, what writes is refused."""
    pipelines(repo, spec())
    sh("gitpipe run", cwd=repo)  # a process that ends: the journal is whole in one file
    os.chdir(repo.parent)
    with mounted("--bind", str(repo), str(repo)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(repo)], check=True)
        os.chdir(repo)
        wrong = [f"{line}: {answer}" for line in READS if (answer := run(*line.split()))[0] or answer[2]]
        assert not wrong, "\n".join(wrong)
        writes = ["create-repo q", "put-file training n -f b.csv", "delete-file training a.csv"]
        writes += ["start-commit training", "update-pipeline -f pipelines/p/spec.json --reprocess", "delete-pipeline p"]
        writes += ["run", "wait", "stop-pipeline p"]
        refuses(repo, [(line.split(), 1, "") for line in writes])
        os.chdir(repo.parent)
    os.chdir(repo)
    with mounted("--bind", ".git/dvc/cache", ".git/dvc/cache"):
        subprocess.run(["mount", "-o", "remount,ro,bind", ".git/dvc/cache"], check=True)
        (repo / "n").write_text("new\n")
        refuses(repo, [(["put-file", "training", "-f", "n"], 1, "in the cache")])
        assert run("update-pipeline", "-f", "pipelines/p/spec.json", "--reprocess")[0] == 0
        refuses(repo, [(["run"], 3, "Read-only file system")])  # I5: nothing is published
    assert run("run")[0] == 0  # and nothing has to be mended


def fill() -> None:
    """Leave not a byte free."""
    Path("full").mkdir(exist_ok=True)
    with pytest.raises(OSError, match="space"), Path("full", os.urandom(4).hex()).open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def test_full_disk(repo: Path, sh: Shell) -> None:
    """One line; when there is room again it goes on, and the journal has not been thrown away for it (I1, I7)."""
    pipelines(repo, spec())
    sh("gitpipe run", cwd=repo)  # a process that ends: the journal is whole in one file
    place = repo.parent / "small"
    place.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "none", str(place)):
        shutil.copytree(repo, place / "repo", symlinks=True)
        os.chdir(place / "repo")
        Path("n").write_bytes(os.urandom(300_000))
        fill()
        head = subprocess.run(["git", "for-each-ref"], capture_output=True).stdout
        wrong = [f"{line}: {answer}" for line in READS if (answer := run(*line.split()))[0] or answer[2]]
        assert not wrong, "\n".join(wrong)
        for line in ("put-file training -f n", "create-repo q", "start-commit training", "run"):
            fill()
            status, _, err = run(*line.split())
            assert status == 1 and err.count("\n") == 1 and "o space left" in err, (line, err)
        assert subprocess.run(["git", "for-each-ref"], capture_output=True).stdout == head
        shutil.rmtree("full")
        assert "success" in run("list-job")[1]
        assert run("put-file", "training", "-f", "n")[0] == 0
        assert run("run")[1].endswith("1 + 2 / 3 success\n")
        subprocess.run(["git", "fsck", "--strict"], check=True, capture_output=True)
        os.chdir(repo)


def rewrite(repo: Path, branch: str, path: str, content: str) -> None:
    """Commit other content of a file to a branch, as some broken program might."""
    script = """
    export GIT_INDEX_FILE=.git/broken; git read-tree "$1"; sha=$(printf %s "$3" | git hash-object -w --stdin)
    git update-index --add --cacheinfo "100644,$sha,$2"
    git update-ref "refs/heads/$1" "$(git commit-tree -p "$1" -m broken "$(git write-tree)")"; rm -f .git/broken
    """
    subprocess.run(["sh", "-ec", script, "sh", branch, path, content], cwd=repo, check=True, capture_output=True)


POINTERS = [
    ("garbage: [", "data.dvc is not YAML"),
    ("outs: 3", "data.dvc is malformed"),
    ("outs:\n- md5: zz\n  path: data\n", "bad md5 'zz'"),
    ("outs:\n- md5: ../../../../etc.dir\n  path: data\n", "bad md5"),
    ("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n", "is not in the cache"),
]


def test_damaged_pointers_and_blobs(repo: Path) -> None:
    """The line names the commit; other repos go on; the job fails, nothing is published (I5); going back mends it."""
    pipelines(repo, spec())
    assert run("run")[0] == 0
    good = subprocess.run(["git", "rev-parse", "training"], capture_output=True, text=True).stdout.strip()
    output = subprocess.run(["git", "rev-parse", "p"], capture_output=True, text=True).stdout
    for content, words in POINTERS:
        rewrite(repo, "training", "data.dvc", content)
        cases = [["list-file", "training"], ["get-file", "training", "a.csv"]]
        cases += [["put-file", "training", "n", "-f", "a.csv"], ["delete-file", "training", "a.csv"]]
        refuses(repo, [(args, 1, words) for args in cases])
        assert run("list-repo")[0] == run("inspect-repo", "training")[0] == run("list-commit", "training")[0] == 0
    refuses(repo, [(["run"], 3, "p: commit ")])
    assert subprocess.run(["git", "rev-parse", "p"], capture_output=True, text=True).stdout == output
    subprocess.run(["git", "update-ref", "refs/heads/training", good], check=True)
    assert run("run")[0] == 0
    blobs = [path for path in (repo / ".git/dvc/cache/files/md5").glob("*/*") if path.suffix != ".dir"]
    listings = list((repo / ".git/dvc/cache/files/md5").glob("*/*.dir"))
    for path in blobs:
        path.unlink()
    refuses(repo, [(["get-file", "training", "a.csv"], 1, "training:a.csv is neither here nor on a remote")])
    for path in listings:
        path.chmod(0o644)
        path.write_text('[{"md5": "zz"')
    refuses(repo, [(["list-file", "training"], 1, "is damaged")])


def test_damaged_journal_and_specs(repo: Path, sh: Shell) -> None:
    """A broken journal is set aside, as it holds nothing that is needed (I1); a broken spec is named."""
    pipelines(repo, spec())
    assert run("run")[0] == 0
    journal = repo / ".git/gitpipe/journal.sqlite"
    refs = sh("git for-each-ref refs/heads", cwd=repo)
    for damage in ("noise", "folder", "empty", "middle"):
        data = journal.read_bytes() if journal.is_file() else b""
        for path in journal.parent.glob("journal.sqlite*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if damage == "folder":
            journal.mkdir()
        else:
            middle = data[:4096] + b"\xff" * 20_000
            journal.write_bytes({"noise": os.urandom(9000), "empty": b"", "middle": middle}[damage])
        assert run("status")[0] == run("list-job")[0] == run("run")[0] == 0, damage
    assert sh("git for-each-ref refs/heads", cwd=repo) == refs
    shutil.rmtree(journal.parent)
    journal.parent.write_text("")
    refuses(repo, [(["status"], 1, "is not a folder: remove it"), (["list-repo"], 1, "remove it")])
    journal.parent.unlink()
    rewrite(repo, "__spec__", "p/spec.json", "{bad")
    words = "__spec__:p/spec.json:1: not valid JSON"
    lines = ("status", "list-pipeline", "inspect-pipeline p", "run", "wait")
    refuses(repo, [(line.split(), 1, words) for line in lines])
    assert run("list-file", "training")[0] == run("get-file", "p", "a.csv")[0] == 0
    sh("git update-ref refs/heads/__spec__ __spec__^", cwd=repo)
    assert run("run")[0] == run("status")[0] == 0


# ---------------------------------------------------------------- failing stages

FAILING: list[tuple[str, list[str], str]] = [
    ("absent", ["nosuchprogram", "x"], "cannot start nosuchprogram: no such program"),
    ("folder", ["/etc"], "cannot start /etc"),
    ("exit1", ["sh", "-c", "seq 9; echo oh no >&2; exit 1"], "exit status 1"),
    ("killed", ["sh", "-c", "kill -9 $$"], "SIGKILL"),
    ("clash", ["sh", "-c", "echo x > /pfs/out/same"], "both write same"),
    ("socket", ["python3", "-c", "import socket as s; s.socket(s.AF_UNIX).bind('/pfs/out/s')"], "is a socket"),
    ("pipe", ["mkfifo", "/pfs/out/f"], "is a named pipe"),
    ("leads_out", ["ln", "-s", "/etc/passwd", "/pfs/out/p"], "leads out of /pfs"),
    ("not_utf8", ["python3", "-c", "open(b'/pfs/out/a\\xff', 'w')"], "not UTF-8"),
    ("hostile", ["sh", "-c", "mkdir /pfs/out/.git; echo x > /pfs/out/.git/config"], "cannot be recorded"),
    ("noise", ["sh", "-c", "printf '\\033[31mred\\377\\0\\n'; exit 3"], "exit status 3"),
]


def test_failing_stages(repo: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit succeeds; each failure is seen with its last lines, its log is whole; nothing is published (I5)."""
    if "bubblewrap" not in run("status")[1]:
        pytest.skip("without a sandbox /pfs is not where the stages look for it")
    pipelines(repo, *(spec(name, cmd) for name, cmd, _ in FAILING))
    monkeypatch.delenv("GITPIPE")
    sh("git worktree add -q ../training training && echo 3 > ../training/data/c.csv", cwd=repo)
    said = sh("gitpipe add data && git commit -qm 'A commit' && git log -1 --format=%s", cwd=repo.parent / "training")
    assert said.endswith("A commit\n")
    said = sh("gitpipe wait 2>&1 >/dev/null", cwd=repo, status=3)
    assert said.startswith("gitpipe: ") and said.count("\n") == 1 and "10 more" in said
    jobs = {job["pipeline"]: job for job in map(json.loads, run("list-job", "--raw")[1].splitlines())}
    status = run("status")[1]
    for name, _, words in FAILING:
        assert jobs[name]["state"] == "failed" and words in jobs[name]["reason"], (name, jobs[name])
        assert f"Failed: {name} (job " in status and words in status
        assert words in run("inspect-job", name)[1]
    assert "\x1b" not in status + run("inspect-job", "noise")[1]
    lines = run("logs", "--pipeline", "exit1")[1].splitlines()
    assert lines.count("1") == lines.count("9") == lines.count("oh no") >= 1
    assert sh("git branch --list --format='%(refname:short)'", cwd=repo).split() == ["__spec__", "main", "training"]


def test_a_fix_carries_on(repo: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is below a failed job could not run (I5); a fix and a commit, or run-pipeline, and both have run."""
    folder = repo / "pipelines" / "p"
    folder.mkdir(parents=True)
    (folder / "work.sh").write_text("echo about to fail; exit 1\n")
    below = spec("below", ["sh", "-c", "cp /pfs/p/* /pfs/out/"], input={"pfs": {"repo": "p", "glob": "/"}})
    pipelines(repo, spec("p", ["sh", "/code/work.sh"]), below)
    sh("git add pipelines && git commit -qm Pipelines", cwd=repo)
    monkeypatch.delenv("GITPIPE")
    assert "p: " in sh("gitpipe wait 2>&1 >/dev/null", cwd=repo, status=3)
    status = run("status")[1]
    assert "    about to fail\n" in status and "unrunnable" not in status.split("Failed: p ")[0]
    assert "p failed" in run("inspect-job", "below")[1]
    (folder / "work.sh").write_text("cp /pfs/training/* /pfs/out/\n")
    sh("git commit -qam Fix && gitpipe wait", cwd=repo)
    assert "nothing failed" in run("status")[1]
    assert run("get-file", "below", "a.csv")[1] == "1\n"
    # Mended from outside: the same version, tried again.
    gate = Path("/tmp") / f"gitpipe-test-{os.getpid()}"
    outside = f"test -e {gate} && cp /pfs/training/* /pfs/out/"
    sh("git config gitpipe.sandbox none", cwd=repo)  # the sandbox has a /tmp of its own
    pipelines(repo, spec("outer", ["sh", "-c", outside.replace("/pfs", "/pfs")]))
    sh("gitpipe runner stop; gitpipe wait", cwd=repo, status=3)
    try:
        gate.touch()
        assert "outer: runs again" in run("run-pipeline", "outer")[1]
        sh("gitpipe wait", cwd=repo)
    finally:
        gate.unlink()
    assert run("get-file", "outer", "a.csv")[1] == "1\n"
    assert "nothing to do" in run("run-pipeline", "outer")[1]
    sh("gitpipe runner stop", cwd=repo)


def test_interrupted(repo: Path, sh: Shell) -> None:
    """Ctrl-C ends `wait` and `run` with 130 and a line; nothing is published (I5), and the next run goes on."""
    pipelines(repo, spec("slow", ["sh", "-c", "test $(cat /pfs/training/*) = 0 || sleep 60"]))
    for verb, words in (("wait", "goes on in the background"), ("run", "finished datums are kept")):
        process = subprocess.Popen(["gitpipe", verb], cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            while b"running" not in (line := process.stdout.readline()):
                assert line, "it ended before the job ran"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 130
        assert err.decode().count("\n") == 1 and words in err.decode()
        end_runner(repo)
    assert "slow" not in sh("git branch", cwd=repo)


# ---------------------------------------------------------------- what is right


RAW: list[tuple[str, str]] = [
    ("list repo", "list-repo"),
    ("inspect repo training", "inspect-repo training"),
    ("list file training@master:/", "list-file training master /"),
    ("list-file training", "list-file training master"),
    ("glob file training@master:/*", "glob-file training master /*"),
    ("list commit training@master", "list-commit training master"),
    ("inspect commit training@master", "inspect-commit training master"),
    ("inspect commit p@master", "inspect-commit p"),
    ("list pipeline", "list-pipeline"),
    ("inspect pipeline p", "inspect-pipeline p"),
    ("list job", "list-job"),
    ("inspect job p", "inspect-job p"),
    ("get logs --pipeline p", "get-logs -p p"),
    ("list worker", "list-worker"),
    ("log --provenance p", "log p"),
    ("version", "version"),
    ("status", "status"),
]


def test_raw_is_json_and_both_spellings_are_the_same(repo: Path, sh: Shell) -> None:
    """One JSON document a line from every command that has --raw; 1.x and 2.x spellings, -C, and `git pipe`."""
    pipelines(repo, spec("p", ["sh", "-c", "echo at work; cp /pfs/training/* /pfs/out/"]))
    assert run("run")[0] == 0
    for two, one in RAW:
        first, second = run(*two.split(), "--raw"), run(*one.split(), "--raw")
        assert first == second and first[0] == 0 and not first[2], (two, first, second)
        documents = [json.loads(line) for line in first[1].splitlines()]
        assert documents or one == "list-worker", two
        assert run(*one.split())[1].strip(), one
    assert run("get", "file", "training@master:a.csv")[1] == run("get-file", "training", "a.csv")[1] == "1\n"
    (repo / "deep").mkdir()
    assert run("-C", str(repo), "list-file", "p") == run("-C", "deep", "list-file", "p") == run("list-file", "p")
    assert sh("git pipe list repo --raw", cwd=repo / "deep") == sh(f"gitpipe -C {repo} list-repo --raw", cwd=Path("/"))
    said = sh("git pipe inspect repo nosuch", cwd=repo, status=1, stderr=True)
    assert said.startswith("gitpipe: repo nosuch does not exist")


def test_output_that_nobody_reads(repo: Path, sh: Shell) -> None:
    """A closed pipe is no traceback, and a full device is one line."""
    assert sh("gitpipe list-repo | true; gitpipe --help | head -1", cwd=repo, stderr=True).startswith("Usage")
    said = sh("gitpipe list-repo > /dev/full", cwd=repo, status=1, stderr=True)
    assert said == "gitpipe: No space left on device: while writing\n"
