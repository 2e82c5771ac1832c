"""``.dvc`` files: read as DVC writes them, written byte for byte as DVC writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gitpipe.blobs.pointers import CONFIG, DVC_GITIGNORE, DVCIGNORE, GITIGNORE, Out, read_pointer, write_pointer
from gitpipe.errors import BadData

HI = "764efa883dda1e11db47671c4a3bbd9e"


def run(cwd: Path, *command: str) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }.items():
        monkeypatch.setenv(name, value)
    top = tmp_path / "repo"
    top.mkdir()
    run(top, "git", "init", "-q")
    run(top, sys.executable, "-m", "dvc", "init", "-q")
    return top


def dvc_add(repo: Path) -> bytes:
    run(repo, sys.executable, "-m", "dvc", "add", "-q", "data")
    return (repo / "data.dvc").read_bytes()


def test_the_small_files_of_a_data_branch(repo: Path) -> None:
    (repo / "data").mkdir()
    assert dvc_add(repo) == write_pointer("data", "d751713988987e9331980363e24189ce.dir", 0, 0)
    assert (repo / ".dvc" / "config").read_bytes() == CONFIG
    assert (repo / ".dvc" / ".gitignore").read_bytes() == DVC_GITIGNORE
    assert (repo / ".dvcignore").read_bytes() == DVCIGNORE
    assert (repo / ".gitignore").read_bytes() == GITIGNORE


OLD = """\
# a comment
meta:
  a: 1
outs:
- md5: d751713988987e9331980363e24189ce.dir
  nfiles: 0
  hash: md5
  path: data
  desc: "hi # x"  # not a comment, then one
  remote: store
  type: t
  labels: [a, b]
desc: hello
"""
FULL = OLD.replace("  nfiles", "  size: 0\n  nfiles")


@pytest.mark.parametrize("old", [None, OLD, FULL, FULL.replace("hello", "|\n  two\n  lines")])
def test_the_same_bytes_as_dvc_and_foreign_fields_stay(repo: Path, old: str | None) -> None:
    (repo / "data").mkdir()
    (repo / "data" / "a").write_bytes(b"hi\n")
    if old:
        (repo / "data.dvc").write_text(old)
    theirs = dvc_add(repo)
    (out,) = read_pointer(theirs)
    assert (out.size, out.nfiles, out.isdir, out.legacy) == (3, 1, True, False)
    assert write_pointer("data", out.md5, 3, 1, old) == theirs
    assert write_pointer("data", out.md5, 3, 1, theirs) == theirs


def test_a_size_that_is_not_known_is_left_out() -> None:
    assert (
        write_pointer("data", HI + ".dir", None, 1)
        == f"outs:\n- md5: {HI}.dir\n  nfiles: 1\n  hash: md5\n  path: data\n".encode()
    )


@pytest.mark.parametrize("path", ["data", "a b", "-x", "yes", "é", "a: b", "x#y", "12", "'q'"])
def test_any_path_comes_back(path: str) -> None:
    text = write_pointer(path, HI, 3, None)
    assert read_pointer(text) == [Out(path, HI, 3, None, False)]
    assert write_pointer(path, HI, 3, None, text) == text


def test_dvc_2_wdir_and_several_outs() -> None:
    text = (
        f"wdir: ..\nouts:\n- md5: {HI}\n  path: x/y\n- path: not-downloaded\n- md5: {HI}.dir\n  hash: md5\n  path: z\n"
    )
    assert read_pointer(text) == [
        Out("../x/y", HI, None, None, False, legacy=True),
        Out("../z", HI + ".dir", None, None, True),
    ]


def test_cloud_versioned_folders_list_their_files() -> None:
    text = f"outs:\n- path: data\n  hash: md5\n  files:\n  - {{relpath: a/b, md5: {HI}, size: 3}}\n"
    text += "  - {relpath: c, etag: x}\n"
    assert [(out.path, out.md5, out.size) for out in read_pointer(text)] == [("data/a/b", HI, 3)]


def test_an_empty_pointer() -> None:
    assert read_pointer("") == read_pointer("outs: []\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "outs: 3",
        "outs: [3]",
        "outs: [{md5: x, path: data}]",
        f"outs: [{{md5: {HI}}}]",
        f"outs: [{{md5: {HI}, path: data, size: many}}]",
        "outs: {",
        "!!python/object/apply:os.system [id]",
        "\0",
        "outs: " + "[" * 5000,
        b"\xff\xfe\xfa",
        "wdir: [3]",
    ],
)
def test_malformed_pointers_give_one_line(text: str | bytes) -> None:
    with pytest.raises(BadData) as failure:
        read_pointer(text, "data.dvc")
    assert "\n" not in str(failure.value)
    assert "data.dvc" in str(failure.value)
