"""What user code can see: the bubblewrap command line, and the environment variables that are let through.

Knows nothing of datums.  The sandbox is read-only but for ``/pfs/out`` and memory-backed temporary folders; home
folders and ``/run`` are empty there (ssh keys, agents, Docker's socket), except for interpreters and libraries.
"""

from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gitpipe.errors import StageFailed, UsageError
from gitpipe.stage import Stage
from gitpipe.stage.secret import folders

MODES = ("auto", "none", "strict")
HOME = "/tmp/home"
AGENT = str(Path(__file__).with_name("agent.py"))
WARM = str(Path(__file__).with_name("warm.py"))
WARM_INSIDE = "/run/gitpipe-warm.py"

INHERITED = frozenset(
    """PATH LANG LANGUAGE TZ USER LOGNAME LD_LIBRARY_PATH
    PYTHONUSERBASE PYTHONHASHSEED CONDA_PREFIX VIRTUAL_ENV JAVA_HOME R_HOME R_LIBS R_LIBS_USER R_LIBS_SITE
    JULIA_DEPOT_PATH JULIA_NUM_THREADS
    OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES CUDA_HOME
    HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy ftp_proxy all_proxy no_proxy
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE""".split()  # noqa: SIM905
)
"""All that user code gets of the environment (and ``LC_*``).  A list of what is let in, since what must stay out is
open-ended: git's variables, Ray's token, the ssh agent, cloud credentials."""

_ISOLATE = ("--unshare-pid", "--unshare-ipc", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL")
_SPECIAL = frozenset({"proc", "dev", "tmp", "run", "home", "root", "pfs", "code", "lost+found"})


def inherited_environment() -> dict[str, str]:
    """The part of this process's environment that user code gets."""
    env = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return env


def library_environment(env: dict[str, str]) -> dict[str, str]:
    """Where user-installed libraries of Python, R and Julia lie: their defaults follow HOME, which moves."""
    home = _home()
    extra = {"PYTHONUSERBASE": f"{home}/.local"}
    libraries = sorted(glob.glob(f"{home}/R/*/*"))  # R's default is ~/R/<platform>-library/<version>
    if libraries:
        extra["R_LIBS_USER"] = libraries[-1]
    if Path(f"{home}/.julia").is_dir():
        extra["JULIA_DEPOT_PATH"] = f"{HOME}/.julia:{home}/.julia:"
    return {**extra, **env}


def detect(mode: str) -> str:
    """How stages are kept apart here: ``bubblewrap`` or ``none``.

    Args:
        mode: ``auto`` takes what there is, ``none`` switches the sandbox off, ``strict`` also closes the network.

    Raises:
        StageFailed: ``strict`` where bubblewrap does not work.
        UsageError: another mode.
    """
    if mode not in MODES:
        raise UsageError(f"unknown sandbox mode {mode!r}: use one of {', '.join(MODES)}")
    if mode == "none":
        return "none"
    reason = _why_not()
    if reason and mode == "strict":
        raise StageFailed(f"sandbox strict cannot be had: {reason}; install bubblewrap or set gitpipe.sandbox to auto")
    return "none" if reason else "bubblewrap"


def describe(mode: str) -> str:
    """The same for `status`, with the reason where there is no sandbox."""
    if mode == "none":
        return "none (switched off)"
    reason = _why_not()
    if reason:
        return f"none ({reason}): user code can write wherever you can"
    return "bubblewrap, no network" if mode == "strict" else "bubblewrap"


@functools.lru_cache(maxsize=1)
def _why_not() -> str:
    """Why bubblewrap cannot be used, or "": found by using it, since containers often have it but may not."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed" if sys.platform.startswith("linux") else "no bubblewrap on this system"
    argv = [program, *_ISOLATE, *_root(), "--", "/bin/sh", "-c", "exit 0"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"bubblewrap does not work here: {said[-1] if said else f'exit status {done.returncode}'}"


def bubblewrap(stage: Stage, pfs: str, env: dict[str, str], mounts: Sequence[str] = ()) -> list[str]:
    """The command line, up to and with ``--``, of a sandbox whose ``/pfs`` is the folder `pfs` (it has ``out/``).

    Args:
        env: the environment that the stage will have; folders that it names are made visible.
        mounts: arguments that make the files of the stage's secrets appear.
    """
    secret = folders(stage.secrets)
    split = _to_split(secret)
    binds: list[str] = []
    visible = _visible(stage.python, env)
    for path in visible:
        binds += ["--ro-bind-try", path, path]
    hidden = [path for path in stage.hidden if os.path.isdir(path)]
    hidden = [path for path in hidden if not is_masked(path) or any(_is_below(path, shown) for shown in visible)]
    for path in hidden:
        binds += ["--tmpfs", path]
    network = ["--unshare-net"] if stage.sandbox == "strict" else []
    pfs_mode = "--bind" if stage.writable_inputs else "--ro-bind"
    agent_at = "/run/gitpipe-agent.py"
    return [
        shutil.which("bwrap") or "bwrap",
        *_ISOLATE,
        *network,
        *_root(split),
        *binds,
        *("--ro-bind", str(stage.code_dir), "/code"),
        *(pfs_mode, pfs, "/pfs", "--bind", f"{pfs}/out", "/pfs/out"),
        *("--ro-bind", AGENT, agent_at, "--ro-bind", WARM, WARM_INSIDE),
        *mounts,
        *_seal((*secret, *hidden, *split)),
        *("--chdir", "/", "--", _real_interpreter(), "-I", "-S", agent_at),
    ]


def _root(split: Sequence[str] = ()) -> list[str]:
    """The host's top-level folders, read-only, on an empty root; home folders, /run and temporary ones are new.

    The folders `split` are new, too, with all in them that the host's have: what they lack can be added.
    """
    argv = ["--tmpfs", "/"]
    for entry in sorted(os.scandir("/"), key=lambda e: e.name):
        if entry.name in _SPECIAL:
            continue
        if entry.is_symlink():
            argv += ["--symlink", os.readlink(entry.path), entry.path]
        else:
            argv += ["--ro-bind-try", entry.path, entry.path]
    for folder in split:
        argv += ["--tmpfs", folder]
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            raise StageFailed(
                f"no secret can be mounted below {folder}: {error.strerror}; take another place"
            ) from None
        for entry in entries:
            if entry.is_symlink():
                argv += ["--symlink", os.readlink(entry.path), entry.path]
            else:
                argv += ["--ro-bind-try", entry.path, entry.path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm"]
    for device in sorted([*glob.glob("/dev/nvidia*"), *glob.glob("/dev/dri"), *glob.glob("/dev/kfd")]):
        argv += ["--dev-bind-try", device, device]
    for folder in ("/tmp", "/var/tmp", "/run", *masked_homes()):
        argv += ["--tmpfs", folder]
    for path in ("/run/current-system", "/run/opengl-driver", _resolver()):
        if path:
            argv += ["--ro-bind-try", path, path]
    return argv


def _to_split(wanted: Sequence[str]) -> list[str]:
    """The folders of the host that lack the folders `wanted`, which nobody can make there: they are read-only."""
    found = set()
    for path in wanted:
        there = path
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        if there not in (path, "/") and not is_masked(path):
            found.add(there)
    return sorted(found)


def _seal(more: Sequence[str] = ()) -> list[str]:
    """Nothing may be written to the new, empty folders either: it would outlive the datum."""
    argv = []
    for folder in (*more, *masked_homes(), "/run", "/dev", "/"):
        argv += ["--remount-ro", folder]
    return argv


def _resolver() -> str:
    """What /etc/resolv.conf leads to where that lies in /run (systemd), else ""."""
    real = os.path.realpath("/etc/resolv.conf")
    return real if real.startswith("/run/") else ""


def _home() -> str:
    return os.path.realpath(os.path.expanduser("~"))


@functools.lru_cache(maxsize=1)
def masked_homes() -> tuple[str, ...]:
    """The folders that hold people's private files, emptied in the sandbox; a parent comes before its children."""
    found = {path for path in ("/home", "/root") if Path(path).is_dir()}
    home = _home()
    if home != "/" and not any(_is_below(home, path) for path in (*found, "/tmp", "/run", "/var/tmp")):
        found.add(home)
    return tuple(sorted(found))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_masked(path: str) -> bool:
    """Whether `path` lies where the sandbox shows nothing of the host's."""
    return any(_is_below(path, folder) for folder in (*masked_homes(), "/tmp", "/var/tmp", "/run"))


def _visible(python: str, env: dict[str, str]) -> list[str]:
    """Interpreters and libraries that lie under a masked folder, shortest path first, none twice."""
    wanted = {*_prefixes(sys.executable), *_prefixes(python)}
    for folder in env.get("PATH", "").split(os.pathsep):
        wanted.add(folder)
        if folder.endswith("/bin"):
            wanted.update(f"{folder[:-4]}/{name}" for name in ("lib", "lib64", "libexec", "share"))
    wanted.update(f"{env['PYTHONUSERBASE']}/{name}" for name in ("bin", "lib") if "PYTHONUSERBASE" in env)
    for name in ("R_LIBS", "R_LIBS_USER", "R_LIBS_SITE", "JULIA_DEPOT_PATH", "LD_LIBRARY_PATH"):
        wanted.update(env.get(name, "").split(os.pathsep))
    for name in ("CONDA_PREFIX", "VIRTUAL_ENV", "JAVA_HOME", "R_HOME", "CUDA_HOME"):
        wanted.add(env.get(name, ""))
    masked = (*masked_homes(), "/tmp", "/var/tmp", "/run")
    shown: list[str] = []
    for path in sorted(path.rstrip("/") for path in wanted if path.startswith("/")):
        # A home itself, or a folder around it, is never shown: that would undo the mask.
        exposes = any(_is_below(folder, path) for folder in masked)
        known = any(_is_below(path, other) for other in shown)
        if not exposes and not known and is_masked(path) and os.path.exists(path):  # False where we may not look
            shown.append(path)
    return shown


def _real_interpreter() -> str:
    return os.path.realpath(sys.executable)


@functools.lru_cache(maxsize=16)
def _prefixes(python: str) -> tuple[str, ...]:
    """Folders that an interpreter needs: its prefixes, the import path (editable installs), the real binary's tree."""
    if python == sys.executable:
        paths = [sys.prefix, sys.base_prefix]
    else:
        ask = "import sys; print(sys.prefix, sys.base_prefix, *sys.path, sep='\\n')"
        try:
            done = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, timeout=60, check=True,
                                  stdin=subprocess.DEVNULL, env=inherited_environment())  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return ()  # the command that needs it will say so
        paths = done.stdout.splitlines()
    for binary in (python, os.path.realpath(python)):
        folder = os.path.dirname(binary)
        paths.append(os.path.dirname(folder) if os.path.basename(folder) == "bin" else folder)
    return tuple(path for path in paths if path.startswith("/"))
