"""Executors: the same tasks, wherever workers live."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stagekit import HAS_SANDBOX, Kit, own_processes_with, processes_with, seconds

from gitpipe.errors import StageFailed, UsageError
from gitpipe.executors import Executor, open_executor
from gitpipe.executors.auto import AutoExecutor
from gitpipe.executors.local import LocalExecutor
from gitpipe.executors.ray import RayExecutor
from gitpipe.stage import Result, Secret, Stage, Task

COPY = "cp /pfs/in/* /pfs/out/"


# One process after the other, in this order: a process has one Ray, and two cores do not start two at once in time.
pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit


@pytest.fixture
def local() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    executor = RayExecutor(None, tmp_path_factory.mktemp("scratch"))
    yield executor
    executor.close()
    assert not processes_with(f"gitpipe-ray-{os.getpid()}-")
    assert not list(Path("/tmp").glob(f"gitpipe-ray-{os.getpid()}-*"))


def tasks(kit: Kit, count: int) -> list[Task]:
    return [kit.task({f"f{n}": str(n).encode()}, datum=f"d{n}") for n in range(count)]


def check_copies(kit: Kit, results: list[Result], count: int) -> None:
    assert sorted(result.datum for result in results) == sorted(f"d{n}" for n in range(count))
    for result in results:
        assert result.ok, result
        assert kit.contents(result) == {f"f{result.datum[1:]}": result.datum[1:].encode()}


# --- what holds for all ---


@pytest.mark.parametrize("slots", [1, 2, 10])
def test_each_task_once(kit: Kit, local: LocalExecutor, slots: int) -> None:
    check_copies(kit, list(local.run(kit.stage("sh", "-c", COPY), tasks(kit, 25), slots)), 25)
    assert list(local.run(kit.stage("sh", "-c", COPY), [], slots)) == []


def test_tasks_are_pulled_lazily_in_the_callers_thread(kit: Kit, local: LocalExecutor) -> None:
    pulled = []

    def source() -> Iterator[Task]:
        for task in tasks(kit, 30):
            assert threading.current_thread() is caller
            pulled.append(task.datum)
            yield task

    caller = threading.current_thread()
    results = local.run(kit.stage("true"), source(), 2)
    next(results)
    assert len(pulled) <= 6
    results.close()


def test_stopping_yields_what_runs(kit: Kit, local: LocalExecutor) -> None:
    seen: list[Result] = []
    for result in local.run(kit.stage("true"), tasks(kit, 200), 2, stopped=lambda: len(seen) >= 3):
        seen.append(result)
    assert 3 <= len(seen) < 20


def test_workers_stay_warm_and_are_few(kit: Kit, local: LocalExecutor) -> None:
    stage = kit.stage("true")
    list(local.run(stage, tasks(kit, 1), 8))
    assert len(list(kit.slots.iterdir())) == 1
    first = set(kit.slots.iterdir())
    list(local.run(stage, tasks(kit, 1), 8))
    assert set(kit.slots.iterdir()) == first
    list(local.run(kit.stage("false"), tasks(kit, 1), 8))
    assert len(list(kit.slots.iterdir())) == 2
    local.close()
    assert list(kit.slots.iterdir()) == []


def test_states_of_slots(kit: Kit, local: LocalExecutor) -> None:
    states: list[tuple[int, str, str]] = []
    list(local.run(kit.stage("true"), tasks(kit, 1), 1, watch=lambda *state: states.append(state)))
    assert states == [(0, "starting", ""), (0, "running", "d0"), (0, "idle", "")]


def test_several_jobs_at_once(kit: Kit, local: LocalExecutor) -> None:
    stage = kit.stage("sh", "-c", COPY)
    found: dict[int, list[Result]] = {}

    def job(number: int) -> None:
        found[number] = list(local.run(stage, tasks(kit, 20), 2))

    threads = [threading.Thread(target=job, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        check_copies(kit, results, 20)


def test_a_worker_that_dies_is_replaced(kit: Kit, local: LocalExecutor) -> None:
    killer = threading.Thread(target=kill_when_there, args=(seconds(98771),))
    killer.start()
    stage = kit.stage("sh", "-c", f"test -e /pfs/in/f0 && sleep {seconds(98771)}; true")
    results = {result.datum: result for result in local.run(stage, tasks(kit, 3), 1)}
    killer.join()
    assert results["d0"].lost
    assert results["d1"].ok and results["d2"].ok


def kill_when_there(text: str) -> None:
    """Kill this process's agents once `text` runs."""
    while not processes_with(text):
        time.sleep(0.01)
    for pid in own_processes_with("agent.py"):
        os.kill(pid, signal.SIGKILL)


def test_a_stage_that_cannot_start_raises(kit: Kit, local: LocalExecutor) -> None:
    if not HAS_SANDBOX:
        pytest.skip("bubblewrap does not work here")
    stage = kit.stage("true")
    kit.code.rmdir()
    with pytest.raises(StageFailed, match="cannot start a worker"):
        list(local.run(stage, tasks(kit, 3), 2))


def test_close_ends_running_datums(kit: Kit) -> None:
    executor = LocalExecutor()
    results: list[Result] = []
    job = threading.Thread(
        target=lambda: collect_until_closed(executor, kit.stage("sleep", seconds(98772)), kit, results)
    )
    job.start()
    while not processes_with(seconds(98772)):
        time.sleep(0.01)
    executor.close()
    job.join(timeout=10)
    assert not job.is_alive()
    assert not processes_with(seconds(98772))
    assert list(kit.slots.iterdir()) == []
    assert all(result.lost for result in results)


def collect_until_closed(executor: Executor, stage: Stage, kit: Kit, results: list[Result]) -> None:
    try:
        results.extend(executor.run(stage, tasks(kit, 4), 2))
    except StageFailed:
        return


def test_engines_by_name(tmp_path: Path) -> None:
    assert open_executor("local", "", tmp_path).name == "local"
    assert open_executor("ray", "", tmp_path).name == "ray"  # not started before it is used
    assert open_executor("auto", "", tmp_path).name == "auto"
    with pytest.raises(UsageError, match="unknown engine 'spark': use one of auto, local, ray"):
        open_executor("spark", "", tmp_path)


# --- Ray ---


# Two Rays in one process do not get on, so these come before those that share one.


def test_auto_begins_locally_and_goes_on_with_ray(kit: Kit, tmp_path: Path) -> None:
    executor = AutoExecutor(None, tmp_path / "scratch")
    engines: list[str] = []
    try:
        stage = kit.stage("sleep", "0.2")  # leaves the machine time to start Ray
        list(executor.run(stage, tasks(kit, 1), 2))
        assert executor.ray._thread is None  # one datum is no reason to start Ray

        def source() -> Iterator[Task]:
            end = time.monotonic() + 180
            for number in itertools.count():
                if engines.count("ray") > 3 or time.monotonic() > end:
                    return
                yield kit.task({"x": b"1"}, datum=f"d{number}")

        for result in executor.run(stage, source(), 2):
            assert result.ok, result
            engines.append(result.environment["engine"])
        assert engines[0] == "local" and engines[-1] == "ray", executor.warning
        assert executor.warning == ""
    finally:
        executor.close()
    assert list(kit.slots.iterdir()) == []


def test_auto_goes_on_locally_where_ray_fails(kit: Kit, tmp_path: Path) -> None:
    executor = AutoExecutor("nonsense://nowhere", tmp_path / "scratch")
    try:

        def source() -> Iterator[Task]:
            yield from tasks(kit, 5)
            while not executor.warning:
                yield kit.task({"x": b"1"}, datum="more")

        results = list(executor.run(kit.stage("true"), source(), 2))
        assert {result.environment["engine"] for result in results} == {"local"}
        assert "going on with workers of this machine" in executor.warning
    finally:
        executor.close()


def test_nobody_at_the_address(kit: Kit, tmp_path: Path) -> None:
    """A cluster that is not there fails in one line, soon; `auto` goes on without."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    start = time.monotonic()
    executor = RayExecutor(address, tmp_path / "scratch")
    with pytest.raises(
        StageFailed, match=f"nothing answers at gitpipe.rayAddress {address}; set gitpipe.engine"
    ) as error:
        list(executor.run(kit.stage("true"), tasks(kit, 3), 2))
    executor.close()
    assert "\n" not in str(error.value) and time.monotonic() - start < 90  # Ray itself takes two minutes, twice
    auto = AutoExecutor(address, tmp_path / "scratch")
    check_copies(kit, list(auto.run(kit.stage("sh", "-c", COPY), tasks(kit, 10), 2)), 10)
    until_failed = time.monotonic() + 180
    while not auto.warning and time.monotonic() < until_failed:
        time.sleep(0.05)
    assert f"nothing answers at gitpipe.rayAddress {address}" in auto.warning
    auto.close()
    assert list(kit.slots.iterdir()) == []


def test_ray_runs_the_same(kit: Kit, on_ray: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    results = list(on_ray.run(kit.stage("sh", "-c", COPY), tasks(kit, 100), 10))
    check_copies(kit, results, 100)
    assert {result.environment["engine"] for result in results} == {"ray"}


@pytest.mark.skipif(not HAS_SANDBOX, reason="bubblewrap does not work here")
def test_ray_token_is_invisible_to_stages(kit: Kit, on_ray: RayExecutor) -> None:
    on_ray.wait_ready()
    token = os.environ["RAY_AUTH_TOKEN"]
    script = "env; cat /proc/*/environ /proc/*/cmdline; ls -a /tmp $HOME; cat $HOME/.ray/* 2>&1; true"
    (result,) = on_ray.run(kit.stage("sh", "-c", script), tasks(kit, 1), 1)
    assert result.ok and len(token) == 64
    assert token.encode() not in result.log and b"RAY_" not in result.log


@pytest.mark.skipif(not HAS_SANDBOX, reason="bubblewrap does not work here")
def test_ray_refuses_who_has_no_token(kit: Kit, on_ray: RayExecutor) -> None:
    import ray

    on_ray.wait_ready()
    address = ray.get_runtime_context().gcs_address
    code = f"from ray._raylet import GcsClient; GcsClient(address={address!r}).internal_kv_keys(b'', None)"
    stage = kit.stage("python", "-c", code, timeout=6, env=(("RAY_gcs_rpc_server_connect_timeout_s", "1"),))
    (result,) = on_ray.run(stage, tasks(kit, 1), 1)
    assert not result.ok and b"InvalidAuthToken" in result.log


def test_ray_node_without_our_files(kit: Kit, on_ray: RayExecutor) -> None:
    """Blobs and code go through the call, as to another machine."""
    kit.script("lib/go.sh", "#!/bin/sh\nset -e\ncp $1/* $2\nhead -c 40000000 /dev/zero > $2/big\n")
    on_ray.wait_ready()
    apart = RayExecutor(None, kit.slots.parent / "scratch", shared=False)
    apart.ready, apart.start = on_ray.ready, lambda: None  # type: ignore[method-assign]
    (result,) = apart.run(kit.stage("lib/go.sh", "/pfs/in", "/pfs/out"), [kit.task({"x": b"y" * 40_000_000})], 1)
    assert result.ok, result
    assert {path: len(data) for path, data in kit.contents(result).items()} == {"x": 40_000_000, "big": 40_000_000}
    assert list(kit.slots.iterdir()) == []

    # What a datum prints there is followed here, while it runs and to its end.
    live = kit.slots.parent / "live" / "1.d"
    go = kit.slots.parent / "go"
    script = f"echo begin; while ! test -e {go}; do sleep 0.05; done; sleep 0.7; echo end"
    task = dataclasses.replace(kit.task(), live=str(live))
    found: list[Result] = []
    stage = kit.stage("sh", "-c", script, sandbox="none")
    thread = threading.Thread(target=lambda: found.extend(apart.run(stage, [task], 1)), daemon=True)
    thread.start()
    deadline = time.monotonic() + 180
    while not (live.exists() and live.read_bytes() == b"begin\n"):
        assert time.monotonic() < deadline, "it is not seen while it runs"
        time.sleep(0.05)
    go.touch()
    thread.join(180)
    assert found[0].log == live.read_bytes() == b"begin\nend\n"
    next(iter(apart._hosts.values())).close()


@pytest.mark.skipif(not HAS_SANDBOX, reason="bubblewrap does not work here")
def test_secrets_on_ray(kit: Kit, on_ray: RayExecutor) -> None:
    """They come with the stage, in the log they are not, nor in any file or process of Ray's, also when it fails."""
    value = f"hunter2-{os.getpid()}-{time.time_ns()}".encode()
    secrets = (Secret(value, env_var="PW"), Secret(value, path="/secrets/db/key"))
    script = 'env; cat /secrets/db/key; [ $(cat /secrets/db/key) = "$PW" ] && [ ! -e /pfs/in/f1 ]'
    stage = kit.stage("sh", "-c", script, secrets=secrets)
    found = {result.datum: result for result in on_ray.run(stage, tasks(kit, 2), 2)}
    assert found["d0"].ok and not found["d1"].ok, found
    for result in found.values():
        assert b"PW=***\n" in result.log and result.log.endswith(b"***")
    bare = kit.stage("true", sandbox="none", secrets=secrets)
    with pytest.raises(StageFailed, match="mount_path, which needs the sandbox") as error:
        list(on_ray.run(bare, tasks(kit, 1), 1))
    assert value not in repr((found, error.value, stage)).encode()
    files = [path for path in Path("/tmp").glob(f"gitpipe-ray-{os.getpid()}-*/**/*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    for path in files:
        with contextlib.suppress(OSError):  # gone meanwhile
            assert value not in path.read_bytes(), path
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                assert value not in (process / name).read_bytes()


def test_ray_actor_and_raylet_killed(kit: Kit, on_ray: RayExecutor) -> None:
    """Lost datums, then a new actor, or a new Ray: as often as it breaks down, if it ran something in between."""
    stage = kit.stage("sh", "-c", f"test -e /pfs/in/f0 && sleep {seconds(98773)}; true")

    def lose(kill: Callable[[], None]) -> list[Result]:
        thread = threading.Thread(target=lambda: (wait_for(seconds(98773)), kill()))
        thread.start()
        results = list(on_ray.run(stage, tasks(kit, 1), 1))
        thread.join()
        return results

    assert lose(lambda: kill_all("ray::Host"))[0].lost
    assert next(on_ray.run(stage, tasks(kit, 2)[1:], 1)).ok
    assert lose(lambda: kill_all("raylet/raylet"))[0].lost
    assert next(on_ray.run(stage, tasks(kit, 2)[1:], 1)).ok
    assert lose(lambda: kill_all("gcs/gcs_server"))[0].lost
    assert next(on_ray.run(stage, tasks(kit, 2)[1:], 1)).ok
    assert not processes_with(seconds(98773))
    on_ray.close()  # a process has one Ray, and the next test wants its own
    with pytest.raises(StageFailed):
        list(on_ray.run(stage, tasks(kit, 2)[1:], 1))


def wait_for(text: str) -> None:
    while not processes_with(text):
        time.sleep(0.01)


def kill_all(text: str) -> None:
    for pid in own_processes_with(text):
        os.kill(pid, signal.SIGKILL)


# --- auto ---
