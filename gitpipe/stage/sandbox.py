"""What user code can see: the bubblewrap command line, and the environment variables that are let through.

Knows nothing of datums.  The sandbox is read-only but for ``/pfs/out`` and memory-backed temporary folders; home
folders and ``/run`` are empty there (ssh keys, agents, Docker's socket), except for interpreters and libraries.
``docs/isolation.md`` says what is seen, and what was tried against it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gitpipe.errors import SCARCE, Scarce, StageFailed, UsageError
from gitpipe.stage import Stage
from gitpipe.stage.secret import folders
from gitpipe.stage.syscalls import seccomp_filter

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

PROXIES = frozenset(name for name in INHERITED if name.upper().endswith("_PROXY"))
"""Of no use without a network, and the one place among these where passwords are usual."""

EXPENDABLE = (
    *("/bin/sh", "-c"),
    '{ read n < "$0" && [ "$n" -ge 500 ] || echo 500 > "$0"; } 2> /dev/null; exec "$@"',
    "/proc/self/oom_score_adj",
)
"""What to start a stage with: where memory runs out, the kernel takes it before the runner and others, which have 0."""

_ISOLATE = ("--unshare-pid", "--unshare-ipc", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL")
_SPECIAL = frozenset({"proc", "dev", "tmp", "run", "home", "root", "pfs", "code", "lost+found"})
_SYSTEM = frozenset("bin sbin lib lib32 lib64 libx32 usr etc opt nix gnu sys".split())  # noqa: SIM905
"""The top-level folders that ``strict`` shows: what is installed, and nobody's data."""
_TEMPORARY = ("/tmp", "/var/tmp")


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
        Scarce: there is no handle, process or memory to find out with; ``none`` would be a guess that lasts.
        StageFailed: ``strict`` where bubblewrap does not work.
        UsageError: another mode.
    """
    if mode not in MODES:
        raise UsageError(f"unknown sandbox mode {mode!r}: use one of {', '.join(MODES)}")
    if mode == "none":
        return "none"
    try:
        reason = _why_not()
    except OSError as error:
        raise Scarce(f"cannot find out whether bubblewrap works here: {error.strerror}; try again later") from error
    if reason and mode == "strict":
        raise StageFailed(f"sandbox strict cannot be had: {reason}; install bubblewrap or set gitpipe.sandbox to auto")
    return "none" if reason else "bubblewrap"


def describe(mode: str) -> str:
    """The same for `status`, with the reason where there is no sandbox."""
    if mode == "none":
        return "none (switched off)"
    try:
        reason = _why_not()
    except OSError as error:
        return f"unknown ({error.strerror})"
    if reason:
        return f"none ({reason}): user code can write wherever you can"
    said = "bubblewrap, strict: no network, no home, no repository" if mode == "strict" else "bubblewrap"
    _, before, filtered = _probe()
    lacks = [*([] if before else ["private mounts"]), *([] if filtered else ["a filter of system calls"])]
    return f"{said} (without {' or '.join(lacks)})" if lacks else said


def _why_not() -> str:
    """Why bubblewrap cannot be used, or ""."""
    return _probe()[0]


@functools.lru_cache(maxsize=1)
def _probe() -> tuple[str, tuple[str, ...], bool]:
    """Why bubblewrap cannot be used ("" where it can); what stands before it; whether it takes the filter.

    Found by using it, since containers often have it but may not.  The two that it can do without are left out where
    they do not work: some systems let only bubblewrap make namespaces, and not every kernel has filters.
    """
    if shutil.which("bwrap") is None:
        why = "bubblewrap is not installed" if sys.platform.startswith("linux") else "no bubblewrap on this system"
        return why, (), False
    private = _private_mounts()
    said = ""
    for before, filtered in ((private, True), ((), True), (private, False), ((), False)):
        said = _try(before, filtered and bool(seccomp_filter()))
        if not said:
            return "", before, filtered and bool(seccomp_filter())
    return f"bubblewrap does not work here: {said}", (), False


def _try(before: tuple[str, ...], filtered: bool) -> str:
    """Why a sandbox cannot be started so, or "".

    Raises:
        OSError: that cannot be told now, since handles, processes or memory are used up.
    """
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(open_filter())] if filtered else []
        argv = [*before, _bwrap(), *_ISOLATE, *_filtered(fds), *_root(_usual_masks()), "--", "/bin/sh", "-c", "exit 0"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, env={}, check=False,
                                  pass_fds=fds)  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return str(error)
        except OSError as error:
            if error.errno in SCARCE:
                raise
            return str(error)
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    raise_scarce(said[-1] if said else "")
    return said[-1] if said else f"exit status {done.returncode}"


def raise_scarce(said: str) -> None:
    """Raise what bubblewrap ended for if it is handles, processes or memory, by its last words.

    Not "no space", by which kernels say that they allow no namespaces at all.

    Raises:
        OSError: it is.
    """
    for number in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
        if said.endswith(os.strerror(number)):
            raise OSError(number, said)


def _private_mounts() -> tuple[str, ...]:
    """What to start bubblewrap with, so that what is mounted on the host later does not appear inside, writable."""
    program = shutil.which("unshare")
    if program is None:
        return ()
    user = () if os.geteuid() == 0 else ("--user", "--map-current-user")
    return (program, *user, "--mount", "--propagation", "private", "--")


@contextlib.contextmanager
def open_filter() -> Iterator[int]:
    """A file descriptor to read the filter of system calls from, once; for `bubblewrap`."""
    read, write = os.pipe()
    try:
        os.write(write, seccomp_filter())  # less than a pipe holds
        os.close(write)
        yield read
    finally:
        os.close(read)


def _filtered(fds: Sequence[int]) -> list[str]:
    return [text for fd in fds for text in ("--seccomp", str(fd))]


def _bwrap() -> str:
    return shutil.which("bwrap") or "bwrap"


def bubblewrap(stage: Stage, pfs: str, env: dict[str, str], filter_fd: int, mounts: Sequence[str] = ()) -> list[str]:
    """The command line, up to and with ``--``, of a sandbox whose ``/pfs`` is the folder `pfs` (it has ``out/``).

    Args:
        env: the environment that the stage will have; folders that it names are made visible.
        filter_fd: what `open_filter` gave, to be inherited by the process.
        mounts: arguments that make the files of the stage's secrets appear.
    """
    masks = masked(stage)
    secret = folders(stage.secrets)
    split = _to_split(secret, masks)
    shown = _visible(stage.python, env, masks)
    binds = [text for path in shown for text in ("--ro-bind-try", path, path)]
    for link in _links_to(stage.python):
        if is_masked(link, masks) and not is_masked(link, shown):
            binds += ["--symlink", os.readlink(link), link]
    hidden = [path for path in stage.hidden if os.path.isdir(path)]
    hidden = [path for path in hidden if not is_masked(path, masks) or is_masked(path, shown)]
    binds += [text for path in hidden for text in ("--tmpfs", path)]
    _, before, filtered = _probe()
    pfs_mode = "--bind" if stage.writable_inputs else "--ro-bind"
    agent_at = "/run/gitpipe-agent.py"
    return [
        *before,
        _bwrap(),
        *_ISOLATE,
        *(["--unshare-net"] if stage.sandbox == "strict" else []),
        *_filtered([filter_fd] if filtered else []),
        *_root(masks, split),
        *binds,
        *("--ro-bind", str(stage.code_dir), "/code"),
        *(pfs_mode, pfs, "/pfs", "--bind", f"{pfs}/out", "/pfs/out"),
        *("--ro-bind", AGENT, agent_at, "--ro-bind", WARM, WARM_INSIDE),
        *mounts,
        *_seal((*secret, *hidden, *split, *masks)),
        *("--chdir", "/", "--", _real_interpreter(), "-I", "-S", agent_at),
    ]


def _root(masks: Sequence[str], split: Sequence[str] = ()) -> list[str]:
    """The host's top-level folders, read-only, on an empty root; those in `masks` are new and empty.

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
    # Files in memory are no process's: the kernel could not get back what they take by killing one.
    limit = ["--size", str(_memory() // 4)]
    argv += ["--proc", "/proc", "--dev", "/dev", *limit, "--tmpfs", "/dev/shm"]
    if _has_mqueue():  # its queues are there anyway, and outlive their datum where they cannot be seen
        argv += ["--mqueue", "/dev/mqueue"]
    for device in sorted([*glob.glob("/dev/nvidia*"), *glob.glob("/dev/dri"), *glob.glob("/dev/kfd")]):
        argv += ["--dev-bind-try", device, device]
    for folder in masks:
        argv += [*(limit if folder in _TEMPORARY else ()), "--tmpfs", folder]
    for path in ("/run/current-system", "/run/opengl-driver", _resolver()):
        if path:
            argv += ["--ro-bind-try", path, path]
    return argv


def _to_split(wanted: Sequence[str], masks: Sequence[str]) -> list[str]:
    """The folders of the host that lack the folders `wanted`, which nobody can make there: they are read-only."""
    found = set()
    for path in wanted:
        there = path
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        if there not in (path, "/") and not is_masked(path, masks):
            found.add(there)
    return sorted(found)


def _seal(masks: Sequence[str]) -> list[str]:
    """Nothing may be written to the new, empty folders either: it would outlive the datum."""
    # /proc: without a capability, root can still write /proc/sys, and with core_pattern start programs outside.
    sealed = (*(folder for folder in masks if folder not in _TEMPORARY), "/dev", "/proc", "/")
    return [text for folder in sealed for text in ("--remount-ro", folder)]


@functools.lru_cache(maxsize=1)
def _memory() -> int:
    """Bytes of memory that this machine, or the container that we are in, has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            total = min(total, int(Path(path).read_text()))
    return total


@functools.lru_cache(maxsize=1)
def _has_mqueue() -> bool:
    with contextlib.suppress(OSError):
        return "mqueue" in Path("/proc/filesystems").read_text().split()
    return False


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


def _usual_masks() -> tuple[str, ...]:
    return tuple(sorted({*masked_homes(), *_TEMPORARY, "/run"}))


def masked(stage: Stage) -> tuple[str, ...]:
    """The folders in which a stage sees nothing of the host's; a parent comes before its children.

    Under ``strict`` these are all but what is installed, and the repository wherever it lies: its configuration and
    DVC's may hold passwords.
    """
    if stage.sandbox != "strict":
        return _usual_masks()
    top = {entry.path for entry in os.scandir("/") if entry.is_dir(follow_symlinks=False)}
    data = {path for path in top if path[1:] not in _SYSTEM | _SPECIAL}
    places = (stage.cache_dir, stage.slots_dir, stage.code_dir)
    return tuple(sorted({*_usual_masks(), *data, *filter(None, map(_repository, places))}))


def _repository(path: Path) -> str:
    """The repository that `path` lies in the git folder of, with its working tree; "" if in none."""
    for folder in path.parents:
        if (folder / "HEAD").is_file() and (folder / "objects").is_dir():
            return os.path.realpath(folder.parent if folder.name == ".git" else folder)
    return ""


def is_masked(path: str, masks: Sequence[str]) -> bool:
    """Whether `path` lies in one of the folders `masks`."""
    return any(_is_below(path, folder) for folder in masks)


def _visible(python: str, env: dict[str, str], masks: Sequence[str]) -> list[str]:
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
    # A home itself, or a folder around it, is never shown: that would undo the mask.  Nor what has programs and
    # libraries beside key rings and tokens, as a whole.
    private = [*masks, *(f"{_home()}/{name}" for name in (".local/share", ".config", ".cache"))]
    shown: list[str] = []
    for path in sorted(os.path.normpath(path) for path in wanted if path.startswith("/")):
        exposes = any(_is_below(folder, path) for folder in private)
        if not exposes and not is_masked(path, shown) and is_masked(path, masks) and os.path.exists(path):
            shown.append(path)  # `exists` is False where we may not look
    return shown


def _links_to(program: str) -> list[str]:
    """The symlinks by which a program is found, one after the other, as `uv` and `pyenv` make them."""
    found: list[str] = []
    while os.path.islink(program) and program not in found:
        found.append(program)
        program = os.path.normpath(os.path.join(os.path.dirname(program), os.readlink(program)))
    return found


def _real_interpreter() -> str:
    return os.path.realpath(sys.executable)


@functools.lru_cache(maxsize=16)
def _prefixes(python: str) -> tuple[str, ...]:
    """Folders that an interpreter needs: its prefixes, the import path, editable installs, the real binary's tree."""
    if python == sys.executable:
        ours = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # what stages do not inherit
        paths = [sys.prefix, sys.base_prefix, *(path for path in sys.path if path not in ours)]
    else:
        ask = "import sys; print(sys.prefix, sys.base_prefix, *sys.path, sep='\\n')"
        try:
            done = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, timeout=60, check=True,
                                  stdin=subprocess.DEVNULL, env=inherited_environment())  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return ()  # the command that needs it will say so
        paths = done.stdout.splitlines()
    paths += [folder for path in paths for folder in _editable(path)]
    for binary in (python, os.path.realpath(python)):
        folder = os.path.dirname(binary)
        paths.append(os.path.dirname(folder) if os.path.basename(folder) == "bin" else folder)
    return tuple(path for path in paths if path.startswith("/"))


def _editable(folder: str) -> list[str]:
    """The projects that ``pip install -e`` put on an import path's `folder`: a finder may lead there, no path."""
    found = []
    for record in glob.glob(f"{glob.escape(folder)}/*.dist-info/direct_url.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
            said = json.loads(Path(record).read_text())
            if said.get("dir_info", {}).get("editable"):
                found.append(unquote(urlsplit(said["url"]).path))
    return found
