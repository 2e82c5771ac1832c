"""What docs/pachyderm.md says is so: its tables against specs and commands, and the examples of Pachyderm's documents.

Repos and files are named as in those documents, with as many datums and the same files in each as they say; what is in
the files, and what runs on them, is ours.
"""

from __future__ import annotations

import ast
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from gitpipe.cli.argv import canonical
from gitpipe.errors import BadSpec, NotFound, Refused
from gitpipe.globs import Glob, cut
from gitpipe.spec import Spec, load_specs
from gitpipe.spec_form import Form, SpecForm
from gitpipe.spec_text import snake

from .conftest import ROOT
from .lab import Lab

Leaf = dict[str, Any]

# -- the page ----------------------------------------------------------------------------------------------------------

PAGE = ROOT / "docs/pachyderm.md"
WORDS = {"works", "differs", "ignored", "no effect", "refused", "not yet", "none"}
COMING = {f"tests/test_{name}.py" for name in ("cron", "triggers", "explain", "diff", "preview")}
"""Test files that the page names ahead of their merge: what they show is checked from the day that they are there."""
OURS = {"code", "writable_inputs", "commits", "transform.python"}
RECORD_ONLY = {"ignored"}  # gitpipe writes it into the specs that it records
SAMPLES: dict[str, Any] = {
    "pipeline.name": "p",
    "description": "x",
    "transform.cmd": ["true"],
    "transform.stdin": ["x"],
    "transform.env": {"A": "1"},
    "transform.image": "x",
    "transform.working_dir": "/code",
    "transform.accept_return_code": [3],
    "transform.err_cmd": ["true"],
    "transform.err_stdin": ["x"],
    "transform.secrets.name": "db",
    "transform.secrets.key": "password",
    "transform.secrets.env_var": "PASSWORD",
    "transform.secrets.mount_path": "/secrets",
    "input.pfs.name": "x",
    "input.pfs.repo": "x",
    "input.pfs.branch": "x",
    "input.pfs.glob": "/(*)",
    "input.pfs.lazy": True,
    "input.pfs.empty_files": True,
    "input.pfs.join_on": "$1",
    "input.pfs.outer_join": True,
    "input.pfs.group_by": "$1",
    "input.pfs.trigger.branch": "x",
    "input.pfs.trigger.size": "1MB",
    "input.pfs.trigger.commits": 3,
    "input.pfs.trigger.cron_spec": "@daily",
    "input.pfs.trigger.all": True,
    "input.cron.name": "x",
    "input.cron.spec": "@daily",
    "input.cron.repo": "x",
    "input.cron.start": "2026-01-01T00:00:00Z",
    "input.cron.overwrite": True,
    "parallelism_spec.constant": "2",
    "parallelism_spec.coefficient": 0.5,
    "parallelism_spec.strategy": "CONSTANT",
    "datum_tries": 2,
    "datum_timeout": "1s",
    "job_timeout": "1s",
    "reprocess_spec": "every_job",
    "output_branch": "x",
    "resource_requests.cpu": 0.5,
    "resource_requests.memory": "512Mi",
    "resource_requests.disk": "1G",
    "resource_requests.gpu.number": 1,
    "resource_requests.gpu.type": "nvidia.com/gpu",
    "resource_limits.cpu": 1,
    "resource_limits.memory": "1G",
    "resource_limits.disk": "1G",
    "resource_limits.gpu.number": 1,
    "resource_limits.gpu.type": "nvidia.com/gpu",
    "code": "x",
    "writable_inputs": True,
    "commits": "newest",
}
"""Field -> a value; what is ignored or refused is so with any."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table that says what becomes of something: the code spans of its first cell, its word, its tests."""

    names: tuple[str, ...]
    word: str
    remark: str
    tests: tuple[str, ...]
    section: str

    @property
    def ahead(self) -> bool:
        """What shows it is not there yet."""
        files = {test.partition("::")[0] for test in self.tests}
        return bool(files & COMING) and not all((ROOT / name).exists() for name in files)


@cache
def rows() -> list[Row]:
    found, section = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[2].startswith("**"):
            spans = [re.findall(r"`([^`]+)`", cell) for cell in cells]
            found.append(Row(tuple(spans[0]), cells[2].strip("*"), cells[3], tuple(spans[4]), section))
    return found


def fields() -> list[Row]:
    return [row for row in rows() if row.section == "The pipeline spec"]


def commands() -> frozenset[str]:
    import typer

    from gitpipe.cli.app import app

    return frozenset(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def defined(path: str) -> set[str]:
    """The tests of a file: ``test_x``, ``TestY::test_z``."""
    out = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            out.add(node.name)
        if isinstance(node, ast.ClassDef):
            out |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return out


def test_every_test_that_the_page_names_is_there() -> None:
    named = {tuple(found.split("::", 1)) for found in re.findall(r"`(tests/[^`]+::[^`]+)`", PAGE.read_text())}
    assert len(named) > 50
    for path in sorted({path for path, _ in named}):
        if path in COMING and not (ROOT / path).exists():
            continue
        missing = {test for file, test in named if file == path} - defined(path)
        assert not missing, f"{path} has no {missing}"


def test_rows_are_whole() -> None:
    """Each says one of the words, and what works, or differs, names the test that shows it."""
    assert {row.word for row in rows()} <= WORDS
    bare = [row.names for row in rows() if row.word not in ("none", "not yet") and not row.tests]
    assert not bare, f"no test shows {bare}"
    lines = [line for line in PAGE.read_text().splitlines() if re.search(r". \| \*\*[a-z ]+\*\* \|", line)]
    assert len(lines) == len(rows()), "a row with another number of cells"


def known(form: type[Form], prefix: str = "") -> Iterator[str]:
    """The paths of all fields of a form and of those within, the refused ones too."""
    yield from (prefix + name for name in form.refused)
    for name, field in form.model_fields.items():
        inner = [each for each in _parts(field.annotation) if isinstance(each, type) and issubclass(each, Form)]
        nested = [each for each in inner if each is not form and name != "atom"]
        for each in nested:
            yield from known(each, f"{prefix}{name}.")
        if not nested or prefix == "input.":  # a kind of input is something to speak of by itself
            yield prefix + name


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for each in typing.get_args(annotation):
        yield from _parts(each)


def test_every_field_is_in_a_table_and_the_other_way_round() -> None:
    here = set(known(SpecForm)) - RECORD_ONLY
    told = [row.names[0] for row in fields()]
    assert len(told) == len(set(told)), "a field stands twice"
    untold = {name for name in here if not any(each == name or each.startswith(name + ".") for each in told)}
    assert not untold, f"docs/pachyderm.md says nothing about {untold}"
    ahead = {row.names[0] for row in fields() if row.ahead}
    assert not set(told) - here - ahead, f"no such field: {set(told) - here - ahead}"
    assert set(told) >= OURS


def document(field: str, spelled: str) -> dict[str, Any]:
    """A spec in which `field` is set, spelled as given."""
    *folders, last = spelled.split(".")
    spec: dict[str, Any] = {"pipeline": {"name": "p"}, "transform": {"cmd": ["true"]}}
    leaf: dict[str, Any] = {"repo": "r", "glob": "/(*)"}
    spec["input"] = {"pfs": leaf}
    kind = field.split(".")[1] if field.startswith("input.") else ""
    if kind == "cron":
        spec["input"] = {"cron": {"name": "tick", "spec": "@daily"}}
    if field == f"input.{kind}":
        values = {"pfs": leaf, "atom": leaf, "cron": {"name": "tick", "spec": "@daily"}, "git": {"url": "x"}}
        spec["input"] = {kind: values.get(kind, [{"pfs": {**leaf, "join_on": "$1", "group_by": "$1"}}])}
        return spec
    if kind == "pfs" and ".trigger." in field:
        leaf["trigger"] = {} if field.endswith((".commits", ".size", "_spec")) else {"commits": 3}
    if folders[-1:] == ["secrets"]:
        spec["transform"]["secrets"] = [{"name": "db", "key": "x", last: SAMPLES[field]}]
        return spec
    if ".gpu." in field:
        spec[spelled.partition(".")[0]] = {"gpu": {"number": 2}}
    place = spec
    for name in folders:
        place = place.setdefault(name, {})
    place[last] = SAMPLES.get(field, {"x": 1})
    return spec


FIELDS = [pytest.param(row, name, id=name) for row in fields() for name in row.names]


@pytest.mark.parametrize(("row", "spelled"), FIELDS)
def test_fields(row: Row, spelled: str) -> None:
    """Accepted, named as ignored, or refused in one line that names it, in either spelling."""
    if row.ahead:
        pytest.skip("comes with " + ", ".join(row.tests))
    field = row.names[0]
    assert ".".join(map(snake, spelled.split("."))) == field
    if field == "transform.python":
        return  # see below
    text = json.dumps(document(field, spelled)).encode()
    if row.word == "refused":
        with pytest.raises(BadSpec) as error:
            load_specs(text, "p.json")
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("p.json:1: ") and spelled.rpartition(".")[2] in str(error.value)
        return
    (spec,) = load_specs(text, "p.json")
    assert spec.ignored == ((field,) if row.word == "ignored" else ())
    assert Spec.from_json(spec.to_json()) == spec, "something is lost when it is recorded"


def test_python_callables(lab: Lab) -> None:
    lab.data("in", {"a": "1", "b": "2"})
    spec = lab.write_spec("p", {"in": "/*"}, transform={"python": "stages:double"}, code=".")
    said = lab.project.pipelines.create([str(spec)])
    assert 'p: its code has no stages.py: put it beside the spec, or name it in "code"' in said
    (spec.parent / "stages.py").write_text(
        "def double(inputs, out):\n    (out / inputs['in'].name).write_text(inputs['in'].read_text() * 2)\n"
    )
    lab.project.pipelines.update([str(spec)])
    lab.run()
    assert lab.files("p") == {"a": "11", "b": "22"}


def test_what_is_ignored_is_said_once(lab: Lab) -> None:
    """However often it stands in the spec, and in the answer to create-pipeline."""
    lab.data("in", {"a": "1"})
    leaf = {"repo": "in", "glob": "/", "project": "default"}
    given = {"cross": [{"pfs": leaf}, {"pfs": {**leaf, "name": "two"}}]}
    spec = lab.write_spec("p", {"in": "/"}, "true", input=given, pod_patch="[]", podSpec="{}")
    said = lab.project.pipelines.create([str(spec)])
    assert [line for line in said if "ignored" in line] == [
        f"p: {field} is not used here and is ignored" for field in ("input.cross.pfs.project", "pod_patch", "pod_spec")
    ]


def test_finished_commits_are_not_deleted(lab: Lab) -> None:
    """delete-commit drops an open one with what was put into it; delete-file is a commit of its own."""
    lab.data("training", {"a": "1", "d/b": "2", "d/c": "3"})
    data = lab.project.data
    opened = data.start_commit(["training"])
    data.delete_file(["training", opened, "a"])
    data.delete_commit([f"training@{opened}"])
    assert sorted(lab.files("training")) == ["a", "d/b", "d/c"]
    with pytest.raises(NotFound, match="no open commit"):
        data.delete_commit(["training"])
    data.delete_file(["training@master:d"])
    assert lab.files("training") == {"a": "1"}
    with pytest.raises(Refused, match=r"is finished already: `git revert`"):
        data.delete_commit(["training", lab.commits("training")[0].sha])
    assert len(lab.commits("training")) == 2


def test_commands_are_as_the_page_says() -> None:
    """What works can be typed, what is not there cannot; every command of gitpipe is spoken of."""
    there = commands()
    ahead = not all((ROOT / path).exists() for path in COMING)
    told = set()
    for row in rows():
        if row.section != "Commands":
            continue
        verb, *rest = canonical(row.names[0].partition(" -")[0].split(), there)
        told |= set() if rest else {verb}
        if not row.ahead:
            found = verb in there and not rest
            assert found == (row.word in ("works", "differs")), f"{row.names[0]}: {row.word}"
    text = PAGE.read_text()
    (ours,) = re.findall(r"^Commands that only gitpipe has: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    own = set(re.findall(r"`([a-z-]+)`", ours))
    assert there <= told | own, f"docs/pachyderm.md says nothing about {there - told - own}"
    assert ahead or own <= there, f"no such command: {own - there}"
    for named in re.findall(r"`gitpipe ([a-z]+(?:-[a-z]+)?)\b", text):
        assert ahead or named in there, f"docs/pachyderm.md speaks of gitpipe {named}"


# -- the examples ------------------------------------------------------------------------------------------------------

STORES = [f"STOREID{n}.txt" for n in range(1, 6)]
ZIPS = {"1": "02108", "2": "02108", "3": "90210", "4": "94107", "5": "90210"}
PURCHASES = ["W080520_1", "W080521_1", "W078929_2", "W598471_3", "W080231_5", "W080528_5"]
RETURNS = ["W080520_1", "W080231_5", "W080528_5", "W261452_0"]


def pfs(repo: str, glob: str, **more: Any) -> Leaf:
    return {"pfs": {"repo": repo, "glob": glob, **more}}


def orders(ids: Iterable[str]) -> dict[str, str]:
    """``W1_5`` -> ``ORDERW1_STOREID5.txt``."""
    return {f"ORDER{order}_STOREID{store}.txt": f"{order}\n" for order, _, store in (i.partition("_") for i in ids)}


def retail(lab: Lab) -> None:
    lab.data("stores", {name: ZIPS[name[7]] + "\n" for name in STORES})
    lab.data("purchases", orders(PURCHASES))
    lab.data("returns", orders(RETURNS))


def datums(lab: Lab, inputs: Mapping[str, Leaf], script: str = "true") -> dict[str, list[str]]:
    """What pipelines of these inputs run on: each datum in words, as ``list-datum`` prints it."""
    for name, given in inputs.items():
        lab.pipeline(name, {}, script, input=given)
    jobs = {job.pipeline: job for job in lab.run()}
    assert {name: job.state for name, job in jobs.items()} == dict.fromkeys(inputs, "success")
    found = {name: [each.files for each in lab.project.datums.list(name)] for name in inputs}
    assert {name: jobs[name].processed for name in inputs} == {name: len(each) for name, each in found.items()}
    return found


# -- union and cross ---------------------------------------------------------------------------------------------------


def test_union_and_cross_of_two_repos_of_three_files(lab: Lab) -> None:
    """The page on cross and union: 6 datums; with one name all lie in the same folder; 9 combinations."""
    lab.data("A", {f"{n}.txt": f"a{n}" for n in (1, 2, 3)})
    lab.data("B", {f"{n}.txt": f"b{n}" for n in (4, 5, 6)})
    both = [pfs("A", "/*"), pfs("B", "/*")]
    named = [pfs("A", "/*", name="C"), pfs("B", "/*", name="C")]
    listed = {"union": {"union": both}, "one_name": {"union": named}, "cross": {"cross": both}}
    found = datums(lab, listed, "cd /pfs && find * -type f -not -path 'out/*' | sort | xargs echo > out/$PACH_DATUM_ID")
    a, b = ([f"{repo}:/{n}.txt" for n in each] for repo, each in (("A", (1, 2, 3)), ("B", (4, 5, 6))))
    assert sorted(found["union"]) == [*a, *b]
    assert sorted(found["cross"]) == sorted(f"{x}, {y}" for x in a for y in b)
    assert len(found["one_name"]) == 6
    assert sorted(lab.files("one_name").values()) == [f"C/{n}.txt\n" for n in range(1, 7)]
    assert sorted(lab.files("union").values()) == [f"A/{n}.txt\n" for n in (1, 2, 3)] + [
        f"B/{n}.txt\n" for n in (4, 5, 6)
    ]
    assert "A/1.txt B/4.txt\n" in lab.files("cross").values() and len(lab.files("cross")) == 9


def test_inputs_within_inputs(lab: Lab) -> None:
    """The reference's foo, bar and fizz, buzz: union and cross may hold each other."""
    lab.data("inputA", {"foo": "1", "bar": "2"})
    lab.data("inputB", {"fizz": "3", "buzz": "4"})
    lab.data("inputC", {"x": "5"})
    a, b, c = (pfs(repo, "/*") for repo in ("inputA", "inputB", "inputC"))
    found = datums(
        lab,
        {
            "plain": {"cross": [a, b]},
            "cross_of_a_union": {"cross": [{"union": [a, b]}, c]},
            "union_of_crosses": {"union": [{"cross": [a, c]}, {"cross": [b, c]}]},
            "union_of_a_cross": {"union": [{"cross": [a, b]}, c]},
        },
    )
    pairs = [f"inputA:/{x}, inputB:/{y}" for x in ("bar", "foo") for y in ("buzz", "fizz")]
    with_c = [
        *(f"inputA:/{x}, inputC:/x" for x in ("bar", "foo")),
        *(f"inputB:/{y}, inputC:/x" for y in ("buzz", "fizz")),
    ]
    assert sorted(found["plain"]) == pairs
    assert sorted(found["cross_of_a_union"]) == with_c == sorted(found["union_of_crosses"])
    assert sorted(found["union_of_a_cross"]) == [*pairs, "inputC:/x"]


# -- join --------------------------------------------------------------------------------------------------------------


def test_readings_and_parameters(lab: Lab) -> None:
    """The page on join: 5 datums; with ``outer_join`` on the parameters three more, of files without a partner."""
    lab.data("readings", {f"ID1234/file{n}.txt": f"{n}" for n in range(1, 6)})
    lab.data("parameters", {f"file{n}.txt": f"{n}0" for n in range(1, 9)})
    left = pfs("readings", "/*/(*).txt", join_on="$1")
    right = {"repo": "parameters", "glob": "/(*).txt", "join_on": "$1"}
    inputs = {
        "inner": {"join": [left, {"pfs": right}]},
        "outer": {"join": [left, {"pfs": {**right, "outer_join": True}}]},
    }
    key = 'echo "$PACH_DATUM_readings_JOIN_ON $PACH_DATUM_parameters_JOIN_ON" > /pfs/out/$PACH_DATUM_parameters_JOIN_ON'
    found = datums(lab, inputs, key)
    pairs = [f"readings:/ID1234/file{n}.txt, parameters:/file{n}.txt" for n in range(1, 6)]
    assert sorted(found["inner"]) == pairs
    assert sorted(found["outer"]) == sorted([*pairs, *(f"parameters:/file{n}.txt" for n in (6, 7, 8))])
    assert lab.files("outer")["file1"] == "file1 file1\n" and lab.files("outer")["file7"] == " file7\n"


def test_stores_purchases_and_returns(lab: Lab) -> None:
    """The joins example: an inner join of 6, and the three outer ones, with the files by zip code that it lists."""
    retail(lab)
    store = {"repo": "stores", "glob": "/STOREID(*).txt", "join_on": "$1"}
    returned = {"repo": "returns", "glob": "/*_STOREID(*).txt", "join_on": "$1"}

    def outer(stores: bool, returns: bool) -> Leaf:
        return {"join": [{"pfs": {**store, "outer_join": stores}}, {"pfs": {**returned, "outer_join": returns}}]}

    # What the example's program does: a file for each datum, in a folder that is named after the store's zip code.
    script = (
        'zip=$(cat /pfs/stores/* 2>/dev/null || echo UNKNOWN); mkdir -p "/pfs/out/$zip";'
        " order=$(cat /pfs/purchases/* /pfs/returns/* 2>/dev/null);"
        ' echo "${order:-NONE}" > "/pfs/out/$zip/$PACH_DATUM_ID"'
    )
    found = datums(
        lab,
        {
            "inner_join": {"join": [{"pfs": store}, pfs("purchases", "/*_STOREID(*).txt", join_on="$1")]},
            "on_returns": outer(stores=False, returns=True),
            "on_stores": outer(stores=True, returns=False),
            "full": outer(stores=True, returns=True),
        },
        script,
    )

    def by_zip(name: str) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for path, text in lab.files(name).items():
            out.setdefault(path.partition("/")[0], []).append(text.strip())
        return {code: sorted(each) for code, each in out.items()}

    assert len(found["inner_join"]) == 6 and not any("STOREID4" in each for each in found["inner_join"])
    assert by_zip("inner_join") == {
        "02108": ["W078929", "W080520", "W080521"],
        "90210": ["W080231", "W080528", "W598471"],
    }
    assert len(found["on_returns"]) == 4 and "returns:/ORDERW261452_STOREID0.txt" in found["on_returns"]
    assert by_zip("on_returns") == {"02108": ["W080520"], "90210": ["W080231", "W080528"], "UNKNOWN": ["W261452"]}
    assert len(found["on_stores"]) == 6 and "stores:/STOREID4.txt" in found["on_stores"]
    shops = {"02108": ["NONE", "W080520"], "90210": ["NONE", "W080231", "W080528"], "94107": ["NONE"]}
    assert by_zip("on_stores") == shops
    assert len(found["full"]) == 7 and by_zip("full") == {**shops, "UNKNOWN": ["W261452"]}


# -- group -------------------------------------------------------------------------------------------------------------


def test_lab_results_by_patient_and_by_hospital(lab: Lab) -> None:
    """The page on group (three patients) and the group example (four patients, two hospitals)."""
    lab.data("labresults", {f"LIPID-patientID{p}-labID{h}.txt": "x" for p, h in ("11", "21", "12", "33", "13", "23")})
    tests = ["07557 1 7", "31395 2 7", "07579 3 7", "07597 4 7", "07613 1 8", "07635 3 8"]
    made = {(p, h): f"T16067{t}-LIPID-PATID{p}-CLIA24D987132{h}.txt" for t, p, h in map(str.split, tests)}
    lab.data("results", {name: f"{p}{h}" for (p, h), name in made.items()})
    found = datums(
        lab,
        {
            "page": {"group": [pfs("labresults", "/*-(*)-lab*.txt", group_by="$1")]},
            "by_patient": {"group": [pfs("results", "/*-PATID(*)-*.txt", group_by="$1")]},
            "by_hospital": {"group": [pfs("results", "/*-CLIA(*).txt", group_by="$1")]},
        },
        "cat /pfs/labresults/* /pfs/results/* > /pfs/out/$PACH_DATUM_results_GROUP_BY$PACH_DATUM_labresults_GROUP_BY"
        " 2>/dev/null; true",
    )

    def page(*files: str) -> str:
        return ", ".join(f"labresults:/LIPID-patientID{each[0]}-labID{each[1]}.txt" for each in files)

    assert sorted(found["page"]) == [page("11", "12", "13"), page("21", "23"), page("33")]
    assert lab.files("page") == {"patientID1": "xxx", "patientID2": "xx", "patientID3": "x"}

    def files(*keys: tuple[str, str]) -> str:
        return ", ".join(sorted(f"results:/{made[key]}" for key in keys))

    one, two = ("1", "7"), ("1", "8")
    assert set(found["by_patient"]) == {
        files(one, two),
        files(("2", "7")),
        files(("3", "7"), ("3", "8")),
        files(("4", "7")),
    }
    assert sorted(lab.files("by_hospital")) == ["24D9871327", "24D9871328"]
    assert [len(text) for _, text in sorted(lab.files("by_hospital").items())] == [8, 4]


def test_retail_by_store(lab: Lab) -> None:
    """The group example: a datum for each store, listed or not, with all that was bought and brought back there."""
    retail(lab)
    sides = {"stores": "/STOREID(*).txt", "purchases": "/*_STOREID(*).txt", "returns": "/*_STOREID(*).txt"}
    given = {"group": [pfs(repo, glob, group_by="$1") for repo, glob in sides.items()]}
    found = datums(lab, {"group_store_revenue": given})["group_store_revenue"]
    expected = []
    for store in "012345":
        parts = [f"stores:/STOREID{store}.txt"] if f"STOREID{store}.txt" in STORES else []
        for repo, ids in (("purchases", PURCHASES), ("returns", RETURNS)):
            parts += [f"{repo}:/{name}" for name in sorted(orders(ids)) if name.endswith(f"ID{store}.txt")]
        expected.append(", ".join(parts))
    assert sorted(found) == sorted(expected)
    assert [each.count(",") + 1 for each in expected] == [1, 4, 2, 2, 1, 5]


# -- globs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "captured"),
    [
        ("/(*)", {"/foo": ("foo",)}),
        ("/*/bar-(*)", {"/foo/bar-123": ("123",)}),
        ("/(*)/*/(??)*.txt", {"/foo/bar-123/ABC.txt": ("foo", "AB")}),
        ("/*/(bar-(123))/*", {"/foo/bar-123/ABC.txt": ("bar-123", "123")}),
    ],
)
def test_the_table_of_capture_groups(pattern: str, captured: dict[str, tuple[str, ...]]) -> None:
    """Of ``/foo/bar-123/ABC.txt``: what a pattern matches may be a folder on the way to it."""
    files = {"foo/bar-123/ABC.txt": "0" * 32}
    assert {match.path: match.captures for match in cut(pattern, files)} == captured
    assert all(Glob(pattern).captures(path) == groups for path, groups in captured.items())


STATES = {
    "California": ["Los-Angeles.json", "San-Francisco.json"],
    "Colorado": ["Boulder.json", "Denver.json"],
    "Washington": ["Seattle.json", "Vancouver.json"],
}
CITIES = {f"{state}/{city}": "0" * 32 for state, cities in STATES.items() for city in cities}
OLD = dict.fromkeys(["foo-1", "foo-2", "bar/bar-1", "bar/bar-2"], "0" * 32)
DEEP = dict.fromkeys(
    [
        "nope1.txt",
        "test1.txt",
        "foo-1/nope2.txt",
        "foo-1/test2.txt",
        "foo-2/foo-2_1/nope3.txt",
        "foo-2/foo-2_1/test3.txt",
        "foo-2/foo-2_1/anothertest.txt",
    ],
    "0" * 32,
)


@pytest.mark.parametrize(
    ("pattern", "files", "expected"),
    [
        ("/", CITIES, ["/"]),
        ("/*", CITIES, ["/California", "/Colorado", "/Washington"]),
        ("/Colorado/*", CITIES, ["/Colorado/Boulder.json", "/Colorado/Denver.json"]),
        ("/C*", CITIES, ["/California", "/Colorado"]),
        ("/*/*", CITIES, sorted(f"/{path}" for path in CITIES)),
        ("/**", CITIES, sorted(f"/{path}" for path in CITIES)),
        ("/**", DEEP, sorted(f"/{path}" for path in DEEP)),
        ("/**test*.txt", DEEP, sorted(f"/{path}" for path in DEEP if "test" in path)),
        ("/", OLD, ["/"]),
        ("/*", OLD, ["/bar", "/foo-1", "/foo-2"]),
        ("/bar/*", OLD, ["/bar/bar-1", "/bar/bar-2"]),
        ("/foo*", OLD, ["/foo-1", "/foo-2"]),
        ("/*/*", OLD, ["/bar/bar-1", "/bar/bar-2"]),
    ],
)
def test_the_pages_on_globs(pattern: str, files: dict[str, str], expected: list[str]) -> None:
    """The pages of 1.7 (foo-1, bar) and of 2.x (states and cities; what ``**`` finds)."""
    found = list(cut(pattern, files))
    assert [match.path for match in found] == expected
    assert all(match.files for match in found)


def test_a_city_that_is_added_runs_what_its_glob_says(lab: Lab) -> None:
    """``/`` runs everything again, ``/*`` its state, ``/*/*`` the city alone, ``/Colorado/*`` nothing."""
    cities = {path: path for path in CITIES}
    lab.data("cities", cities)
    globs = {"all": "/", "states": "/*", "each": "/*/*", "colorado": "/Colorado/*"}
    datums(lab, {name: pfs("cities", glob) for name, glob in globs.items()})
    lab.data("cities", {**cities, "California/Sacramento.json": "new"})
    ran = {job.pipeline: (job.processed, job.skipped) for job in lab.run()}
    assert ran == {"all": (1, 0), "states": (1, 2), "each": (1, 6), "colorado": (0, 2)}


# -- what the code sees ------------------------------------------------------------------------------------------------


def test_what_a_stage_finds_in_its_environment(lab: Lab) -> None:
    """The variables of Pachyderm's worker that mean something here."""
    commit = lab.data("images", {"liberty.png": "1"})
    lab.pipeline("env", {"images": "/*"}, "env > /pfs/out/env", output_branch="master")
    (job,) = lab.run()
    env = dict(line.split("=", 1) for line in lab.files("env")["env"].splitlines() if "=" in line)
    (datum,) = lab.project.datums.list("env")
    assert env["images"].endswith("/pfs/images/liberty.png") and env["images_COMMIT"] == commit
    assert env["PACH_JOB_ID"] == env["PACH_OUTPUT_COMMIT_ID"] == job.id
    assert env["PACH_DATUM_ID"] == datum.id
    assert (env["PPS_PIPELINE_NAME"], env["PPS_SPEC_COMMIT"]) == ("env", job.version)
    assert not {"PPS_NAMESPACE", "PPS_POD_NAME", "S3_ENDPOINT"} & env.keys()


def test_exit_codes_tries_and_what_has_no_effect(lab: Lab) -> None:
    """``lazy``; once it takes effect, the page has to say so."""
    lab.data("in", {"a": "1"})
    leaf = pfs("in", "/*", lazy=True, empty_files=True)

    def pipeline(name: str, script: str, more: Mapping[str, Any] | None = None, **fields: Any) -> None:
        transform = {"cmd": ["sh", "-c", script], **(more or {})}
        lab.pipeline(name, {}, input=leaf, transform=transform, **fields)

    pipeline("accepted", "cp /pfs/in/a /pfs/out; exit 3", {"accept_return_code": [3]})
    pipeline("recovered", "exit 3", {"err_cmd": ["true"], "err_stdin": ["x"]})
    pipeline("slow", "sleep 0.3", job_timeout="1h", parallelism_spec={"strategy": "CONSTANT"})
    pipeline("timed", "sleep 60", datum_timeout="200ms", datum_tries=2)
    jobs = {job.pipeline: job for job in lab.run()}
    assert {name: job.state for name, job in jobs.items()} == {
        "accepted": "success",
        "recovered": "success",
        "slow": "success",
        "timed": "failed",
    }
    assert lab.files("accepted") == {"a": ""}, "empty_files shows names without bytes"
    assert (jobs["recovered"].recovered, jobs["recovered"].processed, lab.files("recovered")) == (1, 0, {})
    assert "timed out after 0.2 s" in jobs["timed"].reason
    assert [each.tries for each in lab.project.datums.list("timed")] == [2]
