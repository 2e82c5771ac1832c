"""Specs as people have them: accepted unmodified, or refused in one line that says where and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.errors import BadSpec
from gitpipe.inputs import Cron, Cross, Pfs, Trigger
from gitpipe.spec import Resources, Spec, Transform, load_specs, spec_schema

# The dialect of 1.4 to 1.8: atom, a strategy, a constant that is a string, tabs.
JULIA_TRAIN = b"""{
  "pipeline": {
    "name": "model"
  },
  "transform": {
    "image": "dwhitena/julia-train:tree",
    "cmd": [ "julia", "/train.jl", "/pfs/training/iris.csv", "/pfs/out/model.jld" ]
  },
  "parallelism_spec": {
    "strategy": "CONSTANT",
    "constant": "1"
  },
  "input": {
    "atom": {
      "repo": "training",
      "glob": "/"
    }
  }
}
"""
JULIA_INFER = b"""{
  "pipeline": { "name": "inference" },
  "transform": {
    "image": "dwhitena/julia-infer",
    "cmd": [ "/bin/bash" ],
    "stdin": [
      "julia /infer.jl /pfs/model/model.jld /pfs/attributes/ /pfs/out/"
    ]
  },
  "parallelism_spec": {
    "strategy": "CONSTANT",
    "constant": "10"
  },
  "input": {
    "cross": [
      { "atom": { "repo": "attributes", "glob": "/*" } },
      { "atom": { "repo": "model", "glob": "/" } }
    ]
  }
}
"""
NEON_TRAIN = b"""{
  "pipeline": { "name": "model" },
  "transform": {
    "image": "kaixhin/neon",
    "cmd": [
	"python",
	"examples/imdb/train.py",
	"-f",
	"/pfs/training/labeledTrainData.tsv",
	"-e",
	"2",
	"-eval",
	"1",
	"-s",
	"/pfs/out/imdb.p",
	"--vocab_file",
	"/pfs/out/imdb.vocab"
    ]
  },
  "parallelism_spec": { "strategy": "CONSTANT", "constant": "10" },
  "input": { "atom": { "repo": "training", "glob": "/" } }
}
"""
GO_INFER = b"""{
  "pipeline": { "name": "infer" },
  "transform": {
    "image": "dwhitena/goinfer:3",
    "cmd": [ "/goinfer", "-inModelDir=/pfs/qcontrol", "-inVarDir=/pfs/attributes", "-outDir=/pfs/out" ]
  },
  "parallelism_spec": {
    "constant": "10"
  },
  "input": {
    "cross": [
      { "pfs": { "glob": "/*", "repo": "attributes" } },
      { "pfs": { "glob": "/", "repo": "qcontrol" } }
    ]
  }
}
"""
CAMEL = b"""{
  "pipeline": {"name": "edges", "project": {"name": "default"}},
  "description": "Edge detection",
  "transform": {
    "image": "pachyderm/opencv:1.0",
    "cmd": ["python3", "/edges.py"],
    "workingDir": "/code",
    "acceptReturnCode": ["3"],
    "env": {"someVar": "1", "MY_VAR": "2"},
    "imagePullSecrets": ["key"],
    "errCmd": ["true"]
  },
  "input": {"pfs": {"project": "default", "repo": "images", "glob": "/*", "emptyFiles": true, "joinOn": ""}},
  "parallelismSpec": {"constant": "4"},
  "datumTries": "5",
  "datumTimeout": "1h30m",
  "jobTimeout": "90.5s",
  "resourceRequests": {"cpu": 1, "memory": "1G"},
  "podPatch": "[]",
  "autoscaling": true,
  "outputBranch": null,
  "s3Out": false
}
"""
YAML = b"""# Two pipelines
pipeline:
  name: model
transform:
  cmd: [python, train.py]
  stdin:
    - one
input:
  pfs: {repo: training, glob: /}
parallelism_spec:
  coefficient: 0.5
---
pipeline: {name: infer}
transform: {python: "stages:infer"}
code: [infer.py, ./lib/]
writable_inputs: true
commits: newest
input:
  cross:
    - pfs: {repo: attributes, glob: "/*"}
    - pfs: {repo: model, glob: /}
---
"""
SMALL: dict[str, Any] = {
    "pipeline": {"name": "p"},
    "transform": {"cmd": ["true"]},
    "input": {"pfs": {"repo": "r", "glob": "/"}},
}


def load(text: bytes | dict[str, Any], source: str = "p.json") -> Spec:
    (spec,) = load_specs(text if isinstance(text, bytes) else json.dumps(text).encode(), source)
    return spec


def small(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **changes}


def test_a_cron_input_in_both_dialects() -> None:
    """Its repo and the branch of a trigger have names by default, and keep them when the record is read again."""
    spec = load(small(input={"cron": {"name": "tick", "spec": "@every 10s"}}))
    assert spec.input == Cron("tick", "p_tick", spec="@every 10s")
    assert spec.to_dict()["input"] == {"cron": {"name": "tick", "spec": "@every 10s", "repo": "p_tick"}}
    late = {"name": "t", "spec": "@daily", "repo": "days", "start": "2026-01-01T02:00:00+02:00", "overwrite": True}
    spec = load(small(input={"cron": late}))
    assert spec.input == Cron("t", "days", spec="@daily", start="2026-01-01T00:00:00Z", overwrite=True)
    assert Spec.from_json(spec.to_json()) == spec
    (dated,) = load_specs(
        b"{pipeline: {name: p}, transform: {cmd: [a]}, input: "
        b"{cron: {name: t, spec: '@daily', repo: days, start: 2026-01-01T00:00:00Z, overwrite: true}}}",
        "p.yaml",
    )
    assert dated.input == spec.input


def test_a_trigger_in_both_dialects() -> None:
    first, second = (
        {"pfs": {"repo": repo, "glob": "/", "trigger": {"branch": "staging", "cronSpec": "@daily", "commits": 3}}}
        for repo in "ab"
    )
    spec = load(small(input={"cross": [first, {"pfs": {"repo": "c", "glob": "/"}}, second]}))
    wanted = Trigger("staging", commits=3, cron_spec="@daily")
    assert [(leaf.repo, leaf.branch, leaf.trigger) for leaf in spec.input.leaves()] == [
        ("a", "p-trigger-1", wanted),
        ("c", "master", None),
        ("b", "p-trigger-2", wanted),
    ]
    assert Spec.from_json(spec.to_json()) == spec
    (leaf,) = load(small(**trigger({"size": "1MB", "all": True}, branch="mine"))).input.leaves()
    assert (leaf.branch, leaf.trigger) == ("mine", Trigger("master", "1MB", all=True))


def test_one_input_and_a_constant_that_is_a_string() -> None:
    assert load(JULIA_TRAIN) == Spec(
        name="model",
        transform=Transform(
            cmd=("julia", "/train.jl", "/pfs/training/iris.csv", "/pfs/out/model.jld"),
            image="dwhitena/julia-train:tree",
        ),
        input=Pfs("training", "training"),
        constant=1,
    )


@pytest.mark.parametrize("text", [JULIA_INFER, GO_INFER])
def test_a_cross_of_either_dialect(text: bytes) -> None:
    spec = load(text)
    assert isinstance(spec.input, Cross)
    assert [leaf.glob for leaf in spec.input.leaves()] == ["/*", "/"]
    assert spec.parallelism == 10
    assert spec.ignored == ()


def test_what_atom_and_pfs_say_is_the_same() -> None:
    assert load(JULIA_INFER) == load(JULIA_INFER.replace(b"atom", b"pfs"))


def test_a_command_that_is_indented_with_tabs() -> None:
    assert load(NEON_TRAIN).transform.cmd[-1] == "/pfs/out/imdb.vocab"


def test_camel_case_and_what_only_kubernetes_needs() -> None:
    spec = load(CAMEL)
    assert spec.transform.env == (("MY_VAR", "2"), ("someVar", "1"))
    assert spec.transform.accept_return_code == (3,)
    assert spec.transform.working_dir == "/code"
    assert (spec.datum_tries, spec.datum_timeout, spec.job_timeout) == (5, 5400.0, 90.5)
    assert spec.input == Pfs("images", "images", glob="/*", empty_files=True)
    assert spec.requests == Resources(cpu=1, memory=10**9)
    assert spec.ignored == (
        "autoscaling",
        "input.pfs.project",
        "pipeline.project",
        "pod_patch",
        "transform.image_pull_secrets",
    )


def test_yaml_of_several_documents() -> None:
    model, infer = load_specs(YAML, "pipelines.yaml")
    assert model.parallelism == max(1, int(0.5 * (os.cpu_count() or 1)))
    assert model.transform.stdin == ("one",)
    assert infer.transform == Transform(python="stages:infer")
    assert (infer.code, infer.writable_inputs, infer.commits) == (("infer.py", "lib"), True, "newest")
    assert load({**small(), "code": []}).code == ()  # none, where None would be the whole folder


def test_no_code_is_kept_apart_from_the_whole_folder() -> None:
    spec = load_specs(json.dumps(small(code=[])).encode(), "p.json")[0]
    assert spec.code == ()
    assert Spec.from_json(spec.to_json()).code == ()


def test_several_documents_and_an_array_are_the_same() -> None:
    one, two = JULIA_TRAIN, JULIA_INFER
    in_a_row = load_specs(one + two, "a.json")
    assert [spec.name for spec in in_a_row] == ["model", "inference"]
    assert load_specs(b"[" + one + b"," + two + b"]", "a.json") == in_a_row


@pytest.mark.parametrize("text", [JULIA_TRAIN, JULIA_INFER, NEON_TRAIN, GO_INFER, CAMEL, *YAML.split(b"---\n")[:2]])
def test_the_normalised_form_reads_back_equal(text: bytes) -> None:
    spec = load(text, "p.yaml" if text.startswith((b"#", b"pipeline")) else "p.json")
    data = spec.to_json()
    assert Spec.from_json(data) == spec
    assert Spec.from_json(data).to_json() == data
    assert data.endswith(b"}\n")
    assert b"atom" not in data
    assert load(data).transform == spec.transform  # and people may feed it to create-pipeline


def test_resources_in_every_spelling() -> None:
    """As Kubernetes and both versions of Pachyderm write them; a limit on GPUs counts as a request."""
    gpu = {"type": "nvidia.com/gpu", "number": 2}
    one = load(small(resource_requests={"cpu": "500m", "memory": "512Mi", "gpu": 1}))
    assert one.requests == Resources(cpu=0.5, memory=512 << 20, gpu=1) and (one.gpus, one.ignored) == (1, ())
    two = load(small(resourceRequests={"cpu": 2, "memory": "1G", "disk": "0"}, resourceLimits={"gpu": gpu, "cpu": 4}))
    assert two.requests == Resources(cpu=2, memory=10**9)
    assert (two.gpus, two.limits) == (2, Resources(cpu=4, gpu=2, gpu_type="nvidia.com/gpu"))
    assert two.ignored == ("resource_limits.cpu", "resource_requests.disk")
    assert load(small(resource_requests={"memory": 1000, "gpu": "3"})).requests == Resources(memory=1000, gpu=3)
    for spec in (one, two):
        assert Spec.from_json(spec.to_json()) == spec
    assert load(small(resource_requests={}, resource_limits=None)).to_json() == load(small()).to_json()


def test_the_normalised_form_does_not_depend_on_how_it_was_written() -> None:
    reordered = json.dumps(dict(reversed(json.loads(JULIA_INFER).items()))).encode()
    assert load(reordered).to_json() == load(JULIA_INFER).to_json()


def test_the_salt_is_gitpipes_to_set() -> None:
    salted = Spec.from_json(json.dumps(small(salt="abc")).encode())
    assert salted.salt == "abc"
    assert Spec.from_json(salted.to_json()) == salted
    assert (load(small(salt="abc")).salt, load(small(salt="abc")).ignored) == ("", ("salt",))


def digest(**changes: Any) -> str:
    return load(small(**changes)).transform_digest("0" * 40)


def test_the_digest_covers_what_may_change_a_result() -> None:
    cmd = ["true"]
    different = [
        digest(),
        digest(transform={"cmd": ["false"]}),
        digest(transform={"cmd": cmd, "stdin": ["x"]}),
        digest(transform={"cmd": cmd, "env": {"A": "1"}}),
        load(SMALL).transform_digest("0" * 40, "sha256:" + "0" * 64),
        digest(transform={"cmd": cmd, "working_dir": "/tmp"}),
        digest(transform={"cmd": cmd, "accept_return_code": [1]}),
        digest(transform={"python": "m:f"}),
        digest(writable_inputs=True),
        load(SMALL).transform_digest("1" * 40),
        Spec.from_json(json.dumps(small(salt="s")).encode()).transform_digest("0" * 40),
    ]
    assert len(set(different)) == len(different)


def test_the_digest_leaves_out_what_cannot_change_a_result() -> None:
    same = digest(
        pipeline={"name": "q"},
        description="x",
        input={"pfs": {"repo": "other", "glob": "/*"}},
        parallelism_spec={"constant": 7},
        datum_tries=1,
        datum_timeout="1s",
        resource_requests={"cpu": 1, "memory": "1G", "gpu": 1},
        resource_limits={"cpu": 2},
        transform={"cmd": ["true"], "image": "x"},
    )
    assert same == digest()


BAD = [
    (b"", "p.json: empty; expected a pipeline spec in JSON or YAML"),
    (b" \n", "p.json: empty; expected a pipeline spec in JSON or YAML"),
    (b"[]", "p.json: empty; expected a pipeline spec in JSON or YAML"),
    (b"\0\x01\x02", "p.json: binary; expected a pipeline spec in JSON or YAML"),
    (b"\xff\xfe", "p.json: not UTF-8 text; expected a pipeline spec in JSON or YAML"),
    (b"x" * 10_000_000, "p.json: 10.0 MB is too large for a pipeline spec (at most 1 MB)"),
    (b"[" * 100_000, "p.json: nested too deeply for a pipeline spec"),
    (b'{"a":' * 60 + b"1" + b"}" * 60, "p.json:1: nested too deeply for a pipeline spec"),
    (b'{\n"a": 1,\n}', "p.json:3: not valid JSON: expecting property name enclosed in double quotes (column 1)"),
    (b'{"a": 1, "a": 2}', "p.json:1: 'a' stands twice in one object; keep one of them"),
    (
        b'{"a": 1}\n[{"b": [\n{"a": "a", "c": {}, "d": 1},\n{"c": 1,\n"c": {}}]}]',
        "p.json:5: 'c' stands twice in one object; keep one of them",
    ),
    (b'{"pipeline": {"name": "p"}} nonsense', "p.json:1: not valid JSON: expecting value (column 29)"),
    (b"[1]", "p.json:1: expected an object, got 1"),
    (b"a: [\n", "p.json:2: not valid YAML: did not find expected node content"),
    (b"{}", "p.json:1: pipeline: is missing"),
    (b'{"pipeline": "p"}', 'p.json:1: pipeline: expected an object, got "p"'),
]


def trigger(condition: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"input": {"pfs": {"repo": "a", "glob": "/", "trigger": condition, **more}}}


BAD_FIELDS = [
    ({"transform": {}}, 'transform: expected "cmd", a list of strings such as ["python", "train.py"]'),
    ({"transform": {"cmd": []}}, "transform.cmd: expected at least one member, got none"),
    ({"transform": {"cmd": [""]}}, "transform.cmd[0]: expected the name of a program, got an empty string"),
    (
        {"transform": {"cmd": "python train.py"}},
        'transform.cmd: expected a list of strings, such as ["python", "train.py"], got "python train.py"',
    ),
    ({"transform": {"cmd": ["a", 1]}}, "transform.cmd[1]: expected a string, got 1"),
    ({"transform": {"cmd": ["a\0"]}}, "transform.cmd[0]: a NUL character cannot be handed to a program"),
    ({"transform": {"cmd": ["a\ud800"]}}, "transform.cmd[0]: half a surrogate pair is not a character"),
    ({"transform": {"cmd": ["a"], "python": "m:f"}}, 'transform.python: expected "cmd" or "python", got both'),
    ({"transform": {"python": "m"}}, "transform.python: expected \"module:function\", got 'm'"),
    ({"transform": {"command": ["a"]}}, "transform.command: is not a field here; did you mean 'cmd'?"),
    ({"transform": {"cmd": ["a"], "env": {"A": 1}}}, "transform.env.A: expected a string, got 1"),
    (
        {"transform": {"cmd": ["a"], "accept_return_code": [256]}},
        "accept_return_code[0]: expected at most 255, got 256",
    ),
    ({"transfrom": {}}, "transfrom: is not a field here; did you mean 'transform'?"),
    ({"tr\u001b[31m\n": 1}, r"tr\x1b[31m\n: is not a field here"),
    ({"pipeline": {"name": "a b"}}, "pipeline.name: pipeline name 'a b': use letters"),
    ({"pipeline": {"name": "__spec__"}}, "pipeline.name: '__spec__' is taken; choose another name"),
    ({"pipeline": {}}, "pipeline.name: is missing"),
    ({"input": None}, "input: is missing"),
    ({"input": {}}, "input: expected exactly one of pfs, cron, cross, union, join, group; got none"),
    ({"input": {"pfs": {"repo": "r"}}}, "input.pfs.glob: is missing"),
    ({"input": {"pfs": {"repo": "p", "glob": "/"}}}, "input.pfs.repo: pipeline 'p' cannot read its own output"),
    ({"input": {"pfs": {"repo": "r", "glob": "/["}}}, "input.pfs.glob: glob '/[' has '[' that is never closed"),
    ({"input": {"pfs": {"repo": "r", "glob": "/", "name": "out"}}}, "input.pfs.name: an input cannot be named 'out'"),
    ({"input": {"pfs": {"repo": "r", "glob": "/", "commit": "x"}}}, "input.pfs.commit: an input pinned to a commit"),
    (
        {"input": {"pfs": {"repo": "r", "glob": "/", "lazy": "yes"}}},
        'input.pfs.lazy: expected true or false, got "yes"',
    ),
    ({"input": {"cross": []}}, "input.cross: expected at least one member, got none"),
    ({"input": {"cross": [SMALL["input"]] * 2}}, "input.cross: two inputs of a cross are named 'r'"),
    ({"input": {"join": [SMALL["input"]]}}, 'input.join: r:/ in a join is not a "pfs" input with "join_on"'),
    ({"input": {"cron": {"spec": "@daily"}}}, "input.cron.name: is missing"),
    ({"input": {"cron": {"name": "t", "spec": "@often"}}}, 'input.cron.spec: expected a schedule such as "@every 10s"'),
    ({"input": {"cron": {"name": "t", "spec": "0 0 30 2 *"}}}, "'0 0 30 2 *': Bad day-of-month"),
    ({"input": {"cron": {"name": "t", "spec": "@daily", "start": "noon"}}}, "input.cron.start: expected a time"),
    (
        {"input": {"cron": {"name": "t", "spec": "@daily", "repo": "p"}}},
        "input.cron.repo: pipeline 'p' cannot read its",
    ),
    ({"input": {"cron": {"name": "out", "spec": "@daily"}}}, "input.cron.name: an input cannot be named 'out'"),
    (trigger({}), "a trigger needs a condition: size, commits or cron_spec"),
    (trigger({"size": "big"}), 'input.pfs.trigger.size: expected a size such as "500KB"'),
    (trigger({"commits": -1}), "input.pfs.trigger.commits: expected at least 0, got -1"),
    (trigger({"cron_spec": "@x"}), "input.pfs.trigger.cron_spec: expected a schedule"),
    (trigger({"rate_limit_spec": "@daily"}), "input.pfs.trigger.rate_limit_spec: a rate limit is not supported"),
    (trigger({"commits": 1, "branch": "b"}, branch="b"), "a trigger cannot watch 'b', the branch that it moves"),
    ({"input": {"git": {"url": "x"}}}, "input.git: git inputs are not supported"),
    ({"inputs": [{"repo": {"name": "r"}}]}, "inputs: the old list of inputs is not supported"),
    ({"spout": {}}, "spout: spouts are not supported"),
    ({"parallelism_spec": {"constant": "ten"}}, 'parallelism_spec.constant: expected a whole number, got "ten"'),
    ({"parallelism_spec": {"constant": True}}, "parallelism_spec.constant: expected a whole number, got true"),
    ({"parallelism_spec": {"constant": -1}}, "parallelism_spec.constant: expected at least 0, got -1"),
    ({"parallelism_spec": {"coefficient": 0}}, "parallelism_spec.coefficient: expected more than 0.0, got 0"),
    ({"parallelism_spec": {"coefficient": float("nan")}}, "parallelism_spec.coefficient: expected a finite number"),
    ({"parallelism_spec": {"constant": 1, "coefficient": 1}}, "parallelism_spec: expected constant or coefficient"),
    ({"resource_requests": 1}, "resource_requests: expected an object, got 1"),
    ({"resource_requests": {"cpu": "many"}}, 'resource_requests.cpu: expected a number, got "many"'),
    ({"resource_requests": {"cpu": True}}, "resource_requests.cpu: expected a number, got true"),
    ({"resource_requests": {"cpu": -1}}, "resource_requests.cpu: expected at least 0, got -1"),
    ({"resource_requests": {"cpu": float("inf")}}, "resource_requests.cpu: expected at most 10000, got Infinity"),
    ({"resource_requests": {"memory": "lots"}}, 'resource_requests.memory: expected a size such as "500KB"'),
    (
        {"resource_requests": {"memory": -1}},
        'resource_requests.memory: expected a size such as "512Mi" or "1G", got -1',
    ),
    ({"resource_requests": {"memory": 1.5}}, "resource_requests.memory: expected a size"),
    ({"resource_requests": {"memory": "9999P"}}, "resource_requests.memory: expected at most"),
    ({"resource_requests": {"disk": []}}, "resource_requests.disk: expected a size"),
    ({"resource_requests": {"gpu": 0.5}}, "resource_requests.gpu.number: expected a whole number, got 0.5"),
    ({"resource_requests": {"gpu": {"type": "nvidia.com/gpu"}}}, "resource_requests.gpu.number: is missing"),
    ({"resource_requests": {"ram": "1G"}}, "resource_requests.ram: is not a field here"),
    ({"resource_limits": {"gpu": "all"}}, 'resource_limits.gpu.number: expected a whole number, got "all"'),
    ({"datum_timeout": 90}, 'datum_timeout: expected a duration such as "90s"'),
    ({"datum_timeout": "90"}, 'datum_timeout: expected a duration such as "90s"'),
    ({"datum_tries": "x"}, 'datum_tries: expected a whole number, got "x"'),
    ({"datum_tries": 1, "datumTries": 2}, "datumTries: is given twice, as datum_tries and datumTries"),
    ({"code": "../x"}, "code[0]: expected a path below the spec's folder, got '../x'"),
    ({"code": "/x"}, "code[0]: expected a path below the spec's folder, got '/x'"),
    ({"code": ["a/.git/x"]}, "code[0]: unsafe path"),
    ({"commits": "all"}, "commits: expected 'every' or 'newest', got \"all\""),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_a_file_that_is_no_spec_gets_one_line(text: bytes, message: str) -> None:
    with pytest.raises(BadSpec) as error:
        load_specs(text, "p.json")
    assert str(error.value) == message


@pytest.mark.parametrize(("changes", "message"), BAD_FIELDS, ids=[message for _, message in BAD_FIELDS])
def test_a_wrong_field_gets_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec) as error:
        load(small(**changes))
    assert str(error.value).startswith("p.json:1: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (JULIA_TRAIN.replace(b'"cmd"', b'"comand"'), "7: transform.comand"),
        (JULIA_TRAIN.replace(b'"1"', b'"one"'), "11: parallelism_spec.constant"),
        (JULIA_TRAIN.replace(b'"/"\n', b'"/{"\n'), "16: input.atom.glob"),
        (JULIA_TRAIN + JULIA_INFER.replace(b'"/bin/bash"', b"1"), "24: transform.cmd[0]"),
        (b"[" + JULIA_TRAIN + b"," + JULIA_INFER.replace(b'"/*"', b'"["') + b"]", "35: input.cross[0].atom.glob"),
        (NEON_TRAIN.replace(b'"2"', b"2"), "11: transform.cmd[5]"),
        (CAMEL.replace(b'["3"]', b'"three"'), "8: transform.accept_return_code"),
        (JULIA_TRAIN + JULIA_TRAIN, "22: pipeline.name: 'model' stands twice in this file"),
        (YAML.replace(b"cmd: [python, train.py]", b"cmd: python train.py"), "5: transform.cmd"),
        (YAML.replace(b'glob: "/*"', b"glob: 7"), "20: input.cross[0].pfs.glob"),
        (YAML.replace(b"newest", b"last"), "17: commits"),
    ],
)
def test_the_line_of_a_wrong_field(text: bytes, line: str) -> None:
    with pytest.raises(BadSpec) as error:
        load_specs(text, "p.json" if text.startswith((b"{", b"[")) else "p.yaml")
    assert str(error.value).partition(":")[2].startswith(line)


def test_yaml_that_expands_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(BadSpec, match="expands to more than"):
        load_specs("\n".join(lines).encode(), "p.yaml")


@given(st.text(max_size=30))
def test_no_text_is_a_bug(text: str) -> None:
    for source in ("p.json", "p.yaml"):
        with pytest.raises(BadSpec) as error:
            load_specs(text.encode("utf-8", "surrogatepass"), source)
        assert len(str(error.value).splitlines()) == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cmd", "pfs", "atom", "cross", "join", "repo", "glob", "name", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["pipeline", "transform", "input", "code", "parallelism_spec", "datum_timeout"]), values)
def test_no_value_is_a_bug(field: str, value: Any) -> None:
    try:
        spec = load(small(**{field: value}))
    except BadSpec as e:
        assert len(str(e).splitlines()) == 1
    else:
        assert Spec.from_json(spec.to_json()) == spec


def test_a_record_that_was_tampered_with_is_refused() -> None:
    with pytest.raises(BadSpec, match=r"^spec\.json:1: pipeline\.name"):
        Spec.from_json(json.dumps(small(pipeline={"name": "../x"})).encode())
    with pytest.raises(BadSpec, match="expected one pipeline, got 2"):
        Spec.from_json(load(SMALL).to_json() * 2)


ROOT = Path(__file__).resolve().parent.parent


def valid(value: object) -> bool:
    """What an editor says of a spec file."""
    return bool(jsonschema.Draft202012Validator(spec_schema()).is_valid(value))


def test_the_schema_that_is_shipped_is_that_of_the_types() -> None:
    """After a change: ``gitpipe schema > docs/spec.schema.json``."""
    assert json.loads((ROOT / "docs" / "spec.schema.json").read_text()) == spec_schema()
    jsonschema.Draft202012Validator.check_schema(spec_schema())


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipelines").glob("*/*.json")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_the_schema_takes_the_specs_that_are_shipped(path: Path) -> None:
    assert valid(json.loads(path.read_text()))
    load_specs(path.read_bytes(), path.name)


def test_the_schema_and_the_loader_agree() -> None:
    """In either dialect; where a field is wrong by name or type, the editor marks it."""
    spec: dict[str, Any] = {
        "$schema": "../docs/spec.schema.json",
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["true"], "acceptReturnCode": [1], "working_dir": "/code"},
        "input": {
            "cross": [{"atom": {"repo": "a", "glob": "/*", "emptyFiles": True}}, {"pfs": {"repo": "b", "glob": "/"}}]
        },
        "parallelism_spec": {"constant": "10"},
        "datumTimeout": "90s",
        "podSpec": "{}",
    }
    for good in (spec, [spec]):
        assert valid(good) and load_specs(json.dumps(good).encode(), "s.json")[0].datum_timeout == 90
    for change in (
        {"datum_trys": 3},
        {"transform": {"cmd": "true"}},
        {"input": {"pfs": {"repo": "a"}}},
        {"parallelism_spec": {"constant": "ten"}},
        {"commits": "some"},
    ):
        assert not valid({**spec, **change}), change
        with pytest.raises(BadSpec):
            load_specs(json.dumps({**spec, **change}).encode(), "s.json")


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = (
        "import gitpipe.spec, gitpipe.graph, sys; print(*{'pydantic', 'yaml', 'dvc', 'ray', 'git'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
