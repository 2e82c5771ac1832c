"""Run user code on one datum.  The only package that starts processes of the user's.

A `Worker` is one long-lived sandbox with one slot directory, seen inside as ``/pfs``.  Unaware of pipelines' order,
of git and of jobs: it gets a `Stage` (what to run), a `Task` (on which files), and gives a `Result`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that one stage gets, in the variable `env_var` or as the file `path`; shown to nobody else."""

    value: bytes = field(repr=False)
    env_var: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A container image as an engine has it.

    Attributes:
        name: as the spec has it.
        id: ``sha256:`` and 64 hex digits: what the name stood for when the job began.
        env: the image's own environment variables.
        working_dir: its WORKDIR, or "".
        entrypoint: its ENTRYPOINT.
        args: options for the engine's ``run``, of git config ``gitpipe.containerArgs``.
    """

    name: str
    id: str
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """What to run; picklable, the same for every datum of a pipeline version.

    Attributes:
        pipeline: the pipeline's name, for messages.
        cmd: argv.  ``python``/``python3`` as program means `python`.
        stdin: lines fed to the command's standard input (joined with newlines).
        env: the spec's ``transform.env``.
        code_dir: absolute folder that holds the pipeline's code tree, read-only; ``/code`` inside, and the cwd.
        python: absolute path of the interpreter that git config ``gitpipe.python`` names.
        cache_dir: the blob cache's ``files/md5`` folder (absolute).
        slots_dir: a folder on the cache's file system, in which workers make their slot directories.
        sandbox: ``auto`` | ``none`` | ``strict``.
        working_dir: ``transform.working_dir`` or "" for ``/code``.
        accept_return_code: exit codes beside 0 that mean success.
        writable_inputs: private, writable copies of the inputs instead of read-only links.
        image: the container image that it runs in; None: with the host's programs.
        callable: ``module:function`` in the code tree, called in place of `cmd`, which is empty then.
        preload: whether Python scripts may be run by forks of an interpreter that has done their imports.
        err_cmd: argv of what runs, where a datum's last try failed, to say whether the job can do without it; () if
            nothing does.
        err_stdin: lines fed to it.
        secrets: values that the code gets, and that are taken out of its log and of errors.
        hidden: folders of the host that no stage is to see, where there is a sandbox.
        cpus, gpus, memory: what each worker needs for itself, the last in bytes; only Ray reserves them.
    """

    pipeline: str
    cmd: tuple[str, ...]
    code_dir: Path
    python: str
    cache_dir: Path
    slots_dir: Path
    stdin: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    sandbox: str = "auto"
    working_dir: str = ""
    accept_return_code: tuple[int, ...] = ()
    writable_inputs: bool = False
    timeout: float | None = None
    image: Image | None = None
    callable: str = ""
    preload: bool = True
    err_cmd: tuple[str, ...] = ()
    err_stdin: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = field(default=(), repr=False)
    hidden: tuple[str, ...] = ()
    cpus: float = 0.0
    gpus: int = 0
    memory: int = 0

    @property
    def reserves(self) -> bool:
        return bool(self.cpus or self.gpus or self.memory)


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One input of a task: files appear as ``/pfs/<name>/<path>``; with ``empty_files`` they have no bytes."""

    name: str
    match: str
    commit: str
    files: tuple[tuple[str, str], ...]
    empty_files: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One datum to run: its id, its inputs, and the environment variables that belong to it alone.

    `last`: it is not tried again if it fails, so that ``err_cmd`` runs then.
    `live`: the file that takes what it prints, if it takes longer than a moment; "" for none.
    """

    datum: str
    inputs: tuple[TaskInput, ...]
    env: tuple[tuple[str, str], ...] = ()
    last: bool = True
    live: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one datum.

    Attributes:
        outputs: (path below ``/pfs/out``, md5, bytes), sorted by path; the blobs are in the cache, not yet synced.
        error: "" on success, else one line (``exit status 1``, ``/pfs/out/x is a socket`` …).
        recovered: it failed (`error`), and ``err_cmd`` said that this does not matter: there is no output of it.
        log: stdout and stderr of the user's code, interleaved, at most `MAX_LOG` bytes (head and tail kept).
        bytes_in, bytes_out: sizes of the input files and of the outputs.
        seconds: wall time of the user's code.
        lost: the worker died under the datum (killed, node gone): not the datum's fault, to be run again.
        no_space: the disk was full, or handles, processes or memory used up: perhaps by datums that ran meanwhile.
        note: something the job should say once ("/train.jl taken from the code tree"), or "".
        environment: what it ran in, the same object for all datums of a worker: ``engine``, ``host``, ``sandbox`` and
            what `gitpipe.stage.surroundings` finds, ``packages`` as lines of ``name==version``.
    """

    datum: str
    outputs: tuple[tuple[str, str, int], ...] = ()
    error: str = ""
    log: bytes = b""
    exit_code: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    lost: bool = False
    no_space: bool = False
    note: str = ""
    recovered: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.error and not self.lost


MAX_LOG = 1 << 18
