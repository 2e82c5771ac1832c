"""What a stage runs in, for the record: interpreter, packages, program, system, CPU.

Looked at once per interpreter, and again when what is installed changes; never per datum.  Nothing here can fail a
stage: what cannot be found out is left out.  No result is named after any of it (I4).
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gitpipe.stage import Stage
from gitpipe.stage.sandbox import inherited_environment

_PYTHON = re.compile(r"(?:^|[\s;&|(!])((?:/[\w.+/-]*/)?python[\d.]*)(?=$|[\s;&|)])")
_R = re.compile(r"(?:^|[\s;&|(!])((?:/[\w.+/-]*/)?Rscript)(?=$|[\s;&|)])")
_OURS = ("python", "python3")  # the interpreter of git config gitpipe.python
_ASK_PYTHON = (
    "import sys; print(sys.implementation.name, ' '.join(sys.version.split()), *filter(None, sys.path), sep='\\n')"
)
_ASK_R = 'cat(R.version.string, .libPaths(), sep = "\\n")'
_METADATA = (".dist-info", ".egg-info")
_VERSION = re.compile(r"(?m)^Version: *(\S+)")
_LONGEST = 1 << 26  # bytes of a program that are worth reading for their md5
_PATIENCE = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One that was asked.

    Attributes:
        text: what it is, without its path: ``cpython 3.11.7 (main, …) [GCC 12.2.0]``.
        packages: ``name==version``, a line each, sorted.
        marks: the folders that packages are found in -> time of the last change, nanoseconds.
    """

    text: str
    packages: str
    marks: dict[str, int]


_asked: dict[str, Interpreter] = {}
_lock = threading.Lock()


def surroundings(
    stage: Stage, argv: tuple[str, ...], env: Mapping[str, str], sandbox: str, image: str = ""
) -> dict[str, str]:
    """What a stage runs in: kernel, libc, cpu, sandbox; and interpreter and packages, or else program.

    Args:
        argv: what is started, as it was prepared.
        env: what the command gets.
        sandbox: ``bubblewrap`` or ``none``.
        image: the container image that it runs in, with its digest, which stands for all programs in it.
    """
    if image:
        return {**_machine(), "libc": "", "sandbox": sandbox, "image": image}
    found = {**_machine(), "sandbox": sandbox}
    texts = [*stage.cmd[:1], *_shebang(stage), *stage.cmd[1:], *stage.stdin]
    path = env.get("PATH")

    def runnable(word: str) -> str:
        """The program, if it may be run here: this is outside of the sandbox, where nothing that a spec chose runs."""
        chosen = "/" in word or "PATH" in dict(stage.env)
        return "" if chosen else shutil.which(word, path=path) or ""

    python, r = _first(_PYTHON, texts), "R" if stage.cmd[:1] == ("R",) else _first(_R, texts)
    asked: list[Interpreter] = []
    if not stage.cmd or stage.cmd[0] in _OURS:
        asked += _interpreter(stage.python, ("-c", _ASK_PYTHON), _python_packages)
    elif python:
        asked += _interpreter(runnable(python), ("-c", _ASK_PYTHON), _python_packages)
    if r:
        asked += _interpreter(runnable(r), ("-e", _ASK_R), _r_packages)
    if asked:
        found["interpreter"] = "; ".join(each.text for each in asked)
        found["packages"] = "\n".join(each.packages for each in asked)
    elif argv:
        found["program"] = _program(shutil.which(argv[0], path=path) or argv[0])
    return {name: value for name, value in found.items() if value}


@functools.lru_cache(maxsize=1)
def _machine() -> dict[str, str]:
    """Kernel, C library and CPU of this machine."""
    system = os.uname()
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        libc = " ".join(platform.libc_ver()).strip()
    return {"kernel": f"{system.sysname} {system.release} {system.machine}", "libc": libc, "cpu": _cpu()}


def _cpu() -> str:
    """``2 x Intel(R) Xeon(R) CPU @ 2.20GHz``."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in ("model name", "model", "cpu") and not value.strip().isdigit():
                model = " ".join(value.split())
                break
    except OSError:
        pass
    return f"{os.cpu_count() or 1} x {model}"


def _first(pattern: re.Pattern[str], texts: Iterable[str]) -> str:
    """The first word that names such an interpreter, or ""."""
    return next((match[1] for text in texts if (match := pattern.search(text))), "")


def _shebang(stage: Stage) -> list[str]:
    """The interpreter line of the script that is started, where that is part of the code."""
    name = (stage.cmd or ("",))[0].removeprefix("/code/")
    for path in {os.path.join(stage.code_dir, stage.working_dir.removeprefix("/code").strip("/"), name.lstrip("/")),
                 os.path.join(stage.code_dir, name.lstrip("/"))}:  # fmt: skip
        try:
            with open(path, "rb") as file:
                head = file.readline(256)
        except (OSError, ValueError):
            continue
        if head.startswith(b"#!"):
            return [head[2:].decode("utf-8", "replace").strip()]
    return []


def _interpreter(
    program: str, ask: tuple[str, ...], packages: Callable[[list[str]], dict[str, str]]
) -> list[Interpreter]:
    """What `program` says of itself: remembered until a folder of its packages changes; nothing if it cannot run."""
    if not program:
        return []
    with _lock:  # ten slots begin at once, and one is to ask
        known = _asked.get(program)
        if known is None or any(_changed(path) != when for path, when in known.marks.items()):
            try:
                known = _ask(program, ask, packages)
            except (OSError, subprocess.SubprocessError, ValueError):
                return []
            _asked[program] = known
        return [known]


def _ask(program: str, ask: tuple[str, ...], packages: Callable[[list[str]], dict[str, str]]) -> Interpreter:
    env = {**inherited_environment(), "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run([program, *ask], capture_output=True, text=True, timeout=_PATIENCE, check=True,
                          stdin=subprocess.DEVNULL, cwd="/", env=env, errors="replace")  # fmt: skip
    said = done.stdout.splitlines()
    text = " ".join(line for line in said if not line.startswith("/"))
    folders = [line for line in said if line.startswith("/")]
    marks = {path: _changed(path) for path in (program, *folders)}
    found = packages(folders)
    return Interpreter(text, "\n".join(f"{name}=={found[name]}" for name in sorted(found)), marks)


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _python_packages(folders: list[str]) -> dict[str, str]:
    """Distributions by normalised name, as the interpreter finds them.

    By the names of their metadata folders, which hold name and version: to read 300 of these files takes 0.3 s.
    """
    found: dict[str, str] = {}
    for folder in folders:
        for entry in _entries(folder):
            stem, suffix = os.path.splitext(entry)
            if suffix not in _METADATA:
                continue
            name, _, rest = stem.partition("-")
            version = rest.partition("-")[0] or _version_in(f"{folder}/{entry}/PKG-INFO")
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


def _r_packages(folders: list[str]) -> dict[str, str]:
    """R's packages, the first library that has one counts."""
    found: dict[str, str] = {}
    for folder in folders:
        for name in _entries(folder):
            if name not in found and (version := _version_in(f"{folder}/{name}/DESCRIPTION")):
                found[name] = version
    return found


def _entries(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # a zip file, or one that is not there
        return []


def _version_in(path: str) -> str:
    try:
        match = _VERSION.search(Path(path).read_text(errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""


def _program(path: str) -> str:
    """``/usr/bin/dash (125688 bytes, md5 …)``; of one in the pipeline's code, which has a version, the path."""
    if path.startswith("/code/"):
        return f"{path}, in the pipeline's code"
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
        return _fingerprint(real, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return path


@functools.lru_cache(maxsize=64)
def _fingerprint(path: str, size: int, changed: int) -> str:
    if size > _LONGEST:
        return f"{path} ({size} bytes)"
    digest = hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()
    return f"{path} ({size} bytes, md5 {digest})"
