"""Interpreters and libraries of the user's work in the sandbox wherever they lie; what is beside them is not shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stagekit import Kit, needs_sandbox

from gitpipe.stage import sandbox

pytestmark = needs_sandbox
BASE = os.path.realpath(sys.executable)
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"

Run = Callable[..., str]


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path / "repo/.git/dvc/cache")
    yield kit
    kit.close()


@pytest.fixture(params=["auto", "strict"])
def run(kit: Kit, request: pytest.FixtureRequest) -> Run:
    """Run a stage in either mode; what it printed."""

    def run(*cmd: str, **more: object) -> str:
        result = kit.run(*cmd, sandbox=request.param, **more)
        assert result.ok, result
        return result.log.decode().strip()

    return run


@pytest.fixture
def home(sealed: Path) -> Iterator[Path]:
    """The user's home, with what must stay hidden in it."""
    for name in (".ssh/id", ".local/share/keyrings/login", ".config/token", "secret"):
        (sealed / name).parent.mkdir(parents=True, exist_ok=True)
        (sealed / name).write_text("secret")
    sandbox.masked_homes.cache_clear()
    yield sealed
    sandbox.masked_homes.cache_clear()


def hidden(run: Run, home: Path, **more: object) -> bool:
    paths = [str(home / name) for name in (".ssh/id", ".local/share/keyrings/login", ".config/token", "secret")]
    return run("sh", "-c", f"ls {' '.join(paths)} 2> /dev/null; true", **more) == ""


def make_venv(folder: Path) -> Path:
    """A virtual environment with a module of its own, and one each that two kinds of editable install lead to."""
    subprocess.run([BASE, "-m", "venv", "--without-pip", folder], check=True)
    site = folder / "lib" / VERSION / "site-packages"
    (site / "installed.py").write_text("NAME = 'installed'")
    by_path, by_finder = folder.parent / "by path/src", folder.parent / "by finder"
    for project, name in ((by_path, "bypath"), (by_finder, "byfinder")):
        project.mkdir(parents=True)
        (project / f"{name}.py").write_text(f"NAME = '{name}'")
    (site / "editable.pth").write_text(f"{by_path}\nimport _finder\n")
    (site / "_finder.py").write_text(
        "import importlib.machinery, sys\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == 'byfinder': return importlib.machinery.PathFinder.find_spec(name, [{str(by_finder)!r}])\n"
        "sys.meta_path.append(Finder)\n"
    )
    record = site / "byfinder-1.dist-info" / "direct_url.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"url": by_finder.as_uri(), "dir_info": {"editable": True}}))
    return folder / "bin" / "python"


@pytest.mark.parametrize("place", ["home", "elsewhere", "repo"])
def test_virtual_environments(kit: Kit, run: Run, home: Path, tmp_path: Path, place: str) -> None:
    folder = {"home": home / "projects/x", "elsewhere": tmp_path / "envs", "repo": tmp_path / "repo"}[place]
    python = make_venv(folder / ".venv")
    program = "import sys, installed, bypath, byfinder; print(installed.NAME, bypath.NAME, byfinder.NAME, sys.prefix)"
    said = run("python", "-c", program, python=str(python))
    assert said == f"installed bypath byfinder {folder / '.venv'}"
    assert hidden(run, home, python=str(python))


def test_an_interpreter_behind_links(kit: Kit, run: Run, home: Path) -> None:
    """As `uv` and `pyenv` make them; the folders in which the links lie are not shown for that."""
    link, behind = home / ".local/bin/python3", home / ".local/share/uv/python/cpython/bin/python3"
    for path in (link, behind):
        path.parent.mkdir(parents=True)
    behind.symlink_to(BASE)
    link.symlink_to("../share/uv/python/cpython/bin/python3")
    (link.parent / "private").write_text("")
    assert run("python", "-c", "import json; print('ran')", python=str(link)) == "ran"
    assert hidden(run, home, python=str(link))


def test_the_user_site(run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import usermod; print(usermod.NAME)"
    for base in (home / ".local", tmp_path / "user base"):
        site = Path(sysconfig.get_path("purelib", "posix_user", {"userbase": str(base)}))
        site.mkdir(parents=True)
        (site / "usermod.py").write_text(f"NAME = {str(base)!r}")
        if base.name != ".local":
            monkeypatch.setenv("PYTHONUSERBASE", str(base))
        assert run("python", "-c", program, python=BASE) == str(base)
        assert hidden(run, home)


@pytest.mark.skipif(not shutil.which("Rscript"), reason="R is not installed")
def test_libraries_of_R(run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tiny"
    (package / "R").mkdir(parents=True)
    (package / "DESCRIPTION").write_text("Package: tiny\nVersion: 1.0\n")
    (package / "NAMESPACE").write_text("export(name)\n")
    (package / "R/tiny.R").write_text("name <- function() 'tiny'\n")
    usual, own = home / "R/x86_64-pc-linux-gnu-library/4", tmp_path / "r libs"
    usual.mkdir(parents=True)
    argv = ["R", "CMD", "INSTALL", "--no-docs", "--no-byte-compile", "--no-test-load", "-l", usual, package]
    subprocess.run(argv, check=True, capture_output=True)
    assert run("Rscript", "-e", "cat(tiny::name())") == "tiny"
    usual.rename(own)
    monkeypatch.setenv("R_LIBS_USER", str(own))
    assert run("Rscript", "-e", "cat(tiny::name())") == "tiny"
    assert hidden(run, home)


@pytest.mark.parametrize("name", ["JULIA_DEPOT_PATH", "R_LIBS", "R_LIBS_SITE", "LD_LIBRARY_PATH"])
def test_lists_of_library_folders(run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  name: str) -> None:  # fmt: skip
    folders = [home / "depot", tmp_path / "depot"]
    for folder in folders:
        folder.mkdir()
        (folder / "package").write_text(f"{folder}\n")
    monkeypatch.setenv(name, ":".join(map(str, folders)))
    said = run("sh", "-c", f'echo ${name}; cat "$0"/package "$1"/package', *map(str, folders))
    assert said.splitlines() == [f"{folders[0]}:{folders[1]}", *map(str, folders)]
    assert hidden(run, home)


@pytest.mark.parametrize("name", ["CONDA_PREFIX", "VIRTUAL_ENV", "JAVA_HOME", "R_HOME", "CUDA_HOME", "PATH"])
def test_prefixes(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As conda's: a program in ``bin`` that takes its data from the folders beside it."""
    prefix = home / "miniconda3/envs/x"
    for folder in ("bin", "lib", "share"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "share/data").write_text("data")
    (prefix / "bin/tool").write_text('#!/bin/sh\ncat "$(dirname "$0")/../share/data"\n')
    (prefix / "bin/tool").chmod(0o755)
    value = f"{prefix}/bin:{os.environ['PATH']}" if name == "PATH" else str(prefix)
    monkeypatch.setenv(name, value)
    assert run(f"{prefix}/bin/tool") == "data"
    assert hidden(run, home)


def test_programs_of_the_user(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~/.local/bin`` is on many a PATH; its ``share`` holds key rings as well."""
    for folder in (".local/bin", "bin"):
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder / f"tool-{Path(folder).parent.name or 'x'}").symlink_to("/bin/echo")
    monkeypatch.setenv("PATH", f"{home}/bin:{home}/.local/bin:{os.environ['PATH']}")
    assert run("sh", "-c", "tool-.local found; tool-x too").split() == ["found", "too"]
    assert hidden(run, home)


def test_a_prefix_never_uncovers_a_home(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (home, home.parent, "/", home / ".config", home / ".local", home / ".local/share"):
        monkeypatch.setenv("CONDA_PREFIX", str(value))
        assert hidden(run, home)
