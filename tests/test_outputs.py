"""What may be in /pfs/out, and how it becomes blobs."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stagekit import Kit, both

from gitpipe.errors import BadData
from gitpipe.stage.outputs import Output, collect


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.close()


class Folder:
    """A ``/pfs`` as it is after the user's code ended."""

    def __init__(self, kit: Kit, base: Path) -> None:
        self.kit, self.pfs = kit, base / "pfs"
        self.out = self.pfs / "out"
        self.out.mkdir(parents=True)
        self.inputs: dict[str, str] = {}

    def input(self, path: str, data: bytes) -> None:
        target = self.pfs / path
        target.parent.mkdir(parents=True, exist_ok=True)
        md5 = self.inputs[path] = self.kit.blob(data)
        os.link(self.kit.cache / md5[:2] / md5[2:], target)

    def collect(self) -> tuple[Output, ...]:
        return collect(str(self.pfs), str(self.kit.cache), self.inputs, (str(self.pfs),))

    def files(self) -> dict[str, bytes]:
        return {path: self.kit.read(md5) for path, md5, _ in self.collect()}


@pytest.fixture
def folder(kit: Kit, tmp_path: Path) -> Folder:
    return Folder(kit, tmp_path)


def test_files_are_moved_not_copied(kit: Kit, folder: Folder) -> None:
    (folder.out / "b").mkdir()
    (folder.out / "b" / "x").write_bytes(b"one")
    (folder.out / "a").write_bytes(b"three")
    (folder.out / "empty").mkdir()
    (folder.out / "b" / "x").chmod(0o4755)
    inode = (folder.out / "a").stat().st_ino
    outputs = folder.collect()
    assert [(path, size) for path, _, size in outputs] == [("a", 5), ("b/x", 3)]
    blob = kit.cache / outputs[0][1][:2] / outputs[0][1][2:]
    assert blob.stat().st_ino == inode
    assert {path.stat().st_mode & 0o7777 for path in kit.cache.glob("*/*")} == {0o644}
    assert not (folder.out / "a").exists()


def test_an_existing_blob_is_kept_and_stays_protected(kit: Kit, folder: Folder) -> None:
    md5 = kit.blob(b"same")
    blob = kit.cache / md5[:2] / md5[2:]
    before = blob.stat()
    (folder.out / "x").write_bytes(b"same")
    (folder.out / "y").write_bytes(b"same")
    assert [output[1] for output in folder.collect()] == [md5, md5]
    after = blob.stat()
    assert (after.st_ino, after.st_mode & 0o777) == (before.st_ino, 0o444)


def test_a_torn_blob_is_replaced(kit: Kit, folder: Folder) -> None:
    md5 = kit.blob(b"whole")
    blob = kit.cache / md5[:2] / md5[2:]
    blob.chmod(0o644)
    blob.write_bytes(b"wh")
    (folder.out / "x").write_bytes(b"whole")
    assert folder.files() == {"x": b"whole"}


def test_a_file_with_two_links_is_copied(kit: Kit, folder: Folder) -> None:
    """Else the blob could be changed through the other name."""
    (folder.out / "x").write_bytes(b"1")
    os.link(folder.out / "x", folder.out / "y")
    os.link(folder.out / "x", folder.pfs.parent / "kept")
    assert folder.files() == {"x": b"1", "y": b"1"}
    (folder.pfs.parent / "kept").write_bytes(b"changed")
    assert kit.read(folder.kit.blob(b"1")) == b"1"
    assert not list(kit.cache.glob("*/.gitpipe-*"))


def test_symlinks_within_pfs(folder: Folder) -> None:
    folder.input("in/a/x", b"input")
    folder.input("in/a/y", b"input 2")
    (folder.out / "real").write_bytes(b"real")
    (folder.out / "d").mkdir()
    (folder.out / "d" / "f").write_bytes(b"f")
    links = {
        "absolute": "/pfs/in/a/x",
        "relative": "../in/a/x",
        "around": "../../pfs/in/a/x",
        "chain": "absolute",
        "here": "real",
        "d/up": "../real",
        "outside-name": f"{folder.pfs}/in/a/x",
        "folder": "/pfs/in/a",
        "d2": "d/",
    }
    for name, target in links.items():
        (folder.out / name).symlink_to(target)
    files = folder.files()
    assert files == {
        **dict.fromkeys(("absolute", "relative", "around", "chain", "outside-name", "folder/x"), b"input"),
        **dict.fromkeys(("real", "here", "d/up", "d2/up"), b"real"),
        **dict.fromkeys(("d/f", "d2/f"), b"f"),
        "folder/y": b"input 2",
    }


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/etc/passwd", "leads out of /pfs: /etc/passwd"),
        ("../../etc/passwd", "leads out of /pfs"),
        ("/pfs", "leads out of /pfs"),
        ("/pfsx/in", "leads out of /pfs"),
        ("/pfs/in/none", "does not exist"),
        ("link", "in a circle"),
        (".", "folder that it lies in"),
        ("/pfs/out", "folder that it lies in"),
    ],
)
def test_symlinks_that_fail_the_datum(folder: Folder, target: str, message: str) -> None:
    folder.input("in/x", b"")
    (folder.out / "kept").write_bytes(b"no blob of a failed datum")
    (folder.out / "link").symlink_to(target)
    with pytest.raises(BadData, match=f"/pfs/out/link is a symlink .*{message}"):
        folder.collect()
    assert (folder.out / "kept").exists()


def test_what_is_no_file_fails_the_datum(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder.out / "fifo")
    with pytest.raises(BadData, match="/pfs/out/fifo is a named pipe"):
        folder.collect()
    (folder.out / "fifo").unlink()
    monkeypatch.chdir(folder.out)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(BadData, match="/pfs/out/socket is a socket"):
            folder.collect()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"caf\xe9", r"caf\\udce9: the name is not UTF-8"),
        (b".git", r"\.git: a name that cannot be recorded"),
        (b".GIT/x", "cannot be recorded"),
        (b".dvcignore", "DVC would take it for settings of its own"),
        (b".dvc/config", "DVC would take it for settings of its own"),
    ],
)
def test_names_that_cannot_be_recorded(folder: Folder, name: bytes, message: str) -> None:
    path = folder.out / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(BadData, match=message):
        folder.collect()


def test_unusual_names_are_fine(folder: Folder) -> None:
    names = [
        "with space",
        "ünï",
        "back\\slash",
        "-dash",
        "*",
        "..x",
        "tab\t",
        "line\nbreak",
        "\r",
        "e\u0301",
        "é",
        "x" * 255,
        "x.dvc",
        "dvc.yaml",
        ".gitignore",
        "case",
        "Case",
    ]
    for name in names:
        (folder.out / name).write_bytes(name.encode())
    assert folder.files() == {name: name.encode() for name in names}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_fails_the_datum(folder: Folder) -> None:
    try:
        os.mknod(folder.out / "disk", 0o20600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    with pytest.raises(BadData, match="/pfs/out/disk is a device"):
        folder.collect()


def test_unreadable_files_and_empty_folders(folder: Folder) -> None:
    """What its owner may not read is read all the same; a folder without files is not recorded, as in git and DVC."""
    (folder.out / "a/b/empty").mkdir(parents=True)
    (folder.out / "a/x").write_bytes(b"1")
    for name in ("a/x", "a/b/empty", "a/b", "a"):
        (folder.out / name).chmod(0)
    assert folder.files() == {"a/x": b"1"}


def test_deep_folders(folder: Folder) -> None:
    deep = "/".join("d" * 200)
    (folder.out / deep).mkdir(parents=True)
    (folder.out / deep / "x").write_bytes(b"1")
    assert folder.files() == {f"{deep}/x": b"1"}


@pytest.mark.parametrize("copied", [False, True])
def test_large_and_sparse_files_are_read_in_pieces(kit: Kit, tmp_path: Path, copied: bool) -> None:
    """300 MB in a process that is given 100 MB more than it has: no file is held in memory, and holes stay holes."""
    folder = Folder(kit, tmp_path)
    size = 300 << 20
    with (folder.out / "x").open("wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")
    if copied:
        os.link(folder.out / "x", tmp_path / "other")
    program = (
        "import resource, sys; sys.path.insert(0, sys.argv[3])\n"
        "from gitpipe.stage.outputs import collect\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)\n"
        "print(collect(sys.argv[1], sys.argv[2], {})[0])\n"
    )
    argv = [sys.executable, "-c", program, str(folder.pfs), str(kit.cache), str(Path(__file__).parent.parent)]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert said.startswith("('x', ") and said.endswith(f", {size})\n")
    (blob,) = kit.cache.glob("*/*")
    assert blob.stat().st_size == size and blob.stat().st_blocks * 512 < 8 << 20
    with blob.open("rb") as file:
        assert file.read(6) == b"begin\0" and file.seek(-4, os.SEEK_END) and file.read() == b"\0end"


@both
def test_a_file_that_is_still_being_written(kit: Kit, sandbox: str) -> None:
    """What writes it is ended first, so that what is recorded is what was there: nothing changes a blob afterwards."""
    script = "(setsid sh -c 'while :; do echo more >> /pfs/out/x; done' &); while ! test -s /pfs/out/x; do :; done"
    result = kit.sh(script, sandbox=sandbox)
    assert result.ok and [path for path, _, _ in result.outputs] == ["x"]
    _, md5, size = result.outputs[0]
    data = kit.read(md5)
    assert len(data) == size > 0 and hashlib.md5(data).hexdigest() == md5


@both
def test_a_bad_output_fails_its_datum_and_not_the_next(kit: Kit, sandbox: str) -> None:
    worker = kit.worker(kit.stage("sh", "-c", "cd /pfs/out; sh -e /pfs/in/do", sandbox=sandbox))
    bad = worker.run(kit.task({"do": b"echo 1 > x; mkfifo pipe; ln -s /etc/passwd p"}))
    assert bad.error.startswith("/pfs/out/p") and not bad.lost and bad.outputs == ()
    good = worker.run(kit.task({"do": b"echo 1 > x"}))
    assert kit.contents(good) == {"x": b"1\n"}
