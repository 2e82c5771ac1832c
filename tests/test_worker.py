"""Workers: what user code sees, what it cannot do, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stagekit import Kit, both, needs_sandbox, processes_with, seconds

from gitpipe.errors import StageFailed, UsageError
from gitpipe.stage import MAX_LOG, Stage, Task, TaskInput
from gitpipe.stage.command import PathMap
from gitpipe.stage.sandbox import describe, detect
from gitpipe.stage.slot import Slot, sweep


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.close()


def wait_until_gone(text: str) -> None:
    deadline = time.monotonic() + 5
    while processes_with(text):
        assert time.monotonic() < deadline, f"still there: {text}"
        time.sleep(0.02)


# --- inputs, outputs, environment ---


@both
def test_files_go_in_and_out(kit: Kit, sandbox: str) -> None:
    result = kit.sh("mkdir /pfs/out/d; cat /pfs/in/a/x /pfs/in/y > /pfs/out/d/z", {"a/x": b"1", "y": b"22"},
                    sandbox=sandbox)  # fmt: skip
    assert result.ok, result
    assert kit.contents(result) == {"d/z": b"122"}
    assert (result.bytes_in, result.bytes_out, result.exit_code) == (3, 3, 0)
    assert result.outputs[0][2] == 3
    assert result.environment["sandbox"] == ("none" if sandbox == "none" else "bubblewrap")


@both
def test_a_worker_runs_many_datums_and_mixes_none(kit: Kit, sandbox: str) -> None:
    script = "ls -A /pfs/in /pfs/out $HOME $TMPDIR; touch $HOME/left $TMPDIR/left; cp /pfs/in/* /pfs/out"
    worker = kit.worker(kit.stage("sh", "-c", script, sandbox=sandbox))
    first = worker.run(kit.task({"x": b"1"}))
    second = worker.run(kit.task({"y": b"2"}))
    assert kit.contents(first) == {"x": b"1"}
    assert kit.contents(second) == {"y": b"2"}
    assert not {b"left", b"x"} & set(second.log.split())


@both
def test_empty_inputs_and_empty_files(kit: Kit, sandbox: str) -> None:
    md5 = kit.blob(b"content")
    stage = kit.stage("sh", "-c", "ls -d /pfs/none; wc -c < /pfs/in/x; ln -s /pfs/in/x /pfs/out/y", sandbox=sandbox)
    inputs = (TaskInput("none", "/", "c", ()), TaskInput("in", "/x", "c", (("x", md5),), empty_files=True))
    result = kit.worker(stage).run(Task("d", inputs))
    assert result.ok, result
    assert result.log.splitlines()[-1] == b"0"
    assert result.bytes_in == 0
    # The link's file is the input itself, as one sees it downstream, although it had no bytes here.
    assert result.outputs == (("y", md5, 7),)


@both
def test_environment(kit: Kit, sandbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "RAY_AUTH_TOKEN", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "not-for-stages")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    stage = kit.stage("env", sandbox=sandbox, env=(("SPEC", "/pfs/in"), ("OTHER", "/pfsx")))
    result = kit.worker(stage).run(kit.task({"x": b""}, JOB="j1", IN="/pfs/in/x"))
    env = dict(line.split("=", 1) for line in result.log.decode().splitlines())
    assert "not-for-stages" not in result.log.decode()
    assert env["JOB"] == "j1" and env["OTHER"] == "/pfsx"
    assert env["LC_TIME"] == "C.UTF-8" and env["OMP_NUM_THREADS"] == "3"
    assert env["SPEC"].endswith("/pfs/in") and env["IN"].endswith("/pfs/in/x")
    assert env["HOME"] != os.environ.get("HOME")
    assert env["PATH"].startswith(str(Path(sys.executable).parent))


@both
@pytest.mark.parametrize("name", ["python", "python3"])
def test_python_is_the_recorded_interpreter(kit: Kit, sandbox: str, name: str) -> None:
    kit.script("m.py", "import sys, pytest, helper; print(sys.executable)")
    kit.script("helper.py", "")
    result = kit.run(name, "m.py", sandbox=sandbox)
    assert result.log.decode().strip() == sys.executable
    inner = kit.sh(f"{name} m.py", sandbox=sandbox)
    assert Path(inner.log.decode().strip()).parent == Path(sys.executable).parent
    assert not (kit.code / "__pycache__").exists()


@both
def test_stdin_code_and_working_dir(kit: Kit, sandbox: str) -> None:
    kit.script("sub/go.sh", "#!/bin/sh\nread a; read b; echo $b $a; basename $PWD")
    result = kit.run("./go.sh", sandbox=sandbox, stdin=("one", "two"), working_dir="/code/sub")
    assert result.log == b"two one\nsub\n"
    big = kit.run("wc", "-c", sandbox=sandbox, stdin=("x" * 500_000,))
    assert big.log.strip() == b"500001"
    unread = kit.run("true", sandbox=sandbox, stdin=("x" * 500_000,))
    assert unread.ok
    lines = kit.run("sh", sandbox=sandbox, stdin=("cd /pfs/in", "cp x /pfs/out/y"), files={"x": b"1"})
    assert kit.contents(lines) == {"y": b"1"}
    assert kit.run("cat", sandbox=sandbox).log == b""


@both
def test_absolute_paths_of_images_come_from_the_code(kit: Kit, sandbox: str) -> None:
    kit.script("train.jl", "hello")
    kit.script("train", "#!/bin/sh\necho ran $1")
    whole = kit.run("cat", "/train.jl", "/code/train.jl", sandbox=sandbox)
    assert whole.log == b"hellohello"
    taken = "taken from the pipeline's code"
    assert whole.note == f"/train.jl: {taken}; /code/train.jl: {taken}"
    assert kit.run("/train", "/etc", sandbox=sandbox).log == b"ran /etc\n"
    assert kit.sh("cat '/train.jl'", sandbox=sandbox).log == b"hello"
    awk = kit.run("awk", "/train.x/ {print 1}", sandbox=sandbox)
    assert awk.ok and awk.note == ""
    assert kit.run("cat", "/absent", sandbox=sandbox).error == "exit status 1"


# --- failures ---


@both
def test_failures_are_one_clear_line(kit: Kit, sandbox: str) -> None:
    kit.script("noexec.sh", "#!/bin/sh\n", mode=0o644)
    kit.script("nointerp", "#!/no/such\n")
    kit.script("noshebang", "echo fine\n")

    def error(*cmd: str, **more: object) -> str:
        return kit.run(*cmd, sandbox=sandbox, **more).error

    assert error("sh", "-c", "exit 3") == "exit status 3"
    assert error("sh", "-c", "exit 3", accept_return_code=(3,)) == ""
    assert error("sh", "-c", "kill -SEGV $$") == "killed by SIGSEGV"
    assert "nosuchprogram: no such program" in error("nosuchprogram")
    assert "./noexec.sh: permission denied" in error("./noexec.sh")
    assert "interpreter in its first line" in error("./nointerp")
    assert error("./noshebang") == ""
    assert "working directory /nowhere" in error("true", working_dir="/nowhere")
    assert error("sleep", "60", timeout=0.2) == "timed out after 0.2 s"
    failed = kit.sh("echo x > /pfs/out/x; echo why >&2; exit 1", sandbox=sandbox)
    assert failed.log == b"why\n" and failed.outputs == ()


@both
def test_a_missing_blob_names_the_file(kit: Kit, sandbox: str) -> None:
    task = Task("d", (TaskInput("in", "/", "c", (("a/x", "0" * 32),)),))
    worker = kit.worker(kit.stage("true", sandbox=sandbox))
    result = worker.run(task)
    assert "in/a/x is missing" in result.error and not result.lost
    assert worker.run(kit.task({"x": b"1"})).ok


@both
def test_long_output_keeps_head_and_tail(kit: Kit, sandbox: str) -> None:
    result = kit.sh("echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last >&2", sandbox=sandbox)
    assert result.ok
    assert len(result.log) <= MAX_LOG
    assert result.log.startswith(b"first\n") and result.log.endswith(b"\nlast\n")
    assert b"bytes left out" in result.log


def test_head_ends_a_pipe(kit: Kit) -> None:
    """SIGPIPE is not ignored in user code, as it is in Python."""
    assert kit.sh("yes | head -1", timeout=10).log == b"y\n"


def test_without_sandbox_paths_are_rewritten_and_hard_coded_ones_explained(kit: Kit) -> None:
    kit.script("fixed.py", "open('/pfs/in/x')")
    result = kit.run("python", "fixed.py", sandbox="none", files={"x": b""})
    assert result.error.startswith("exit status 1 (no sandbox here")
    hint = "no sandbox here, so /pfs does not exist; install bubblewrap, or take the paths from the arguments"
    kit.script("quiet.sh", "cp /pfs/in/* /pfs/out 2> /dev/null")
    assert kit.run("sh", "quiet.sh", sandbox="none").error == f"exit status 1 ({hint}: quiet.sh names it)"
    paths = PathMap("/s/pfs", "/c")
    rewritten = paths.rewrite("cp /pfs/a --to=/pfs/out /pfsx a/pfs '/code/x' /pfs $(ls /pfs) /codex /pfs:/pfs/b")
    assert rewritten == "cp /s/pfs/a --to=/s/pfs/out /pfsx a/pfs '/c/x' /s/pfs $(ls /s/pfs) /codex /s/pfs:/s/pfs/b"


def test_without_sandbox_finding_nothing_in_a_hard_coded_folder_is_no_success(kit: Kit) -> None:
    """A glob over /pfs finds nothing where there is no /pfs, and no program complains of that."""
    kit.script("sub/look.py", "import glob\nfor f in glob.glob('/pfs/in/*'): open('/pfs/out/x', 'w')\n")
    for more in (("python", "sub/look.py"), ("python", "/code/sub/look.py")):
        failed = kit.run(*more, sandbox="none", files={"x": b""})
        assert failed.error.startswith("no output (no sandbox here") and "sub/look.py names it" in failed.error
    assert not kit.run("python", "look.py", sandbox="none", working_dir="/code/sub").ok
    kit.script("commented.sh", "# sh commented.sh /pfs/in\nls $1 x/pfs /pfsx; true")
    assert kit.run("sh", "commented.sh", "/pfs/in", sandbox="none").ok


def test_without_sandbox_a_path_with_spaces_is_no_trouble(tmp_path: Path) -> None:
    kit = Kit(tmp_path / "a folder's name")
    kit.script("x.txt", "code")
    result = kit.sh("cat /pfs/in/x /code/x.txt > /pfs/out/y; ln -s /pfs/in/x /pfs/out/z", {"x": b"1"}, sandbox="none")
    assert kit.contents(result) == {"y": b"1code", "z": b"1"}, result
    kit.close()


# --- what user code cannot do (I11) ---


@needs_sandbox
def test_I11_nothing_can_be_written_but_out_and_tmp(kit: Kit) -> None:
    kit.script("code.txt", "")
    md5 = kit.blob(b"1")
    blob = kit.cache / md5[:2] / md5[2:]
    for target in ("/pfs/in/x", "/pfs/new", "/code/code.txt", str(blob), "/etc/x", "/x", "/root/x", "/run/x", "/dev/x"):
        result = kit.sh(f"echo bad > {target}", {"x": b"1"})
        assert not result.ok, target
    assert b"Read-only file system" in kit.sh("echo bad > /pfs/in/x", {"x": b"1"}).log
    assert not kit.sh("chmod 666 /pfs/in/x", {"x": b"1"}).ok
    assert not kit.sh("ln /pfs/in/x /pfs/out/x", {"x": b"1"}).ok
    assert not kit.sh("mount -o remount,rw /pfs", {"x": b"1"}).ok
    assert kit.sh("for d in /tmp $HOME /dev/shm /var/tmp; do echo ok > $d/x; done").ok
    assert blob.read_bytes() == b"1"


@needs_sandbox
def test_I11_homes_and_sockets_are_masked(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = kit.sh("ls -A /root /home /run; ls -d /proc/[0-9]*").log.decode().split()
    assert not {".ssh", ".gitconfig", ".bashrc"} & set(listing)
    assert len([name for name in listing if name.startswith("/proc/")]) <= 4


@needs_sandbox
def test_private_copies_of_inputs_may_be_written(kit: Kit) -> None:
    stage = kit.stage("sh", "-c", "echo 2 >> /pfs/in/x; cp /pfs/in/x /pfs/out; ln -s /pfs/in/x /pfs/out/l",
                      writable_inputs=True)  # fmt: skip
    result = kit.worker(stage).run(kit.task({"x": b"1\n"}))
    assert kit.contents(result) == {"x": b"1\n2\n", "l": b"1\n2\n"}
    assert kit.read(kit.blob(b"1\n")) == b"1\n"


@needs_sandbox
def test_strict_has_no_network(kit: Kit) -> None:
    names = "import os; print(*sorted(os.listdir('/sys/class/net')))"
    count = "print(len(open('/proc/net/dev').read().splitlines()) - 2)"
    assert kit.run("python", "-c", count, sandbox="strict").log.strip() == b"1", names


def test_modes() -> None:
    assert detect("none") == "none" and describe("none").startswith("none")
    assert describe("auto").startswith(detect("auto"))
    with pytest.raises(UsageError, match="unknown sandbox mode"):
        detect("perhaps")


# --- processes ---


@both
def test_processes_left_behind_are_ended(kit: Kit, sandbox: str) -> None:
    kit.script(
        "daemon.py",
        "import os, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "open('/pfs/out/started' if os.path.isdir('/pfs/out') else os.environ['OUT'] + '/started', 'w').close()\n"
        f"os.execvp('sleep', ['sleep', '{seconds(98761)}'])\n",
    )
    script = f"""
        python daemon.py; setsid sleep {seconds(98762)} & nohup sleep {seconds(98763)} &
        while ! test -e /pfs/out/started; do :; done
    """
    worker = kit.worker(kit.stage("sh", "-c", script, sandbox=sandbox, env=(("OUT", "/pfs/out"),)))
    for _ in range(2):
        result = worker.run(kit.task())
        assert result.ok and len(result.outputs) == 1, result
        assert not [n for n in (98761, 98762, 98763) if processes_with(seconds(n))]


@both
def test_a_timeout_ends_all(kit: Kit, sandbox: str) -> None:
    worker = kit.worker(
        kit.stage("sh", "-c", f"sleep {seconds(98764)} & sleep {seconds(98764)}", sandbox=sandbox, timeout=0.3)
    )
    assert worker.run(kit.task()).error.startswith("timed out")
    assert not processes_with(seconds(98764))
    assert worker.alive


@both
def test_a_killed_agent_is_a_lost_datum_not_a_failed_one(kit: Kit, sandbox: str) -> None:
    worker = kit.worker(kit.stage("sh", "-c", f"sleep {seconds(98765)}", sandbox=sandbox))

    def kill() -> None:
        while not processes_with(seconds(98765)):
            time.sleep(0.01)
        agent = worker._agent
        assert agent is not None
        os.kill(agent._process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    result = worker.run(kit.task())
    thread.join()
    assert result.lost and not result.ok and not worker.alive
    wait_until_gone(seconds(98765))


@needs_sandbox
def test_user_code_cannot_kill_its_agent(kit: Kit) -> None:
    worker = kit.worker(kit.stage("sh", "-c", "kill -9 -1; kill -9 1"))
    worker.run(kit.task())
    assert worker.alive and not worker.run(kit.task()).lost


def test_without_sandbox_what_outlives_a_killed_agent_is_ended_by_the_sweep(kit: Kit) -> None:
    """Agent and owner may be killed together, as Ray does with a lost actor's children."""
    program = (
        "import sys; sys.path[:0] = sys.argv[2:4]\n"
        "from pathlib import Path; from stagekit import Kit\n"
        "Kit(Path(sys.argv[1])).sh(f'sleep {sys.argv[4]}; true', sandbox='none')\n"
    )
    base, here = kit.slots.parent / "other", Path(__file__).parent
    argv = [sys.executable, "-c", program, str(base), str(here), str(here.parent), seconds(98768)]
    owner = subprocess.Popen(argv)
    while not processes_with(f"sleep\0{seconds(98768)}"):
        assert owner.poll() is None
        time.sleep(0.02)
    os.kill(owner.pid, signal.SIGSTOP)
    for pid in processes_with(f"outside\0{owner.pid}\0"):
        os.kill(pid, signal.SIGKILL)
    owner.kill()
    owner.wait()
    time.sleep(0.1)
    assert processes_with(f"sleep\0{seconds(98768)}")
    assert sweep(base / "slots") == ["slot0"]
    wait_until_gone(seconds(98768))


@both
def test_a_killed_owner_takes_all_along(kit: Kit, sandbox: str) -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[3:5]\n"
        "from pathlib import Path; from stagekit import Kit\n"
        "kit = Kit(Path(sys.argv[1]))\n"
        "kit.sh(f'(setsid sleep {sys.argv[5]} &) ; sleep {sys.argv[5]}', sandbox=sys.argv[2])\n"
    )
    base = kit.slots.parent / "other"
    here = Path(__file__).parent
    argv = [sys.executable, "-c", program, str(base), sandbox, str(here), str(here.parent), seconds(98766)]
    owner = subprocess.Popen(argv)
    while len(processes_with(f"sleep\0{seconds(98766)}")) < 2:
        assert owner.poll() is None
        time.sleep(0.02)
    owner.kill()
    owner.wait()
    wait_until_gone(seconds(98766))
    wait_until_gone(str(base))
    assert sweep(base / "slots") == ["slot0"]
    assert list((base / "slots").iterdir()) == []


def test_sweep_leaves_the_living(tmp_path: Path) -> None:
    slot = Slot(str(tmp_path / "alive"))
    (tmp_path / "in the making").mkdir()
    assert sweep(tmp_path) == []
    slot.remove()
    assert sweep(tmp_path / "absent") == []


@needs_sandbox
def test_a_sandbox_that_cannot_start_says_why(kit: Kit) -> None:
    stage = kit.stage("true")
    kit.code.rmdir()
    worker = kit.worker(stage)
    with pytest.raises(StageFailed, match=r"cannot start a worker for pipeline p: .*code"):
        worker.run(kit.task())
    assert not worker.alive


@both
def test_folders_without_permissions_are_cleaned(kit: Kit, sandbox: str) -> None:
    script = "mkdir -p /pfs/out/a/b; echo 1 > /pfs/out/a/b/c; chmod 000 /pfs/out/a/b/c /pfs/out/a/b /pfs/out/a"
    worker = kit.worker(kit.stage("sh", "-c", script, sandbox=sandbox))
    for _ in range(2):
        assert kit.contents(worker.run(kit.task())) == {"a/b/c": b"1\n"}


@both
def test_folders_nested_beyond_reach_fail_and_go_away(kit: Kit, sandbox: str) -> None:
    script = "import os\nos.chdir(os.environ['OUT'])\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\n"
    kit.script("deep.py", script)
    stage: Stage = kit.stage("python", "deep.py", sandbox=sandbox, env=(("OUT", "/pfs/out"),))
    worker = kit.worker(stage)
    result = worker.run(kit.task())
    assert "nested too deeply" in result.error or "too long" in result.error
    assert kit.worker(stage).run(kit.task()).error == result.error
