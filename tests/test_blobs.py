"""`BlobStore`: one contract for all stores, then what the DVC cache alone promises, checked with DVC itself."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gitpipe.blobs.config import parse_config, read_config
from gitpipe.blobs.dvc import DvcStore
from gitpipe.blobs.listing import md5_hex
from gitpipe.blobs.memory import MemoryStore
from gitpipe.errors import BadData, GitpipeError

HI = "764efa883dda1e11db47671c4a3bbd9e"  # md5 of "hi\n"
EMPTY_DIR = "d751713988987e9331980363e24189ce.dir"


@pytest.fixture(autouse=True)
def sealed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_NO_ANALYTICS": "1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["memory", "dvc"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | DvcStore:
    return MemoryStore() if request.param == "memory" else DvcStore(tmp_path / "cache")


@pytest.fixture
def cache(tmp_path: Path) -> DvcStore:
    return DvcStore(tmp_path / "cache")


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


class TestContract:
    def test_bytes_come_back(self, store: MemoryStore | DvcStore) -> None:
        assert store.put_bytes(b"hi\n") == HI
        assert (store.read(HI), store.size(HI), store.has(HI)) == (b"hi\n", 3, True)

    def test_a_blob_that_is_not_here(self, store: MemoryStore | DvcStore) -> None:
        assert (store.size(HI), store.has(HI)) == (None, False)
        with pytest.raises(BadData, match=f"{HI} is not in the cache.*`dvc fetch`"):
            store.read(HI)

    def test_missing_keeps_order_and_names_each_once(self, store: MemoryStore | DvcStore) -> None:
        store.put_bytes(b"hi\n")
        other, third = "1" * 32, "0" * 32
        assert store.missing([other, HI, third, other]) == [other, third]
        assert store.fetch([other, HI]) == [other]

    @pytest.mark.parametrize("move", [False, True])
    @pytest.mark.parametrize("size", [0, 3, (1 << 20) + 1, 3 << 20])
    def test_files(self, store: MemoryStore | DvcStore, tmp_path: Path, move: bool, size: int) -> None:
        path = tmp_path / "-a é"
        data = os.urandom(size)
        for _ in range(2):  # the second time the blob is here already
            path.write_bytes(data)
            assert store.put_file(path, move=move) == (md5_hex(data), size)
            assert path.exists() is not move
        assert store.read(md5_hex(data)) == data

    def test_a_file_that_is_not_there(self, store: MemoryStore | DvcStore, tmp_path: Path) -> None:
        with pytest.raises(BadData, match=r"cannot read .*nothing"):
            store.put_file(tmp_path / "nothing")

    def test_listings(self, store: MemoryStore | DvcStore) -> None:
        listing = {"b/c": HI, "a": "0" * 32, "é x": "1" * 32}
        oid = store.put_listing(listing)
        assert store.read_listing(oid) == listing
        assert list(store.read_listing(oid)) == ["a", "b/c", "é x"]
        assert store.put_listing({}) == EMPTY_DIR
        store.read_listing(oid)["a"] = "changed by the caller"
        assert store.read_listing(oid)["a"] == "0" * 32

    @pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/hooks/post-commit", "a/.GIT/config", "a//b", "a\0b", ""])
    def test_hostile_listings_are_refused(self, store: MemoryStore | DvcStore, path: str) -> None:
        data = json.dumps([{"md5": HI, "relpath": path}]).encode()
        with pytest.raises(BadData, match="unsafe path"):
            store.read_listing(self.plant(store, data))
        with pytest.raises(BadData):
            store.put_listing({path: HI})

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{}",
            b"[1]",
            b"null",
            b'[{"md5": "../../x", "relpath": "a"}]',
            b'[{"md5": null, "relpath": "a"}]',
            b'[{"relpath": "a"}]',
            b'[{"md5": "' + HI.encode() + b'", "relpath": 1}]',
            b"[" * 100_000,
            b"\xff",
            json.dumps([{"md5": HI, "relpath": "a"}, {"md5": "0" * 32, "relpath": "a"}]).encode(),
            json.dumps([{"md5": HI, "relpath": "a"}, {"md5": HI, "relpath": "a/b"}]).encode(),
        ],
    )
    def test_malformed_listings_are_refused_in_one_line(self, store: MemoryStore | DvcStore, data: bytes) -> None:
        with pytest.raises(BadData) as failure:
            store.read_listing(self.plant(store, data))
        assert "\n" not in str(failure.value)

    def test_a_listing_whose_bytes_changed(self, store: MemoryStore | DvcStore) -> None:
        data = json.dumps([{"md5": HI, "relpath": "a"}]).encode()
        with pytest.raises(BadData, match="damaged"):
            store.read_listing(self.plant(store, data, "0" * 32 + ".dir"))

    def test_links_are_read_only_and_replace(self, store: MemoryStore | DvcStore, tmp_path: Path) -> None:
        store.put_bytes(b"hi\n")
        for _ in range(2):  # before and after sync
            store.link(HI, tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == b"hi\n"
            assert mode(tmp_path / "x") == 0o444
            store.sync()

    @staticmethod
    def plant(store: MemoryStore | DvcStore, data: bytes, oid: str | None = None) -> str:
        """Put `data` under a listing's name, as a hostile or damaged cache would."""
        oid = oid or md5_hex(data) + ".dir"
        if isinstance(store, MemoryStore):
            store._blobs[oid] = data
        else:
            path = Path(store.path_of(oid))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return oid


class TestCache:
    def test_protected_only_after_sync(self, cache: DvcStore) -> None:
        """I7: mode 0444 says that the bytes are on disk."""
        cache.put_bytes(b"hi\n")
        assert mode(cache.path_of(HI)) & 0o200
        cache.sync()
        assert mode(cache.path_of(HI)) == 0o444

    def test_a_link_does_not_protect_early(self, cache: DvcStore, tmp_path: Path) -> None:
        cache.put_bytes(b"hi\n")
        cache.link(HI, tmp_path / "x")
        assert mode(cache.path_of(HI)) & 0o200
        cache.sync()
        cache.link(HI, tmp_path / "x")
        assert os.path.samefile(tmp_path / "x", cache.path_of(HI))

    def test_a_blob_cut_short_is_replaced(self, cache: DvcStore) -> None:
        path = Path(cache.path_of(HI))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"h")
        path.chmod(0o444)
        cache.put_bytes(b"hi\n")
        cache.sync()
        assert path.read_bytes() == b"hi\n"
        assert mode(path) == 0o444

    def test_a_whole_blob_of_another_process_is_kept_and_protected(self, cache: DvcStore) -> None:
        DvcStore(cache.cache).put_bytes(b"hi\n")
        inode = os.stat(cache.path_of(HI)).st_ino
        cache.put_bytes(b"hi\n")
        cache.sync()
        assert os.stat(cache.path_of(HI)).st_ino == inode
        assert mode(cache.path_of(HI)) == 0o444

    def test_adopt(self, cache: DvcStore) -> None:
        DvcStore(cache.cache).put_bytes(b"hi\n")
        cache.adopt([HI, HI])
        cache.sync()
        assert mode(cache.path_of(HI)) == 0o444
        with pytest.raises(BadData, match="not in the cache"):
            cache.adopt(["0" * 32])

    def test_a_blob_that_vanished_stops_publishing(self, cache: DvcStore) -> None:
        cache.put_bytes(b"hi\n")
        os.unlink(cache.path_of(HI))
        with pytest.raises(BadData, match="vanished"):
            cache.sync()

    def test_a_moved_file_with_another_link_is_copied(self, cache: DvcStore, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"hi\n")
        os.link(tmp_path / "a", tmp_path / "b")
        cache.put_file(tmp_path / "a", move=True)
        (tmp_path / "b").write_bytes(b"changed")
        assert cache.read(HI) == b"hi\n"

    @pytest.mark.parametrize("kind", ["fifo", "folder"])
    def test_odd_files(self, cache: DvcStore, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "odd"
        os.mkfifo(path) if kind == "fifo" else path.mkdir()
        with pytest.raises(BadData, match=r"odd.*not a regular file"):
            cache.put_file(path)

    def test_names_that_are_no_blobs(self, cache: DvcStore) -> None:
        with pytest.raises(BadData, match="not the name of a blob"):
            cache.has("../../../etc/passwd")

    def test_shared(self, tmp_path: Path) -> None:
        cache = DvcStore(tmp_path / "cache", shared=True)
        cache.put_bytes(b"hi\n")
        path = Path(cache.path_of(HI))
        assert mode(path) == 0o664
        cache.sync()
        assert mode(path) == 0o444
        assert mode(path.parent) == mode(cache.cache) == 0o2775

    def test_sweep(self, cache: DvcStore) -> None:
        cache.put_bytes(b"hi\n")
        tmp = cache.cache / "gitpipe-tmp"
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        left = tmp / f"{os.uname().nodename}.{dead.pid}.1.0"
        mine = tmp / f"{os.uname().nodename}.{os.getpid()}.1.0"
        for path in (left, mine):
            path.write_bytes(b"half")
        assert cache.sweep_tmp() == 0
        assert cache.sweep_tmp(older_than=0) == 1
        assert not left.exists()
        assert mine.exists()

    def test_many_threads_and_processes(self, cache: DvcStore, tmp_path: Path) -> None:
        blobs = [str(n).encode() * 50 for n in range(200)]

        def work() -> None:
            for blob in blobs:
                cache.put_bytes(blob)
            cache.sync()

        code = (
            "import sys; from pathlib import Path; from gitpipe.blobs.dvc import DvcStore\n"
            "s = DvcStore(Path(sys.argv[1]))\n"
            "for n in range(200): s.put_bytes(str(n).encode() * 50)\n"
            "s.sync()"
        )
        others = [subprocess.Popen([sys.executable, "-c", code, str(cache.cache)]) for _ in range(2)]
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [other.wait() for other in others] == [0, 0]
        assert all(cache.read(md5_hex(blob)) == blob and cache.verify(md5_hex(blob)) for blob in blobs)
        assert all(mode(cache.path_of(md5_hex(blob))) == 0o444 for blob in blobs)
        assert os.listdir(cache.cache / "gitpipe-tmp") == []

    def test_verify_and_remove(self, cache: DvcStore) -> None:
        cache.put_bytes(b"hi\n")
        assert cache.verify(HI)
        Path(cache.path_of(HI)).write_bytes(b"ho\n")
        assert not cache.verify(HI)
        assert list(cache.oids()) == [HI]
        cache.remove(HI)
        assert not cache.has(HI)

    def test_blobs_of_dvc_2_are_read(self, cache: DvcStore) -> None:
        old = cache.cache / HI[:2] / HI[2:]
        old.parent.mkdir(parents=True)
        old.write_bytes(b"hi\n")
        assert cache.read(HI) == b"hi\n"

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(GitpipeError, match="cannot store bytes in the cache"):
            DvcStore(tmp_path / "file").put_bytes(b"hi\n")

    def test_dvc_is_not_imported_to_read_and_write(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from gitpipe.blobs.dvc import DvcStore\n"
            f"s = DvcStore(Path({str(tmp_path)!r}), fetch_root=Path({str(tmp_path)!r}))\n"
            "s.put_bytes(b'x'); s.sync(); s.fetch(['0'*32])\n"
            "print([m for m in sys.modules if m.split('.')[0] in ('dvc', 'dvc_data', 'yaml', 'pathspec')])"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestFetch:
    @pytest.fixture
    def remote(self, tmp_path: Path) -> DvcStore:
        """A folder as DVC's local remote lays it out, with one listing of two files in it."""
        remote = DvcStore(tmp_path / "remote")
        remote.put_bytes(b"hi\n")
        remote.put_bytes(b"")
        remote.put_listing({"a": HI, "b": md5_hex(b"")})
        remote.sync()
        return remote

    @pytest.fixture
    def here(self, tmp_path: Path) -> DvcStore:
        dvc_dir = tmp_path / "repo" / ".dvc"
        dvc_dir.mkdir(parents=True)
        (dvc_dir / "config").write_text("[core]\n    remote = r\n['remote \"r\"']\n    url = ../../remote\n")
        return DvcStore(tmp_path / "cache", fetch_root=tmp_path / "repo")

    def test_brings_what_the_remote_has(self, remote: DvcStore, here: DvcStore) -> None:
        oid = remote.put_listing({"a": HI, "b": md5_hex(b"")})
        assert here.fetch([oid, HI, "0" * 32, md5_hex(b"")]) == ["0" * 32]
        assert here.read_listing(oid) == {"a": HI, "b": md5_hex(b"")}
        assert here.read(HI) == b"hi\n"
        assert mode(here.path_of(HI)) == 0o444
        assert os.listdir(here.cache / "gitpipe-tmp") == []

    def test_bytes_that_are_not_what_their_name_says(self, remote: DvcStore, here: DvcStore) -> None:
        path = Path(remote.path_of(HI))
        path.chmod(0o644)
        path.write_bytes(b"ho\n")
        path.chmod(0o444)
        assert here.fetch([HI]) == [HI]

    def test_a_fetched_config_runs_nothing(self, remote: DvcStore, here: DvcStore, tmp_path: Path) -> None:
        """I12: of a config that nobody vouched for, only URLs count."""
        assert here.fetch_root is not None
        config = here.fetch_root / ".dvc" / "config"
        config.write_text(
            f"['remote \"r\"']\n url = http://127.0.0.1:9/\n auth = custom\n"
            f" custom_auth_header = X\n bearer_token_command = touch {tmp_path}/pwned\n"
        )
        with pytest.raises(GitpipeError, match="cannot fetch from remote r"):
            here.fetch([HI])
        assert not (tmp_path / "pwned").exists()


class TestConfig:
    def test_as_dvc_writes_it(self, tmp_path: Path) -> None:
        dvc_dir = tmp_path / ".dvc"
        dvc_dir.mkdir()
        (dvc_dir / "config").write_text(
            "[core]\n    remote = my store\n    autostage = true\n[cache]\n"
            '    type = "hardlink,symlink"\n    shared = group\n'
            "    dir = ../../cache\n['remote \"my store\"']\n    url = s3://bucket/x\n# a comment\n"
        )
        (dvc_dir / "config.local").write_text("['remote \"my store\"']\n    profile = me\n")
        config = read_config(dvc_dir)
        assert config.cache_dir == tmp_path.parent / "cache"
        assert config.cache_types == ("hardlink", "symlink")
        assert (config.shared, config.autostage, config.default_remote) == (True, True, "my store")
        assert config.remotes == {"my store": {"url": "s3://bucket/x", "profile": "me"}}

    def test_absent_files_say_nothing(self, tmp_path: Path) -> None:
        config = read_config(tmp_path)
        assert (config.cache_dir, config.cache_types, config.remotes) == (None, ("reflink", "copy"), {})

    @pytest.mark.parametrize("text", ["[core\nx=1", "x = 1", "[core]\nnothing"])
    def test_malformed(self, text: str) -> None:
        with pytest.raises(BadData, match=r"\.dvc/config line \d"):
            parse_config(text)

    def test_an_unknown_cache_type(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("[cache]\ntype = magic\n")
        with pytest.raises(BadData, match="magic"):
            read_config(tmp_path)
