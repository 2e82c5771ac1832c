"""What varies from run to run: in git notes, in inspect-job, in diff --provenance; and in no commit (I4)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stagekit import HAS_SANDBOX, Kit

from gitpipe import cli
from gitpipe.executors.local import LocalExecutor
from gitpipe.record import KEPT, NOTES, Records, versions
from gitpipe.repo import Repo
from tests.conftest import Shell
from tests.lab import Lab, new_lab

PYTHON = ["python", "-c", "import shutil; shutil.copy('/pfs/a/x', '/pfs/out/x')"]


def runs(lab: Lab, branch: str = "p") -> list[dict[str, Any]]:
    """The lines of the note on a branch's head, as git shows it."""
    return [json.loads(line) for line in lab.git("notes", "--ref", "gitpipe", "show", branch).splitlines()]


def printed(lab: Lab, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert cli.run(["-C", str(lab.root), *argv]) == 0
    return capsys.readouterr().out


def test_a_run_is_noted(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, transform={"cmd": PYTHON})
    lab.run()
    (run,) = runs(lab)
    (place,) = run.pop("ran_in")
    assert set(run) == {
        *("job", "engine", "host", "started", "finished", "seconds", "restarts", "processed", "bytes_in", "bytes_out")
    }
    assert (run["job"], run["processed"], run["bytes_in"], run["bytes_out"]) == (lab.made("p")[0].origin.job, 1, 1, 1)
    assert run["started"] <= run["finished"] and run["restarts"] == 0
    assert place["interpreter"].startswith(f"cpython {sys.version.split()[0]} ")
    assert place["kernel"].startswith(os.uname().sysname) and place["engine"] == "local"
    assert str(os.cpu_count()) in place["cpu"] and place["sandbox"] in ("bubblewrap", "none")
    assert sys.prefix not in json.dumps(place)
    packages = versions(lab.git("cat-file", "blob", place["packages"]))
    assert "pytest" in packages and packages["pytest"] == pytest.__version__
    assert "ran_in" in lab.git("log", "-1", "--notes=gitpipe", "p", "--")
    # The job says the same, and so it does when only git is left of it.
    said = json.loads(printed(lab, capsys, "inspect-job", "p", "--raw"))
    assert said["ran_in"] == [{**place, "packages": packages}]
    text = printed(lab, capsys, "inspect-job", "p")
    assert f"  Interpreter: {place['interpreter']}" in text and f"  Packages: {len(packages)}, see --raw" in text
    lab.forget()
    lab.run()
    assert json.loads(printed(lab, capsys, "inspect-job", "p", "--raw"))["ran_in"] == said["ran_in"]
    assert json.loads(printed(lab, capsys, "list-job", "--raw").splitlines()[0])["ran_in"] is None
    lab.prune()
    assert lab.git("fsck", "--strict") == "" and lab.git("cat-file", "-t", place["packages"]) == "blob"
    assert lab.git("config", "notes.gitpipe.mergeStrategy") == "cat_sort_uniq"


def test_other_languages_and_nothing_to_run(lab: Lab) -> None:
    """A program that is no interpreter of packages is named by its md5; what was skipped ran nowhere."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    ((place,),) = [run["ran_in"] for run in runs(lab)]
    md5 = subprocess.run(["md5sum", "/bin/sh"], capture_output=True, text=True, check=True).stdout[:32]
    assert place["program"].endswith(f"md5 {md5})") and "packages" not in place
    first = lab.head("p")
    lab.pipeline("p", {"a": "/"}, description="another version, the same datums")
    lab.run()
    assert lab.head("p") != first and [run["ran_in"] for run in runs(lab)] == [[]]
    assert runs(lab, first)[0]["ran_in"] == [place]


def test_a_failed_job_says_what_it_ran_in(lab: Lab) -> None:
    lab.data("a", {"x": "1", "y": "2"})
    lab.pipeline("p", {"a": "/*"}, "test -e /pfs/a/x && cp /pfs/a/x /pfs/out")
    assert "failed" in lab.ran()[0]
    (place,) = lab.project.jobs.inspect("p").ran_in or ()
    assert "program" in place and place["packages"] == {}
    assert lab.git("for-each-ref", NOTES) == ""


def test_what_is_asked_for_is_said_where_it_is_not_had(lab: Lab) -> None:
    """Workers of this machine reserve nothing: of GPUs the job says so, once."""
    lab.data("a", {"x": "1", "y": "2"})
    lab.pipeline("gpu", {"a": "/*"}, resource_limits={"gpu": {"type": "nvidia.com/gpu", "number": 1}})
    lab.pipeline("cpu", {"a": "/*"}, resource_requests={"cpu": 64, "memory": "900G"})
    notes = {job.pipeline: job.notes for job in lab.run()}
    (note,) = notes["gpu"]
    assert "GPUs were not reserved" in note and notes["cpu"] == ()
    spec = lab.project.pipelines.inspect("cpu").spec
    assert spec["resource_requests"] == {"cpu": 64.0, "memory": 900 * 10**9} and "ignored" not in spec


def test_a_spec_cannot_have_a_program_run_outside(lab: Lab, tmp_path: Path) -> None:
    """Only the interpreter of the settings, and what our own PATH has, is asked: I11."""
    flag = tmp_path / "flag"
    fake = tmp_path / "bin" / "python3.99"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {flag}-$#\necho fake; echo /\n")
    fake.chmod(0o755)
    lab.data("a", {"x": "1"})
    env = {"PATH": f"{fake.parent}:/usr/bin:/bin"}
    transforms = [
        {"cmd": [str(fake), "x", "y", "z"]},
        {"cmd": ["sh", "-c", f"true {fake} x"]},
        {"cmd": ["sh", "-c", "true; python3.99 x y z"], "env": env},
    ]
    for number, transform in enumerate(transforms):
        lab.pipeline(f"p{number}", {"a": "/"}, transform={**transform, "accept_return_code": [0, 1, 126, 127]})
    lab.run()
    assert not list(tmp_path.glob("flag-2"))  # `-c` and a script: what an interpreter is asked with
    for number in range(3):
        for place in lab.project.jobs.inspect(f"p{number}").ran_in or ():
            assert "interpreter" not in place


def test_notes_do_not_change_commits(lab: Lab, tmp_path: Path) -> None:
    """I4: the same SHA where the notes differ; and git's own merge keeps the runs of both machines."""
    other = new_lab(tmp_path / "other")
    for each in (lab, other):
        each.data("a", {"x": "1"})
        each.pipeline("p", {"a": "/"})
        each.run()
    assert lab.head("p") == other.head("p") and runs(lab) != runs(other)
    lab.git("fetch", "-q", str(other.root), "refs/notes/gitpipe:refs/notes/theirs")
    lab.git("notes", "--ref", "gitpipe", "merge", "-q", "theirs")
    assert {run["started"] for run in runs(lab)} == {run["started"] for run in [*runs(other), *runs(lab)]}
    assert len(runs(lab)) == 2
    lab.data("a", {"x": "2"})
    lab.run()
    assert len(runs(lab)) == 1 and len(runs(lab, "p~1")) == 2


@pytest.fixture
def records(lab: Lab) -> Records:
    return Records(Repo(lab.root))


def test_notes_where_git_put_some(lab: Lab, records: Records) -> None:
    """Beside and over notes that git itself wrote, in any fanout; git's prune leaves the packages alone."""
    shas = [lab.data("a", {"x": str(n)}) for n in range(3)]
    lab.git("notes", "--ref", "gitpipe", "add", "-m", '{"job": "old"}', shas[0])
    place = {"host": "h", "packages": "one==1\ntwo==2"}
    for sha in shas:
        assert records.add(sha, {"job": "new", "finished": 1.0}, [place])
    assert records.add(shas[1], {"job": "newer", "finished": 2.0}, [])
    assert [run["job"] for run in runs(lab, shas[0])] == ["new", "old"]
    assert [run["job"] for run in records.read(shas[1])] == ["new", "newer"]
    assert records.read(shas[1])[0]["ran_in"] == [{"host": "h", "packages": {"one": "1", "two": "2"}}]
    lab.git("notes", "--ref", "gitpipe", "append", "-m", '{"job": "third"}', shas[2])
    assert [run["job"] for run in records.read(shas[2])] == ["third", "new"]
    lab.git("notes", "--ref", "gitpipe", "prune")
    assert lab.git("ls-tree", "--name-only", NOTES, KEPT) == KEPT
    assert len(lab.git("notes", "--ref", "gitpipe", "list").splitlines()) == 3
    records.repo.close()


def test_many_write_notes_at_once(lab: Lab) -> None:
    sha = lab.data("a", {"x": "1"})

    def note(number: int) -> None:
        mine = Records(Repo(lab.root))
        for turn in range(3):
            assert mine.add(sha, {"job": f"{number}-{turn}"}, [])
        mine.repo.close()

    threads = [threading.Thread(target=note, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs(lab, sha)) == 12


@pytest.mark.parametrize("harm", ["lock", "folder", "broken"])
def test_notes_never_stop_a_result(lab: Lab, harm: str) -> None:
    lab.data("a", {"x": "1"})
    if harm == "folder":
        lab.git("update-ref", f"{NOTES}/mine", "HEAD")
    else:
        path = lab.root / ".git" / (f"{NOTES}.lock" if harm == "lock" else NOTES)
        path.parent.mkdir(parents=True)
        path.write_text("" if harm == "lock" else f"{'1' * 40}\n")
    lab.pipeline("p", {"a": "/"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.files("p") == {"x": "1"}


def test_the_cost_in_git(lab: Lab) -> None:
    """I10: a few KB a run, and each list of packages once."""
    shas = [lab.data("a", {"x": str(n)}) for n in range(2)] * 25
    records = Records(Repo(lab.root))
    place = {"host": "h", "cpu": "2 x CPU", "packages": "\n".join(f"package-{n}==1.{n}" for n in range(300))}
    lab.git("gc", "-q")
    for number, sha in enumerate(shas):
        assert records.add(sha, {"job": f"{number:032x}", "started": number * 1.5, "finished": number * 1.7}, [place])
    records.repo.close()
    objects, size = lab.git("count-objects").replace(" objects,", "").split()[:2]
    assert int(objects) <= 50 * 4 + 3
    assert int(size) <= 50 * 4 * 4 + 16  # KB of disk; each object takes a block of 4
    lab.git("gc", "-q")
    packed = dict(line.split(": ") for line in lab.git("count-objects", "-v").splitlines())["size-pack"]
    assert int(packed) < 50


@dataclass
class Venv:
    """An interpreter with one package of its own."""

    python: str
    site: Path

    def install(self, version: str) -> None:
        """As pip does: the old version goes, the new one comes."""
        for old in self.site.glob("colours-*"):
            old.rename(self.site.parent / old.name)
        (self.site / f"colours-{version}.dist-info").mkdir()
        (self.site / "colours.py").write_text(f"best = {version!r}\n")


@pytest.fixture
def venv(tmp_path: Path, sh: Shell) -> Venv:
    site = sh(f"{sys.executable} -m venv --without-pip venv && echo $PWD/venv/lib/python*/site-packages").strip()
    return Venv(str(tmp_path / "venv/bin/python"), Path(site))


def test_a_warm_worker_sees_what_is_installed(venv: Venv, tmp_path: Path) -> None:
    """Not for each datum, but when another job begins; all datums of one have the very same record."""
    kit, executor = Kit(tmp_path / "kit"), LocalExecutor()
    if not HAS_SANDBOX:
        pytest.skip("the script says /pfs")
    kit.script("go.py", "import colours\nopen('/pfs/out/v', 'w').write(colours.best)\n")
    stage = kit.stage("python", "go.py", python=venv.python)
    try:
        seen = []
        for version in ("1.0", "1.0", "2.0"):
            if version not in seen:
                venv.install(version)
            results = list(executor.run(stage, [kit.task(datum=f"{n}") for n in range(3)], 1))
            assert len({id(result.environment) for result in results}) == 1
            assert {kit.contents(result)["v"] for result in results} == {version.encode()}
            seen.append(versions(results[0].environment["packages"])["colours"])
            assert len(list(kit.slots.iterdir())) == 1
        assert seen == ["1.0", "1.0", "2.0"]
    finally:
        executor.close()


def test_diff_says_what_else_differs(lab: Lab, venv: Venv, capsys: pytest.CaptureFixture[str]) -> None:
    """Where results differ and inputs do not: a package that was upgraded."""
    lab.git("config", "gitpipe.python", venv.python)
    cmd = ["python", "-c", "import colours; open('/pfs/out/x', 'w').write(colours.best)"]
    venv.install("1.7.1")
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, transform={"cmd": cmd})
    lab.run()
    venv.install("1.8.0")
    lab.project.pipelines.update([str(lab.root / "specs/p.json")], reprocess=True)
    lab.run()
    text = printed(lab, capsys, "diff", "p", "--provenance")
    assert "x  " in text and "Inputs: the same" in text
    assert text.splitlines()[-2:] == ["Environment:", "  p: colours 1.7.1 → 1.8.0"]
    raw = json.loads(printed(lab, capsys, "diff", "p", "--provenance", "--raw"))["provenance"]["environments"]
    assert raw == [{"pipeline": "p", "what": "package colours", "old": "1.7.1", "new": "1.8.0"}]
    lab.git("update-ref", "-d", NOTES)
    assert "Environment" not in printed(lab, capsys, "diff", "p", "--provenance")


def test_diff_where_nothing_explains_it(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Two commits of one input and one version: the environment is the same, where it was recorded."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, "date +%s%N > /pfs/out/x")
    lab.run()
    first = lab.head("p")
    lab.git("update-ref", "-d", "refs/heads/p")
    lab.forget()
    lab.run()
    text = printed(lab, capsys, "diff", first, "p", "--provenance")
    assert "Pipelines: the same" in text and text.splitlines()[-1] == "Environment: the same"
    lab.git("update-ref", "-d", NOTES)
    assert "Environment" not in printed(lab, capsys, "diff", first, "p", "--provenance")
