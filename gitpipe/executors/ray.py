"""Workers in Ray actors, one actor a node, each with several worker slots.  The only module that imports Ray.

A slot whose stage asks for CPUs, GPUs or memory has an actor of its own instead, which reserves them for one job.

Ray is started in the background by one thread that lives as long as it does: Ray's processes ask the kernel to be
killed when the thread that started them ends.  That thread also watches them, since a driver whose Ray is gone is
ended by Ray after a minute: it has to be shut down before.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import logging
import math
import os
import queue
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from gitpipe.errors import GitpipeError, StageFailed
from gitpipe.executors import SlotWatcher
from gitpipe.executors.host import Host, pack
from gitpipe.executors.spread import Spread
from gitpipe.stage import Result, Stage, Task
from gitpipe.stage.live import Live
from gitpipe.stage.sandbox import inherited_environment
from gitpipe.stage.secret import Redactor
from gitpipe.stage.slot import sweep

_EMBEDDED = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill an actor, thus all slots, for what one datum uses
}
_PREFIX = "gitpipe-ray-"
_OBJECT_STORE = 128 << 20
_ACTOR_THREADS = 128
_CHUNK = 16 << 20
_MOST_AT_ONCE = 16
_QUICK, _SLOW = 0.05, 0.5
"""Seconds a batch should take: quicker ones make the next batch larger, slower ones smaller."""
_BEAT = 0.5
_TICK = 0.1
_LOOK = 5.0
"""Seconds between two looks whether a node that is waited for is still there."""
_ANSWER_LIMIT = 5.0
_SILENCE = 30.0
"""Seconds after which a cluster that cannot be reached is given up."""
_PLACINGS = 3
"""Times that an actor is placed: what a node had just before it left is the cluster's for a while."""
_START_LIMIT = 120.0
_CALL_LIMIT = 60.0


class Lost(Exception):
    """The actor, its node or all of Ray went away under a call."""


class Silent(Lost):
    """It has not answered yet."""


class RayExecutor:
    """Runs tasks on worker slots in Ray actors.

    Args:
        address: of a running cluster; None starts a Ray of our own, which no one without its token can use.
        scratch: a folder for small local files, on a file system that nodes may share with this machine.
        shared: whether the nodes see this machine's files; None finds out.
    """

    name = "ray"
    warning = ""

    def __init__(self, address: str | None, scratch: Path, *, shared: bool | None = None) -> None:
        self._address = address
        self._scratch = scratch
        self._shared = shared
        self._lock = threading.RLock()
        self._count_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._restarts = 0
        self._was_ready = False
        self._hosts: dict[str, _Host] = {}
        self._reserved: set[_Host] = set()
        self._calls = 0
        self._slots_dirs: set[Path] = set()
        self._temp: str | None = None
        self._set_environ: dict[str, str | None] = {}
        self._closed = False
        self._asked = self._answered = 0.0  # when a cluster was looked at last, when it did answer
        self.ready = threading.Event()
        self.failed = ""

    # --- Executor ---

    def run(
        self,
        stage: Stage,
        tasks: Iterable[Task],
        slots: int,
        *,
        watch: SlotWatcher | None = None,
        stopped: Callable[[], bool] = lambda: False,
        ended: Callable[[], Collection[str]] = tuple,
    ) -> Iterator[Result]:
        """See `gitpipe.executors.Executor`.

        Raises:
            StageFailed: Ray cannot be started or reached, or ended a second time.
        """
        return Spread(tasks, slots, lambda number: self.open_seat(stage, number), watch, stopped, ended).results()

    def open_seat(self, stage: Stage, number: int) -> RaySeat:
        """A seat on the node that slot `number` falls to; waits for Ray."""
        self.wait_ready()
        return RaySeat(self, stage, number)

    def close(self) -> None:
        """End the actors with their workers, and the Ray that we started."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._ending.set()
        if thread is not None:
            thread.join(timeout=_START_LIMIT)
        for folder in self._slots_dirs:
            sweep(folder)

    # --- Ray's life ---

    def start(self) -> None:
        """Begin to start Ray in the background; one restart after a breakdown, more once it ran something."""
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            if self.failed:
                if self._restarts or not self._was_ready:
                    return
                self._restarts += 1
            self.failed = ""
            self._thread = threading.Thread(target=self._live, name="gitpipe-ray", daemon=True)
            self._thread.start()

    def wait_ready(self) -> None:
        """Wait until Ray can be used.

        Raises:
            StageFailed: it cannot.
        """
        deadline = time.monotonic() + _START_LIMIT
        self.start()
        while not self.ready.wait(0.05):
            if self._closed:
                raise StageFailed("the workers were shut down")
            self.start()  # after a breakdown the old thread is at work for a while before another can be started
            thread = self._thread
            if thread is None or not thread.is_alive():
                raise StageFailed(f"Ray cannot be used: {self.failed or 'it ended'}; set gitpipe.engine to local")
            if time.monotonic() > deadline:
                raise StageFailed(f"Ray did not start within {_START_LIMIT:g} s; set gitpipe.engine to local")

    def _live(self) -> None:
        """Start, watch, end: all in one thread."""
        self._prepare_environment()
        import ray

        try:
            _reread_environment()
            with _signals_kept():
                self._connect(ray)
            self._was_ready = True
            self._answered = self._asked = time.monotonic()
            self.ready.set()
            while not self._ending.wait(_BEAT):
                if self._is_broken(ray):
                    silent = f"the cluster at {self._address} does not answer any more"
                    self.failed = silent if self._address else "its processes ended unexpectedly"
                    break
        except GitpipeError as error:
            self.failed = str(error)
        except Exception as error:  # Ray raises anything from ValueError to its own kinds
            self.failed = _one_line(error)
        finally:
            self._disconnect(ray)

    def _prepare_environment(self) -> None:
        """Ray takes its settings from the environment when it is imported, its processes theirs when they start."""
        if self._address:
            # By default Ray ends a driver that cannot reach the head for a minute: here, the runner.
            self._setenv({"RAY_gcs_rpc_server_reconnect_timeout_s": "86400", "RAY_USAGE_STATS_ENABLED": "0"})
            return
        library = str(Path(__file__).parents[2])
        found = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))
        self._setenv({**_EMBEDDED, "RAY_AUTH_TOKEN": _token(), "PYTHONPATH": found})

    def _connect(self, ray: Any) -> None:
        silence(ray)
        try:
            Path.cwd()
        except FileNotFoundError:  # a removed worktree, say; Ray wants one that exists
            os.chdir("/")
        quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
        if self._address:
            import gitpipe

            if not answers(self._address, _ANSWER_LIMIT):  # Ray itself would try for minutes
                raise StageFailed(f"nothing answers at gitpipe.rayAddress {self._address}")
            ray.init(self._address, runtime_env={"py_modules": [str(Path(gitpipe.__file__).parent)]}, **quiet)
        else:
            sweep_sessions()
            self._temp = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_short_temp())
            ray.init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE, _temp_dir=self._temp, **quiet)
            self._setenv({"PYTHONPATH": None})
        if not _spread_nodes(ray.nodes()):
            raise StageFailed("the Ray cluster has no live node")
        self.host(0)  # the first slot need not wait for it then

    def _setenv(self, values: dict[str, str | None]) -> None:
        """Set environment variables until Ray is shut down; None puts the old value back now."""
        for name, value in values.items():
            if value is not None:
                self._set_environ.setdefault(name, os.environ.get(name))
                os.environ[name] = value
            elif name in self._set_environ:
                old = self._set_environ.pop(name)
                if old is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = old

    def _is_broken(self, ray: Any) -> bool:
        """Whether a process that our Ray cannot do without has ended."""
        node = getattr(ray._private.worker, "_global_node", None)
        if not ray.is_initialized() or node is None:
            return True
        if self._address:
            return self._is_silent()
        processes = node.all_processes
        return any(info.process.poll() is not None
                   for kind in ("gcs_server", "raylet") for info in processes.get(kind, ()))  # fmt: skip

    def _is_silent(self) -> bool:
        """Whether the cluster has not answered for a while; Ray would wait for a day, see `_prepare_environment`."""
        now = time.monotonic()
        if now - self._asked > _LOOK:
            self._asked = now
            if answers(self._address or "", _LOOK):
                self._answered = now
        return now - self._answered > _SILENCE

    def _disconnect(self, ray: Any) -> None:
        self.ready.clear()
        with self._lock:
            hosts, self._hosts, self._reserved = [*self._hosts.values(), *self._reserved], {}, set()
        deadline = time.monotonic() + 5
        if not self.failed:
            for host in hosts:
                host.close()
        while self._calls and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            with _signals_kept():
                ray.shutdown()
        except Exception as error:  # what is left is killed with this thread, its parent
            self.failed = self.failed or _one_line(error)
        self._setenv(dict.fromkeys(list(self._set_environ)))
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None

    # --- actors ---

    def host(self, number: int) -> _Host:
        """The actor that slot `number` falls to, started if need be, on a node that is there now.

        Raises:
            Lost: Ray went away, or its nodes leave as fast as they are tried.
        """
        with self._lock:
            for last in (False,) * (_PLACINGS - 1) + (True,):
                node = self._live_node(number)
                host = self._hosts.get(node)
                if host is not None and not host.lost:
                    return host
                handle = self._ask(lambda: self.actor_on(node))  # noqa: B023 - called here only
                try:
                    host = self._hosts[node] = _Host(self, handle)
                    return host
                except Lost:
                    self._forget(handle)
                    if last or self.failed:
                        raise
            raise AssertionError("unreachable")

    def _live_node(self, number: int) -> str:
        """The node that slot `number` falls to among those that are there: they come and go while we live.

        Raises:
            Lost: Ray went away, or has no node left.
        """
        import ray

        cluster: Any = ray
        with self._calling():
            nodes = _spread_nodes(self._ask(cluster.nodes))
        if not nodes:
            raise Lost("the Ray cluster has no live node")
        return nodes[number % len(nodes)]

    def lacking(self, stage: Stage) -> str:
        """What no node of the cluster could ever give a worker of `stage`, in words; "" where one could."""
        import ray

        cluster: Any = ray
        asked = _resources(stage)
        if not asked:
            return ""
        try:
            with self._calling():
                nodes = [node["Resources"] for node in self._ask(cluster.nodes) if node["Alive"]]
        except Exception:  # it is going away, and its watcher will know
            return ""
        if any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
            return ""
        there = sorted({_amounts({name: node.get(name, 0) for name in asked}) for node in nodes})
        return f"{_amounts(asked)} for each worker, and the nodes of the Ray cluster have {'; '.join(there[:3])}"

    def reserve(self, stage: Stage, over: Callable[[], bool]) -> _Host | None:
        """An actor for one slot of `stage`, with what it asks for; waits for it, and is None when it is `over`.

        Raises:
            StageFailed: no node could ever give it.
            Lost: Ray went away.
        """
        import ray

        looked, handle = 0.0, None
        try:
            while not over():
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    if lacking := self.lacking(stage):
                        raise StageFailed(f"pipeline {stage.pipeline} asks for {lacking}: lower its resource_requests")
                if handle is None:
                    with self._calling():
                        handle = self._ask(lambda: self._reserving_actor(stage))
                        placed = handle.sees.remote("", "")
                with contextlib.suppress(Silent):
                    self.get(placed, _TICK)
                    host, handle = _Host(self, handle), None
                    with self._lock:
                        self._reserved.add(host)
                    return host
            return None
        except ray.exceptions.RayError as error:
            raise Lost(_one_line(error)) from None
        finally:
            if handle is not None:
                self._forget(handle)

    def release(self, host: _Host) -> None:
        """Give back what an actor had reserved."""
        with self._lock:
            ours = host in self._reserved  # else that Ray has ended
            self._reserved.discard(host)
        if ours:
            with contextlib.suppress(Lost), self._calling():
                host.close()

    def _forget(self, handle: Any) -> None:
        """Drop an actor that may not have been started yet."""
        import ray

        with contextlib.suppress(Exception), self._calling():  # Ray may be gone
            ray.kill(handle)

    def _reserving_actor(self, stage: Stage) -> Any:
        import ray

        asked = _resources(stage)
        actor = ray.remote(Host).options(
            num_cpus=asked.get("CPU", 0),
            num_gpus=asked.get("GPU", 0),
            memory=asked.get("memory"),
            max_concurrency=_ACTOR_THREADS,
        )
        return actor.remote(inherited_environment(), stage.gpus > 0)

    def actor_on(self, node: str) -> Any:
        """A new actor on `node`.  It reserves no CPU: user code is no part of it."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = ray.remote(Host).options(
            num_cpus=0, max_concurrency=_ACTOR_THREADS, scheduling_strategy=NodeAffinitySchedulingStrategy(node, False)
        )
        return actor.remote(inherited_environment())

    def shares(self, handle: Any) -> bool:
        """Whether an actor sees our file system; made ready to work without it, where it does not."""
        shared = self._shared
        if shared is None:
            marker, content = self._scratch / f"ray-{os.getpid()}-{secrets.token_hex(4)}", secrets.token_hex(16)
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(content)
            try:
                shared = bool(self.get(handle.sees.remote(str(marker), content), _CALL_LIMIT))
            finally:
                marker.unlink()
        if not shared:
            self.get(handle.prepare.remote(), _CALL_LIMIT)
        return shared

    def get(self, ref: Any, limit: float | None = None, meanwhile: Callable[[], None] = lambda: None) -> Any:
        """The value of a call to an actor; Lost where it will never come.  While it does not, `meanwhile` is called."""
        import ray

        deadline = None if limit is None else time.monotonic() + limit
        try:
            with self._calling():
                while not self.failed:
                    done, _ = ray.wait([ref], timeout=_BEAT if limit is None else min(_BEAT, limit))
                    if done:
                        return ray.get(ref)
                    if deadline is not None and time.monotonic() > deadline:
                        raise Silent("a Ray actor does not answer")
                    meanwhile()
                raise Lost(f"Ray ended: {self.failed}")
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, GitpipeError) else StageFailed(_one_line(error))) from None
        except ray.exceptions.RayError as error:
            raise Lost(_one_line(error)) from None

    def _ask(self, call: Callable[[], Any]) -> Any:
        """What Ray answers itself, asked in a thread of its own: of a cluster that is gone that never comes.

        Raises:
            Lost: Ray went away.
        """
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put((call(), None))
            except BaseException as error:
                answer.put((None, error))

        threading.Thread(target=ask, name="gitpipe-ray-ask", daemon=True).start()
        while True:
            try:
                value, error = answer.get(timeout=_TICK)
            except queue.Empty:
                if self.failed:
                    raise Lost(f"Ray ended: {self.failed}") from None
                continue
            if error is not None:
                raise error
            return value

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Ray is not shut down meanwhile; Lost where it was: it would start anew, by itself, at the next call."""
        with self._count_lock:
            self._calls += 1
        try:
            if self._ending.is_set() and not self.ready.is_set():
                raise Lost("the workers were shut down")
            yield
        finally:
            with self._count_lock:
                self._calls -= 1

    def works(self) -> None:
        """Ray has run something: should it break down again, that is another breakdown, and worth another restart."""
        self._restarts = 0

    def uses(self, slots_dir: Path) -> None:
        self._slots_dirs.add(slots_dir)

    def sweep(self) -> None:
        """Without a sandbox, user code outlives an actor that was killed; on this machine it is ended with its slot."""
        if self._address is None:
            for folder in list(self._slots_dirs):
                with contextlib.suppress(OSError):
                    sweep(folder)


class _Mirror(Live):
    """A live file here that follows one on a node; `size`: bytes of that one which are here."""

    def __init__(self, path: str) -> None:
        super().__init__(path, Redactor(()))  # the worker there has taken out what is secret
        self.size = 0

    def follow(self, data: bytes, size: int) -> None:
        """Take what came to it, which has `size` bytes now."""
        self.size = size
        if data:
            self.add(data)


class _Host:
    """Our end of one actor."""

    def __init__(self, executor: RayExecutor, handle: Any) -> None:
        self._executor = executor
        self.lost = False
        self._sent_code: set[str] = set()
        self._parts = itertools.count()
        self.handle, self.shared = handle, executor.shares(handle)

    def run(self, stage: Stage, tasks: list[Task]) -> list[Result]:
        """Run tasks there; where the node cannot see our cache, with the blobs sent there and back."""
        self._executor.uses(stage.slots_dir)
        if self.shared:
            results: list[Result] = self._call("run", stage, tasks)
            return results
        code = self._send_code(stage)
        self._send_inputs(stage, tasks)
        live = {os.path.basename(task.live): _Mirror(task.live) for task in tasks if task.live}

        def follow() -> None:
            with contextlib.suppress(Lost):  # whoever waits for the results finds that out, too
                sizes = {name: mirror.size for name, mirror in live.items()}
                for name, (data, size) in self._call("printed", sizes).items():
                    live[name].follow(data, size)

        results, printed = self._call("run_apart", stage, code, tasks, meanwhile=follow)
        for name, data in printed.items():
            mirror = live[name]
            mirror.follow(data[mirror.size if mirror.size <= len(data) else 0 :], len(data))
        for result in results:
            for _, md5, size in result.outputs:
                self._fetch(stage, md5, size)
        return results

    def _call(self, method: str, *args: Any, meanwhile: Callable[[], None] = lambda: None) -> Any:
        return self._executor.get(getattr(self.handle, method).remote(*args), meanwhile=meanwhile)

    def _send_code(self, stage: Stage) -> str:
        tar = pack(stage.code_dir)
        digest = hashlib.sha256(tar).hexdigest()
        if digest not in self._sent_code:
            if not self._call("has_code", digest):
                self._call("put_code", digest, tar)
            self._sent_code.add(digest)
        return digest

    def _send_inputs(self, stage: Stage, tasks: list[Task]) -> None:
        wanted = {md5 for task in tasks for item in task.inputs for _, md5 in item.files if not item.empty_files}
        for md5 in self._call("lacks", sorted(wanted)):
            part = f"{os.getpid()}-{next(self._parts)}"
            try:
                with _blob(stage, md5).open("rb") as file:
                    data = file.read(_CHUNK)
                    while True:
                        following = file.read(_CHUNK)
                        self._call("put", md5, part, data, not following)
                        if not following:
                            break
                        data = following
            except FileNotFoundError:
                continue  # the worker says which file of which input is missing

    def _fetch(self, stage: Stage, md5: str, size: int) -> None:
        """Bring an output into our cache; checked, since it came over a network."""
        blob = _blob(stage, md5)
        if blob.exists():
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.md5(usedforsecurity=False)
        fd, name = tempfile.mkstemp(prefix=".gitpipe-", dir=blob.parent)
        partial = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                for offset in range(0, size, _CHUNK):
                    data = self._call("get", md5, offset, _CHUNK)
                    digest.update(data)
                    file.write(data)
            if digest.hexdigest() != md5:
                raise Lost(f"the output {md5} came back damaged")
            partial.chmod(0o644)
            if not blob.exists():
                partial.replace(blob)
        finally:
            partial.unlink(missing_ok=True)

    def abort(self, pipeline: str, datums: Collection[str] | None = None) -> None:
        """Kill what runs of a pipeline there; nobody waits for the answer, as the actor may be gone."""
        with contextlib.suppress(Exception):
            self.handle.abort.remote(pipeline, datums)

    def close(self) -> None:
        import ray

        self.lost = True
        try:
            ray.wait([self.handle.close.remote()], timeout=15)
            ray.kill(self.handle)
        except Exception:  # the actor is gone already, and its workers with it
            return


class RaySeat:
    """One slot's place in an actor; batches grow while they are quick."""

    def __init__(self, executor: RayExecutor, stage: Stage, number: int) -> None:
        self._executor = executor
        self._stage = stage
        self._number = number
        self._host: _Host | None = None
        self.appetite = 1

    @property
    def stale(self) -> bool:
        return not self._executor.ready.is_set() or (self._host is not None and self._host.lost)

    def settle(self, over: Callable[[], bool]) -> bool:
        """See `gitpipe.executors.spread.Seat`; only what is reserved has to be waited for."""
        while self._stage.reserves and self._host is None:
            if over():
                return False
            try:
                self._host = self._executor.reserve(self._stage, over)
            except Lost:
                time.sleep(2 * _BEAT)
                self._executor.wait_ready()
        return True

    def run(self, tasks: list[Task]) -> list[Result]:
        start = time.monotonic()
        try:
            if self._host is None:
                self._host = self._executor.host(self._number)
            results = self._host.run(self._stage, tasks)
        except Lost as error:
            if self._host is not None:
                self._host.lost = True
            time.sleep(2 * _BEAT)  # let the watcher find out whether more is lost than this actor
            self._executor.sweep()
            return [Result(task.datum, error=f"the worker's node was lost: {error}", lost=True) for task in tasks]
        self._executor.works()
        took = time.monotonic() - start
        if took < _QUICK:
            self.appetite = min(2 * self.appetite, _MOST_AT_ONCE)
        elif took > _SLOW:
            self.appetite = max(self.appetite // 2, 1)
        return results

    def abort(self, datums: Collection[str] | None = None) -> None:
        """See `gitpipe.executors.spread.Seat`."""
        if self._host is not None:
            self._host.abort(self._stage.pipeline, datums)

    def close(self) -> None:
        """The worker stays warm in its actor, unless that keeps from others what it reserves."""
        if self._stage.reserves and self._host is not None:
            self._executor.release(self._host)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back what SIGTERM does: Ray makes it print a trace and die, its shutdown just die; no runner ends cleanly so.

    By the C library, since Python sets signal handlers in the main thread alone.  The C structure is only carried
    from one call to the other; it has no more than 152 bytes anywhere.
    """
    library = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(512)
    known = library.sigaction(int(signal.SIGTERM), None, before) == 0
    try:
        yield
    finally:
        if known:
            library.sigaction(int(signal.SIGTERM), before, None)


@functools.lru_cache(maxsize=1)
def _token() -> str:
    """This process's token: one for its life, since Ray keeps it in memory over a restart."""
    return secrets.token_hex(32)


def silence(ray: Any) -> None:
    """Keep Ray off our standard streams, which may carry JSON for a program; what matters comes as an exception."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if hasattr(ray._private.worker, "print_to_stdstream"):  # prints a raylet's last words whatever is configured
        ray._private.worker.print_to_stdstream = lambda *args, **kwargs: None


def _reread_environment() -> None:
    """Have Ray look at the environment again, where it was imported before by someone else."""
    try:
        import ray._raylet as raylet

        core: Any = raylet
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()
    except (ImportError, AttributeError, TypeError):  # another release of Ray: then it was imported just now
        return


def _blob(stage: Stage, md5: str) -> Path:
    return stage.cache_dir / md5[:2] / md5[2:]


def _resources(stage: Stage) -> dict[str, float]:
    """What a worker of the stage reserves, by Ray's names; Ray knows parts of one CPU, of more of them none."""
    cpus = math.ceil(stage.cpus) if stage.cpus > 1 else max(round(stage.cpus, 3), 0.001) if stage.cpus else 0
    asked = {"CPU": cpus, "GPU": stage.gpus, "memory": stage.memory}
    return {name: amount for name, amount in asked.items() if amount}


def _amounts(resources: dict[str, float]) -> str:
    """``2 CPUs, 1 GPU, 0.5 GB of memory``."""
    said = []
    for name, amount in resources.items():
        if name == "memory":
            said.append(f"{amount / 1e9:.3g} GB of memory")
        else:
            said.append(f"{amount:g} {name}{'' if amount == 1 else 's'}")
    return ", ".join(said)


def _spread_nodes(nodes: list[dict[str, Any]]) -> list[str]:
    """Node ids in the order in which slots fall to them: each as often as it has CPUs, round about."""
    alive = [(node["NodeID"], int(node.get("Resources", {}).get("CPU", 0))) for node in nodes if node["Alive"]]
    alive = [(name, cpus) for name, cpus in alive if cpus] or [(name, 1) for name, _ in alive]
    rounds = max((cpus for _, cpus in alive), default=0)
    return [name for turn in range(rounds) for name, cpus in alive if cpus > turn]


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def answers(address: str, seconds: float) -> bool:
    """Whether somebody listens at ``HOST:PORT``; of other spellings (``auto``, ``ray://``) Ray alone can tell."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError:
        return False
    return True


def _short_temp() -> str:
    """Where Ray's sockets may lie: a socket's path has at most 107 bytes, of which Ray's own part takes 64."""
    folder = tempfile.gettempdir()
    return folder if len(folder) < 20 else "/tmp"


def sweep_sessions() -> None:
    """Remove what Ray left behind for processes of ours that were killed."""
    for folder in Path(_short_temp()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
