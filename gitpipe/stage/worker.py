"""A long-lived worker: one agent in one sandbox with one slot directory, running one datum after another.

Knows how a datum's files get in and out and how the agent is asked; not where workers live (`gitpipe.executors`) nor
which datums there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gitpipe.errors import SCARCE, BadData, StageFailed
from gitpipe.stage import MAX_LOG, Result, Stage, Task
from gitpipe.stage import outputs as outputs_
from gitpipe.stage import secret as secret_
from gitpipe.stage.command import Command, PathMap, hard_coding, prepare
from gitpipe.stage.container import Box, remove_left, said_last
from gitpipe.stage.live import Live
from gitpipe.stage.sandbox import (
    AGENT,
    EXPENDABLE,
    HOME,
    PROXIES,
    WARM,
    WARM_INSIDE,
    bubblewrap,
    detect,
    inherited_environment,
    library_environment,
    open_filter,
    raise_scarce,
)
from gitpipe.stage.slot import MARK, Slot, kill_marked
from gitpipe.stage.surroundings import surroundings

_PLAIN = re.compile(r"[\w./+@-]+\Z", re.ASCII)
_AGENT_KILLED = "it was killed (out of memory?)"
_KILLED_IN_SHELL = 128 + int(signal.SIGKILL)
_FULL = " (no space left on device)"
_NO_SPACE = os.strerror(errno.ENOSPC).encode()
_EARLY = ("PYTHON", "LD_", "LC_", "MALLOC_", "GLIBC_", "OMP_", "MKL_", "OPENBLAS_")
"""What variables begin with that a program looks at only once, when it starts."""
_HINT = "no sandbox here, so /pfs does not exist; install bubblewrap, or take the paths from the arguments"


class AgentLost(Exception):
    """The agent ended, or answered nonsense."""


class Worker:
    """Runs the datums of one stage, one at a time, in one sandbox.

    Args:
        stage: what to run.
        slot_dir: a folder that is the worker's own, on the cache's file system; made here, removed by `close`.
        environ: what user code inherits; by default what `inherited_environment` takes from this process.
        engine: where the worker lives, for the record.
    """

    def __init__(
        self, stage: Stage, slot_dir: Path, environ: dict[str, str] | None = None, engine: str = "local"
    ) -> None:
        self._stage = stage
        self._engine = engine
        self._box = Box(stage, str(slot_dir)) if stage.image else None
        self._sandboxed = self._box is not None or detect(stage.sandbox) == "bubblewrap"
        self._redact = secret_.Redactor(stage.secrets)
        self._secret_env = secret_.environment(stage.secrets)  # in requests only: not in the agent's own, nor bwrap's
        if (self._box or not self._sandboxed) and any(secret.path for secret in stage.secrets):
            lack = "has a container in its place" if self._box else "is not there: install bubblewrap"
            raise StageFailed(
                f"pipeline {stage.pipeline} has a secret with mount_path, which needs the sandbox, and that {lack}, or"
                " use env_var"
            )
        self._slot = Slot(str(slot_dir))
        self._cache = str(stage.cache_dir)
        self._copies = stage.writable_inputs or not self._sandboxed
        self._alias = ""
        self._rescue: Command | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(self._slot.remove)
            self._paths = PathMap() if self._sandboxed else self._real_paths()
            self._command = self._box.command if self._box else prepare(stage, self._paths, self._sandboxed)
            if stage.err_cmd:
                # A Python that is kept is there for the command; what handles errors is a process of its own.
                handle = dataclasses.replace(
                    stage, cmd=stage.err_cmd, stdin=stage.err_stdin, callable="", preload=False
                )
                box = Box(handle, str(slot_dir)) if self._box else None
                self._rescue = box.command if box else prepare(handle, self._paths, self._sandboxed)
            self._env = self._environment(inherited_environment() if environ is None else environ)
            undo.pop_all()
        self._way = ""
        self._agent: _Agent | None = None
        self._place: dict[str, str] = {}
        self.aborted = False
        self.alive = True
        self.datum = ""  # that it runs

    def run(self, task: Task) -> Result:
        """Run the stage on one datum.

        Returns:
            What came of it; ``lost`` if the worker died under it, after which it is of no more use (`alive`).

        Raises:
            StageFailed: the sandbox could not be started.
        """
        if not self.alive:
            return Result(task.datum, error="the worker has ended", lost=True)
        self.datum = task.datum
        try:
            if self._agent is None:
                self._place = self._look()
                self._agent = self._start()
            if self.aborted:
                raise AgentLost("it was stopped")
            return self._run(task, self._agent)
        except AgentLost as error:
            self.close()
            return Result(task.datum, error=f"the worker ended while it ran: {error}", lost=True)
        except OSError as error:
            self.close()
            said = f"cannot start a worker for pipeline {self._stage.pipeline}: {error.strerror or error}"
            return self._result(task, error=said, no_space=error.errno in SCARCE)
        except StageFailed:
            self.close()
            raise
        finally:
            self.datum = ""

    def _run(self, task: Task, agent: _Agent) -> Result:
        live = Live(task.live, self._redact)
        try:
            bytes_in = self._slot.place(task, self._cache, self._copies)
            answer, log = self._ask(agent, task, self._command, live)
            self._way = self._redact.text(answer.get("way") or self._way)
            error = self._verdict(answer, log)
            recovered, full = False, error.endswith(_FULL)
            if error and not full and task.last and self._rescue is not None:  # a full disk is the machine's failure
                recovered, error, log = self._recover(task, agent, self._rescue, live, error, log)
            outputs = () if error else self._collect(task)
            if not error and not outputs and not self._sandboxed and hard_coding(self._stage):
                # It looked for its input where nothing is: an empty result would be a wrong one.
                error = f"no output ({self._hint()})"
        except BadData as bad:
            self._clean()
            return self._result(task, error=str(bad))
        except OSError as bad:
            self._clean()
            error = f"cannot prepare or store the datum's files: {bad}"
            return self._result(task, error=error, no_space=bad.errno in SCARCE)
        self._clean()
        return self._result(
            task,
            outputs=outputs,
            error=error,
            recovered=recovered,
            no_space=full,
            log=log,
            exit_code=answer.get("code"),
            bytes_in=bytes_in,
            bytes_out=sum(size for _, _, size in outputs),
            seconds=float(answer.get("seconds", 0.0)),
        )

    def _recover(
        self, task: Task, agent: _Agent, rescue: Command, live: Live, error: str, log: bytes
    ) -> tuple[bool, str, bytes]:
        """Run ``err_cmd`` after the command, with all as that left it: (recovered, error, both logs)."""
        if not live.begun:
            live.add(log)  # if anything of this datum is shown early it is to be all
        answer, said = self._ask(agent, task, rescue, live)
        verdict = self._verdict(answer, said)
        said = said[-(MAX_LOG // 2) :]
        log = log[: MAX_LOG - len(said)] + said
        return not verdict, f"{error}; err_cmd: {verdict}" if verdict else error, log

    def _ask(self, agent: _Agent, task: Task, command: Command, live: Live) -> tuple[dict[str, Any], bytes]:
        """Have one command run; (answer, what it printed but for secrets)."""
        request = {**self._request(task, command), "live": live.wanted, "told": live.begun}
        try:
            answer, log = agent.ask(request, live)
        finally:
            live.end()
        return answer, self._redact.log(log)

    def _result(self, task: Task, *, error: str = "", **fields: Any) -> Result:
        if self._way != self._place.get("runtime", ""):
            self._place = {**self._place, "runtime": self._way}
        error = self._redact.text(error)
        return Result(task.datum, error=error, note=self._command.note, environment=self._place, **fields)

    def _look(self) -> dict[str, str]:
        """What it runs in."""
        sandbox = self._box.engine if self._box else "bubblewrap" if self._sandboxed else "none"
        image = f"{self._stage.image.name} ({self._stage.image.id})" if self._stage.image else ""
        found = surroundings(self._stage, self._command.argv, self._env, sandbox, image)
        return {"engine": self._engine, "host": platform.node(), **found}

    def is_current(self) -> bool:
        """Whether what it runs in is as it was when it started: another job may begin after a package was upgraded.

        A Python that is kept would go on with what it has imported.
        """
        return not self._place or self._look().items() <= self._place.items()

    def _collect(self, task: Task) -> tuple[outputs_.Output, ...]:
        known: dict[str, str] = {}
        for item in task.inputs:
            if not self._copies or item.empty_files:
                known.update((f"{item.name}/{path}", md5) for path, md5 in item.files)
        return outputs_.collect(self._slot.pfs, self._cache, known, (self._paths.rewrite("/pfs"), self._slot.pfs))

    def _clean(self) -> None:
        """Make the slot ready for the next datum; a slot that cannot be is given up, and the worker with it."""
        try:
            self._slot.clean()
        except (OSError, RecursionError):
            self.close()

    def _request(self, task: Task, command: Command) -> dict[str, Any]:
        own = {name: self._paths.rewrite(value) for name, value in task.env}
        env = {**self._env, **self._secret_env}
        way, warm = command.way, None
        if command.keep:
            early = next((name for name in own if name in env or name.startswith(_EARLY)), "")
            if early and command.argv:
                way = f"the input's name {early} means something to Python when it starts"
            else:
                warm = self._kept(task, command, env, own)
        return {
            "argv": command.argv,
            "env": {**env, **own},
            "cwd": command.cwd,
            "stdin": command.stdin,
            "timeout": self._stage.timeout,
            "way": way,
            "warm": warm,
        }

    def _kept(self, task: Task, command: Command, env: dict[str, str], own: dict[str, str]) -> dict[str, Any]:
        """The part of a request that is for a Python that is kept: `env` is what it starts with, `own` the datum's."""
        request: dict[str, Any] = {"env": own}
        if self._stage.callable:
            matches: dict[str, str] = {}
            for item in task.inputs:
                path = f"/pfs/{item.name}{'' if item.match == '/' else item.match}"
                # A group may have several of one name: they lie in one folder.
                matches[item.name] = path if item.name not in matches else f"/pfs/{item.name}"
            request["inputs"] = {name: self._paths.rewrite(path) for name, path in matches.items()}
            request["out"] = self._paths.rewrite("/pfs/out")
        argv = [*command.keep, WARM_INSIDE if self._sandboxed else WARM]
        return {"argv": argv, "env": env, "setup": command.setup, "request": request}

    def _verdict(self, answer: dict[str, Any], log: bytes) -> str:
        """Why the datum failed, in one line, or ""."""
        if answer.get("error"):
            return str(answer["error"])
        if answer.get("timed_out"):
            return f"timed out after {self._stage.timeout:g} s" if self._stage.timeout else "timed out"
        code = answer.get("code")
        if code == 0 or code in self._stage.accept_return_code:
            return ""
        said = f"exit status {code}" if isinstance(code, int) and code >= 0 else f"killed by {_signal_name(code)}"
        if code == _KILLED_IN_SHELL:
            said += " (out of memory?)"
        if _NO_SPACE in log or self._slot.is_full():
            return said + _FULL
        blind = not self._sandboxed and (re.search(rb"/pfs\b", log) or hard_coding(self._stage))
        return f"{said} ({self._hint()})" if blind else said

    def _hint(self) -> str:
        script = hard_coding(self._stage)
        return f"{_HINT}: {script} names it" if script else _HINT

    def _environment(self, inherited: dict[str, str]) -> dict[str, str]:
        """What every datum of the stage gets; the spec's own values win."""
        if self._box:
            return self._box.environment()
        home = HOME if self._sandboxed else self._slot.home
        env = library_environment(inherited) if self._sandboxed else dict(inherited)
        folder = os.path.dirname(self._stage.python)
        env["PATH"] = f"{folder}:{env['PATH']}" if folder else env["PATH"]
        env["HOME"] = home
        env["TMPDIR"] = "/tmp" if self._sandboxed else self._slot.tmp
        if self._stage.sandbox == "strict":
            env = {name: value for name, value in env.items() if name not in PROXIES}
        if not self._sandboxed:
            env = {**library_environment(inherited), **env}
            env["PYTHONDONTWRITEBYTECODE"] = "1"  # the code tree is writable here, and is not the stage's to change
            env[MARK] = self._slot.path
        env.update((name, self._paths.rewrite(value)) for name, value in self._stage.env)
        return env

    def _real_paths(self) -> PathMap:
        """Where /pfs and /code are without a sandbox; through links where real paths would need quotes in a shell."""
        pfs, code = self._slot.pfs, str(self._stage.code_dir)
        if _PLAIN.match(pfs) and _PLAIN.match(code):
            return PathMap(pfs, code)
        self._alias = tempfile.mkdtemp(prefix="gitpipe-")
        os.symlink(pfs, f"{self._alias}/pfs")
        os.symlink(code, f"{self._alias}/code")
        return PathMap(f"{self._alias}/pfs", f"{self._alias}/code")

    def _start(self) -> _Agent:
        interpreter = os.path.realpath(sys.executable)
        more = [str(os.getpid()), str(MAX_LOG)]
        stderr, pipeline = f"{self._slot.path}/stderr", self._stage.pipeline
        if self._box:
            argv = [*self._box.start(self._slot.pfs), "inside", *more]
            return _Agent(argv, dict(os.environ), stderr, pipeline)
        if not self._sandboxed:
            argv = [*EXPENDABLE, interpreter, "-I", "-S", AGENT, "outside", *more]
            return _Agent(argv, self._env, stderr, pipeline)
        with open_filter() as fd, secret_.mounts(self._stage.secrets) as (mounts, files):
            sandbox = bubblewrap(self._stage, self._slot.pfs, self._env, fd, mounts)
            argv = [*EXPENDABLE, *sandbox, "inside", *more]
            return _Agent(argv, self._env, stderr, pipeline, (fd, *files))

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def heavy(self) -> bool:
        """Whether it keeps an interpreter for the next datum."""
        return bool(self._command.keep)

    def abort(self) -> None:
        """Kill what runs, from another thread than the one in `run`, which then gets a lost result and cleans up."""
        self.aborted = True  # seen by `run` where the agent is only just being started
        agent = self._agent
        if agent is not None:
            agent.abort()
        if self._box:
            remove_left(self._slot.path)  # the engine hands a signal on to the agent, which obeys none in there

    def close(self) -> None:
        """End the agent with all its processes, and remove the slot directory."""
        self.alive = False
        agent, self._agent = self._agent, None
        if agent is None or not agent.kill():
            remove_left(self._slot.path)
        if not self._sandboxed:
            kill_marked([self._slot.path])
        self._slot.remove()
        if self._alias:
            shutil.rmtree(self._alias, ignore_errors=True)


class _Agent:
    """The other end of the agent's two pipes."""

    def __init__(
        self, argv: list[str], env: dict[str, str], stderr: str, pipeline: str, fds: tuple[int, ...] = ()
    ) -> None:
        with open(stderr, "wb") as errors:
            self._process = spawn(argv, env, errors.fileno(), fds)
        self._requests = _fileno(self._process.stdin)
        self._replies = _fileno(self._process.stdout)
        self._buffer = b""
        try:
            self._receive()
        except AgentLost:
            code = self._process.wait()
            self.kill()
            if code == -signal.SIGKILL:
                raise
            why = said_last(Path(stderr).read_bytes(), code)
            raise_scarce(why)
            raise StageFailed(f"cannot start a worker for pipeline {pipeline}: {why}") from None

    def ask(self, request: dict[str, Any], live: Live) -> tuple[dict[str, Any], bytes]:
        """Have one command run; (answer, log).  What it prints meanwhile goes to `live`."""
        data = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._requests, data) :]
        except OSError:
            raise AgentLost(_AGENT_KILLED) from None
        while True:
            answer, log = self._receive()
            if "said" not in answer:
                return answer, log
            live.add(log, int(answer.get("skipped", 0)))

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(line)
            size = int(answer["log"])
        except (ValueError, KeyError, TypeError):
            raise AgentLost("its answer cannot be read") from None
        if not 0 <= size <= 2 * MAX_LOG:
            raise AgentLost("its answer cannot be read")
        while len(self._buffer) < size:
            self._more()
        log, self._buffer = self._buffer[:size], self._buffer[size:]
        return answer, log[:MAX_LOG]

    def _more(self) -> None:
        try:
            data = os.read(self._replies, 1 << 16)
        except OSError:
            data = b""
        if not data or len(self._buffer) > 4 * MAX_LOG:
            raise AgentLost(_AGENT_KILLED)
        self._buffer += data

    def abort(self) -> None:
        """Have it end now; nothing is closed, since another thread waits for the answer."""
        self._process.terminate()

    def kill(self) -> bool:
        """End it, whether it did so by itself: without sandbox it is asked first, as it alone knows its orphans."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.returncode == 0


def _fileno(pipe: Any) -> int:
    number: int = pipe.fileno()
    return number


def _signal_name(code: object) -> str:
    if not isinstance(code, int):
        return "an unknown signal"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


# --- starting processes ---------------------------------------------------------------------------------------------

_Job = tuple[Callable[[], "subprocess.Popen[bytes]"], "queue.SimpleQueue[Any]"]
_spawner_lock = threading.Lock()
_spawner: tuple[int, queue.SimpleQueue[_Job]] | None = None


def spawn(argv: list[str], env: dict[str, str], stderr: int, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, in a session of its own (a ^C at the terminal is not meant for it).

    It inherits the file descriptors `fds` beside its standard ones.

    It is started by one thread that never ends: the kernel's parent-death signal comes when the *thread* that started
    a process ends, so that workers started by a job's thread would die with the job.

    Raises:
        StageFailed: it cannot be started.
        OSError: there is no handle, process or memory for it now.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            env=env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
            pass_fds=fds,
        )

    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    _spawner_queue().put((start, answer))
    outcome = answer.get()
    if isinstance(outcome, OSError):
        if outcome.errno in SCARCE:
            raise outcome
        raise StageFailed(f"cannot start {argv[0]}: {outcome.strerror}")
    process: subprocess.Popen[bytes] = outcome
    return process


def _spawner_queue() -> queue.SimpleQueue[_Job]:
    global _spawner
    with _spawner_lock:
        if _spawner is None or _spawner[0] != os.getpid():  # a forked child has no threads
            jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
            threading.Thread(target=_spawn_forever, args=(jobs,), name="gitpipe-spawner", daemon=True).start()
            _spawner = (os.getpid(), jobs)
        return _spawner[1]


def _spawn_forever(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        start, answer = jobs.get()
        try:
            answer.put(start())
        except OSError as error:
            answer.put(error)
