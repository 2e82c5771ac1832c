"""Containers: stages in real images under a real podman, what decides on that, and what is left of them."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stagekit import Kit, processes_with, seconds

from gitpipe.errors import StageFailed, UsageError
from gitpipe.executors.host import Host
from gitpipe.stage import Image, Result, Secret, Task, container
from gitpipe.stage.container import LABEL, MARK, Containers, said_last
from gitpipe.stage.sandbox import inherited_environment
from gitpipe.stage.slot import sweep
from gitpipe.views import JobWhy

from .conftest import Shell
from .lab import Lab

LONG = 180.0
"""Seconds that only a failure takes."""
PLAIN: tuple[str, ...] = ()
CAREFUL = ("--runtime", "runc", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""For machines that are containers themselves, or whose kernel lets nobody raise a limit."""
IMAGE = f"localhost/gitpipe-test:{os.getpid()}"
OTHER = f"localhost/gitpipe-test-other:{os.getpid()}"
BARE = f"localhost/gitpipe-test-bare:{os.getpid()}"
APPLETS = ("cat", "chmod", "cp", "echo", "env", "grep", "id", "ln", "ls", "mkdir", "pwd", "rm", "sh", "sleep", "touch")


class Notes(dict[str, str]):
    """What is remembered, for as long as a test lasts."""

    def meta(self, key: str) -> str:
        return self.get(key, "")

    def set_meta(self, key: str, value: str) -> None:
        self[key] = value


def podman(*args: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["podman", *args], input=stdin, capture_output=True, timeout=LONG)
    assert done.returncode == 0, f"podman {' '.join(args)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def build(folder: Path, name: str, *changes: str) -> str:
    """An image of a folder's files; its id."""
    tar = subprocess.run(["tar", "-C", str(folder), "-c", "."], capture_output=True, check=True).stdout
    return podman("import", "--quiet", *(f"--change={change}" for change in changes), "-", name, stdin=tar)


def usable(folder: Path) -> tuple[tuple[str, ...], str]:
    """Which options podman needs to run a container here, or why it cannot; makes the image `BARE`."""
    busybox = shutil.which("busybox")
    if shutil.which("podman") is None:
        return PLAIN, "podman is not installed"
    if busybox is None or subprocess.run(["ldd", busybox], capture_output=True).returncode == 0:
        return PLAIN, "there is no static busybox to make images of"
    shutil.copy(busybox, folder / "busybox")
    try:
        build(folder, BARE, 'ENTRYPOINT ["/busybox", "cp", "-r", "/pfs/in/.", "/pfs/out"]')
    except AssertionError as error:
        return PLAIN, f"podman does not work here: {error}"
    said = ""
    for args in (CAREFUL, PLAIN):
        argv = ["podman", "run", *args, "--rm", "--pull=never", "--network=host", "--entrypoint=/busybox", BARE, "true"]
        done = subprocess.run(argv, capture_output=True, timeout=LONG)
        if done.returncode == 0:
            return args, ""
        said = said_last(done.stderr, done.returncode)
    return PLAIN, f"podman cannot run a container here: {said}"


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The options that podman needs here; the images are made, and removed at the end."""
    root = tmp_path_factory.mktemp("root")
    found, problem = usable(root)
    if problem:
        pytest.skip(problem)
    try:
        for folder in ("bin", "code", "srv"):
            (root / folder).mkdir()
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("/busybox")
        (root / "bin" / "python").write_text("#!/bin/sh\necho the image\\'s python $*\n")
        (root / "bin" / "python").chmod(0o755)
        (root / "code" / "own.sh").write_text("echo the image\\'s own\n")
        (root / "srv" / "table").write_text("1\n")
        build(root, IMAGE, "ENV COLOUR=red", "ENV PATH=/bin", "WORKDIR /srv")
        (root / "srv" / "table").write_text("2\n")
        build(root, OTHER, "ENV COLOUR=blue", "ENV PATH=/bin", "WORKDIR /srv")
        yield found
    finally:
        subprocess.run(["podman", "rmi", "--force", IMAGE, OTHER, BARE], capture_output=True, timeout=LONG)


@pytest.fixture
def image(args: tuple[str, ...]) -> Image:
    return chosen(IMAGE, args)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.close()
    until(lambda: not containers(kit.slots))


def chosen(name: str, args: tuple[str, ...]) -> Image:
    choice = Containers("require", args, Notes()).choose(name, print, lambda: False)
    assert choice.image is not None
    return choice.image


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def containers(slots: Path, slot: str = "") -> list[str]:
    """The containers of all workers in `slots`, or of one, whatever their state."""
    rows = podman("ps", "--all", "--format", f'{{{{index .Labels "{LABEL}"}}}}', "--filter", f"label={LABEL}")
    return [row for row in rows.splitlines() if row.startswith(str(slots / slot))]


def lines(result: Result) -> list[str]:
    assert result.ok, result
    return result.log.decode().splitlines()


# --- what a stage sees ---


def test_a_stage_runs_in_its_image(kit: Kit, image: Image) -> None:
    """Its programs, its variables, its folders; nothing of the host's but the inputs."""
    result = kit.sh("env; pwd; cat table; python x; ls /; cp /pfs/in/x /pfs/out/y", {"x": b"1"}, image=image,
                    env=(("SPEC", "yes"),))  # fmt: skip
    assert kit.contents(result) == {"y": b"1"}
    said = lines(result)
    env = dict(line.split("=", 1) for line in said if "=" in line)
    assert {name: env[name] for name in env.keys() - {"PWD", "SHLVL"}} == {
        "COLOUR": "red",
        "PATH": "/bin",
        "HOME": "/tmp/home",
        "SPEC": "yes",
    }
    assert {"/srv", "1", "the image's python x"} <= set(said)
    assert not {"home", "root", "usr", "work"} & set(said)
    assert result.environment["sandbox"] == "podman"
    assert os.stat(kit.cache / result.outputs[0][1][:2] / result.outputs[0][1][2:]).st_uid == os.getuid()


def test_secrets_and_err_cmd(kit: Kit, image: Image) -> None:
    """A variable comes with the request, in no argument of the engine's; err_cmd runs in the same container."""
    given = (Secret(b"hunter2", env_var="PW"),)
    err_cmd = ("sh", "-c", "cat /pfs/out/left; echo $PW; cat /proc/1/environ; cat /proc/1/cmdline")
    result = kit.sh("echo left > /pfs/out/left; echo $PW; exit 3", image=image, secrets=given, err_cmd=err_cmd)
    assert result.recovered and result.error == "exit status 3" and not result.outputs
    assert result.log.startswith(b"***\nleft\n***\n") and result.log.count(b"***") == 2
    with pytest.raises(StageFailed, match="has a container in its place, or use env_var"):
        kit.sh("true", image=image, secrets=(Secret(b"hunter2", path="/secrets/key"),))


def test_one_container_runs_many_datums_and_mixes_none(kit: Kit, image: Image) -> None:
    script = "ls -A /pfs/in /pfs/out $HOME /tmp /dev/shm; touch $HOME/l /tmp/left /dev/shm/left; cp /pfs/in/* /pfs/out"
    worker = kit.worker(kit.stage("sh", "-c", script, image=image))
    assert kit.contents(worker.run(kit.task({"x": b"1"}))) == {"x": b"1"}
    before = podman("ps", "--quiet", "--filter", f"label={LABEL}={kit.slots / 'slot0'}")
    second = worker.run(kit.task({"y": b"2"}))
    assert kit.contents(second) == {"y": b"2"}
    assert not {"left", "l", "x"} & set(lines(second))
    assert podman("ps", "--quiet", "--filter", f"label={LABEL}={kit.slots / 'slot0'}") == before != ""


def test_an_image_needs_no_shell_and_no_library(kit: Kit, args: tuple[str, ...]) -> None:
    """``FROM scratch``: one static program, which is its entry point."""
    bare = chosen(BARE, args)
    result = kit.run(*bare.entrypoint, files={"a/x": b"1"}, image=bare)
    assert kit.contents(result) == {"a/x": b"1"}
    missing = kit.run("nowhere", image=bare)
    assert missing.error == "cannot start nowhere: no such program; install it or correct transform.cmd"


def test_nothing_can_be_changed_but_the_output(kit: Kit, image: Image) -> None:
    kit.script("s", "")
    places = "/pfs/in/x /pfs/new /code/s /srv/table /new /run/new /etc/passwd /gitpipe/agent.py /sys/new"
    result = kit.sh(
        f"for f in {places}; do (echo bad > $f) 2>/dev/null && echo wrote $f; done; rm -f /pfs/in/x; chmod 7 /pfs/in/x"
        "; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; ls /gitpipe/../..; echo ok > /pfs/out/y",
        {"x": b"1"},
        image=image,
    )
    assert kit.contents(result) == {"y": b"ok\n"}
    assert "wrote" not in result.log.decode()
    assert "CapEff:\t0000000000000000" in lines(result) and "NoNewPrivs:\t1" in lines(result)
    assert kit.read(kit.blob(b"1")) == b"1"


def test_a_broken_device_is_the_next_datums_no_more(kit: Kit, image: Image) -> None:
    """Engines leave /dev writable for root: what a datum does there is undone, with a new container if need be."""
    worker = kit.worker(kit.stage("sh", "-c", "ls /dev; touch /dev/left; . /pfs/in/x", image=image))
    assert "left" not in lines(worker.run(kit.task({"x": b""})))
    assert "left" not in lines(worker.run(kit.task({"x": b"rm /dev/null; echo 1 > /dev/null"})))
    look = kit.task({"x": b"echo 1 > /dev/null; cp /dev/null /pfs/out/empty"})
    again = worker.run(look)
    if again.lost:  # the devices of a rootless container cannot be broken
        assert not worker.alive
        again = kit.worker(worker.stage).run(look)
    assert kit.contents(again) == {"empty": b""}


@pytest.mark.parametrize("sandbox", ["auto", "none", "strict"])
def test_only_strict_closes_the_network(kit: Kit, image: Image, sandbox: str) -> None:
    result = kit.sh("cat /proc/net/dev", image=image, sandbox=sandbox)
    found = {line.partition(":")[0].strip() for line in lines(result) if ":" in line}
    here = {line.partition(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line}
    assert found == ({"lo"} if sandbox == "strict" else here)


def test_whose_code_is_at_code(kit: Kit, image: Image) -> None:
    """The pipeline's, if it has any; the image's where the command names a file that only the image can have."""
    own = kit.run("sh", "/code/own.sh", image=image)
    assert (lines(own), own.note) == (
        ["the image's own"],
        "/code is the image's own: the pipeline's code has no /code/own.sh",
    )
    kit.script("s.sh", "pwd; ls /code")
    assert lines(kit.run("sh", "/code/s.sh", image=image)) == ["/code", "s.sh"]
    assert lines(kit.run("sh", "../code/s.sh", image=image, working_dir="/bin"))[0] == "/bin"
    assert lines(kit.run("sh", "/code/own.sh", image=image)) == ["the image's own"]
    table = kit.run("cat", "/srv/table", image=image)
    kit.script("srv/table", "the pipeline's")
    assert lines(table) == lines(kit.run("cat", "/srv/table", image=image)) == ["1"]


def test_inputs_may_be_made_writable(kit: Kit, image: Image) -> None:
    result = kit.sh("echo 2 > /pfs/in/x && cp /pfs/in/x /pfs/out/x", {"x": b"1"}, image=image, writable_inputs=True)
    assert kit.contents(result) == {"x": b"2\n"}
    assert kit.read(kit.blob(b"1")) == b"1"


def test_stdin_exit_status_and_time(kit: Kit, image: Image) -> None:
    assert lines(kit.run("sh", image=image, stdin=("echo $COLOUR", "cat table"))) == ["red", "1"]
    assert kit.sh("exit 3", image=image).error == "exit status 3"
    assert kit.sh("exit 3", image=image, accept_return_code=(3,)).ok
    worker = kit.worker(kit.stage("sleep", seconds(1000), image=image, timeout=0.2))
    late = worker.run(kit.task())
    assert late.error == "timed out after 0.2 s"
    assert worker.alive
    until(lambda: not processes_with(f"sleep\0{seconds(1000)}"))


def test_on_a_node_of_a_cluster(kit: Kit, image: Image) -> None:
    """What Ray carries there is pickled; the engine is that of the node, which must have the very image."""
    kit.script("s.sh", "cat /srv/table > /pfs/out/x")
    stage = pickle.loads(pickle.dumps(kit.stage("sh", "s.sh", image=image)))
    host = Host(inherited_environment())
    try:
        container._works.clear()
        results = host.run(stage, [kit.task(datum="a"), kit.task(datum="b")])
        assert [kit.contents(result) for result in results] == [{"x": b"1\n"}] * 2
        gone = kit.stage("true", image=Image("gitpipe-absent", "sha256:" + "0" * 64))
        with pytest.raises(StageFailed, match=r"image gitpipe-absent of sha256:000000000000 is not on .*pull"):
            host.run(gone, [kit.task()])
    finally:
        host.close()


# --- how a container ends ---


def test_an_aborted_datum_takes_its_container_along(kit: Kit, image: Image) -> None:
    worker = kit.worker(kit.stage("sleep", seconds(2000), image=image))
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(worker.run(kit.task())))
    thread.start()
    until(lambda: processes_with(f"sleep\0{seconds(2000)}"))
    worker.abort()
    thread.join(LONG)
    assert results[0].lost
    until(lambda: not containers(kit.slots))
    until(lambda: not processes_with(f"sleep\0{seconds(2000)}"))


RUNNER = """
import pickle, sys
from pathlib import Path
from gitpipe.stage.worker import Worker
stage, task, slot = pickle.loads(sys.stdin.buffer.read())
Worker(stage, Path(slot)).run(task)
"""


def test_a_killed_runner_leaves_no_container(kit: Kit, image: Image) -> None:
    stage = kit.stage("sleep", seconds(3000), image=image)
    given = pickle.dumps((stage, kit.task(), str(kit.slots / "killed")))
    with subprocess.Popen([sys.executable, "-c", RUNNER], stdin=subprocess.PIPE) as runner:
        assert runner.stdin
        runner.stdin.write(given)
        runner.stdin.close()
        until(lambda: runner.poll() is not None or processes_with(f"sleep\0{seconds(3000)}"))
        assert runner.poll() is None
        runner.kill()
    until(lambda: not containers(kit.slots))
    until(lambda: not processes_with(f"sleep\0{seconds(3000)}"))
    assert sweep(kit.slots) == ["killed"]


def test_a_container_that_was_left_is_swept(kit: Kit, image: Image) -> None:
    """Its slot's owner is dead, and it lives on, whyever."""
    slot = kit.slots / "left"
    slot.mkdir()
    (slot / "lock").touch()
    (slot / MARK).write_text("podman")
    label = f"{LABEL}={slot}"
    podman("run", "--detach", *image.args, "--network=none", "--label", label, image.id, "sleep", "1000")
    assert containers(kit.slots) == [str(slot)]
    assert sweep(kit.slots) == ["left"]
    until(lambda: not containers(kit.slots))
    (kit.slots / "odd").mkdir()
    (kit.slots / "odd" / "lock").touch()
    (kit.slots / "odd" / MARK).write_text("/bin/sh")  # who can write there is not to choose a program
    assert sweep(kit.slots) == ["odd"]


def test_a_container_that_cannot_start_says_why(kit: Kit, image: Image) -> None:
    broken = Image(image.name, image.id, args=(*image.args, "--no-such-option"))
    with pytest.raises(StageFailed, match=r"cannot start a worker for pipeline p: .*unknown flag: --no-such-option"):
        kit.run("true", image=broken)
    assert containers(kit.slots) == []


# --- what decides ---


def decide(mode: str, name: str, args: tuple[str, ...], notes: Notes | None = None) -> tuple[str, str, list[str]]:
    """(id of the image or "", note, what was said of pulls)."""
    said: list[str] = []
    found = Containers(mode, args, Notes() if notes is None else notes).choose(name, said.append, lambda: False)
    return found.image.id if found.image else "", found.note, said


def test_the_image_that_is_used_has_an_id(image: Image, args: tuple[str, ...]) -> None:
    assert decide("auto", IMAGE, args) == decide("require", IMAGE, args) == (image.id, "", [])
    assert len(image.id) == len("sha256:") + 64
    assert Containers("auto", args, Notes()).identity(IMAGE) == image.id
    assert Containers("auto", args, Notes()).describe().startswith("podman")
    assert Containers("require", args, Notes()).describe().endswith("required")
    never = Containers("never", args, Notes())
    assert decide("never", IMAGE, args) == (
        "",
        f"image {IMAGE} was not used: git config gitpipe.container is never",
        [],
    )
    assert (never.identity(IMAGE), never.describe()) == ("host", "never used: the programs of this machine")


def test_an_image_that_cannot_be_pulled_is_not_asked_for_again(args: tuple[str, ...]) -> None:
    notes = Notes()
    name = "gitpipe-absent:1"  # without a registry's name, so that nobody is asked
    image, note, said = decide("auto", name, args, notes)
    assert (image, said) == ("", [f"image {name}: podman is pulling it"])
    assert note.startswith(
        f"image {name} was not used, but the programs of this machine: it is not here and cannot be pulled: "
    )
    assert decide("auto", name, args, notes) == ("", note, [])
    assert Containers("auto", args, notes).identity(name) == "host"
    assert Containers("auto", args, Notes()).identity(name) == name, "it may yet be pulled"
    with pytest.raises(StageFailed, match=rf"^image {name} cannot be used: it is not here .*; `podman pull {name}` by"):
        decide("require", name, args, notes)
    for key, value in notes.items():
        notes[key] = f"{float(value.split()[0]) - 400} {value.partition(' ')[2]}"
    assert decide("auto", name, args, notes)[2], "after some minutes it is tried again"


def test_an_engine_that_cannot_run_it_counts_as_none(image: Image) -> None:
    broken = ("--runtime", "/no/such/runtime")
    used, note, _ = decide("auto", IMAGE, broken)
    assert used == "" and "podman cannot run it: " in note and "\n" not in note
    assert Containers("auto", broken, Notes()).identity(IMAGE) == "host"
    with pytest.raises(StageFailed, match=rf"^image {IMAGE} cannot be used: podman cannot run it: .*containerArgs"):
        decide("require", IMAGE, broken)


@pytest.mark.parametrize("client", [False, True])
def test_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: bool) -> None:
    """Nothing installed, or docker's client alone, which has nobody to talk to."""
    reason = "neither podman nor docker is installed"
    if client:
        docker = shutil.which("docker")
        if docker is None:
            pytest.skip("docker's client is not installed")
        (tmp_path / "docker").symlink_to(docker)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
        reason = "docker has no engine: "
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(container, "_engines", None)
    used, note, said = decide("auto", "x:1", ())
    assert (used, said) == ("", [])
    assert note.startswith(f"image x:1 was not used, but the programs of this machine: {reason}")
    with pytest.raises(StageFailed, match=rf"^image x:1 cannot be used: {reason}.*; install podman or docker, or set"):
        decide("require", "x:1", ())
    assert Containers("auto", (), Notes()).identity("x:1") == "host"
    assert Containers("auto", (), Notes()).describe().startswith(f"none ({reason}")
    monkeypatch.setattr(container, "_engines", None)


def test_docker_understands_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as its client can tell without an engine, which it looks for when it has read all options."""
    if shutil.which("docker") is None:
        pytest.skip("docker's client is not installed")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    docker, image = (
        container.Engine("docker", "docker", "0:0"),
        Image("x", "sha256:" + "0" * 64, args=("--gpus", "all")),
    )
    argv = container._run(docker, image, "gitpipe-x", "none", [("/tmp/a,b", "/pfs", True)], ("--label", f"{LABEL}=/x"))
    said = subprocess.run(argv, capture_output=True, text=True, timeout=LONG).stderr
    assert "connect to the Docker daemon" in said, said


# --- pipelines ---


@pytest.fixture
def boxed(lab: Lab, args: tuple[str, ...]) -> Lab:
    """A lab whose pipelines may run in containers; `the` is an image that can be given another meaning."""
    lab.git("config", "gitpipe.containerArgs", " ".join(args))
    lab.data("a", {"x": "1", "y": "2"})
    return lab


def use(lab: Lab, name: str, image: str, script: str = "cat /srv/table > /pfs/out/$(ls /pfs/a)") -> None:
    lab.pipeline(name, {"a": "/*"}, transform={"cmd": ["sh", "-c", script], "image": image})


def test_the_image_is_part_of_what_a_datum_is(boxed: Lab, args: tuple[str, ...]) -> None:
    """Its id, not its name: another image of the same name makes each datum new, another name alone does not."""
    lab, name = boxed, f"{IMAGE}-moving"
    podman("tag", IMAGE, name)
    try:
        use(lab, "p", name)
        assert lab.ran() == ["p: 2 + 0 / 2 success"]
        assert lab.files("p") == {"x": "1\n", "y": "1\n"}
        first = lab.project.jobs.inspect("p")
        assert (first.image, first.image_id) == (name, chosen(IMAGE, args).id)
        assert f'"image": "{first.image_id}"' in lab.git("show", "p:.gitpipe/job.json")
        use(lab, "p", IMAGE)
        assert lab.ran() == ["p: 0 + 2 / 2 success"]
        use(lab, "p", name)
        assert lab.ran() == ["p: 0 + 2 / 2 success"]

        podman("tag", OTHER, name)
        lab.data("a", {"x": "1", "y": "2", "z": "3"})
        assert lab.ran() == ["p: 3 + 0 / 3 success"]
        assert lab.files("p") == {"x": "2\n", "y": "2\n", "z": "2\n"}
        second = lab.project.jobs.inspect("p")
        assert second.image_id != first.image_id
        lab.forget()
        lab.run()
        assert lab.project.jobs.inspect("p").image_id == second.image_id
    finally:
        podman("untag", name, name)


def test_what_changed_is_said(boxed: Lab, sh: Shell) -> None:
    """`explain` and `diff --provenance` name the image; `inspect-job`, `status` show it."""
    lab, name = boxed, f"{IMAGE}-named"

    def change() -> list[str]:
        why = lab.project.why.explain("p")
        assert isinstance(why, JobWhy) and why.change
        return [f"{field.field}: {field.text}" for field in why.change.fields]

    podman("tag", IMAGE, name)
    try:
        use(lab, "p", name)
        lab.run()
        old = lab.project.jobs.inspect("p").image_id
        assert f"Image: {name} ({old})\n" in sh("gitpipe inspect-job p", lab.root)
        podman("tag", OTHER, name)
        lab.data("a", {"x": "1"})
        lab.run()
        new = lab.project.jobs.inspect("p").image_id
        moved = f"image: {name} ({old[:19]}) → {name} ({new[:19]})"
        assert change() == [moved]
        assert f"1 ran: {moved}\n" in sh("gitpipe explain p", lab.root)
        one, two = (made.sha for made in lab.made("p"))
        assert moved in sh(f"gitpipe diff --provenance {one} {two}", lab.root)
        assert "Containers: podman\n" in sh("gitpipe status", lab.root)

        lab.git("config", "gitpipe.container", "never")
        lab.data("a", {"x": "5"})
        use(lab, "p", name, "cp /pfs/a/* /pfs/out")
        [plan] = lab.project.preview.update([str(lab.root / "specs/p.json")])
        assert plan.endswith("1 datum: 1 to run, 0 to skip")
        assert lab.ran() == ["p: 1 + 0 / 1 success"]
        assert f"image: {name} ({new[:19]}) → host ({name} not used)" in change()
        assert lab.project.jobs.inspect("p").notes == (
            f"image {name} was not used: git config gitpipe.container is never",
        )
        assert lab.project.status().containers == "never used: the programs of this machine"
    finally:
        podman("untag", name, name)


def test_an_image_that_is_required_and_absent_fails_the_job(boxed: Lab) -> None:
    lab = boxed
    use(lab, "p", "gitpipe-absent:2", "cp /pfs/a/* /pfs/out")
    lab.git("config", "gitpipe.container", "require")
    said = lab.ran()
    assert len(said) == 1 and said[0].startswith("p: failed image gitpipe-absent:2 cannot be used: it is not here")
    assert said[0].endswith("; `podman pull gitpipe-absent:2` by hand, then run-pipeline again")
    assert lab.head("p") == ""
    lab.git("config", "gitpipe.container", "auto")
    lab.project.pipelines.run("p")
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    job = lab.project.jobs.inspect("p")
    assert job.image_id == "host" and len(job.notes) == 1 and "cannot be pulled" in job.notes[0]


def test_without_a_command_the_entry_point_runs(boxed: Lab) -> None:
    lab = boxed
    reads = {"pfs": {"repo": "a", "name": "in", "glob": "/*"}}
    lab.pipeline("p", {"a": "/*"}, transform={"image": BARE}, input=reads)
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    assert lab.files("p") == {"x": "1", "y": "2"}
    lab.pipeline("q", {"a": "/*"}, transform={"image": IMAGE}, input=reads)
    lab.git("config", "gitpipe.container", "auto")
    assert (
        f"q: failed there is no transform.cmd, and image {IMAGE} has no ENTRYPOINT: give the command in the spec"
        in (lab.ran())
    )


def test_a_pipeline_without_an_image_asks_no_engine(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    for name in ("podman", "docker"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {asked}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(container, "_engines", None)
    lab.git("config", "gitpipe.container", "require")
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.project.status().containers == ""
    assert lab.project.jobs.inspect("p").image == ""
    assert "image" not in lab.git("show", "p:.gitpipe/job.json")
    assert not asked.exists()
    monkeypatch.setattr(container, "_engines", None)


def test_settings_that_make_no_sense(lab: Lab) -> None:
    lab.git("config", "gitpipe.container", "sometimes")
    with pytest.raises(UsageError, match=r"git config gitpipe.container is 'sometimes': use auto, never or require"):
        lab.project.status()
    lab.git("config", "gitpipe.container", "auto")
    lab.git("config", "gitpipe.containerArgs", "--env 'A=1")
    with pytest.raises(UsageError, match=r"git config gitpipe.containerArgs is .*: No closing quotation"):
        lab.project.status()


def test_the_worker_finds_an_image_that_vanished(kit: Kit, args: tuple[str, ...], image: Image) -> None:
    """Decided upon, then removed by somebody: the job fails with the engine's words, no other program runs."""
    name = f"{IMAGE}-vanishing"
    root = kit.slots.parent / "gone"
    root.mkdir()
    (root / "f").write_text(name)
    build(root, name)
    found = chosen(name, args)
    podman("rmi", "--force", name)
    with pytest.raises(StageFailed, match="cannot start a worker for pipeline p: "):
        kit.run("true", image=found)


def test_kill_of_the_client_is_no_end_of_the_worker(kit: Kit, image: Image) -> None:
    """The engine's client was killed under a datum (out of memory, say): the datum is lost, its container removed."""
    worker = kit.worker(kit.stage("sleep", seconds(4000), image=image))
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(worker.run(kit.task())))
    thread.start()
    until(lambda: processes_with(f"sleep\0{seconds(4000)}"))
    slot = kit.slots / "slot0"
    for pid in processes_with(f"--label\0{LABEL}={slot}\0"):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "podman":
            os.kill(pid, signal.SIGKILL)
    thread.join(LONG)
    assert results[0].lost and not worker.alive
    until(lambda: not containers(kit.slots))
    until(lambda: not processes_with(f"sleep\0{seconds(4000)}"))


def test_a_task_without_inputs(kit: Kit, image: Image) -> None:
    assert lines(kit.worker(kit.stage("ls", "/pfs", image=image)).run(Task("d", ()))) == ["out"]
