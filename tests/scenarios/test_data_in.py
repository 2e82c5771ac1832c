"""Data in, all ways, and real DVC agrees with what was written, byte for byte."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import Shell
from tests.scenarios.served import Desk, served


@pytest.fixture
def desk(scratch: Path) -> Iterator[Desk]:
    with served(scratch) as made:
        yield made


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    """Standard input of the commands that run in this process."""
    given = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))
    yield given


def cache_of(desk: Desk) -> Path:
    return desk.top / ".git" / "dvc" / "cache" / "files" / "md5"


def objects(cache: Path) -> dict[str, bytes]:
    """Name -> bytes of all objects of a blob cache."""
    return {p.parent.name + p.name: p.read_bytes() for p in cache.glob("??/*") if p.is_file()}


def get(desk: Desk, *words: str) -> str:
    return desk.pipe("get-file", *words)


ODD_NAMES = ("plain.csv", "with space", "ünï", "a'b\"c", "d/e/f.txt", "d.txt", "empty", "-dash", "#hash", "d/.hidden")


class TestByteForByte:
    def test_as_dvc_add(self, desk: Desk, tmp_path: Path, sh: Shell) -> None:
        """I7's form: pointer, listing and blobs are those of a real `dvc add` of the same folder, by add and by put."""
        source = tmp_path / "source" / "data"
        for number, name in enumerate(ODD_NAMES):
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"" if name == "empty" else b"\0line %d\r\n" % number)
        sh("git init -q && dvc init -q && dvc add -q data", source.parent)
        theirs = objects(source.parent / ".dvc/cache/files/md5")
        pointer = (source.parent / "data.dvc").read_bytes()

        training = desk.worktree("training")
        sh(f"cp -r {source}/. data/", training.top)
        training.pipe("add", "data")
        assert (training.top / "data.dvc").read_bytes() == pointer
        training.git("commit", "-qm", "odd names")
        desk.pipe("put-file", "attributes", "master", "/", "-r", "-f", str(source))
        assert desk.git("show", "attributes:data.dvc").encode() == pointer
        ours = objects(cache_of(desk))
        assert {name: ours[name] for name in theirs} == theirs
        assert all(p.stat().st_mode & 0o777 == 0o444 for p in cache_of(desk).glob("??/*"))
        assert desk.repo("training") == sorted(ODD_NAMES)

    def test_dvc_agrees(self, desk: Desk, tmp_path: Path, sh: Shell) -> None:
        """status, list, get, diff, pull in a fresh clone, and DVC's API, on a data branch and on an output branch."""
        sh(f"dvc init -q && dvc remote add -q -d store {tmp_path}/remote", desk.top)
        desk.git("commit", "-qam", "DVC with a remote")
        desk.pipe("init")  # DVC came after gitpipe
        desk.pipe("create-repo", "labels")
        desk.git("config", "gitpipe.engine", "local")
        (desk.top / "spec.json").write_text(
            '{"pipeline": {"name": "copied"}, "input": {"pfs": {"repo": "labels", "glob": "/*"}},'
            ' "transform": {"cmd": ["sh", "-c", "cp -r /pfs/labels/* /pfs/out/"]}, "code": []}'
        )
        desk.pipe("create-pipeline", "-f", "spec.json")
        labels = desk.worktree("labels")
        labels.commit(one="1", d__two="2")
        labels.commit(one="changed", d__two="2", three="3")
        desk.pipe("run")
        copied = desk.worktree("copied")
        for tree, branch in ((labels, "labels"), (copied, "copied")):
            assert "up to date" in sh("dvc status", tree.top), branch
            assert sh(f"dvc list -R . data --rev {branch}", tree.top).split() == ["d/two", "one", "three"]
            sh(f"dvc get -q . data/one --rev {branch} -o {tmp_path}/{branch}.one", tree.top)
            assert (tmp_path / f"{branch}.one").read_text() == "changed"
            sh("dvc push -q", tree.top)
        said = sh("dvc diff labels~1 labels", labels.top)
        assert "data/three" in said
        assert "data/one" in said
        code = "import dvc.api; print(dvc.api.read('data/one', repo='.', rev='labels~1'))"
        assert sh(f'{sys.executable} -c "{code}"', desk.top) == "1\n"
        desk.git("clone", "-q", str(desk.top), str(tmp_path / "clone"))
        for branch in ("labels", "copied"):
            sh(f"git switch -q {branch} && dvc pull -q", tmp_path / "clone")
            found = Desk(tmp_path / "clone").files()
            assert found == {"one": "changed", "d/two": "2", "three": "3"}, branch
            assert "up to date" in sh("dvc status", tmp_path / "clone")


class TestWorkingTree:
    def test_dvc_add_and_ours_take_turns(self, desk: Desk, sh: Shell) -> None:
        """`dvc add data && git add data.dvc && git commit`, then gitpipe add, then dvc again: one history and cache."""
        training = desk.worktree("training")
        training.write(a="1")
        sh("dvc add -q data && git add data.dvc && git commit -qm a", training.top)
        training.commit(b="2")
        training.write(c="3")
        (training.data / "a").unlink()
        sh("dvc add -q data && git add data.dvc && git commit -qm c", training.top)
        assert "up to date" in sh("dvc status", training.top)
        assert desk.repo("training") == ["b", "c"]
        assert get(desk, "training", "c") == "3"
        assert not (training.top / ".dvc/cache").exists()
        desk.git("switch", "-q", "--detach", "training")
        assert desk.files() == {"b": "2", "c": "3"}

    def test_parts(self, desk: Desk) -> None:
        """gitpipe add of a file, a folder, a file that is gone; the rest stays as it was committed."""
        training = desk.worktree("training")
        training.commit(a="1", d__x="1", d__y="1")
        training.write(a="2", d__x="2", new="2")
        (training.data / "d/y").unlink()
        training.pipe("add", "data/d")
        training.git("commit", "-qm", "d")
        assert desk.repo("training") == ["a", "d/x"]
        assert (get(desk, "training", "a"), get(desk, "training", "d/x")) == ("1", "2")
        (training.data / "a").unlink()
        training.pipe("add", "data/a", "data/new")
        training.git("commit", "-qm", "a, new")
        assert desk.repo("training") == ["d/x", "new"]

    def test_nothing_changed(self, desk: Desk) -> None:
        """Adding twice stages nothing new."""
        training = desk.worktree("training")
        training.commit(a="1")
        training.pipe("add", "data")
        assert training.git("status", "--short") == ""

    def test_other_keys_of_the_pointer_stay(self, desk: Desk, sh: Shell) -> None:
        """A description that was written into data.dvc survives add."""
        training = desk.worktree("training")
        training.commit(a="1")
        with (training.top / "data.dvc").open("a") as file:
            file.write("  desc: hand-picked\n")
        training.commit(b="2")
        assert yaml.safe_load((training.top / "data.dvc").read_text())["outs"][0]["desc"] == "hand-picked"
        assert "up to date" in sh("dvc status", training.top)


class TestPutFile:
    def test_sources(self, desk: Desk, tmp_path: Path, typed: io.BytesIO) -> None:
        """A file, a path for it, folders, several, a list, standard input; each one is a commit."""
        folder = tmp_path / "in"
        (folder / "sub").mkdir(parents=True)
        for name in ("one.csv", "two.csv", "sub/three.csv"):
            (folder / name).write_text(name)
        at = str(folder)

        def put(*words: str, status: int = 0) -> str:
            return desk.pipe("put-file", "training", *words, status=status)

        put("-f", f"{at}/one.csv")
        put("master", "renamed.csv", "-f", f"{at}/one.csv")
        put("-r", "-f", at)
        put("under", "-f", f"{at}/one.csv", "-f", f"{at}/two.csv")
        (tmp_path / "list").write_text(f"{at}/one.csv\n\n{at}/two.csv\n")
        put("listed", "-i", str(tmp_path / "list"))
        typed.write(b"typed \0 in")
        typed.seek(0)
        put("stdin.bin", "-f", "-")
        (desk.top / "here").mkdir()
        (desk.top / "here" / "dot").write_text("dot")
        # What lies in the current folder, without a name before it.
        desk.pipe("-C", "here", "put-file", "attributes", "-c", "-r", "-f", ".")
        assert desk.repo("attributes") == ["dot"]
        expected = "in/one.csv in/sub/three.csv in/two.csv listed/one.csv listed/two.csv one.csv renamed.csv stdin.bin"
        assert desk.repo("training") == [*expected.split(), "under/one.csv", "under/two.csv"]
        assert get(desk, "training@master:stdin.bin") == "typed \0 in"
        assert desk.git("rev-list", "--count", "training").strip() == "7"
        for words in (["-f", at], ["-f", "-"], ["x", "-f", f"{at}/none"], ["../x", "-f", f"{at}/one.csv"]):
            put(*words, status=2 if words[-1] in (at, "-") else 1)
        put("in", "-f", f"{at}/one.csv", status=1)  # it is a folder there
        put("one.csv/below", "-f", f"{at}/one.csv", status=1)
        assert desk.git("rev-list", "--count", "training").strip() == "7"

    def test_append_and_overwrite(self, desk: Desk, tmp_path: Path) -> None:
        """Overwriting is the rule, -a appends; the same bytes again make no commit."""
        (tmp_path / "x").write_text("1")
        for flags, expected in ((["-a"], "1"), (["-a"], "11"), (["-o"], "1"), ([], "1")):
            desk.pipe("put-file", "training", "x", *flags, "-f", str(tmp_path / "x"))
            assert get(desk, "training", "x") == expected
        assert desk.git("rev-list", "--count", "training").strip() == "4"

    def test_a_slash_at_the_end_names_a_folder(self, desk: Desk, tmp_path: Path) -> None:
        (tmp_path / "f3").write_text("three")
        desk.pipe("put-file", "training@master:dir/", "-f", str(tmp_path / "f3"))
        desk.pipe("put-file", "training", "master", "/", "-f", str(tmp_path / "f3"))
        assert desk.repo("training") == ["dir/f3", "f3"]
        assert "path" in desk.pipe("put-file", "training@master:dir/", "-f", "-", status=2)

    def test_url(self, desk: Desk, tmp_path: Path) -> None:
        """A URL is fetched under its last name, or to the path given; one that fails puts nothing."""
        (tmp_path / "served.csv").write_text("by http")

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        def handler(*args: object) -> Quiet:
            return Quiet(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:  # type: ignore[arg-type]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            base = f"http://127.0.0.1:{server.server_port}"
            desk.pipe("put-file", "training", "-f", f"{base}/served.csv?a=b")
            desk.pipe("put-file", "training", "d/other.csv", "-f", f"{base}/served.csv")
            assert "404" in desk.pipe("put-file", "training", "-f", f"{base}/none", status=1)
            server.shutdown()
        assert desk.repo("training") == ["d/other.csv", "served.csv"]
        assert get(desk, "training", "served.csv") == "by http"

    def test_many_at_once(self, desk: Desk) -> None:
        """I2: processes that put at the same time each get their commit."""
        command = "gitpipe put-file training f{0} -f README"
        running = [
            subprocess.Popen(["sh", "-c", f"GITPIPE=0 {command.format(n)}"], cwd=desk.top, stdin=subprocess.DEVNULL)
            for n in range(4)
        ]
        assert [p.wait(60) for p in running] == [0] * 4
        assert desk.repo("training") == ["f0", "f1", "f2", "f3"]
        assert desk.git("rev-list", "--count", "training").strip() == "5"


class TestOpenCommits:
    def test_start_to_finish(self, desk: Desk, tmp_path: Path) -> None:
        """The id resolves while open and after; the branch moves once, at the end, and the working tree with it."""
        training = desk.worktree("training")
        training.commit(old="1", stays="1")
        (tmp_path / "f").write_text("new")
        before = desk.git("rev-parse", "training")
        opened = desk.pipe("start-commit", "training").strip()
        desk.pipe("delete-file", "training", opened, "old")
        desk.pipe("put-file", "training", opened, "new", "-f", str(tmp_path / "f"))
        desk.pipe("put-file", f"training@{opened}:d/new", "-f", str(tmp_path / "f"))
        assert desk.git("rev-parse", "training") == before
        assert get(desk, "training", opened, "new") == "new"
        assert opened in desk.pipe("list-commit", "training", "--raw")
        desk.pipe("finish-commit", "training", opened)
        assert desk.repo("training") == ["d/new", "new", "stays"]
        assert training.files() == {"d/new": "new", "new": "new", "stays": "1"}
        assert get(desk, "training", opened, "new") == "new"
        sha = desk.git("rev-parse", "training").strip()
        assert sha in desk.pipe("inspect-commit", "training", opened, "--raw")
        assert f"Commit-Id: {opened}" in desk.git("log", "-1", "training")
        desk.pipe("finish-commit", "training", opened, status=1)
        assert desk.git("for-each-ref", "refs/gitpipe-local") == ""

    def test_two_open_and_a_branch_that_moved(self, desk: Desk) -> None:
        """Both finish, merged by file; the same file changed on both sides is refused, naming it, and stays open."""
        desk.pipe("put-file", "training", "base", "-f", "README")
        first = desk.pipe("start-commit", "training").strip()
        second = desk.pipe("start-commit", "training@master").strip()
        assert "2 open commits" in desk.pipe("finish-commit", "training", status=1)
        desk.pipe("put-file", "training", first, "a", "-f", "README")
        desk.pipe("put-file", "training", second, "b", "-f", "README")
        desk.pipe("delete-file", "training", second, "base")
        assert "2 open commits" in desk.pipe("put-file", "training", "c", "-f", "README", status=1)
        desk.pipe("finish-commit", "training", first)
        desk.pipe("finish-commit", "training", second[:8])
        assert desk.repo("training") == ["a", "b"]

    def test_a_conflict_is_named_and_decided(self, desk: Desk) -> None:
        """It stays open until somebody says whose file counts, or drops it; then nothing of it is left."""
        desk.pipe("put-file", "training", "a", "-f", "README")
        mine, other = (desk.pipe("start-commit", "training").strip() for _ in range(2))
        desk.pipe("put-file", "training", mine, "a", "-f", ".git/HEAD")
        desk.pipe("delete-file", "training", other, "a")
        desk.pipe("finish-commit", "training", other)
        said = desk.pipe("finish-commit", "training", mine, status=1)
        assert ": a was changed on the branch too" in said and "finish-commit -f" in said and "delete-commit" in said
        assert mine in desk.pipe("list-commit", "training", "--raw")
        desk.pipe("finish-commit", "training", mine, "-f")
        assert get(desk, "training", "a").startswith("ref: ")
        dropped = desk.pipe("start-commit", "training").strip()
        desk.pipe("put-file", "training", "b", "-f", "README")
        head = desk.git("rev-parse", "training")
        desk.pipe("delete-commit", "training", dropped)
        assert desk.repo("training") == ["a"] and desk.git("rev-parse", "training") == head
        assert desk.git("for-each-ref", "refs/gitpipe-local") == ""
        assert "no open commit" in desk.pipe("delete-commit", "training", status=1)

    def test_what_is_finished_is_not_finished_again(self, desk: Desk) -> None:
        """Nor is another open commit taken for it."""
        desk.pipe("put-file", "training", "a", "-f", "README")
        first, second = (desk.pipe("start-commit", "training").strip() for _ in range(2))
        desk.pipe("put-file", "training", second, "half", "-f", "README")
        desk.pipe("finish-commit", "training", first)
        sha = desk.git("rev-parse", "training").strip()
        for verb in ("finish-commit", "delete-commit"):
            for name in (first, sha, "master~1"):
                assert "is finished already" in desk.pipe(verb, "training", name, status=1)
        assert desk.git("rev-parse", "training").strip() == sha and second in desk.pipe("list-commit", "training")

    def test_refused(self, desk: Desk) -> None:
        """No repo, no branch, a finished commit."""
        assert "does not exist" in desk.pipe("start-commit", "none", status=1)
        assert "no open commit" in desk.pipe("finish-commit", "training", status=1)
        sha = desk.git("rev-parse", "training").strip()
        desk.pipe("put-file", "training", sha, "x", "-f", "README", status=1)
        desk.pipe("start-commit", "main", status=1)
        assert desk.git("for-each-ref", "refs/gitpipe-local") == ""


def test_md5_is_of_the_bytes(desk: Desk) -> None:
    """Line ends are kept: DVC 3 hashes bytes as they are."""
    (desk.top / "crlf").write_bytes(b"a\r\nb\r\n")
    desk.pipe("put-file", "training", "-f", "crlf")
    assert hashlib.md5(b"a\r\nb\r\n").hexdigest() in desk.pipe("list-file", "training", "--raw")
