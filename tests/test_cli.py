"""The command line over a fake project: spellings, options, tables, JSON, exit statuses.

The fake has the methods of `gitpipe.project.Project` and notes what it was called with; what the commands do is
tested where it is done.
"""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gitpipe import cli
from gitpipe.cli import show
from gitpipe.cli.argv import normalise
from gitpipe.commit import CommitRef
from gitpipe.errors import BadName, JobFailed, NotARepo
from gitpipe.views import (
    CommitInfo,
    FileInfo,
    FileLineage,
    JobInfo,
    Lineage,
    LogLine,
    PipelineInfo,
    Progress,
    RepoInfo,
    StatusInfo,
    WorkerInfo,
)

from .conftest import read_terminal

SHA = "64ad489e235c4b7aa20cb9ee1744058200000000"
OLD = "2477107b608d452482f2191730e527ba00000000"
JOB = "e703fbf87fa64c5f85d2aa92bfe21aeb"
MINUTE = 60
ROOT = Path(__file__).resolve().parent.parent
NOW = time.time()


@pytest.fixture(autouse=True)
def _ages_do_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values below are made at import, long before a test at the end of a long run shows their ages."""
    monkeypatch.setattr("gitpipe.cli.show.time.time", lambda: NOW)


def job(**changes: Any) -> JobInfo:
    values: dict[str, Any] = {
        "id": JOB,
        "pipeline": "infer",
        "version": OLD,
        "state": "success",
        "output": SHA,
        "started": NOW - 7.5,
        "finished": NOW - 4.5,
        "processed": 2,
        "total": 2,
        "bytes_in": 805,
        "bytes_out": 443,
    }
    return JobInfo(**{**values, **changes})


def commit(repo: str, sha: str, **changes: Any) -> CommitInfo:
    values: dict[str, Any] = {
        "repo": repo,
        "branch": "master",
        "sha": sha,
        "parent": OLD,
        "started": NOW - 2 * MINUTE - 1,
        "finished": NOW - 70,
        "size": 443,
        "subject": f"work on {repo}",
        "author": "Ada <ada@example.org>",
    }
    return CommitInfo(**{**values, **changes})


INFER = commit("infer", SHA, provenance=(CommitRef("model", "b" * 40), CommitRef("training@staging", "c" * 40)))
MODEL = Lineage(commit("model", "b" * 40), (Lineage(commit("training", "c" * 40, branch="staging")),))
LINEAGE = Lineage(INFER, (Lineage(commit("attributes", "d" * 40)), MODEL))


class Part:
    """Answers each method with what `answers` has for it (called, if it is a function) and notes the call."""

    def __init__(self, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]], answers: dict[str, Any]) -> None:
        self._calls, self._answers = calls, answers

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **options: Any) -> Any:
            self._calls.append((name, args, options))
            answer = self._answers.get(name)
            return answer(*args, **options) if callable(answer) else answer

        return method


class Fake(Part):
    """A project whose parts share one list of calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {"behind": ()}
        super().__init__(self.calls, self.answers)
        self.data = self.pipelines = self.jobs = self.history = self.file_history = Part(self.calls, self.answers)
        self.opened: list[Path] = []

    @property
    def last(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.calls[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    project = Fake()
    module = ModuleType("gitpipe.project")

    def open_project(where: Path) -> Fake:
        project.opened.append(where)
        return project

    module.open_project = open_project  # type: ignore[attr-defined]
    module.init = lambda where, pre_commit=False: [f"ready: {where.name}"]  # type: ignore[attr-defined]
    example = ModuleType("gitpipe.example")
    example.copy_example = lambda name, target: [f"{name!r} to {target.name}"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gitpipe.project", module)
    monkeypatch.setitem(sys.modules, "gitpipe.example", example)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return project


def gitpipe(*args: str) -> int:
    return cli.run(list(args))


# ---------------------------------------------------------------- spellings

NAMES = frozenset({"list-repo", "put-file", "run", "run-pipeline", "logs", "log", "wait", "hooks", "runner", "init"})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list repo --raw", "list-repo --raw"),
        ("list-repo", "list-repo"),
        ("-C x list repo", "-C x list-repo"),
        ("-C list repo", "-C list repo"),
        ("--version list repo", "--version list-repo"),
        ("put file training master -f -", "put-file training master -f -"),
        ("run pipeline model", "run-pipeline model"),
        ("run --watch", "run --watch"),
        ("get-logs --job 1", "logs --job 1"),
        ("get logs", "logs"),
        ("log --provenance repo", "log --provenance repo"),
        ("flush-commit training@master", "wait training@master"),
        ("flush commit", "wait"),
        ("wait commit training@master", "wait training@master"),
        ("hooks-install", "hooks install"),
        ("hooks install", "hooks install"),
        ("runner status", "runner status"),
        ("list", "list"),
        ("list nonsense", "list nonsense"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_spellings(typed: str, meant: str) -> None:
    assert normalise(typed.split(), NAMES) == meant.split()


def test_every_command_with_two_words_reads_as_two_words(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    names = [name for name in typer.main.get_command(cli.app).commands if "-" in name]  # type: ignore[attr-defined]
    assert len(names) > 20
    for name in names:
        assert gitpipe(*name.split("-", 1), "--help") == 0
        assert f" {name} " in capsys.readouterr().out.splitlines()[0]


CALLS = [
    ("create-repo training", "create_repo", ("training", ""), {}),
    ("delete-repo training -f", "delete_repo", ("training",), {"force": True}),
    ("start-commit training master", "start_commit", (["training", "master"], None), {}),
    ("finish-commit training 9cc0 -m done", "finish_commit", (["training", "9cc0"], "done"), {"force": False}),
    ("delete-file training 9cc0 iris.csv", "delete_file", (["training", "9cc0", "iris.csv"],), {}),
    ("delete file training@9cc0:iris.csv", "delete_file", (["training@9cc0:iris.csv"],), {}),
    ("delete-file training -- -x.csv", "delete_file", (["training", "-x.csv"],), {}),
    ("list-job -p model --limit 3", "list", ("model", 3), {}),
    ("get-logs --pipeline=m --tail 2", "logs", (), {"job": None, "pipeline": "m", "datum": None, "tail": 2}),
    ("stop pipeline model", "stop", ("model",), {}),
    ("start-pipeline model", "start", ("model",), {}),
    ("run-pipeline model", "run", ("model",), {}),
    ("run pipeline model training@64ad", "run_on", ("model", ["training@64ad"]), {}),
    ("delete-pipeline model --keep-repo", "delete", ("model",), {"keep_repo": True, "force": False}),
    ("log --provenance infer@64ad", "lineage", (["infer@64ad"],), {"descendants": False}),
    ("add data", "add", (["data"],), {"force": False}),
    ("hooks-uninstall", "hooks_uninstall", (), {}),
]


@pytest.mark.parametrize(("line", "method", "args", "options"), CALLS)
def test_what_is_typed_reaches_the_project(
    fake: Fake, line: str, method: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    fake.answers.update(list=[], logs=[], run=[], delete=[], run_on=[], lineage=[], add=[], hooks_uninstall=[])
    assert gitpipe(*line.split()) == 0
    assert fake.last == (method, args, options)


PUTS = [
    ("put-file training master -c -f iris.csv", ["training", "master"], ["iris.csv"], {}),
    ("put-file attributes master -c -r -f .", ["attributes", "master"], ["."], {"recursive": True}),
    ("put-file td master x.csv -o -f data/x.csv", ["td", "master", "x.csv"], ["data/x.csv"], {}),
    ("put file td@master:x.csv -f -", ["td@master:x.csv"], ["-"], {}),
    ("put-file td -f a -f b -a", ["td"], ["a", "b"], {"append": True}),
    ("put-file td master -i list.txt", ["td", "master"], [], {"from_list": "list.txt"}),
    ("put-file td master x", ["td", "master", "x"], ["-"], {}),
]


@pytest.mark.parametrize(("line", "words", "sources", "options"), PUTS)
def test_put_file_as_pachctl_users_type_it(
    fake: Fake,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    words: list[str],
    sources: list[str],
    options: dict[str, Any],
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(b"1,2\n"), isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", stdin)
    assert gitpipe(*line.split()) == 0
    name, args, given = fake.last
    assert (name, args) == ("put_file", (words, sources))
    assert given.pop("stdin") is stdin.buffer
    defaults = {"recursive": False, "append": False, "from_list": None, "message": None, "progress": None}
    assert given == {**defaults, **options}


@pytest.mark.parametrize("line", ["put-file training master", "create-pipeline", "update-pipeline --reprocess"])
def test_nothing_is_read_from_a_terminal_unasked(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert gitpipe(*line.split()) == 2
    assert "-f FILE" in capsys.readouterr().err
    assert fake.calls == []


def test_create_and_update_pipeline(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers.update(create=["created model"], update=["updated model"])
    assert gitpipe("create-pipeline", "-f", "a.json", "-f", "b.json") == 0
    assert fake.last[1] == (["a.json", "b.json"],)
    assert gitpipe("update", "pipeline", "-f", "a.json", "--reprocess") == 0
    assert {**fake.last[2], "stdin": None} == {"reprocess": True, "create": False, "stdin": None}
    assert capsys.readouterr().out == "created model\nupdated model\n"


def test_get_file(fake: Fake, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    fake.answers["get_file"] = lambda words, recursive, out, sink: sink.write(b"\xffIris\n") if out is None else None
    assert gitpipe("get-file", "inference", "master", "1.csv") == 0
    assert capfdbinary.readouterr().out == b"\xffIris\n"
    assert gitpipe("get-file", "inference", "/", "-r", "-o", "out") == 0
    assert fake.last[1][:3] == (["inference", "/"], True, Path("out"))
    assert gitpipe("get-file", "inference", "/", "-r") == 2


def test_folder_option(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    fake.answers["list_repo"] = []
    assert gitpipe("-C", "a", "-C", "b", "list", "repo") == 0
    assert fake.opened == [tmp_path / "a" / "b"]
    assert gitpipe("-C", "nowhere", "list-repo") == 1
    assert "'nowhere': there is no such folder" in capsys.readouterr().err


def test_set_up_commands(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers.update(hooks_status=["post-commit: installed"], runner_status="not running", runner_stop="stopped")
    for line in ("init", "example iris", "example", "hooks status", "runner status", "runner-stop"):
        assert gitpipe(*line.split()) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ready: {tmp_path.name}",
        f"'iris' to {tmp_path.name}",
        f"'' to {tmp_path.name}",
        "post-commit: installed",
        "not running",
        "stopped",
    ]


def test_trust_asks_only_where_somebody_can_answer(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["trust"] = lambda yes, ask: ["trusted"] if yes or ask("run model?") else []
    assert gitpipe("trust", "--yes") == 0
    assert gitpipe("trust") == 1
    assert "give --yes" in capsys.readouterr().err


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (16, "16B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (4551, "4.444KiB"),
        (44718, "43.67KiB"),
        (27 * 1024 + 1014, "27.99KiB"),
        (5 * 1024**3, "5GiB"),
        (2**80, "1.049e+06EiB"),
        (None, "-"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (2.9, "2 seconds"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (180, "3 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (3600, "About an hour"),
        (89 * 60, "About an hour"),
        (90 * 60, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


def test_ages() -> None:
    assert show.ago(100, now=280) == "3 minutes ago"
    assert show.ago(None) == "-"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain – ünïcode", "plain – ünïcode"),
        ("a\nb\tc\x1b[31m", "a\\nb\\tc\\x1b[31m"),
        ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
        ("\udcff", "\\udcff"),
    ],
)
def test_one_line_stays_one_line(text: str, line: str) -> None:
    assert show.oneline(text) == line


# ---------------------------------------------------------------- tables and details


def test_list_repo(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    fake.answers["list_repo"] = [
        RepoInfo("training", "training", now - 185, 4551, 1, SHA, False),
        RepoInfo("attributes", "attributes", now - 185, 0, 0, OLD, False),
    ]
    assert gitpipe("list", "repo") == 0
    assert capsys.readouterr().out == (
        "NAME        CREATED        SIZE\ntraining    3 minutes ago  4.444KiB\nattributes  3 minutes ago  0B\n"
    )


def test_list_file(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["list_file"] = [FileInfo("1.csv", "file", 16), FileInfo("a\nb", "dir", None)]
    assert gitpipe("list-file", "attributes", "master") == 0
    assert capsys.readouterr().out == "NAME   TYPE  SIZE\n1.csv  file  16B\na\\nb   dir   -\n"


def test_list_job(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    running = job(state="running", output=None, finished=None, processed=1, skipped=1, pipeline="model", restarts=1)
    fake.answers["list"] = [running, job()]
    assert gitpipe("list-job") == 0
    heading, first, second = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    columns = ["ID", "OUTPUT COMMIT", "STARTED", "DURATION", "RESTART", "PROGRESS", "DL", "UL", "STATE"]
    assert [cell.strip() for cell in heading if cell] == columns
    assert [cell.strip() for cell in first if cell] == [
        JOB,
        "model@-",
        "7 seconds ago",
        "-",
        "1",
        "1 + 1 / 2",
        "805B",
        "443B",
        "running",
    ]
    assert [cell.strip() for cell in second if cell][1:4] == [f"infer@{SHA}", "7 seconds ago", "3 seconds"]


def test_other_lists(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["list_commit"] = [INFER]
    fake.answers["workers"] = [WorkerInfo("model", 0, "local", "idle")]
    pipeline = PipelineInfo(
        "model", OLD, time.time(), "running", "training:/", "model", f"main@{SHA}:train.json", 1, {"a": 1}
    )
    fake.answers.update(list=[pipeline], inspect=pipeline)
    for line in ("list-commit infer", "list-worker", "list-pipeline", "inspect-pipeline model"):
        assert gitpipe(*line.split()) == 0
    out = capsys.readouterr().out
    assert f"infer  master  {SHA}  {OLD}  About a minute ago  443B" in out
    assert "PIPELINE  SLOT  ENGINE  STATE  DATUM\nmodel     0     local   idle   -\n" in out
    assert f"model  {OLD[:12]}  training:/  Less than a second ago  running" in out
    assert 'Spec:\n{\n  "a": 1\n}\n' in out


def test_inspect_commit(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["inspect_commit"] = INFER
    assert gitpipe("inspect-commit", "infer", SHA) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"Commit: infer@{SHA}",
        f"Parent: {OLD}",
        "Started: 2 minutes ago",
        "Finished: About a minute ago",
        "Size: 443B",
        f"Provenance:  model@{'b' * 40}  training@staging@{'c' * 40}",
    ]


def test_inspect_job_says_why(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["inspect"] = job(
        state="failed",
        output=None,
        failed=1,
        reason="exit status 1",
        notes=("ran without its image",),
        inputs=(CommitRef("model", SHA),),
    )
    assert gitpipe("inspect-job", "infer") == 0
    out = capsys.readouterr().out.splitlines()
    for line in ("Reason: exit status 1", "Failed datums: 1", f"Inputs:  model@{SHA}", "Note: ran without its image"):
        assert line in out


def test_raw_is_one_document_a_line(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers.update(list=[job(), job(output=None)], inspect_commit=INFER, lineage=[LINEAGE])
    assert gitpipe("list-job", "--raw") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["id"], first["output"], second["output"]) == (JOB, SHA, None)
    assert gitpipe("inspect-commit", "--raw", "infer", "master") == 0
    assert json.loads(capsys.readouterr().out)["provenance"] == [f"model@{'b' * 40}", f"training@staging@{'c' * 40}"]
    assert gitpipe("log", "--raw") == 0
    assert json.loads(capsys.readouterr().out)["children"][0]["commit"]["repo"] == "attributes"


def test_empty_lists(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers.update(list_repo=[])
    assert gitpipe("list-repo") == gitpipe("list-repo", "--raw") == 0
    assert capsys.readouterr().out == "NAME  CREATED  SIZE\n"


def test_log_with_provenance(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["lineage"] = [LINEAGE, LINEAGE]
    assert gitpipe("log", "--provenance", "--graph", "infer") == 0
    first, second = capsys.readouterr().out.split("\n\ncommit ", 1)[0], "x"
    lines = (first + second).splitlines()
    assert lines[0] == f"commit infer@{SHA}"
    assert lines[1] == "Author: Ada <ada@example.org>"
    assert lines[2].startswith("Date:   ")
    assert lines[4] == "    work on infer"
    assert lines[6] == "    ├─ attributes@dddddddddddd work on attributes (Ada <ada@example.org>, 2 minutes ago)"
    assert lines[7].startswith("    └─ model@bbbbbbbbbbbb work on model")
    assert lines[8].startswith("       └─ training@staging@cccccccccccc work on training")


def test_log_of_a_file(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    model = FileLineage(CommitRef("model", "b" * 40), "m", "0" * 32, "trained", "1" * 64, "model@" + "2" * 40)
    made = FileLineage(CommitRef("infer", SHA), "a/b", "0" * 32, "inferred", "3" * 64, "infer@" + "4" * 40, (model,))
    fake.answers.update(locate=SimpleNamespace(path="a/b"), lineage=[made, made])
    assert gitpipe("log", "--descendants", "--graph", "infer", "--", "a/b") == 0
    assert fake.last == ("lineage", (["infer", "a/b"],), {"descendants": True})
    lines = capsys.readouterr().out.split("\n\ncommit ", 1)[0].splitlines()
    assert lines == [
        f"commit infer@{SHA}",
        "    inferred",
        "",
        "    /a/b  datum 333333333333 of infer@444444444444",
        "    └─ model@bbbbbbbbbbbb:/m  datum 111111111111 of model@222222222222",
    ]


def test_log_without_provenance_is_short(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["lineage"] = [LINEAGE, LINEAGE]
    assert gitpipe("log", "-n", "1") == 0
    out = capsys.readouterr().out
    assert "work on infer" in out and "training" not in out and out.count("commit ") == 1


def test_what_lies_below_a_commit_is_shown_once(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    left = Lineage(commit("left", "1" * 40), (MODEL,))
    right = Lineage(commit("right", "2" * 40), (MODEL,))
    fake.answers["lineage"] = [Lineage(INFER, (left, right))]
    assert gitpipe("log", "--provenance") == 0
    out = capsys.readouterr().out
    assert (out.count("model@"), out.count("training@")) == (2, 1)
    assert out.rstrip().endswith("…")


def test_status(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    bad = job(state="failed", reason="datum 1234 failed: exit status 1")
    fake.answers["status"] = StatusInfo(
        "/r/.git", "not running", "local", "bubblewrap", "/r/c", ("model: queued",), (bad,), ("branch main is gone",)
    )
    fake.answers["logs"] = [LogLine(JOB, "infer", "1234", 0, "KeyError: 'x'\n")]
    assert gitpipe("status") == 3
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "Runner: not running"
    assert "Pending: model: queued" in out
    at = out.index(f"Failed: infer (job {JOB[:12]}, 4 seconds ago): datum 1234 failed: exit status 1")
    assert out[at + 1 :] == ["    KeyError: 'x'", "Warning: branch main is gone"]
    assert fake.last[2]["tail"] == 5


def test_logs(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["logs"] = lambda **_: iter([LogLine(JOB, "infer", "1", 0, "one\n"), LogLine(JOB, "infer", "2", 0, "")])
    assert gitpipe("logs", "--pipeline", "infer") == 0
    assert capsys.readouterr().out == "one\n\n"


# ---------------------------------------------------------------- waiting


def progress(state: str, done: int, pipeline: str = "model") -> Progress:
    return Progress(1, pipeline, state, done, 0, 0, 1)


def test_wait_prints_a_line_a_change(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    def wait(on_progress: Any, timeout: float | None) -> list[JobInfo]:
        assert timeout == 5
        for step in (progress("queued", 0), progress("running", 0), progress("running", 0), progress("success", 1)):
            on_progress([step])
        return [job(pipeline="model", seq=1), job(skipped=1, total=3, seq=2)]

    fake.answers["wait"] = wait
    assert gitpipe("wait", "--timeout", "5") == 0
    assert capsys.readouterr().out.splitlines() == [
        "model: 0 + 0 / 1 queued",
        "model: 0 + 0 / 1 running",
        "model: 1 + 0 / 1 success",
        "infer: 2 + 1 / 3 success",
    ]


def test_wait_with_nothing_to_do(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["wait"] = []
    fake.answers["status"] = SimpleNamespace(warnings=())
    assert gitpipe("flush-commit", "training/master") == 0
    assert capsys.readouterr().out == "Nothing to do: every output is up to date.\n"


def test_nothing_to_do_is_not_up_to_date_where_something_is_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    from gitpipe.cli.progress import JobProgress

    JobProgress().finish([], lambda: ("model is stopped",))
    assert capsys.readouterr().out == "Nothing to do here and now.\nWarning: model is stopped\n"


@pytest.mark.parametrize("line", ["wait", "run"])
def test_a_failed_job_gives_status_3_and_its_cause(fake: Fake, capsys: pytest.CaptureFixture[str], line: str) -> None:
    below = job(id="0" * 32, state="unrunnable", reason="model failed")
    failed = job(pipeline="model", state="failed", reason="exit status 1")
    fake.answers[line] = [below, failed, failed]
    assert gitpipe(line) == JobFailed.exit_code == 3
    assert capsys.readouterr().err == (
        f"gitpipe: model: exit status 1 (and 1 more); see 'gitpipe logs --job {JOB[:12]}'\n"
    )
    fake.answers[line] = [below]
    assert gitpipe(line) == 3
    assert "infer: model failed;" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "said"), [("wait", "goes on in the background"), ("run", "finished datums are kept")])
def test_ctrl_c_says_what_goes_on(fake: Fake, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    fake.answers[line] = stop
    assert gitpipe(line) == 130
    assert said in capsys.readouterr().err


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


# ---------------------------------------------------------------- errors


def raiser(error: BaseException) -> Any:
    def method(*_: Any, **__: Any) -> None:
        raise error

    return method


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (NotARepo("no repository here: run git init"), 1, "no repository here: run git init"),
        (BadName("repo name 'a\nb'"), 1, "repo name 'a\\nb'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: /x"),
        (OSError(28, "No space left on device"), 1, "No space left on device: while writing"),
    ],
)
def test_expected_failures_are_one_line(
    fake: Fake, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    fake.answers["create_repo"] = raiser(error)
    assert gitpipe("create-repo", "x") == status
    assert capsys.readouterr() == ("", f"gitpipe: {line}\n")


def test_a_huge_value_stays_a_readable_line(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["create_repo"] = raiser(BadName(f"repo name {'x' * 1_000_000}"))
    assert gitpipe("create-repo", "x") == 1
    assert len(capsys.readouterr().err) < 2100


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(2, "No such file", "x")])
def test_a_bug_shows_itself(fake: Fake, error: Exception) -> None:
    fake.answers["create_repo"] = raiser(error)
    with pytest.raises(type(error)):
        gitpipe("create-repo", "x")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("putfile", "No such command 'putfile'"),
        ("list-repo --nope", "No such option: --nope"),
        ("create-repo", "Missing argument 'REPO'"),
        ("list-job --limit x", "--limit"),
        ("list-job --limit 0", "--limit"),
        ("wait --timeout -1", "--timeout"),
        ("hooks", "Missing command"),
        ("hooks nonsense", "nonsense"),
        ("put-file a b -a -o -f x", "exclude each other"),
    ],
)
def test_usage_errors_are_one_line_with_status_2(
    fake: Fake, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    assert gitpipe(*line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1 and err.startswith("gitpipe: ")
    assert fake.calls == []


def test_help(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert gitpipe() == gitpipe("--help") == gitpipe("-h") == 0
    first, second, third = capsys.readouterr().out.split("Usage: gitpipe [OPTIONS]")[1:]
    assert first == second == third
    groups = [line[:-1] for line in first.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["Options", "Repos", "Files", "Commits", "Pipelines", "Jobs", "Beside git", "Set-up"]
    assert fake.opened == []


def test_program_names() -> None:
    assert cli.program_name("/usr/bin/gitpipe") == "gitpipe"
    assert cli.program_name("/usr/lib/git-core/git-pipe") == "git pipe"
    assert cli.program_name("/x/gitpipe/__main__.py") == "python -m gitpipe"


# ---------------------------------------------------------------- as a process

FAKED = """
import sys, time, types
from gitpipe.views import *
module = types.ModuleType("gitpipe.project")
class P:
    data = jobs = property(lambda self: self)
    def logs(self, **_):
        return (LogLine("", "", "", 0, "x" * 100) for _ in range(100_000))
    def list_repo(self):
        return [RepoInfo("caf\\u00e9", "x", 0, 0, 0, "", False)]
    def list(self, *_):
        return [JobInfo("1" * 32, "model", "2" * 40, "success", "3" * 40, 0, 3, seq=1)]
    def wait(self, report, timeout):
        report([Progress(1, "model", "running", 1, 0, 0, 4)])
        print("ready", flush=True)
        time.sleep(30)
    def run(self, report):
        report([Progress(1, "model", "running", 1, 0, 0, 4)])
        return [JobInfo("1", "model", "", "success", "3" * 40, 0, 3, processed=4, total=4, seq=1)]
    def behind(self):
        return []
module.open_project = lambda where: P()
sys.modules["gitpipe.project"] = module
from gitpipe.cli import main
sys.argv[0] = "gitpipe"
main()
"""


def environment(**changes: str) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**keep, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **changes}


def faked(*args: str, **changes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", FAKED, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**changes),
    )


HEAVY = "dvc dvc_data ray git pandas sklearn rich yaml sqlite3 asyncio gitpipe.project"


@pytest.mark.parametrize("line", ["--help", "version", "--version", "put-file --help"])
def test_lean_start(line: str) -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print(set({HEAVY.split()!r}) & set(sys.modules), file=sys.stderr))\n"
        "from gitpipe.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stderr == "set()\n"


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gitpipe", "version"], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.startswith("COMPONENT")


def test_completion() -> None:
    asked = environment(_GITPIPE_COMPLETE="complete_bash", COMP_WORDS="gitpipe list-", COMP_CWORD="1")
    done = subprocess.run([sys.executable, "-m", "gitpipe"], capture_output=True, text=True, env=asked, check=True)
    assert "list-repo" in done.stdout.splitlines()


def test_a_closed_pipe_is_no_failure_to_talk_about() -> None:
    process = faked("logs")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == b""


def test_an_interrupt_is_one_line_and_status_130() -> None:
    process = faked("wait")
    assert process.stdout is not None
    while (line := process.stdout.readline()) != b"ready\n":
        assert line, "it ended before it was ready"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.count(b"\n") == 1 and b"goes on in the background" in err


def test_a_name_that_the_locale_cannot_show() -> None:
    out, err = faked("list-repo", PYTHONIOENCODING="ascii").communicate(timeout=20)
    assert b"caf\\xe9" in out and err == b""


def in_terminal(width: int, *args: str) -> str:
    """What the faked command shows in a terminal that is `width` columns wide."""
    master, slave = pty.openpty()
    command = [sys.executable, "-c", FAKED, *args]
    env = environment(COLUMNS=str(width), TERM="xterm-256color")
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env):
        os.close(slave)
        shown = read_terminal(master)
    os.close(master)
    return shown


def test_tables_fit_the_terminal() -> None:
    whole, shortened, folded = (in_terminal(width, "list-job") for width in (200, 110, 78))
    assert "1" * 32 in whole and "model@" + "3" * 40 in whole
    assert "1" * 12 + "  model@" + "3" * 12 + "  " in shortened and "1" * 13 not in shortened
    for width, text in ((200, whole), (110, shortened), (78, folded)):
        assert max(map(len, text.splitlines())) <= width
        assert "STATE" in text and "success" in text
        assert "\x1b" not in text or width == 78


def test_bars_in_a_terminal() -> None:
    shown = in_terminal(100, "run")
    assert "━" in shown and "model" in shown and "4 + 0 / 4 success" in shown


def test_help_in_a_terminal_has_panels() -> None:
    assert "╭─" in in_terminal(100, "--help")
