"""The shape of the code: who may import whom, and one door for each outside tool.

Read from the sources with `ast`, imports inside functions included; those under ``if TYPE_CHECKING:`` do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gitpipe"

# From the ground up.  A module, or a whole subpackage, may import what stands on an earlier line.
LAYERS = """
errors faults nudges schedule scratch types
commit
datum globs provenance scan stage views
blobs drawing executors inputs joblog journal repo spec_text
spec_form
spec
datatree datumindex glance graph kept places record uploads vault
dag
pipelines workdata
datums differences reconcile standing trail
checkout example guards hookconfig hooks speccheck
clock
catalog
datarepos hookplace
branches filediff history job notice preview
filehistory
commitdiff jobviews scheduler
datumviews explain
project
hookmain precommit runner
cli
__main__
"""

# Beyond the layers: these know no more than is named here, whatever stands below them.
KNOWS = {
    "errors": set(),
    "commit": {"errors"},
    "datum": {"commit"},
    "globs": {"errors"},
    "provenance": {"commit", "errors"},
    "views": {"commit"},
    "repo": {"commit", "errors"},
    "inputs": {"commit", "datum", "errors", "globs", "schedule"},
    "schedule": set(),
    "scratch": set(),
    "types": set(),
    "stage": {"commit", "errors", "faults"},
    "executors": {"errors", "stage"},
    "journal": {"errors"},
    "hooks": {"errors"},
    "hookplace": {"errors", "hooks", "repo"},
    "hookconfig": {"blobs", "errors"},
    "example": {"errors"},
    "drawing": {"errors", "views"},
    "cli": {"commit", "drawing", "errors", "example", "glance", "project", "views"},
}

# Outside module -> the modules or subpackages of gitpipe that alone may import it.
DOORS = {
    "git": {"repo"},
    "gitdb": {"repo"},
    "pygit2": {"repo"},
    "dvc": {"blobs.dvc"},
    "dvc_data": {"blobs.dvc"},
    "dvc_objects": {"blobs.dvc"},
    "ray": {"executors.ray"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "subprocess": {"stage", "repo", "runner", "nudges", "notice", "glance"},
    "multiprocessing": {"stage"},
    "grandalf": {"drawing.layout"},
    "pydot": {"drawing.png"},
    "cronsim": {"schedule"},
    "cairosvg": {"drawing.png"},
}
STARTERS = {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "execv", "execve", "execvp", "execvpe"}

RANK = {name: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _without_type_checking(node)


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): list(_without_type_checking(ast.parse(path.read_text()))) for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> set[str]:
    """Full names of what `module` imports; of ``from gitpipe.a import b`` ``gitpipe.a.b`` if that is a module."""
    found = set()
    for node in MODULES[module]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{module}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full.removeprefix("gitpipe.") in MODULES else node.module)
    return found


def own_imports(module: str) -> set[str]:
    """Modules of gitpipe that `module` imports, without the leading ``gitpipe.`` and the bare package."""
    return {name.removeprefix("gitpipe.") for name in imports(module) if name.startswith("gitpipe.")}


def _top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {""}))
def test_imports_point_downwards(module: str) -> None:
    part = _top(module)
    assert part in RANK, f"give gitpipe.{part} its place in LAYERS"
    for other in own_imports(module):
        if _top(other) != part:
            assert RANK[_top(other)] < RANK[part], f"gitpipe.{module} may not import gitpipe.{other}"
            assert _top(other) in KNOWS.get(part, RANK), f"gitpipe.{part} should not know of gitpipe.{other}"


def test_no_import_cycle() -> None:
    graph = {module: own_imports(module) - {module} for module in MODULES}
    for module, wanted in graph.items():
        # A subpackage's front gathers its members; they may use what it defines before that.
        graph[module] = {other for other in wanted if not module.startswith(f"{other}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_one_door_for_each_outside_tool(module: str) -> None:
    for name in imports(module):
        doors = DOORS.get(_top(name))
        if doors is not None:
            assert {module, _top(module)} & doors, f"gitpipe.{module} imports {name}; only {sorted(doors)} may"
    for node in MODULES[module]:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in STARTERS or _top(module) == "stage", f"gitpipe.{module} uses os.{node.attr}"


def test_no_module_without_a_subject() -> None:
    assert not {"utils", "util", "helpers", "common", "misc"} & {name.rpartition(".")[2] for name in MODULES}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: _name(path) or "gitpipe")
def test_modules_open_with_their_job(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} says not what it is for"
