"""A pipeline as people wrote it, both dialects of Pachyderm's made one, and what of it may change a result.

Knows no git: reading and recording specs is the business of others.  Errors name file, line and field.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gitpipe.commit import git_branch
from gitpipe.errors import BadSpec, GitpipeError
from gitpipe.inputs import COMBINED, Cron, Input, Pfs, Trigger

if TYPE_CHECKING:
    from gitpipe.spec_form import InputForm, LimitsForm, PfsForm, RequestsForm, SpecForm, TransformForm
    from gitpipe.spec_text import Document, Path

DATUM_TRIES = 3
TRIGGERED = "-trigger-"  # in the name of a branch that a pipeline has for itself: <pipeline>-trigger-<n>
EVERY_JOB = "every_job"
NO_JOB = "none yet"  # stands for the job that there is to be
HOST = "host"  # stands for the image where the host's programs run


@dataclass(frozen=True, slots=True)
class SecretUse:
    """What a pipeline does with a secret, never its value: the value of `key` goes into the variable `env_var`, or
    appears as a file of that name in the folder `mount_path`, which without `key` has all keys."""

    name: str
    key: str = ""
    mount_path: str = ""
    env_var: str = ""

    def to_dict(self) -> dict[str, str]:
        """Without what is left at its default."""
        values = {"name": self.name, "key": self.key, "mount_path": self.mount_path, "env_var": self.env_var}
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class Transform:
    """What runs on a datum: `cmd`, or the Python callable `python` (``module:function``), never both.

    Neither means the ENTRYPOINT of `image`.
    `env` is sorted by name.  `err_cmd`, `err_stdin` run where the command failed.
    """

    cmd: tuple[str, ...] = ()
    stdin: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    image: str = ""
    working_dir: str = ""
    accept_return_code: tuple[int, ...] = ()
    err_cmd: tuple[str, ...] = ()
    err_stdin: tuple[str, ...] = ()
    python: str = ""
    secrets: tuple[SecretUse, ...] = ()

    @property
    def container_image(self) -> str:
        """The image that it may run in, or "": a callable runs in this machine's own Python."""
        return "" if self.python else self.image

    def to_dict(self) -> dict[str, Any]:
        """Without what is left at its default."""
        values: dict[str, Any] = {
            "image": self.image,
            "cmd": list(self.cmd),
            "stdin": list(self.stdin),
            "python": self.python,
            "env": dict(self.env),
            "secrets": [secret.to_dict() for secret in self.secrets],
            "working_dir": self.working_dir,
            "accept_return_code": list(self.accept_return_code),
            "err_cmd": list(self.err_cmd),
            "err_stdin": list(self.err_stdin),
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class Resources:
    """What each worker needs, or may use: CPUs, bytes of memory and of disk, GPUs and what Kubernetes calls them."""

    cpu: float = 0.0
    memory: int = 0
    gpu: int = 0
    gpu_type: str = ""
    disk: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Without what is not given."""
        gpu: Any = {"type": self.gpu_type, "number": self.gpu} if self.gpu_type else self.gpu
        values = {"cpu": self.cpu, "memory": self.memory, "gpu": gpu, "disk": self.disk}
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class Spec:
    """One pipeline.

    Attributes:
        constant, coefficient: how many workers: that many, or so many a CPU; see `parallelism`.
        code: paths of the code, from the spec file's folder; None is that whole folder.
        salt: changed by gitpipe to have everything processed again; "" otherwise.
        datum_tries: how often a failing datum is tried.
        datum_timeout, job_timeout: seconds.
        every_job: each job runs all its datums; else it skips those that were done before.
        commits: ``every``, ``newest``, or "" for what the repository says.
        requests, limits: of each worker; no result depends on them.
        ignored: fields that were given and have no meaning here (``pod_spec``, ``transform.user``), sorted.
    """

    name: str
    transform: Transform
    input: Input
    description: str = ""
    constant: int = 0
    coefficient: float = 0.0
    code: tuple[str, ...] | None = None
    salt: str = ""
    datum_tries: int = DATUM_TRIES
    datum_timeout: float | None = None
    job_timeout: float | None = None
    every_job: bool = False
    output_branch: str = "master"
    writable_inputs: bool = False
    commits: str = ""
    requests: Resources = Resources()
    limits: Resources = Resources()
    ignored: tuple[str, ...] = field(default=())

    @property
    def output(self) -> str:
        """The git branch that it owns: that of its name, or ``<name>@<output_branch>``."""
        return git_branch(self.name, self.output_branch)

    @property
    def parallelism(self) -> int:
        """Workers to start on this machine, at least 1."""
        return max(1, self.constant or int(self.coefficient * (os.cpu_count() or 1)))

    @property
    def gpus(self) -> int:
        """GPUs of each worker: as on Kubernetes a limit counts as the request where there is none."""
        return self.requests.gpu or self.limits.gpu

    def to_dict(self) -> dict[str, Any]:
        """As it is recorded: 2.x names, snake case, without what is left at its default."""
        values: dict[str, Any] = {
            "pipeline": {"name": self.name},
            "description": self.description,
            "transform": self.transform.to_dict(),
            "input": self.input.to_dict(),
            "parallelism_spec": self._parallelism_spec(),
            "datum_tries": self.datum_tries if self.datum_tries != DATUM_TRIES else None,
            "datum_timeout": _duration(self.datum_timeout),
            "job_timeout": _duration(self.job_timeout),
            "reprocess_spec": EVERY_JOB if self.every_job else None,
            "output_branch": self.output_branch if self.output_branch != "master" else None,
            "code": None if self.code is None else list(self.code),
            "writable_inputs": self.writable_inputs,
            "commits": self.commits,
            "resource_requests": self.requests.to_dict(),
            "resource_limits": self.limits.to_dict(),
            "salt": self.salt,
            "ignored": list(self.ignored),
        }
        # "code": [] says that there is none; left out, it would mean the whole folder.
        return {name: value for name, value in values.items() if value or (name == "code" and value is not None)}

    def _parallelism_spec(self) -> dict[str, Any]:
        if self.constant:
            return {"constant": self.constant}
        return {"coefficient": self.coefficient} if self.coefficient else {}

    def to_json(self) -> bytes:
        """The normalised form: the same bytes for the same pipeline, on any machine."""
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, source: str = "spec.json") -> Spec:
        """The inverse of `to_json`.

        Raises:
            BadSpec: as `load_specs`, for a record that was tampered with.
        """
        from gitpipe.spec_text import documents

        found = documents(data, source)
        if len(found) != 1:
            raise BadSpec(f"{source}: expected one pipeline, got {len(found)}")
        return _spec(found[0], source, recorded=True)

    def transform_digest(self, code_tree: str, image: str = HOST, job: str = "") -> str:
        """64 hex digits that stand for all that may change a result, beside the input files.

        Not parallelism, timeouts, tries, resources or description, nor which commits are read.  What is left at its
        default does not count, so that a field added later leaves the digests of older specs as they are.

        Args:
            code_tree: the git tree id of the pipeline's code.
            image: the id of the container image that it runs in (``sha256:…``), or `HOST`.
            job: the id of the job; it counts only with `every_job`, where what another job has done is not its own.
        """
        text = json.dumps(self.transform_parts(code_tree, image, job), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def transform_parts(self, code_tree: str, image: str = HOST, job: str = "") -> dict[str, Any]:
        """What `transform_digest` is the digest of, field by field: what differs here is why datums run again."""
        parts = {**self.transform.to_dict(), "image": image, "code": code_tree}
        parts["salt"], parts["writable_inputs"] = self.salt, self.writable_inputs
        parts["job"] = (job or NO_JOB) if self.every_job else ""
        return {name: value for name, value in parts.items() if value}


def load_specs(text: bytes, source: str) -> list[Spec]:
    """The pipelines in a spec file: JSON (one, several in a row, or an array) or YAML (also several documents).

    Args:
        text: the file's bytes.
        source: its name, as messages should show it.

    Raises:
        BadSpec: ``file:line: field: what was expected``, for the first thing that is wrong.
    """
    from gitpipe.spec_text import documents

    specs: dict[str, Spec] = {}
    for document in documents(text, source):
        spec = _spec(document, source, recorded=False)
        if spec.name in specs:
            line = document.line_of(("pipeline", "name"))
            raise BadSpec(f"{source}:{line}: pipeline.name: {spec.name!r} stands twice in this file")
        specs[spec.name] = spec
    return list(specs.values())


def spec_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec file: one pipeline or an array, fields in snake or camel case."""
    from gitpipe.spec_form import schema

    return schema()


def _spec(document: Document, source: str, recorded: bool) -> Spec:
    from gitpipe.spec_form import FieldError, parse

    try:
        return _from_form(parse(document.value), recorded)
    except FieldError as e:
        name = _path_text(e.path)
        message = f"{name}: {e.message}" if name else e.message
        raise BadSpec(f"{source}:{document.line_of(e.path)}: {_printable(message)}") from None


def _from_form(form: SpecForm, recorded: bool) -> Spec:
    name = form.pipeline.name
    return Spec(
        name=name,
        transform=_transform(form.transform),
        input=_input(form.input, name, form.output_branch),
        description=form.description,
        constant=form.parallelism_spec.constant or 0,
        coefficient=form.parallelism_spec.coefficient or 0.0,
        code=None if form.code is None else tuple(dict.fromkeys(form.code)),
        salt=str(form.salt or "") if recorded else "",
        datum_tries=form.datum_tries or DATUM_TRIES,
        datum_timeout=form.datum_timeout,
        job_timeout=form.job_timeout,
        every_job=form.reprocess_spec == EVERY_JOB,
        output_branch=form.output_branch,
        writable_inputs=form.writable_inputs,
        commits=form.commits or "",
        requests=_resources(form.resource_requests),
        limits=_resources(form.resource_limits),
        ignored=tuple(map(str, form.ignored or ())) if recorded else _ignored(form),
    )


def _resources(form: RequestsForm | LimitsForm) -> Resources:
    gpu = form.gpu
    return Resources(form.cpu, form.memory, gpu.number if gpu else 0, gpu.type if gpu else "", form.disk)


def _transform(form: TransformForm) -> Transform:
    from gitpipe.spec_form import FieldError

    if form.cmd and form.python:
        raise FieldError(("transform", "python"), 'expected "cmd" or "python", got both')
    if form.stdin and form.python:
        raise FieldError(("transform", "stdin"), "a Python callable has no standard input: expected none")
    if not form.cmd and not form.python and not form.image:
        raise FieldError(("transform",), 'expected "cmd", a list of strings such as ["python", "train.py"]')
    if form.cmd and not form.cmd[0]:
        raise FieldError(("transform", "cmd", 0), "expected the name of a program, got an empty string")
    return Transform(
        cmd=tuple(form.cmd or ()),
        stdin=tuple(form.stdin),
        env=tuple(sorted(form.env.items())),
        image=form.image,
        working_dir=form.working_dir,
        accept_return_code=tuple(sorted(set(form.accept_return_code))),
        err_cmd=tuple(form.err_cmd),
        err_stdin=tuple(form.err_stdin),
        python=form.python or "",
        secrets=tuple(SecretUse(**each.model_dump()) for each in form.secrets),
    )


def _input(form: InputForm, pipeline: str, output_branch: str) -> Input:
    return _build_input(form, ("input",), pipeline, output_branch, itertools.count(1))


def _build_input(form: InputForm, path: Path, pipeline: str, output_branch: str, numbers: Iterator[int]) -> Input:
    """An input and those within; `numbers` number the branches that triggers move, over all of the spec."""
    from gitpipe.spec_form import CronForm, FieldError, PfsForm

    kind, body = form.parts()
    (spelled,) = form.model_fields_set  # "atom" where 1.x wrote it, so that the line is found
    path = (*path, spelled)
    try:
        if isinstance(body, PfsForm):
            leaf = _pfs(body, pipeline, numbers)
            if (leaf.repo, leaf.branch) == (pipeline, output_branch):
                raise FieldError((*path, "repo"), f"pipeline {pipeline!r} cannot read its own output")
            return leaf
        if isinstance(body, CronForm):
            values = body.model_dump(exclude={"project", "commit"})
            cron = Cron(**{**values, "repo": body.repo or f"{pipeline}_{body.name}"})
            if cron.repo == pipeline:
                raise FieldError((*path, "repo"), f"pipeline {pipeline!r} cannot read its own output")
            return cron
        inputs = tuple(
            _build_input(each, (*path, index), pipeline, output_branch, numbers) for index, each in enumerate(body)
        )
        return COMBINED[kind](inputs)
    except GitpipeError as e:
        raise FieldError(path, str(e)) from None


def _pfs(form: PfsForm, pipeline: str, numbers: Iterator[int]) -> Pfs:
    values = form.model_dump(exclude={"project", "repo_type", "trigger"})
    if form.trigger is not None:
        values["trigger"] = Trigger(**form.trigger.model_dump())
        if "branch" not in form.model_fields_set:
            values["branch"] = f"{pipeline}{TRIGGERED}{next(numbers)}"
    return Pfs(**{**values, "name": form.name or ""})


def _ignored(form: SpecForm) -> tuple[str, ...]:
    own = {"salt"} if form.salt else set()  # Pachyderm records one, too; ours is not for people to set
    return tuple(sorted(form.unused() | own))


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else f"{Decimal(repr(seconds)).normalize():f}s"


def _path_text(path: Path) -> str:
    """``("input", "cross", 0, "pfs")`` -> ``input.cross[0].pfs``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _printable(text: str) -> str:
    """A spec may come from anywhere: its line breaks and escape sequences are shown, not obeyed."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
