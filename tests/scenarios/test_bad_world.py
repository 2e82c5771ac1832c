"""Bad surroundings: logs without end, a disk without room, files without permission, Ctrl-C at any moment.

One line each time, nothing half-done, and the same command succeeds when the cause is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from gitpipe import joblog
from gitpipe.joblog import JobLogs
from gitpipe.stage import MAX_LOG
from tests.conftest import Shell, end_runner
from tests.scenarios.test_errors import fill, mounted, pipelines, refuses, repo, run, spec, state

__all__ = ["repo"]  # the fixture
NOBODY = 65534

# ---------------------------------------------------------------- logs


def test_a_log_of_a_hundred_megabytes(repo: Path, sh: Shell) -> None:
    """What is kept is its beginning and its end; neither memory nor disk grow with it."""
    script = "yes 'a line of output' | head -c 100000000; echo; printf '\\033[31mred\\377\\0 end'"
    pipelines(repo, spec("loud", ["sh", "-c", script]))
    script = "import sys; from gitpipe.cli import run; status = run(['run']);"
    script += "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]); sys.exit(status)"
    said = subprocess.run([sys.executable, "-c", script], cwd=repo, capture_output=True, text=True, check=True).stdout
    assert int(said.split()[-1]) < 150_000, "KiB of memory"
    logs = sum(path.stat().st_size for path in (repo / ".git/gitpipe/logs").iterdir())
    assert logs < 5 * MAX_LOG  # two datums, each escaped as JSON
    lines = run("logs", "--pipeline", "loud")[1].split("\n")
    assert lines[0] == "a line of output" and lines[-2] == "\x1b[31mred\\xff\0 end"  # as it was written
    assert sum("bytes left out" in line for line in lines) == 2
    assert run("logs", "--tail", "0")[1] == ""
    assert run("logs", "--tail", "1")[1] == "\x1b[31mred\\xff\0 end\n"
    assert run("logs", "--tail", "1000000000")[1].split("\n") == lines
    raw = [json.loads(line) for line in run("logs", "--raw")[1].splitlines()]
    assert [each["message"] for each in raw] == lines[:-1]
    assert run("logs", "--tail", str(len(raw) - 2))[1].split("\n") == lines[2:]  # begins within the first datum


def test_the_logs_of_very_many_datums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some size on only the end of each is kept; what was cut off in the middle of a record is passed over."""
    monkeypatch.setattr(joblog, "MAX_JOB", 100_000)
    logs = JobLogs(tmp_path)
    for number in range(100):
        logs.append(1, f"d{number}", b"x" * 10_000 + f"\nend of {number}\n".encode())
    path = next(tmp_path.iterdir())
    assert path.stat().st_size < 100_000 + 100 * 3000
    with path.open("ab") as file:
        file.write(b'{"datum": "torn')
    found = [line.message for line in logs.read(1, "job", "p")]
    assert [line for line in found if line.startswith("end of")] == [f"end of {number}" for number in range(100)]
    assert "bytes left out" in found[-3]
    for count in (1, 2, 3, 50, 299, len(found), len(found) + 1):
        start, lines = logs.tail(1, count)
        rest = [line.message for line in logs.read(1, "job", "p", start=start)]
        assert rest == found[-lines:] and lines >= min(count, len(found))
    assert [line.message for line in logs.read(1, "job", "p", "d99")][-1] == "end of 99"


def test_lines_of_a_log_end_at_line_feeds_only(repo: Path) -> None:
    pipelines(repo, spec("odd", ["sh", "-c", r"printf 'a\014b\r\nc\342\200\250d\n\nlast'"], input=WHOLE))
    assert run("run")[0] == 0
    assert run("logs", "-p", "odd")[1] == "a\x0cb\r\nc\u2028d\n\nlast\n"


WHOLE = {"pfs": {"repo": "training", "glob": "/"}}

# ---------------------------------------------------------------- names of files

NAMES = ["a b", "é", "e\u0301", "line\nbreak", "-x", "*", "[", "a@b:c", "\x1b[31mred", "x" * 255, "..."]


def test_odd_names_through_every_file_command(repo: Path) -> None:
    """Copied, compared, inspected, found by glob, deleted: each of them means just itself."""
    source = repo.parent / "odd"
    source.mkdir()
    for name in NAMES:
        (source / name).write_text(f"{name}\n")
    assert run("put-file", "training", "odd", "-r", "-f", str(source))[0] == 0
    assert run("create-repo", "other")[0] == 0
    for name in NAMES:
        place = f"training@master:odd/{name}"
        assert run("copy-file", place, f"other@master:{name}")[0] == 0, name
        assert run("get-file", f"other@master:{name}")[:2] == (0, f"{name}\n")
        document = json.loads(run("inspect-file", place, "--raw")[1])
        assert document["path"] == f"/odd/{name}" and document["size"] == len(name.encode()) + 1
        assert run("diff-file", place, f"other@master:{name}")[:2] == (0, "")
        status, out, _ = run("diff-file", f"other@master:{name}", "--raw")
        assert status == 0 and json.loads(out)["path"] == name  # since the commit before
        status, out, _ = run("diff-file", f"other@master:{name}", "--stat")
        assert status == 0 and out.endswith(f"+{name.count(chr(10)) + 1} -0\n") and out.count("\n") == 1
        assert "\x1b" not in run("diff-file", f"other@master:{name}")[1].replace(f"+{name}", "")
        pattern = re.sub(r"([*\[\]\\?{}()!@+])", r"\\\1", name)
        found = [
            json.loads(line)["name"] for line in run("glob-file", f"other@master:/{pattern}", "--raw")[1].splitlines()
        ]
        assert found == [name], pattern
    for name in NAMES:
        assert run("delete-file", f"other@master:{name}")[0] == 0, name
    assert run("list-file", "other", "--raw")[1] == ""


def test_names_that_no_repo_can_hold(repo: Path) -> None:
    bad = repo.parent / os.fsdecode(b"caf\xe9")
    bad.write_text("x")
    (repo / "list").write_bytes(b"a.csv\n\xff\n")
    (repo / "nul").write_bytes(b"a.csv\0b\n")
    refuses(
        repo,
        [
            (["put-file", "training", "-f", str(bad)], 1, "caf\\udce9'"),
            (["put-file", "training", "x" * 256, "-f", "a.csv"], 1, "255 bytes a name"),
            (["put-file", "training", "/".join(["x" * 200] * 20), "-f", "a.csv"], 1, "3000 in all"),
            (["copy-file", "training@master:a.csv", "training@master:" + "ü" * 128], 1, "255 bytes a name"),
            (["put-file", "training", "-f", "x" * 5000], 1, "File name too long"),
            (["put-file", "training", "-i", "list"], 1, "not UTF-8"),
            (["put-file", "training", "-i", "nul"], 1, "a source a line"),
            (["put-file", "training", "-i", "/dev/zero"], 1, "a source a line"),
            (["get-file", "training", "a.csv", "-o", "x" * 300], 1, "File name too long"),
        ],
    )


# ---------------------------------------------------------------- no room

WRITES = [
    "put-file training -f big",
    "put-file training -r -f many",
    "copy-file training@master:a.csv training@master:n.csv",
    "delete-file training b.csv",
    "start-commit training staging",
    "create-branch training new --head master",
    "create-branch training empty",
    "create-pipeline -f q/spec.json",
    "create-repo fresh",
    "get-file training big.bin -o out",
    "get-file -r training / -o outs",
    "example iris",
]
"""What needs room on the disk."""


FULL = re.compile(r"[Nn]o space left|couldn't write")
"""The latter is all that git has to say of a ref that it cannot write."""


def leftovers(top: Path) -> list[str]:
    """Files that a command has begun and not finished."""
    found = list(top.glob(".*.part")) + list(top.glob("outs/.*.part"))
    for folder in (top / ".git/gitpipe/scratch", top / ".git/dvc/cache/gitpipe-tmp"):
        with contextlib.suppress(FileNotFoundError):
            found += [folder / name for name in os.listdir(folder)]
    # Not by `rglob`: the folders of a runner come and go meanwhile.
    for parent, _, names in os.walk(top / ".git"):
        found += [Path(parent, name) for name in names if name.endswith(".lock")]
    return [str(path.relative_to(top)) for path in found]


@pytest.fixture
def loaded(repo: Path) -> Path:
    """`repo` with files to write and to read, a branch, and a repo that is not needed."""
    (repo / "big").write_bytes(random.Random(1).randbytes(2 << 20))
    (repo / "many").mkdir()
    for number in range(40):
        (repo / "many" / str(number)).write_bytes(random.Random(number).randbytes(40_000))
    (repo / "q").mkdir()
    (repo / "q/spec.json").write_text(json.dumps(spec("q")))
    for line in ("create-branch training staging --head master", "create-repo other"):
        assert run(*line.split())[0] == 0
    (repo / "big.bin").write_bytes(random.Random(2).randbytes(1 << 20))
    assert run("put-file", "training", "-f", "big.bin")[0] == 0
    (repo / "big.bin").unlink()
    return repo


def refs(top: Path) -> str:
    return subprocess.run(["git", "for-each-ref"], cwd=top, capture_output=True, text=True, check=True).stdout


def test_no_room_for_any_command(loaded: Path, sh: Shell) -> None:
    """One line, the same refs, nothing left behind; with room again the same command succeeds."""
    place = loaded.parent / "small"
    place.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=16m", "none", str(place)):
        shutil.copytree(loaded, place / "repo", symlinks=True)
        os.chdir(place / "repo")
        sh(f"git config gitpipe.cache {place}/repo/.git/dvc/cache", cwd=place / "repo")
        for line in ("dag -f dot -o /dev/full", "get-file training a.csv -o /dev/full"):
            refuses(place / "repo", [(line.split(), 1, "o space left")])
        assert Path("/dev/full").is_char_device()
        wrong = []
        for line in WRITES:
            fill()
            before = refs(place / "repo")
            status, _out, err = run(*line.split())
            if err.count("\n") != 1 or not err.startswith("gitpipe: ") or not FULL.search(err) or status != 1:
                wrong.append(f"{line}: {status} {err[:400]!r}")
            if refs(place / "repo") != before or (left := leftovers(place / "repo")):
                wrong.append(f"{line}: changed refs or left {left}")
            shutil.rmtree("full")
            status, _, err = run(*line.split())
            if status:
                wrong.append(f"{line}: does not succeed afterwards: {err}")
        assert not wrong, "\n".join(wrong)
        os.chdir(loaded)


def test_a_file_size_limit(loaded: Path, sh: Shell) -> None:
    """`ulimit -f`: the write fails with another error than on a full disk, and is told the same way."""
    before = state(loaded)
    said = sh("ulimit -f 100; gitpipe put-file training -f big", cwd=loaded, status=1, stderr=True)
    assert said.count("\n") == 1 and "File too large" in said
    said = sh("ulimit -f 100; gitpipe get-file training big.bin -o out", cwd=loaded, status=1, stderr=True)
    assert said == "gitpipe: cannot write out: File too large\n"
    assert state(loaded) == before and not leftovers(loaded)


# ---------------------------------------------------------------- no permission


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who owns nothing, for what this process does and starts."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


READS = [
    "status",
    "list-repo",
    "list-branch training",
    "inspect-repo training",
    "list-file training",
    "inspect-file training a.csv",
    "get-file training a.csv",
    "diff-file training a.csv --stat",
    "list-commit training",
    "inspect-commit training",
    "list-pipeline",
    "list-job",
    "log training",
    "diff training",
    "dag",
]


def test_a_repository_of_somebody_else(loaded: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only reads works where reading is allowed; what writes is one line."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        top = Path(folder) / "repo"
        Path(folder).chmod(0o755)
        shutil.copytree(loaded, top, symlinks=True)
        (Path(folder) / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        monkeypatch.setenv("HOME", folder)
        monkeypatch.delenv("GIT_CONFIG_GLOBAL")
        sh(f"git config gitpipe.cache {top}/.git/dvc/cache", cwd=top)
        os.chdir(top)
        (top / "secret").write_text("x")
        (top / "secret").chmod(0o000)
        before, wrong = state(top), []
        import_module("gitpipe.drawing")  # the interpreter may lie where nobody else can read
        with nobody():
            for line in READS:
                status, _, err = run(*line.split())
                if status or err:
                    wrong.append(f"{line}: {status} {err!r}")
            for line in [
                *WRITES,
                "delete-repo other",
                "put-file training -f secret",
                "dag -o dag.svg",
            ]:
                status, _, err = run(*line.split())
                if status != 1 or err.count("\n") != 1 or not err.startswith("gitpipe: "):
                    wrong.append(f"{line}: {status} {err!r}")
        assert not wrong, "\n".join(wrong)
        assert state(top) == before and not leftovers(top)
        os.chdir(loaded)


# ---------------------------------------------------------------- interrupted

LONG_RUNNING = [
    "put-file training -r -f thousands",
    "put-file training stdin -f -",
    "get-file -r training / -o outs",
    "diff-file training thousands training@staging:/",
    "copy-file training@master:thousands other@master:copy",
    "create-pipeline -f q/spec.json",
    "subscribe-commit training",
    "logs",
    "wait",
    "run",
]


OURS = re.compile(r"gitpipe/(cli/|__main__|[a-z]+\.py)")
"""A trace of ours; Python itself, while it starts and ends, is ended by the signal in its own way."""


def interrupted(args: list[str], cwd: Path, after: float) -> tuple[int, str]:
    """Ctrl-C so many seconds after the interpreter runs our code; (status, standard error)."""
    process = subprocess.Popen(
        ["gitpipe", *args], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        time.sleep(after)  # the moment is what is tried: there is nothing to wait for
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode, err.decode()


def test_interrupted_at_any_moment(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """130 and one line (or it was done before); no lock and no part of a file is left; the same command succeeds."""
    thousands = loaded / "thousands"
    thousands.mkdir()
    for number in range(1500):
        (thousands / str(number)).write_text(f"{number}\n" * 50)
    for line in ("put-file training -r -f thousands", "put-file other -f a.csv"):
        assert run(*line.split())[0] == 0
    pipelines(loaded, spec("p", ["sh", "-c", "seq 100; cp -r /pfs/training/* /pfs/out/"], input=WHOLE))
    moments = random.Random(os.getpid())
    wrong, met = [], 0
    for line in LONG_RUNNING:
        for number in range(1500) if "-f thousands" in line else ():
            (thousands / str(number)).write_text(f"{number} {moments.random()}\n")
        for _ in range(2):
            before, after = refs(loaded), moments.uniform(0.05, 0.8)
            status, err = interrupted(line.split(), loaded, after)
            if status == 130:
                met += 1
                if err.count("\n") != 1 or not err.startswith("gitpipe: "):
                    wrong.append(f"{line} after {after:.3f} s: {err!r}")
                moved = set(refs(loaded).splitlines()) ^ set(before.splitlines())
                if line not in ("wait", "run") and len(moved) > 2:  # one ref, if the signal came when it was done
                    wrong.append(f"{line} after {after:.3f} s changed {moved}")
            elif (status or err) and not (status == -signal.SIGINT and not OURS.search(err)):
                wrong.append(f"{line} after {after:.3f} s: {status} {err!r}")
            if left := leftovers(loaded):
                wrong.append(f"{line} after {after:.3f} s left {left}")
            if line.startswith("create-pipeline"):
                run("delete-pipeline", "q")  # if it was done before the signal came
        end_runner(loaded)
        if line == "subscribe-commit training":
            line += " --limit 1"
        status, _, err = run(*line.split(), stdin=b"some\n")
        if status:
            wrong.append(f"{line} does not succeed afterwards: {err}")
    end_runner(loaded)
    subprocess.run(["git", "fsck", "--strict"], cwd=loaded, check=True, capture_output=True)
    assert not wrong, "\n".join(wrong)
    assert met >= len(LONG_RUNNING), "hardly any was met at work"
