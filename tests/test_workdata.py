"""``data/`` of a working tree: taken in as ``dvc add`` would, brought to a listing without losing a changed file."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitpipe.blobs.dvc import DvcStore
from gitpipe.blobs.memory import MemoryStore
from gitpipe.blobs.pointers import DVC_GITIGNORE, write_pointer
from gitpipe.errors import BadData, NotFound, Refused
from gitpipe.scan import Ignore
from gitpipe.workdata import Before, add, bring, changed, make_plan, read_stamp, write_stamp

Tree = dict[str, bytes]
TYPES = (("reflink", "copy"), ("hardlink", "copy"), ("symlink",))


class Work:
    """A working tree with a store, and the verbs under test bound to it."""

    def __init__(self, top: Path, store: DvcStore) -> None:
        self.top, self.store = top, store
        self.git_dir = top / ".git"
        self.git_dir.mkdir(parents=True, exist_ok=True)
        self.data = top / "data"

    def write(self, path: str, text: bytes | str) -> None:
        full = self.data / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(text.encode() if isinstance(text, str) else text)

    def tree(self) -> Tree:
        found = {}
        for folder, _, names in os.walk(self.data):
            for name in names:
                full = Path(folder, name)
                found[full.relative_to(self.data).as_posix()] = full.read_bytes()
        return found

    def listing(self, **files: str) -> dict[str, str]:
        listing = {path.replace("__", "/"): self.store.put_bytes(text.encode()) for path, text in files.items()}
        self.store.sync()
        return listing

    def add(self, *paths: str, branch: str = "training", base: str | None = None):  # type: ignore[no-untyped-def]
        return add(self.top, self.git_dir, self.store, paths or ["data"], branch, base=base)

    def bring(self, branch: str, listing: dict[str, str], commit: str = "c", **options: bool):  # type: ignore[no-untyped-def]
        return bring(self.top, self.git_dir, self.store, branch, commit, listing, **options)

    def changed(self) -> list[str]:
        return changed(self.top, self.git_dir, self.store)


@pytest.fixture(autouse=True)
def sealed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
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


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work", DvcStore(tmp_path / "cache"))


def dvc(top: Path, *args: str) -> str:
    command = [sys.executable, "-m", "dvc", *args]
    return subprocess.run(command, cwd=top, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def dvc_repo(tmp_path: Path) -> Callable[[str], Work]:
    def make(name: str, cache_type: str = "") -> Work:
        top = tmp_path / name
        top.mkdir()
        subprocess.run(["git", "init", "-q"], cwd=top, check=True)
        (top / ".dvc").mkdir()
        (top / ".dvc" / "config").write_text(f"[cache]\n    type = '{cache_type}'\n" if cache_type else "")
        (top / ".dvc" / ".gitignore").write_bytes(DVC_GITIGNORE)
        types = tuple(cache_type.split(",")) if cache_type else ("reflink", "copy")
        return Work(top, DvcStore(top / ".dvc" / "cache", cache_types=types))

    return make  # type: ignore[return-value]


def cache_of(top: Path) -> Tree:
    root = top / ".dvc" / "cache" / "files" / "md5"
    return {
        path.relative_to(root).as_posix(): path.read_bytes() + oct(stat.S_IMODE(path.stat().st_mode)).encode()
        for path in root.rglob("*")
        if path.is_file()
    }


def fill(work: Work) -> None:
    """Names and sizes that have broken such tools before."""
    (work.top / ".dvcignore").write_text("*.tmp\n/data/skip/\n# comment\n!keep.tmp\nfoo/bar  \n")
    for path in (
        "a",
        "sub/deep/er/x",
        "sp ace/é ü",
        "-lead",
        "sub/-x",
        "new\nline",
        "日本",
        "UP",
        "up",
        "sub.x",
        "sub-y",
    ):
        work.write(path, f"content of {path}")
    work.write("empty", "")
    work.write("sub/empty", "")
    work.write("big", os.urandom((1 << 20) + 17))
    work.write("x.tmp", "ignored")
    work.write("sub/keep.tmp", "not ignored")
    work.write("skip/x", "ignored")
    work.write("deep/skip/x", "not ignored either")
    work.write("q/foo/bar", "anchored elsewhere")
    work.write(".hg/x", "ignored by default")
    work.write("subrepo/.dvc/config", "ignored by default")
    work.write("subrepo/x", "ignored by default")
    work.write("crlf", "a\r\nb\r\n")
    os.symlink("a", work.data / "link")
    os.symlink("sub", work.data / "linked-folder")
    (work.data / "nothing").mkdir()


class TestAsDvc:
    @pytest.mark.parametrize("cache_type", ["", "hardlink,copy", "symlink"])
    def test_same_pointer_and_cache_as_dvc_add(self, dvc_repo: Callable[..., Work], cache_type: str) -> None:
        ours, theirs = dvc_repo("ours", cache_type), dvc_repo("theirs", cache_type)
        fill(ours)
        subprocess.run(["cp", "-a", str(ours.data), str(ours.top / ".dvcignore"), str(theirs.top)], check=True)
        dvc(theirs.top, "add", "-q", "data")
        for _ in range(2):  # the second time all is known
            result = ours.add()
            pointer = write_pointer("data", result.oid, result.size, result.nfiles)
            assert pointer == (theirs.top / "data.dvc").read_bytes()
            assert cache_of(ours.top) == cache_of(theirs.top)
        assert result.skipped == ("linked-folder",)
        (ours.top / "data.dvc").write_bytes(pointer)
        assert json.loads(dvc(ours.top, "status", "--json")) == {}
        assert kinds(ours.data) == kinds(theirs.data)

    def test_dvc_checks_out_what_we_added(self, dvc_repo: Callable[..., Work]) -> None:
        work = dvc_repo("r")
        work.write("a/b", "1")
        work.write("c", "2")
        result = work.add()
        (work.top / "data.dvc").write_bytes(write_pointer("data", result.oid, result.size, result.nfiles))
        before = work.tree()
        subprocess.run(["rm", "-r", str(work.data)], check=True)
        dvc(work.top, "checkout", "-q")
        assert work.tree() == before

    @pytest.mark.parametrize("cache_type", ["", "hardlink,copy", "symlink"])
    def test_dvc_finds_what_we_brought_clean(self, dvc_repo: Callable[..., Work], cache_type: str) -> None:
        work = dvc_repo("r", cache_type)
        work.write("a/b", "1")
        work.write("c", "2")
        work.write("empty", "")
        result = work.add()
        subprocess.run(["rm", "-r", str(work.data)], check=True)
        work.bring("training", result.listing)
        (work.top / "data.dvc").write_bytes(write_pointer("data", result.oid, result.size, result.nfiles))
        assert json.loads(dvc(work.top, "status", "--json")) == {}
        assert work.changed() == []
        work.bring("model", work.listing(c="3"))
        assert work.tree() == {"c": b"3"}

    @pytest.mark.parametrize(
        ("patterns", "path", "is_dir"),
        [
            ("x", "data/x", False),
            ("x/", "data/x", False),
            ("x/", "data/x", True),
            ("/x", "data/x", False),
            ("data/*.csv\n!data/a.csv", "data/a.csv", False),
            ("data/*.csv\n!data/a.csv", "data/b.csv", False),
            ("*\n!data/", "data/b", False),
            ("**/b/*", "data/b/c", False),
            ("\\#x", "data/#x", False),
            ("!.dvc/", "data/.dvc", True),
            ("b[0-9]", "data/b1", False),
        ],
    )
    def test_ignores_what_dvc_ignores(self, patterns: str, path: str, is_dir: bool) -> None:
        from dvc.ignore import DvcIgnorePatterns

        theirs = DvcIgnorePatterns([".hg/", ".git/", ".git", ".dvc/", *patterns.splitlines()], "/r", "/")
        folder, _, name = path.rpartition("/")
        assert Ignore(patterns)(path, is_dir) == theirs.matches(f"/r/{folder}", name, is_dir)


def kinds(data: Path) -> dict[str, tuple[bool, bool]]:
    """Path -> (symbolic link, hard-linked), of what the working tree holds after an add."""
    return {
        path.relative_to(data).as_posix(): (path.is_symlink(), path.lstat().st_nlink > 1)
        for path in sorted(data.rglob("*"))
        if not path.is_dir() and path.name != "link"  # the user's own link stays with us; DVC makes it a file
    }


class TestAdd:
    def test_a_part(self, work: Work) -> None:
        for path in ("a", "sub/b", "sub/c", "subx"):
            work.write(path, path)
        first = work.add()
        for path in ("a", "sub/b", "sub/new", "subx"):
            work.write(path, "changed")
        (work.data / "sub" / "c").unlink()
        second = work.add("data/sub", base=first.oid)
        assert (second.added, second.changed, second.deleted) == (("sub/new",), ("sub/b",), ("sub/c",))
        assert second.listing["a"] == first.listing["a"]
        assert second.size == len("a" + "changed" * 2 + "subx")
        third = work.add(str(work.data / "a"), base=second.oid)
        assert third.changed == ("a",)
        assert work.add(base=second.oid).changed == ("a", "subx")

    def test_a_part_that_is_gone(self, work: Work) -> None:
        for path in ("a", "sub/b", "sub/c"):
            work.write(path, path)
        first = work.add()
        subprocess.run(["rm", "-r", str(work.data / "sub")], check=True)
        assert work.add("data/sub", base=first.oid).deleted == ("sub/b", "sub/c")
        with pytest.raises(NotFound, match="data/nothing"):
            work.add("data/nothing", base=first.oid)

    def test_a_part_where_a_folder_became_a_file_and_back(self, work: Work) -> None:
        work.write("x/y", "1")
        work.write("z", "1")
        first = work.add()
        subprocess.run(["rm", "-r", str(work.data / "x")], check=True)
        work.write("x", "2")
        second = work.add("data/x", base=first.oid)
        assert list(second.listing) == ["x", "z"]
        (work.data / "x").unlink()
        work.write("x/y", "3")
        assert list(work.add("data/x/y", base=second.oid).listing) == ["x/y", "z"]

    def test_a_foreign_stamp_is_refused(self, work: Work) -> None:
        work.bring("model", work.listing(a="1"))
        with pytest.raises(
            Refused, match="holds the files of model, but training is checked out; `git switch training`"
        ):
            work.add(branch="training")
        assert work.add(branch="model").nfiles == 1

    def test_files_whose_blobs_never_came_stay_listed(self, work: Work) -> None:
        gone = hashlib.md5(b"gone").hexdigest()
        brought = work.bring("training", {**work.listing(a="1"), "b": gone})
        assert brought.missing == ("b",)
        result = work.add()
        assert result.listing["b"] == gone
        assert result.size is None
        assert work.changed() == []

    def test_blobs_are_durable_and_protected(self, work: Work) -> None:
        work.write("a", "1")
        result = work.add()
        assert all(
            stat.S_IMODE(os.stat(work.store.path_of(oid)).st_mode) == 0o444
            for oid in [result.oid, *result.listing.values()]
        )

    def test_a_known_file_whose_blob_is_gone_is_stored_again(self, work: Work) -> None:
        work.write("a", "1")
        time.sleep(0.03)
        result = work.add()
        work.store.remove(result.listing["a"])
        work.add()
        assert work.store.read(result.listing["a"]) == b"1"

    def odd(self, work: Work, kind: str) -> str:
        work.write("ok", "1")
        path = work.data / "odd"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            here = os.getcwd()
            os.chdir(work.data)  # a socket's path may have 107 bytes
            socket.socket(socket.AF_UNIX).bind("odd")
            os.chdir(here)
        elif kind == "link out":
            os.symlink("/etc/hostname", path)
        elif kind == "link out to a folder":
            os.symlink("/etc", path)
        elif kind == "broken link":
            os.symlink("nowhere", path)
        elif kind == "git":
            (path / ".GIT").mkdir(parents=True)
        elif kind == "not UTF-8":
            Path(os.fsdecode(os.fsencode(work.data) + b"/odd\xff")).write_text("x")
        elif kind == ".dvcignore":
            work.write("odd/.dvcignore", "x")
        return kind

    KINDS = ("fifo", "socket", "link out", "link out to a folder", "broken link", "git", "not UTF-8", ".dvcignore")

    @pytest.mark.parametrize("kind", KINDS)
    def test_odd_entries_are_refused_by_name(self, work: Work, kind: str) -> None:
        self.odd(work, kind)
        with pytest.raises(Refused, match=r"^data/odd") as failure:
            work.add()
        str(failure.value).encode()
        assert "\n" not in str(failure.value)

    @pytest.mark.parametrize("kind", KINDS)
    def test_odd_entries_do_not_stop_a_checkout_nor_get_lost(self, work: Work, kind: str) -> None:
        work.bring("training", work.listing(ok="1"))
        self.odd(work, kind)
        brought = work.bring("model", work.listing(m="1"))
        assert list(work.data.iterdir()) == [work.data / "m"]
        assert len(brought.kept) == 1
        brought = work.bring("training", work.listing(ok="1"))
        assert len(brought.restored) == 1
        assert len(list(work.data.iterdir())) == 2

    def test_an_unreadable_file(self, work: Work) -> None:
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        work.write("a", "1")
        (work.data / "a").chmod(0)
        with pytest.raises(BadData, match="cannot read data/a: Permission denied"):
            work.add()

    def test_data_that_is_no_folder(self, work: Work) -> None:
        with pytest.raises(NotFound, match="there is no data/"):
            work.add()
        os.symlink("/etc", work.data)
        for verb in (work.add, lambda: work.bring("training", {})):
            with pytest.raises(Refused, match="not a folder"):
                verb()

    @pytest.mark.parametrize("path", ["data/../x", "elsewhere", "/etc", "data.csv"])
    def test_paths_elsewhere(self, work: Work, path: str) -> None:
        work.write("a", "1")
        with pytest.raises(Refused, match="only data/"):
            work.add(path)

    def test_ignored_paths_asked_for_by_name(self, work: Work) -> None:
        work.write("sub/a", "1")
        (work.top / ".dvcignore").write_text("sub/\n")
        with pytest.raises(Refused, match=r"data/sub is ignored by \.dvcignore"):
            work.add("data/sub/a")
        (work.top / ".dvcignore").write_text("data\n")
        with pytest.raises(Refused, match="ignored"):
            work.add()


class TestIndex:
    def test_only_what_changed_is_hashed(self, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
        for path in "abc":
            work.write(path, path)
        time.sleep(0.03)
        work.add()
        read: list[str] = []
        real = work.store.put_file
        monkeypatch.setattr(
            work.store, "put_file", lambda path, **options: read.append(path.name) or real(path, **options)
        )
        work.add()
        assert read == []
        work.write("b", "B")
        work.add()
        assert read == ["b"]

    def test_same_size_in_the_same_tick(self, work: Work) -> None:
        """A change right after the index was written must not go unseen."""
        for number in range(50):
            work.write("a", f"{number:02}")
            work.add()
            work.write("a", f"{number + 1:02}")
            assert work.add().listing["a"] == hashlib.md5(f"{number + 1:02}".encode()).hexdigest()

    def test_a_damaged_index_or_stamp_is_like_none(self, work: Work) -> None:
        work.write("a", "1")
        work.add()
        for name in ("gitpipe-index", "gitpipe-stamp.json"):
            for text in ("", "{", "[]", '{"path": ["a"]}', "null"):
                (work.git_dir / name).write_text(text)
                assert work.add().nfiles == 1


class TestBring:
    def test_exactly_the_listing(self, work: Work) -> None:
        work.bring("training", work.listing(a="1", sub__b="2", sub__deep__c="3"))
        assert work.tree() == {"a": b"1", "sub/b": b"2", "sub/deep/c": b"3"}
        work.bring("model", work.listing(a="other", m="4"))
        assert work.tree() == {"a": b"other", "m": b"4"}
        assert not (work.data / "sub").exists()
        work.bring("empty", {})
        assert work.data.is_dir()
        assert list(work.data.iterdir()) == []
        stamp = read_stamp(work.git_dir)
        assert stamp is not None
        assert (stamp.branch, stamp.commit, stamp.absent, stamp.towards) == ("empty", "c", (), "")

    @pytest.mark.parametrize("types", TYPES)
    def test_cache_types(self, tmp_path: Path, types: tuple[str, ...]) -> None:
        work = Work(tmp_path / "work", DvcStore(tmp_path / "cache", cache_types=types))
        work.bring("training", work.listing(a="1", empty=""))
        work.bring("model", work.listing(a="2"))
        work.bring("training", work.listing(a="1", empty=""))
        assert work.tree() == {"a": b"1", "empty": b""}
        assert work.changed() == []
        if types[0] == "reflink":
            assert stat.S_IMODE((work.data / "a").stat().st_mode) & 0o200

    def test_what_is_the_same_is_left_alone(self, work: Work) -> None:
        work.bring("training", work.listing(a="1", b="2"))
        inode = (work.data / "a").stat().st_ino
        brought = work.bring("model", work.listing(a="1", b="3"))
        assert (work.data / "a").stat().st_ino == inode
        assert brought.placed == 1

    def test_changed_and_new_files_are_kept_and_come_back(self, work: Work) -> None:
        training, model = work.listing(a="1", b="2", d__e="3"), work.listing(a="m", n="4")
        work.bring("training", training)
        work.write("a", "mine")
        work.write("d/new", "mine too")
        work.write("n", "mine as well")
        brought = work.bring("model", model)
        assert sorted(kept.path for kept in brought.kept) == ["a", "d/new", "n"]
        assert all(kept.where.read_bytes().startswith(b"mine") for kept in brought.kept)
        assert all(kept.path in line for kept, line in zip(brought.kept, brought.lines(), strict=True))
        assert work.tree() == {"a": b"m", "n": b"4"}
        brought = work.bring("training", training)
        assert sorted(kept.path for kept in brought.restored) == ["a", "d/new", "n"]
        assert work.tree() == {"a": b"mine", "b": b"2", "d/e": b"3", "d/new": b"mine too", "n": b"mine as well"}
        assert work.changed() == ["a", "d/new", "n"]
        assert not list((work.git_dir / "gitpipe-kept").iterdir())

    def test_a_kept_file_does_not_overwrite_a_newer_version(self, work: Work) -> None:
        work.bring("training", work.listing(a="1", b="1"))
        work.write("a", "mine")
        work.write("b", "mine")
        work.bring("model", {})
        brought = work.bring("training", work.listing(a="2", b="1"))
        assert [kept.path for kept in brought.restored] == ["b"]
        assert work.tree() == {"a": b"2", "b": b"mine"}
        assert work.bring("training", work.listing(a="1", b="1")).restored[0].path == "a"
        assert work.tree() == {"a": b"mine", "b": b"mine"}

    def test_on_its_own_branch_a_change_stays_unless_the_branch_changed_it_too(self, work: Work) -> None:
        work.bring("training", work.listing(a="1", b="1", c="1", d="1"))
        work.write("a", "mine")
        work.write("b", "mine")
        work.write("new", "mine")
        (work.data / "d").unlink()
        brought = work.bring("training", work.listing(a="2", b="1", c="2", d="1"))
        assert [kept.path for kept in brought.kept] == ["a"]
        assert work.tree() == {"a": b"2", "b": b"mine", "c": b"2", "new": b"mine"}
        assert work.changed() == ["b", "d", "new"]
        work.bring("training", work.listing(a="2", b="1", c="2", d="1"), restore=True)
        assert work.tree()["d"] == b"1"

    def test_a_folder_that_was_deleted_whole_comes_back(self, work: Work) -> None:
        work.bring("training", work.listing(a="1"))
        subprocess.run(["rm", "-r", str(work.data)], check=True)
        work.bring("training", work.listing(a="1"))
        assert work.tree() == {"a": b"1"}

    def test_without_a_stamp_files_are_new_ones_of_the_branch(self, work: Work) -> None:
        work.write("mine", "1")
        work.write("a", "other")
        work.write("b", "1")
        brought = work.bring("training", work.listing(a="1", b="1"))
        assert [(kept.path, kept.branch) for kept in brought.kept] == [("a", "training")]
        assert work.tree() == {"mine": b"1", "a": b"1", "b": b"1"}

    def test_after_add_and_commit_nothing_moves(self, work: Work) -> None:
        work.bring("training", work.listing(a="1"))
        work.write("b", "2")
        result = work.add()
        brought = work.bring("training", result.listing, "d")
        assert (brought.kept, brought.placed, brought.removed) == ((), 0, 0)
        assert work.changed() == []

    def test_a_file_becomes_a_folder_and_back(self, work: Work) -> None:
        as_file, as_folder = work.listing(x="1", y="1"), work.listing(x__a__b="2", y="1")
        for listing in (as_file, as_folder, as_file):
            work.bring("training", listing)
            assert sorted(work.tree()) == sorted(listing)
            work.bring("model", listing)

    @pytest.mark.parametrize("branch", ["training", "model"])
    def test_a_new_file_where_a_folder_is_to_be_and_the_reverse(self, work: Work, branch: str) -> None:
        work.bring("training", {})
        work.write("x", "mine")
        work.write("y/z", "mine")
        brought = work.bring(branch, work.listing(x__a="1", y="1"))
        assert sorted(kept.path for kept in brought.kept) == ["x", "y/z"]
        assert work.tree() == {"x/a": b"1", "y": b"1"}

    def test_ignored_files_stay_but_make_room(self, work: Work) -> None:
        (work.top / ".dvcignore").write_text("*.tmp\n/data/cachedir/\n")
        work.bring("training", work.listing(a="1"))
        work.write("x.tmp", "scratch")
        work.write("cachedir/y", "scratch")
        work.bring("model", {})
        assert sorted(work.tree()) == ["cachedir/y", "x.tmp"]
        brought = work.bring("training", {**work.listing(cachedir="1"), "x.tmp/a": work.store.put_bytes(b"2")})
        assert sorted(kept.path for kept in brought.kept) == ["cachedir", "x.tmp"]
        assert work.tree() == {"cachedir": b"1", "x.tmp/a": b"2"}

    def test_an_ignored_file_is_not_overwritten(self, work: Work) -> None:
        (work.top / ".dvcignore").write_text("*.tmp\n")
        work.write("x.tmp", "scratch")
        brought = work.bring("training", {"x.tmp": work.store.put_bytes(b"1")})
        assert brought.kept[0].where.read_bytes() == b"scratch"
        assert work.tree() == {"x.tmp": b"1"}

    def test_a_file_written_to_since_the_scan_is_kept(self, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
        work.bring("training", work.listing(a="1", b="1"))
        real = work.store.size

        def size(md5: str) -> int | None:
            work.write("a", "mine")
            work.write("b", "mine")
            return real(md5)

        monkeypatch.setattr(work.store, "size", size)
        brought = work.bring("model", work.listing(a="2"))
        assert sorted(kept.path for kept in brought.kept) == ["a", "b"]
        assert all(kept.where.read_bytes() == b"mine" for kept in brought.kept)
        assert work.tree() == {"a": b"2"}

    def test_a_folder_that_appears_while_it_is_made(self, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
        """A new folder is put in place as a whole; what somebody made there in the meantime is kept."""
        work.bring("training", work.listing(z="1"))
        real = work.store.place

        def place(md5: str, target: str) -> os.stat_result:
            work.write("d/x", "mine")
            work.write("d/other", "mine")
            (work.data / "d" / "e" / "y").mkdir(parents=True, exist_ok=True)
            return real(md5, target)

        monkeypatch.setattr(work.store, "place", place)
        brought = work.bring("training", work.listing(z="1", d__x="1", d__e__y="1", d__e__f__g="1"))
        assert [(kept.path, kept.where.read_bytes()) for kept in brought.kept] == [("d/x", b"mine")]
        assert work.tree() == {"z": b"1", "d/x": b"1", "d/other": b"mine", "d/e/y": b"1", "d/e/f/g": b"1"}

    def test_a_link_to_a_folder_is_not_written_through(self, work: Work, tmp_path: Path) -> None:
        work.bring("training", {})
        for name, goal in (("out", tmp_path / "outside"), ("in", work.top / "elsewhere")):
            goal.mkdir()
            os.symlink(goal, work.data / name)
        work.bring("training", work.listing(out__x="1", in__x="1"))
        assert not list((tmp_path / "outside").iterdir())
        assert not list((work.top / "elsewhere").iterdir())
        assert work.tree() == {"out/x": b"1", "in/x": b"1"}

    def test_hostile_listings(self, work: Work, tmp_path: Path) -> None:
        md5 = work.store.put_bytes(b"x")
        for path in ("../../evil", "/tmp/evil", ".git/hooks/post-commit", "a/../../b"):
            with pytest.raises(BadData, match="unsafe path"):
                work.bring("training", {path: md5})
        assert not work.data.exists()

    def test_missing_blobs_leave_their_files_absent(self, work: Work, tmp_path: Path) -> None:
        gone = hashlib.md5(b"gone").hexdigest()
        work.bring("training", work.listing(a="1", b="1"))
        brought = work.bring("training", {**work.listing(a="2"), "b": gone})
        assert brought.missing == ("b",)
        assert "data/b not here" in brought.lines()[0]
        assert work.tree() == {"a": b"2"}
        work.store.put_bytes(b"gone")
        assert work.bring("training", {**work.listing(a="2"), "b": gone}).missing == ()
        assert work.tree() == {"a": b"2", "b": b"gone"}

    def test_missing_blobs_are_fetched(self, tmp_path: Path) -> None:
        remote = DvcStore(tmp_path / "remote")
        md5 = remote.put_bytes(b"far")
        work = Work(tmp_path / "work", DvcStore(tmp_path / "cache", fetch_root=tmp_path / "work"))
        (work.top / ".dvc").mkdir()
        (work.top / ".dvc" / "config").write_text(f"['remote \"r\"']\nurl = {tmp_path}/remote\n")
        assert work.bring("training", {"a": md5}).missing == ()
        assert work.tree() == {"a": b"far"}

    def test_a_listing_that_is_gone_loses_nothing(self, work: Work) -> None:
        work.bring("training", work.listing(a="1", b="1"))
        stamp = read_stamp(work.git_dir)
        assert stamp is not None
        work.store.remove(stamp.oid)
        brought = work.bring("model", work.listing(a="1"))
        assert [kept.path for kept in brought.kept] == ["b"]

    @pytest.mark.parametrize("then", ["training", "model", "third"])
    def test_killed_half_way(self, work: Work, then: str) -> None:
        """kill -9 in the middle: run again for the same, the old or another branch, it ends right."""
        files = {f"d{number % 7}__f{number}": f"{number}" for number in range(300)}
        training, model = (
            work.listing(**files),
            work.listing(**{path: text + "m" for path, text in files.items()}, m="1"),
        )
        third = work.listing(t="1")
        work.bring("training", training)
        work.write("d0/f0", "mine")
        code = (
            "import os, sys, json, signal\n"
            "from pathlib import Path\n"
            "from gitpipe.blobs.dvc import DvcStore\n"
            "from gitpipe.workdata import bring\n"
            "class Killed(DvcStore):\n"
            "    left = 120\n"
            "    def place(self, md5, target):\n"
            "        self.left -= 1\n"
            "        if self.left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            "        return super().place(md5, target)\n"
            "top = Path(sys.argv[1])\n"
            "bring(top, top / '.git', Killed(Path(sys.argv[2])), 'model', 'c', json.load(sys.stdin))\n"
        )
        command = [sys.executable, "-c", code, str(work.top), str(work.store.cache)]
        killed = subprocess.run(command, input=json.dumps(model), text=True)
        assert killed.returncode == -signal.SIGKILL
        with pytest.raises(Refused, match="half-way"):
            work.add()
        target = {"training": training, "model": model, "third": third}[then]
        brought = work.bring(then, target)
        expected = {path: work.store.read(md5) for path, md5 in target.items()}
        if then == "training":
            assert [kept.path for kept in brought.restored] == ["d0/f0"]
            expected["d0/f0"] = b"mine"
        assert brought.kept == ()
        assert work.tree() == expected
        work.bring("training", training)
        assert work.tree()["d0/f0"] == b"mine"

    def test_add_refuses_half_way_stamps_only(self, work: Work) -> None:
        work.bring("training", work.listing(a="1"))
        stamp = read_stamp(work.git_dir)
        assert stamp is not None
        write_stamp(work.git_dir, stamp)
        assert work.add().nfiles == 1

    def test_memory_store_serves_too(self, tmp_path: Path) -> None:
        top, store = tmp_path / "w", MemoryStore()
        (top / ".git").mkdir(parents=True)
        bring(top, top / ".git", store, "training", "c", {"a/b": store.put_bytes(b"1")})
        assert (top / "data" / "a" / "b").read_bytes() == b"1"
        assert add(top, top / ".git", store, ["data"], "training").nfiles == 1


NAMES = st.sampled_from(["a", "b", "a/x", "a/y", "b/x/z", "c"])
VERSIONS = st.sampled_from(["0", "1", "2"])


def trees() -> st.SearchStrategy[dict[str, str]]:
    def no_clash(tree: dict[str, str]) -> bool:
        return not any(other.startswith(path + "/") for path in tree for other in tree)

    return st.dictionaries(NAMES, VERSIONS, max_size=4).filter(no_clash)


class TestPlan:
    @given(base=trees(), now=trees(), target=trees(), same=st.booleans())
    @settings(max_examples=150, deadline=None)
    def test_nothing_of_the_users_is_overwritten_or_removed(
        self, base: dict[str, str], now: dict[str, str], target: dict[str, str], same: bool
    ) -> None:
        plan = make_plan(Before(now, (), base, {}, frozenset(), same, True), target)
        for path, version in now.items():
            if version not in (base.get(path), target.get(path)):
                assert path in plan.keep or path in plan.stay
                assert path not in plan.remove
                assert path in plan.keep or path not in plan.place

    @given(steps=st.lists(st.tuples(st.sampled_from(["A", "B"]), trees(), trees()), min_size=1, max_size=4))
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def test_every_byte_the_user_wrote_is_somewhere(
        self, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, dict[str, str], dict[str, str]]]
    ) -> None:
        folder = tmp_path_factory.mktemp("w")
        work = Work(folder / "work", DvcStore(folder / "cache"))
        written: set[bytes] = set()
        for number, (branch, target, edits) in enumerate(steps):
            listing = {path: work.store.put_bytes(f"{path}{text}".encode()) for path, text in target.items()}
            work.bring(branch, listing, str(number))
            for path, text in edits.items():
                full = work.data / path
                if full.is_dir() or any(parent.is_file() for parent in full.parents):
                    continue
                if full.is_file() and (text_now := full.read_bytes()) in written:
                    written.discard(text_now)  # the user overwrote it
                mine = f"mine {number} {path} {text}".encode()
                work.write(path, mine)
                written.add(mine)
        left = {path.read_bytes() for path in work.top.rglob("*") if path.is_file()}
        assert written <= left
