"""Stages in containers: which engine there is, what an image's name stands for, how a worker's container is run.

A worker has one container for all its datums.  In it the agent is process 1, run by this host's Python interpreter,
which is bound there read-only together with the host's own loader and C library: so an image needs neither Python nor
a shell nor any particular C library.  Knows nothing of datums; podman and docker are called by their command lines.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gitpipe.errors import StageFailed
from gitpipe.stage import MAX_LOG, Image, Stage
from gitpipe.stage.command import Command
from gitpipe.stage.sandbox import AGENT, HOME

MODES = ("auto", "never", "require")
ENGINES = ("podman", "docker")
HOST = "host"
"""Stands for the image's id where the host's programs are used."""

LABEL = "gitpipe.slot"
MARK = "container"
"""The file in a slot directory that names the engine of the container which uses it."""

PATIENCE = 300.0
"""Seconds in which an image that could not be pulled is not asked for again."""
_RECHECK = 60.0
"""Seconds in which an engine that was not there is believed to be absent still."""
_ASK, _TRY = 60.0, 180.0
"""Seconds that an engine may take for an answer, and to start a container."""
_AT = "/gitpipe"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IN_CODE = re.compile(r"/code/[\w.+@/-]+")
_LIBRARY = re.compile(r"\s*(?:(\S+) => )?(/\S+) \(0x")


class Memory(Protocol):
    """Texts that outlive the process."""

    def meta(self, key: str) -> str: ...

    def set_meta(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that answers; `user` is who stages are inside, such that their files are ours outside."""

    name: str
    program: str
    user: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a job's stage runs in (None: the host's programs), and what the job should say of it."""

    image: Image | None
    note: str = ""


class Containers:
    """Decides whether a pipeline's image is used.

    Args:
        mode: ``auto`` (where that is possible), ``never``, ``require``.
        args: further options for the engine's ``run``.
        memory: where it is noted which images could not be pulled.
    """

    def __init__(self, mode: str, args: Sequence[str], memory: Memory) -> None:
        self._mode, self._args, self._memory = mode, tuple(args), memory

    def choose(self, name: str, say: Callable[[str], None], stopped: Callable[[], bool]) -> Choice:
        """What stands for the image `name` now; it is pulled if it is not here.

        Args:
            say: told when a pull begins, what is said is true for as long as it lasts.
            stopped: asked now and then while it lasts; the choice means nothing where that turned true.

        Raises:
            StageFailed: ``require``, and it cannot be used.
        """
        if self._mode == "never":
            return Choice(None, f"image {name} was not used: git config gitpipe.container is never")
        found, reason = engines()
        image, note = None, ""
        if found:
            engine, image = _look(found, name, self._args)
            if image is None:
                reason = self._pull(engine, name, say, stopped)
                engine, image = _look(found, name, self._args)
                note = f"image {name} was pulled by {engine.name}"
            if image is not None:
                reason = _try(engine, image)
        if image is not None and not reason:
            return Choice(image, note)
        if self._mode == "require":
            raise StageFailed(f"image {name} cannot be used: {reason}; {self._advice(found, name, image)}")
        return Choice(None, f"image {name} was not used, but the programs of this machine: {reason}")

    def identity(self, name: str) -> str:
        """What `choose` would say, as far as can be told without a pull: an id, ``host``, or the mere name."""
        found, _ = ((), "") if self._mode == "never" else engines()
        if not found:
            return HOST
        engine, image = _look(found, name, self._args)
        if image is None:
            return HOST if self._mode == "auto" and self._refused(name) else name
        return image.id if not _try(engine, image) or self._mode == "require" else HOST

    def describe(self) -> str:
        """What is in force, for `status`."""
        if self._mode == "never":
            return "never used: the programs of this machine"
        found, reason = engines()
        if found:
            return " or ".join(engine.name for engine in found) + (", required" if self._mode == "require" else "")
        rest = "jobs with an image fail" if self._mode == "require" else "the programs of this machine are used"
        return f"none ({reason}): {rest}"

    def _advice(self, found: Sequence[Engine], name: str, image: Image | None) -> str:
        if not found:
            return "install podman or docker, or set git config gitpipe.container to auto"
        if image is None:
            return f"`{found[0].name} pull {name}` by hand, then run-pipeline again"
        return "correct git config gitpipe.containerArgs, or set gitpipe.container to auto"

    def _refused(self, name: str) -> str:
        """Why a pull failed some minutes ago; "" where it is time to try it."""
        when, _, reason = self._memory.meta(f"pull {name}").partition(" ")
        return reason if when and 0 <= time.time() - float(when) < PATIENCE else ""

    def _pull(self, engine: Engine, name: str, say: Callable[[str], None], stopped: Callable[[], bool]) -> str:
        """Bring an image; why that failed, or ""."""
        before = self._refused(name)
        if before:
            return before
        say(f"image {name}: {engine.name} is pulling it")
        reason = _pull(engine, name, stopped)
        if reason and not stopped():
            reason = f"it is not here and cannot be pulled: {reason}"
            self._memory.set_meta(f"pull {name}", f"{time.time()} {reason}")
        return reason


# --- engines and images ---------------------------------------------------------------------------------------------

_engines: tuple[float, tuple[Engine, ...], str] | None = None
_works: set[tuple[Engine, Image]] = set()


def engines() -> tuple[tuple[Engine, ...], str]:
    """The engines that work here, the preferred one first, or why there is none."""
    global _engines
    now = time.monotonic()
    if _engines is None or (not _engines[1] and now - _engines[0] > _RECHECK):
        found, reasons = [], []
        for name in ENGINES:
            program = shutil.which(name)
            if program is None:
                continue
            engine, reason = _podman(program) if name == "podman" else _docker(program)
            if engine:
                found.append(engine)
            reasons.append(reason)
        _engines = now, tuple(found), "; ".join(filter(None, reasons)) or "neither podman nor docker is installed"
    return _engines[1], "" if _engines[1] else _engines[2]


def _podman(program: str) -> tuple[Engine | None, str]:
    said = _ask([program, "version", "--format", "{{.Client.Version}}"])
    # Root in a rootless container is the user outside; rootful, we are root.
    return (None, f"podman does not work: {said.last}") if said.code else (Engine("podman", program, "0:0"), "")


def _docker(program: str) -> tuple[Engine | None, str]:
    said = _ask([program, "info", "--format", "{{json .SecurityOptions}}"])
    if said.code:
        return None, f"docker has no engine: {said.last}"
    rootless = "name=rootless" in said.text
    return Engine("docker", program, "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"), ""


@dataclass(frozen=True, slots=True)
class _Said:
    code: int
    text: str
    last: str  # the last line of what went wrong


def _ask(argv: Sequence[str], limit: float = _ASK) -> _Said:
    """Have an engine answer."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return _Said(-1, "", f"no answer within {limit:g} s")
    except OSError as error:
        return _Said(-1, "", error.strerror or str(error))
    return _Said(done.returncode, done.stdout.decode(errors="replace"), said_last(done.stderr, done.returncode))


def said_last(said: bytes, code: int) -> str:
    """What a program that failed said, in one line: the last that it called an error, else the last."""
    lines = said.decode(errors="replace").strip().splitlines() or [f"exit status {code}"]
    text = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1])
    return "".join(char if char.isprintable() else " " for char in text).removeprefix("Error: ")[:300]


def _look(found: Sequence[Engine], name: str, args: Sequence[str]) -> tuple[Engine, Image | None]:
    """The first engine that has an image, and the image; else the one that would pull it."""
    for engine in found:
        said = _ask([engine.program, "image", "inspect", "--", name])
        if said.code == 0:
            return engine, _image(name, json.loads(said.text)[0], args)
    return found[0], None


def _image(name: str, about: Mapping[str, Any], args: Sequence[str]) -> Image:
    config = about.get("Config") or {}
    env = tuple((key, value) for key, _, value in (each.partition("=") for each in config.get("Env") or ()))
    # Docker writes the algorithm before it, podman does not.
    return Image(
        name,
        f"sha256:{about['Id'].removeprefix('sha256:')}",
        env,
        config.get("WorkingDir") or "",
        tuple(config.get("Entrypoint") or ()),
        tuple(args),
    )


def _pull(engine: Engine, name: str, stopped: Callable[[], bool]) -> str:
    with tempfile.TemporaryFile() as said:
        argv = [engine.program, "pull", "--quiet", "--", name]
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        except OSError as error:
            return error.strerror or str(error)
        while True:
            try:
                process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                if stopped():
                    process.kill()
        said.seek(0)
        return said_last(said.read(), process.returncode) if process.returncode else ""


def _try(engine: Engine, image: Image) -> str:
    """Why no container can be run here, or "": found by running one, as an engine may be there but not allowed to."""
    if (engine, image) in _works:
        return ""
    try:
        argv = _run(engine, image, f"gitpipe-trial-{secrets.token_hex(4)}", network="host", binds=())
    except StageFailed as error:
        return str(error)
    said = _ask([*argv, "inside", str(os.getpid()), str(MAX_LOG)], _TRY)
    if said.code or '"ready"' not in said.text:
        return f"{engine.name} cannot run it: {said.last}"
    _works.add((engine, image))
    return ""


# --- one container --------------------------------------------------------------------------------------------------


class Box:
    """The container of one worker.

    Attributes:
        engine: its engine's name.
        command: what runs in it for each datum.

    Raises:
        StageFailed: this machine has no engine that has the image, nor can it be pulled.
    """

    def __init__(self, stage: Stage, slot: str) -> None:
        assert stage.image is not None
        self._stage, self._slot, self._image = stage, slot, stage.image
        self._engine = _engine_with(stage.image)
        self.engine = self._engine.name
        own = self._own_code()
        self._code = "" if own or not os.listdir(stage.code_dir) else str(stage.code_dir)
        cwd = stage.working_dir or ("/code" if self._code else self._image.working_dir or "/")
        stdin = "".join(f"{line}\n" for line in stage.stdin) if stage.stdin else None
        note = f"/code is the image's own: the pipeline's code has no {own}" if own else ""
        self.command = Command(stage.cmd, stdin, cwd, note, way="it runs in a container")

    def environment(self) -> dict[str, str]:
        """What every datum gets: the image's variables, and the spec's."""
        return {"PATH": _PATH, "HOME": HOME, **dict(self._image.env), **dict(self._stage.env)}

    def start(self, pfs: str) -> list[str]:
        """The command line, up to the agent's own arguments, of a container whose ``/pfs`` is the folder `pfs`."""
        Path(self._slot, MARK).write_text(self.engine)
        binds = [(pfs, "/pfs", not self._stage.writable_inputs), (f"{pfs}/out", "/pfs/out", False)]
        if self._code:
            binds.append((self._code, "/code", True))
        network = "none" if self._stage.sandbox == "strict" else "host"
        words = re.sub(r"[^\w.-]", "-", os.path.basename(self._slot), flags=re.ASCII)
        name = f"gitpipe-{words}-{secrets.token_hex(4)}"
        return _run(self._engine, self._image, name, network, binds, ("--label", f"{LABEL}={self._slot}"))

    def _own_code(self) -> str:
        """The first script below /code that the command names and the pipeline's code lacks, so the image has it."""
        code = str(self._stage.code_dir)
        named = (word for word in self._stage.cmd if _IN_CODE.fullmatch(word))
        return next((word for word in named if not os.path.lexists(code + word.removeprefix("/code"))), "")


def remove_left(slot: str) -> None:
    """Remove the container that uses a slot directory, if one was left behind; costs nothing where none was started."""
    try:
        name = Path(slot, MARK).read_text()
    except (OSError, ValueError):
        return
    program = shutil.which(name) if name in ENGINES else None
    if program is None:
        return
    found = _ask([program, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={slot}"]).text.split()
    if found:
        # Podman would ask it to stop first, and wait for ten seconds.
        _ask([program, "rm", "--force", *(["--time", "0"] if name == "podman" else []), *found])


def _engine_with(image: Image) -> Engine:
    """An engine of this machine that has just this image, which another one may have decided on."""
    found, reason = engines()
    if not found:
        raise StageFailed(f"image {image.name} cannot be used on {platform.node()}: {reason}")
    for engine in found:
        if (engine, image) in _works:
            return engine
    for name in (image.id, image.name):
        engine, here = _look(found, name, ())
        if here is None and name == image.name:
            _pull(engine, name, lambda: False)
            engine, here = _look(found, name, ())
        if here is not None and here.id == image.id:
            return engine
    raise StageFailed(f"image {image.name} of {image.id[:19]} is not on {platform.node()}: pull it there")


def _run(
    engine: Engine,
    image: Image,
    name: str,
    network: str,
    binds: Sequence[tuple[str, str, bool]],
    more: Sequence[str] = (),
) -> list[str]:
    """The engine's command line; `binds` are (folder here, folder inside, read-only).

    Raises:
        StageFailed: this Python interpreter cannot be taken along.
    """
    own, agent = _interpreter()
    argv = [engine.program, "run", "--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--name", name]
    argv += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", engine.user]
    argv += ["--security-opt", "label=disable"]  # else SELinux keeps it from files that are not labelled for containers
    argv += ["--network", network, "--workdir", "/", "--no-healthcheck"]
    argv += ["--env", "LD_PRELOAD="]  # the image's own would be loaded into the agent; stages get their value
    room = "rw,exec,mode=1777"
    if engine.name == "podman":
        argv += ["--read-only-tmpfs=false", "--image-volume", "ignore", "--http-proxy=false"]
        room += ",notmpcopyup"
        if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            argv += ["--security-opt", "mask=/sys/fs/cgroup"]  # of version 1, writable for root
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        argv += ["--tmpfs", f"{folder}:{room}"]
    for source, target, read_only in (*own, *binds):
        argv += ["--mount", _mount(source, target, read_only)]
    return [*argv, *more, *image.args, "--entrypoint", agent[0], image.id, *agent[1:]]


def _mount(source: str, target: str, read_only: bool) -> str:
    """A bind mount, as both engines read it: a line of CSV."""
    line = io.StringIO()
    fields = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


@functools.lru_cache(maxsize=1)
def _interpreter() -> tuple[tuple[tuple[str, str, bool], ...], tuple[str, ...]]:
    """What to bind of this Python interpreter, and the command line that runs the agent with it.

    Raises:
        StageFailed: it is not known what it is linked with.
    """
    python = os.path.realpath(sys.executable)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = os.path.dirname(os.path.realpath(os.__file__))
    binds = {
        f"{_AT}/bin/python3": python,
        f"{_AT}/{sys.platlibdir}/{version}": library,
        f"{_AT}/agent.py": AGENT,
    }
    loader = ""
    for binary in (python, getattr(importlib.util.find_spec("_ctypes"), "origin", None)):
        said = _ask(["ldd", binary]) if binary and os.path.isabs(binary) else _Said(0, "", "")
        if said.code and "not a dynamic executable" not in said.last:
            raise StageFailed(f"cannot tell the libraries of {binary}: ldd: {said.last}")
        for line in said.text.splitlines():
            match = _LIBRARY.match(line)
            if match and match[1]:
                binds[f"{_AT}/lib.d/{os.path.basename(match[1])}"] = os.path.realpath(match[2])
            elif match:
                loader = binds[f"{_AT}/loader"] = os.path.realpath(match[2])
    run = [f"{_AT}/loader", "--library-path", f"{_AT}/lib.d"] if loader else []
    own = tuple((source, target, True) for target, source in sorted(binds.items()))
    return own, (*run, f"{_AT}/bin/python3", "-I", "-S", f"{_AT}/agent.py")
