"""The form of a pipeline spec as people write it: which fields there are, of what type, in both dialects.

Values in, checked values out; what the fields mean is `gitpipe.spec`'s.  The one module that imports pydantic, which
costs 80 ms, so that it is imported only where a spec is read.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    WithJsonSchema,
)
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

from gitpipe.commit import DEFAULT_BRANCH, check_name, check_path
from gitpipe.errors import GitpipeError
from gitpipe.globs import Glob
from gitpipe.inputs.pfs import check_branch, check_input_name
from gitpipe.schedule import Schedule, duration, moment, rfc3339, size
from gitpipe.spec_text import Path, snake

MAX_DEPTH = 40  # objects and lists in each other; a cross in a cross takes three
Nested = (dict, list)
RESERVED = ("__spec__", "HEAD")
OCCUPIED = ("pfs", "code", "proc", "sys", "dev")
"""Folders of a stage in which nothing else can be put."""
SYSTEM = frozenset("bin sbin lib lib32 lib64 libx32 usr etc opt var run nix gnu".split())  # noqa: SIM905
"""Folders below which something can be put, but not in their place."""


class FieldError(Exception):
    """What is wrong with the field at `path` (snake case)."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


class _NotUsed:
    """Marks a field that means something on Kubernetes only: any value will do, and none has an effect."""


def _text(text: str) -> str:
    """What can be handed to a program and written to a file."""
    if "\0" in text:
        raise ValueError("a NUL character cannot be handed to a program")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("half a surrogate pair is not a character")
    return text


def _pipeline_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is taken; choose another name")
    return check_name("pipeline", name)


def _repo_name(name: str) -> str:
    return check_name("repo", name)


def _glob(pattern: str) -> str:
    if pattern != "/":
        Glob(_text(pattern))
    return pattern


def _worded(check: Any) -> AfterValidator:
    """Our own checks raise one worded line; pydantic wants ValueError."""

    def run(value: str) -> str:
        try:
            return str(check(value))
        except GitpipeError as e:
            raise ValueError(str(e)) from None

    return AfterValidator(run)


def _schedule(text: str) -> str:
    Schedule(_text(text))
    return text


def _size(text: str) -> str:
    size(text)
    return text


def _moment(value: Any) -> str:
    """As RFC 3339 in UTC; YAML makes a date of a time that is not quoted."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return rfc3339(aware.timestamp())
    if not isinstance(value, str):
        raise ValueError(f'expected a time such as "2026-01-01T00:00:00Z", got {shown(value)}')
    return rfc3339(moment(value))


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {shown(value)}")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _code_path(path: str) -> str:
    plain = path.strip().rstrip("/")
    while plain.startswith("./"):
        plain = plain[2:].lstrip("/")
    if plain in ("", ".") and not path.startswith("/"):
        return "."
    if path.startswith("/") or ".." in plain.split("/"):
        raise ValueError(f"expected a path below the spec's folder, got {path!r}")
    return check_path(plain)


def _callable(name: str) -> str:
    if not re.match(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", name):
        raise ValueError(f'expected "module:function", got {name!r}')
    return name


def _env_name(name: str) -> str:
    if not name or "=" in name:
        raise ValueError(f"{name!r} cannot be the name of an environment variable")
    return _text(name)


def _secret_name(name: str) -> str:
    """A word that can be a file's name, as in Kubernetes."""
    if name and not re.match(r"(?!\.\.?\Z|\.\.)[A-Za-z0-9._-]{1,253}\Z", name):
        raise ValueError(f"expected letters, digits, '.', '_' and '-', got {name!r}")
    return name


def _mount_path(path: str) -> str:
    if not path:
        return path
    plain = posixpath.normpath(_text(path))
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"expected the absolute path of a folder, got {path!r}")
    plain = "/" + plain.lstrip("/")
    if plain == "/" or plain.split("/")[1] in OCCUPIED:
        raise ValueError(f"expected a folder elsewhere than in /{', /'.join(OCCUPIED)}, got {path!r}")
    if plain[1:] in SYSTEM:
        raise ValueError(f"{plain} is full of what every program needs: expected a folder below it, got {path!r}")
    return plain


def _variable(name: str) -> str:
    if name in ("PATH", "HOME", "TMPDIR") or name.startswith(("PACH_", "GITPIPE_")):
        raise ValueError(f"{name} is set by gitpipe itself: expected a variable of the stage's own")
    return _env_name(name) if name else ""


def _cpus(value: Any) -> Any:
    """A number, or ``500m`` as Kubernetes writes half of one."""
    if isinstance(value, str) and re.match(r"\d{1,9}m\Z", value):
        return int(value[:-1]) / 1000
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number, got {shown(value)}")
    return value


def _memory(value: Any) -> int:
    """Bytes, from a number or a size with its unit."""
    if value == "0":
        return 0
    if isinstance(value, str):
        return size(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'expected a size such as "512Mi" or "1G", got {shown(value)}')
    return value


def _gpus(value: Any) -> Any:
    return value if isinstance(value, dict) else {"number": value}


Text = Annotated[str, AfterValidator(_text)]
EnvName = Annotated[str, AfterValidator(_env_name)]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[
    Whole,
    Field(ge=0, le=10_000),
    # As a string in specs of Pachyderm 1.x.
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 10_000}, {"type": "string", "pattern": "^[0-9]+$"}]}
    ),
]
Cpus = Annotated[
    float,
    BeforeValidator(_cpus),
    Field(ge=0, le=10_000, allow_inf_nan=False),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 10_000}, {"type": "string", "examples": ["500m"]}]}
    ),
]
Memory = Annotated[
    int,
    BeforeValidator(_memory),
    Field(le=1 << 60),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "examples": ["512Mi", "1G"]}]}),
]
Seconds = Annotated[float, BeforeValidator(duration), WithJsonSchema({"type": "string", "examples": ["90s", "1h30m"]})]
CodePaths = Annotated[
    list[Annotated[str, _worded(_code_path)]],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
NotUsed = Annotated[Any, _NotUsed(), Field(description="Accepted and ignored: it means something on Kubernetes only.")]


class Form(BaseModel):
    """A JSON object whose fields are known, in snake or camel case; null is the same as leaving a field out."""

    model_config = ConfigDict(extra="forbid")
    refused: ClassVar[dict[str, str]] = {}  # fields of Pachyderm's that are not to be accepted -> why
    skipped: ClassVar[tuple[str, ...]] = ()  # keys that say nothing about a pipeline

    @validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise PydanticCustomError("form", "{message}", {"message": f"expected an object, got {shown(data)}"})
        out: dict[str, Any] = {}
        for key, value in data.items():
            if key in cls.skipped:
                continue
            name = snake(str(key))
            if name in cls.refused and value not in (None, False):
                raise _field_error(key, cls.refused[name])
            if name in out:
                raise _field_error(key, f"is given twice, as {name} and {key}")
            if name not in cls.model_fields and name not in cls.refused:
                raise _field_error(key, cls._unknown(name))
            if value is not None and name in cls.model_fields:
                out[name] = value
        return out

    @classmethod
    def _unknown(cls, name: str) -> str:
        near = difflib.get_close_matches(name, cls.model_fields, 1)
        return "is not a field here" + (f"; did you mean {near[0]!r}?" if near else "")

    def unused(self) -> set[str]:
        """The fields that were given and are ignored, those within others too: ``input.cross.pfs.project``."""
        fields = type(self).model_fields
        found = {name for name in self.model_fields_set if any(isinstance(m, _NotUsed) for m in fields[name].metadata)}
        for name in self.model_fields_set:
            value = getattr(self, name)
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, Form):
                    found |= {f"{name}.{each}" for each in inner.unused()}
        return found


class Named(Form):
    name: Annotated[str, _worded(_pipeline_name)]
    project: NotUsed = None


class SecretForm(Form):
    name: Annotated[str, Field(min_length=1), AfterValidator(_secret_name)] = Field(
        description="The secret: a folder of that name in the folder that git config gitpipe.secrets names."
    )
    key: Annotated[str, AfterValidator(_secret_name)] = Field("", description="Which of its values: a file in there.")
    mount_path: Annotated[str, AfterValidator(_mount_path)] = Field(
        "", description="The folder in which it appears as a file; without key, all of the secret's keys do."
    )
    env_var: Annotated[str, AfterValidator(_variable)] = Field(
        "", description="The environment variable that holds the value of key."
    )

    @validator(mode="after")
    def _of_a_key(self) -> SecretForm:
        if self.env_var and not self.key:
            raise _field_error("key", "is missing: env_var holds the value of one key")
        return self


class TransformForm(Form):
    refused: ClassVar[dict[str, str]] = {
        "datum_batching": "datum batching is not supported; one run of the command gets one datum",
    }
    cmd: list[Text] | None = Field(
        None,
        min_length=1,
        description="The program and its arguments, read by no shell; without, the image's ENTRYPOINT.",
    )
    stdin: list[Text] = Field([], description="Lines for the program's standard input, such as commands for sh.")
    env: dict[EnvName, Text] = Field({}, description="Environment variables; recorded in git, so no place for secrets.")
    secrets: list[SecretForm] = Field([], description="Values from outside git, see docs/secrets.md.")
    image: Text = Field(
        "", description="A container image, for podman or docker; its id is part of a datum's identity."
    )
    working_dir: Text = Field("", description="Where the program starts; by default in the code, /code.")
    accept_return_code: list[Annotated[Whole, Field(ge=0, le=255)]] = Field(
        [], description="Exit statuses that count as success, beside 0."
    )
    err_cmd: list[Text] = Field(
        [], description="What runs where cmd failed; if it ends well, the job goes on without that datum."
    )
    err_stdin: list[Text] = Field([], description="Lines for the standard input of err_cmd.")
    python: Annotated[str, AfterValidator(_callable)] | None = Field(
        None, description="A Python callable in the pipeline's code, module:function, in place of cmd."
    )
    user: NotUsed = None
    debug: NotUsed = None
    image_pull_secrets: NotUsed = None
    dockerfile: NotUsed = None
    build: NotUsed = None
    memory_volume: NotUsed = None


class TriggerForm(Form):
    refused: ClassVar[dict[str, str]] = {
        "rate_limit_spec": "a rate limit is not supported; cron_spec moves the branch with the clock",
    }
    branch: Annotated[str, _worded(check_branch)] = Field(DEFAULT_BRANCH, description="The branch to watch.")
    size: Annotated[str, AfterValidator(_size)] = Field("", description="Move when it has so much more data, as 1MB.")
    commits: Count = Field(0, description="Move when it has so many data commits more.")
    cron_spec: Annotated[str, AfterValidator(_schedule)] = Field(
        "", description="Move when this schedule has struck since the first of these commits, as @daily."
    )
    all: StrictBool = Field(False, description="Move when all conditions hold that are given, not any of them.")


class CronForm(Form):
    name: Annotated[str, _worded(check_input_name)] = Field(
        description="The folder below /pfs that each tick's file appears in."
    )
    spec: Annotated[str, AfterValidator(_schedule)] = Field(
        description='When it ticks, in UTC: "@every 10s", "@daily", or minute, hour, day, month, weekday.'
    )
    repo: Annotated[str, _worded(_repo_name)] | None = Field(
        None, description="The repo that the ticks are committed to; by default <pipeline>_<name>."
    )
    start: Annotated[str, BeforeValidator(_moment)] = Field("", description="No tick up to this time, RFC 3339.")
    overwrite: StrictBool = Field(False, description="Each tick's file replaces all earlier ones.")
    project: NotUsed = None
    commit: NotUsed = None


class PfsForm(Form):
    refused: ClassVar[dict[str, str]] = {
        "commit": "an input pinned to a commit is not supported; name a branch instead",
        "s3": "inputs through an S3 gateway are not supported; read the files under /pfs",
    }
    repo: Annotated[str, _worded(_repo_name)] = Field(description="The repo to read: a git branch.")
    glob: Annotated[str, _worded(_glob)] = Field(
        description='How its files are cut into datums: "/" is all of them in one, "/*" each file or folder at the top.'
    )
    name: Annotated[str, _worded(check_input_name)] | None = Field(
        None, description="The folder below /pfs that the files appear in; by default the repo's name."
    )
    branch: Annotated[str, _worded(check_branch)] = Field("master", description="The repo's branch.")
    lazy: StrictBool = Field(False, description="Accepted; files are linked, not copied, so there is nothing to defer.")
    empty_files: StrictBool = Field(False, description="Show the files' names only, without their content.")
    join_on: Text = Field("", description="In a join, the key: $1 is what the glob's first (…) captured.")
    outer_join: StrictBool = Field(False, description="In a join, keep what has no partner.")
    group_by: Text = Field("", description="In a group, the key: $1 is what the glob's first (…) captured.")
    trigger: TriggerForm | None = Field(
        None, description="Read a branch of the pipeline's own, which moves to another one when a condition holds."
    )
    project: NotUsed = None
    repo_type: NotUsed = None


class InputForm(Form):
    """Exactly one kind of input."""

    refused: ClassVar[dict[str, str]] = {
        "git": "git inputs are not supported; put the files into a repo",
    }
    pfs: PfsForm | None = None
    atom: PfsForm | None = Field(None, description="What Pachyderm 1.x calls pfs.")
    cron: CronForm | None = Field(None, description="A repo that the clock writes to.")
    cross: list[InputForm] | None = Field(None, min_length=1)
    union: list[InputForm] | None = Field(None, min_length=1)
    join: list[InputForm] | None = Field(None, min_length=1)
    group: list[InputForm] | None = Field(None, min_length=1)

    @validator(mode="after")
    def _one_kind(self) -> InputForm:
        if len(self.model_fields_set) != 1:
            given = ", ".join(sorted(self.model_fields_set)) or "none"
            raise ValueError(f"expected exactly one of pfs, cron, cross, union, join, group; got {given}")
        return self

    def parts(self) -> tuple[str, PfsForm | CronForm | list[InputForm]]:
        """The kind, with ``atom`` resolved, and what it holds."""
        (kind,) = self.model_fields_set
        return ("pfs" if kind == "atom" else kind), getattr(self, kind)


class ParallelismForm(Form):
    constant: Count | None = Field(default=None, description="So many workers.")
    coefficient: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = Field(
        default=None, description="So many workers for each CPU."
    )
    strategy: str | None = Field(
        default=None, description="Pachyderm 1.4 only; what counts is constant or coefficient."
    )

    @validator(mode="after")
    def _one_of_both(self) -> ParallelismForm:
        if self.constant and self.coefficient:
            raise ValueError("expected constant or coefficient, got both")
        return self


class GpuForm(Form):
    number: Annotated[Whole, Field(ge=0, le=1000)] = Field(description="So many GPUs.")
    type: Text = Field(default="", description="As Kubernetes names them; any GPU of a node will do here.")


Gpus = Annotated[GpuForm, BeforeValidator(_gpus)]


class RequestsForm(Form):
    """What each worker needs for itself."""

    cpu: Cpus = Field(default=0.0, description="CPUs of each worker; only Ray reserves them.")
    memory: Memory = Field(
        default=0, description='Memory of each worker, such as "512Mi" or "1G"; only Ray reserves it.'
    )
    gpu: Gpus | None = Field(default=None, description="GPUs of each worker, which Ray shows it.")
    disk: Annotated[Memory, _NotUsed()] = Field(default=0, description="Accepted and ignored.")


class LimitsForm(Form):
    """What each worker may use at most."""

    cpu: Annotated[Cpus, _NotUsed()] = Field(default=0.0, description="Accepted and ignored.")
    memory: Annotated[Memory, _NotUsed()] = Field(default=0, description="Accepted and ignored.")
    gpu: Gpus | None = Field(default=None, description="As a request, where there is none, as on Kubernetes.")
    disk: Annotated[Memory, _NotUsed()] = Field(default=0, description="Accepted and ignored.")


class SpecForm(Form):
    """One pipeline."""

    skipped: ClassVar[tuple[str, ...]] = ("$schema",)
    refused: ClassVar[dict[str, str]] = {
        "inputs": 'the old list of inputs is not supported; write "input": {"cross": [{"pfs": {…}}, …]}',
        "spout": "spouts are not supported; a pipeline needs an input",
        "service": "services are not supported, as a job has to end; serve its output with a program of your own",
        "tf_job": "TensorFlow jobs are not supported; give a transform",
        "s3_out": "output through an S3 gateway is not supported; write files to /pfs/out",
    }
    pipeline: Named
    transform: TransformForm
    input: InputForm
    description: Text = Field("", description="A sentence for list-pipeline and people.")
    parallelism_spec: ParallelismForm = Field(ParallelismForm(), description="How many workers.")
    datum_tries: Count = Field(0, description="How often a failing datum is tried; by default 3 times.")
    datum_timeout: Seconds | None = Field(None, description='The longest that a datum may take, such as "90s".')
    job_timeout: Seconds | None = Field(None, description='The longest that a job may take, such as "1h30m".')
    reprocess_spec: Literal["until_success", "every_job"] | None = Field(
        None, description="Whether a datum that was done is skipped from then on, or each job runs all of its datums."
    )
    output_branch: Annotated[str, _worded(check_branch)] = Field(
        "master", description="The branch of its own repo that the pipeline writes."
    )
    code: CodePaths | None = Field(
        None, description="Path or paths of the pipeline's code, from the folder of the spec file; [] is none."
    )
    writable_inputs: StrictBool = Field(False, description="Give the code private copies of its inputs to write to.")
    commits: Literal["every", "newest"] | None = Field(
        None, description="Whether every input commit gets a job, or a newer one supersedes those that still wait."
    )
    resource_requests: RequestsForm = Field(RequestsForm(), description="What each worker needs for itself, on Ray.")
    resource_limits: LimitsForm = Field(LimitsForm(), description="What each worker may use; only GPUs count.")
    # What gitpipe writes into a spec that it records; read back by `Spec.from_json` alone.
    salt: Annotated[Any, Field(exclude=True)] = None
    ignored: Annotated[Any, Field(exclude=True)] = None
    sidecar_resource_requests: NotUsed = None
    sidecar_resource_limits: NotUsed = None
    pod_spec: NotUsed = None
    pod_patch: NotUsed = None
    scheduling_spec: NotUsed = None
    tolerations: NotUsed = None
    standby: NotUsed = None
    autoscaling: NotUsed = None
    scale_down_threshold: NotUsed = None
    egress: NotUsed = None
    metadata: NotUsed = None
    determined: NotUsed = None
    cache_size: NotUsed = None
    enable_stats: NotUsed = None
    batch: NotUsed = None
    max_queue_size: NotUsed = None
    chunk_spec: NotUsed = None
    datum_set_spec: NotUsed = None
    hashtree_spec: NotUsed = None
    update: NotUsed = None
    reprocess: NotUsed = None
    spec_commit: NotUsed = None
    dry_run: NotUsed = None
    maximum_expected_uptime: NotUsed = None


RECORDED = ("salt", "ignored")
"""Fields of `SpecForm` that people do not write."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a spec file, from the same types that check one."""
    made = SpecForm.model_json_schema(ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = made.pop("$defs")
    for name in RECORDED:
        del made["properties"][name]
    made["properties"]["$schema"] = {"type": "string"}
    definitions["SpecForm"] = made
    for definition in definitions.values():
        fields = definition.get("properties", {})
        definition["properties"] = fields | {camel(name): value for name, value in fields.items()}
        for field in fields.values():
            field.pop("title", None)
            if field.get("default", "") is None:
                del field["default"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipelines of gitpipe, as Pachyderm 1.x and 2.x write them",
        "anyOf": [
            {"$ref": "#/$defs/SpecForm"},
            {"type": "array", "items": {"$ref": "#/$defs/SpecForm"}, "minItems": 1},
        ],
        "$defs": definitions,
    }


def camel(name: str) -> str:
    """``datum_tries`` -> ``datumTries``."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def parse(value: Any) -> SpecForm:
    """`value` as a spec.

    Raises:
        FieldError: the first thing that is wrong.
    """
    _check_depth(value)
    try:
        return SpecForm.model_validate(value)
    except ValidationError as e:
        raise _first_error(e) from None


def _check_depth(value: Any) -> None:
    """Refuse what is nested for its own sake, before anything walks it recursively."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [list(each.values()) if isinstance(each, dict) else each for each in level if isinstance(each, Nested)]
        if not inner:
            return
        level = [each for members in inner for each in members]
    raise FieldError((), "nested too deeply for a pipeline spec")


def shown(value: Any) -> str:
    """`value` as it stood in the file, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # YAML's 1:1:1 notation makes numbers of more digits than Python writes
        return "a number with too many digits"
    return text if len(text) <= 40 else text[:37] + "..."


def _field_error(key: Any, message: str) -> PydanticCustomError:
    return PydanticCustomError("field", "{message}", {"key": str(key), "message": message})


def _first_error(error: ValidationError) -> FieldError:
    first: Any = error.errors(include_url=False)[0]
    path: Path = tuple(step for step in first["loc"] if step != "[key]")
    if first["type"] == "field":
        return FieldError((*path, first["ctx"]["key"]), first["ctx"]["message"])
    return FieldError(path, _message(first, path))


def _message(first: Any, path: Path) -> str:
    kind, context = first["type"], first.get("ctx", {})
    got = shown(first["input"])
    if path[-1:] == ("cmd",) and kind == "list_type":
        return f'expected a list of strings, such as ["python", "train.py"], got {got}'
    if kind == "missing":
        return "is missing"
    if kind in ("value_error", "form"):
        return str(context["error"]) if kind == "value_error" else str(first["msg"])
    if kind == "too_short":
        return "expected at least one member, got none"
    for prefix, expected in EXPECTED.items():
        if kind.startswith(prefix):
            return f"expected {expected.format(**context)}, got {got}"
    return f"{first['msg'][:1].lower()}{first['msg'][1:]}, got {got}"


EXPECTED = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "literal": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
}
"""Beginning of pydantic's error type -> what was expected."""
