"""Memory and disk that run out: the datum that took them fails with that reason, and nothing else goes down with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prison import PATHS
from stagekit import Kit, both

from tests.lab import new_lab

NO_SPACE = "(no space left on device)"
OUT_OF_MEMORY = "(out of memory?)"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group whose processes together get 150 MB."""
    for root, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup") / root / f"gitpipe-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(150 << 20))
            except OSError:
                group.rmdir()
                continue
            with contextlib.suppress(OSError):  # there without swap: the limit would only move it there
                (group / "memory.swap.max").write_text("0")
            break
    else:
        pytest.skip("no control group can be made here")
    yield group
    end = time.monotonic() + 180
    while group.exists():
        with contextlib.suppress(OSError):  # a process of it is still on its way out
            group.rmdir()
        assert time.monotonic() < end


# --- disk -----------------------------------------------------------------------------------------------------------


@both
def test_a_stage_that_fills_the_disk(tmp_path: Path, small_disk: Path, sandbox: str) -> None:
    """Its datum fails and what it wrote is gone, so that the next one has the room."""
    kit = Kit(small_disk)
    script = "cat /pfs/in/x > /pfs/out/x; head -c $(cat /pfs/in/n) /dev/zero > /pfs/out/y || exit 4"
    worker = kit.worker(kit.stage("sh", "-c", script, sandbox=sandbox))
    for _ in range(2):
        full = worker.run(kit.task({"x": b"1", "n": b"100000000"}))
        assert full.error == f"exit status 4 {NO_SPACE}" and not full.lost
        fine = worker.run(kit.task({"x": b"1", "n": b"10000000"}))
        assert [size for _, _, size in fine.outputs] == [1, 10_000_000]
    quiet = kit.sh("head -c 100M /dev/zero > /pfs/out/y 2> /dev/null", sandbox=sandbox)
    assert quiet.error == f"exit status 1 {NO_SPACE}"
    kit.close()


@both
def test_inputs_and_outputs_that_do_not_fit(kit: Kit, small_disk: Path, sandbox: str) -> None:
    """Slots or cache on a file system that is too small for what is to be copied there."""
    inputs = kit.worker(kit.stage("true", sandbox=sandbox, slots_dir=small_disk))
    inputs.close()
    from gitpipe.stage.worker import Worker

    worker = Worker(kit.stage("true", sandbox=sandbox), small_disk / "slot")
    assert "No space left on device" in worker.run(kit.task({"x": bytes(range(256)) * 120_000})).error
    assert worker.run(kit.task({"x": b"1"})).ok
    worker.close()
    cache = small_disk / "files/md5"
    cache.mkdir(parents=True)
    script = "head -c $N /dev/urandom > /pfs/out/x"
    for size, fits in ((30_000_000, False), (1_000_000, True)):
        result = kit.sh(script, sandbox=sandbox, cache_dir=cache, env=(("N", str(size)),))
        assert result.ok is fits and (fits or "No space left on device" in result.error), result
    assert len([path for path in cache.glob("*/*") if path.is_file()]) == 1


def test_a_full_disk_fails_one_datum_and_no_other(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole repository is on it: its database and logs cannot be written while the disk is full."""
    monkeypatch.setenv("GITPIPE", "0")
    lab = new_lab(small_disk / "lab")
    lab.data("s", {"big": "big", **{f"f{i}": f"{i}" for i in range(4)}})
    script = """
        for f in /pfs/s/*; do case $f in
            *big) test $(cat $f) = small || { head -c 100M /dev/zero > /pfs/out/x; r=$?; sleep 2; exit $r; };;
            *) sleep 0.4; echo some words;;
        esac; cp $f /pfs/out; done
    """
    lab.pipeline("p", {"s": "/*"}, script, parallelism_spec={"constant": 2})
    (job,) = lab.run()
    assert (job.state, job.processed, job.failed, job.total) == ("failed", 4, 1, 5)
    assert "s:/big" in job.reason and NO_SPACE in job.reason
    lab.data("s", {"big": "small", **{f"f{i}": f"{i}" for i in range(4)}})
    assert lab.ran() == ["p: 1 + 4 / 5 success"]


# --- memory ---------------------------------------------------------------------------------------------------------


@both
def test_stages_are_the_first_to_go(kit: Kit, sandbox: str) -> None:
    """Where memory runs out, the kernel chooses by this number; ours is 0 as that of all others."""
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(kit.sh("cat /proc/self/oom_score_adj", sandbox=sandbox).log) == max(ours, 500)
    assert int(Path("/proc/self/oom_score_adj").read_text()) == ours


@both
def test_killed_says_so(kit: Kit, sandbox: str) -> None:
    assert kit.sh("kill -9 $$", sandbox=sandbox).error == f"killed by SIGKILL {OUT_OF_MEMORY}"
    assert kit.sh("sh -c 'kill -9 $$'; exit $?", sandbox=sandbox).error == f"exit status 137 {OUT_OF_MEMORY}"


@both
def test_a_limit_of_the_stages_own(kit: Kit, sandbox: str) -> None:
    result = kit.sh("ulimit -v 200000; exec python -c 'bytearray(1 << 30)'", sandbox=sandbox)
    assert result.error == "exit status 1" and b"MemoryError" in result.log


HOG = """
import sys; from pathlib import Path; from stagekit import Kit
Path(sys.argv[2], 'cgroup.procs').write_text('0')
kit = Kit(Path(sys.argv[1]))
stage = kit.stage('sh', '/pfs/in/do', sandbox=sys.argv[3])
worker = kit.worker(stage)
for do in ('python -c "x = bytearray(1 << 30)"', 'exec python -c "x = bytearray(1 << 30)"', 'true',
           'head -c 1000000000 /dev/zero > $TMPDIR/x', 'true', 'true'):
    if not worker.alive:
        worker = kit.worker(stage)
    result = worker.run(kit.task({'do': do.encode()}))
    print(result.lost, result.error, flush=True)
kit.close()
"""


@both
def test_memory_runs_out(tmp_path: Path, small_memory: Path, sandbox: str) -> None:
    """For real, within a control group that the owner of the worker is in as well: it lives, and goes on."""
    argv = [sys.executable, "-c", HOG, str(tmp_path / "base"), str(small_memory), sandbox]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": PATHS}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done
    said = done.stdout.splitlines()
    assert said[:3] == [f"False exit status 137 {OUT_OF_MEMORY}", f"False killed by SIGKILL {OUT_OF_MEMORY}", "False "]
    # Files in the sandbox's own memory take it along: the datum is lost, given to a new worker, and fails in the end.
    assert said[5] == "False "
    if sandbox == "auto":
        assert OUT_OF_MEMORY in said[3]
