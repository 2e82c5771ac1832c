"""Two commands at once from two terminals: both take effect in some order, or one is refused with one line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Shell
from tests.test_control import PATIENCE, until


class Two:
    """A repository with a background runner, and two terminals."""

    def __init__(self, root: Path, sh: Shell) -> None:
        self.root, self._sh = root, sh
        self("gitpipe init && git config gitpipe.engine local && git config gitpipe.sandbox none")
        self("GITPIPE=0 gitpipe create-repo a && echo 1 | GITPIPE=0 gitpipe put-file a x -f - && mkdir specs")

    def __call__(self, command: str, **more: object) -> str:
        return self._sh(command, cwd=self.root, **more).strip()

    def spec(self, file: str, name: str, script: str) -> str:
        """Write a spec of pipeline `name`; its file."""
        spec = {
            "pipeline": {"name": name},
            "transform": {"cmd": ["sh", "-c", script]},
            "input": {"pfs": {"repo": "a", "glob": "/"}},
            "code": [],
        }
        (self.root / "specs" / file).write_text(json.dumps(spec))
        return f"specs/{file}"

    def at_once(self, *commands: str) -> list[str]:
        """Run them side by side: what each said, "" for one that was done; the repository is sound afterwards."""
        running = [
            subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            for command in commands
        ]
        said = []
        for command, process in zip(commands, running, strict=True):
            _, error = process.communicate(timeout=PATIENCE)
            assert process.returncode in (0, 1), f"{command}: {error}"
            if process.returncode:
                assert error.startswith("gitpipe: ") and error.count("\n") == 1, f"{command}: {error}"
            said.append(error.strip() if process.returncode else "")
        assert "" in said, said
        return said

    def sound(self) -> None:
        """All is done that is to be done, nothing failed, nothing is locked."""
        self("gitpipe wait --timeout 180")
        assert "Nothing is pending, and nothing failed" in self("gitpipe status")
        until(lambda: not list((self.root / ".git").rglob("*.lock")))
        self("git fsck --connectivity-only")

    def file(self, place: str) -> str:
        return self(f"gitpipe get-file {place}")


@pytest.fixture
def two(scratch: Path, sh: Shell) -> Two:
    return Two(scratch, sh)


def test_pipelines_changed_at_once(two: Two) -> None:
    one, other = two.spec("1.json", "p", "echo one > /pfs/out/y"), two.spec("2.json", "p", "echo two > /pfs/out/y")
    two.at_once(f"gitpipe create-pipeline -f {one}", f"gitpipe create-pipeline -f {other}")
    two.sound()
    assert two.file("p y") in ("one", "two")

    two.at_once(f"gitpipe update-pipeline -f {one}", f"gitpipe update-pipeline -f {other}")
    two.sound()
    wanted = "one" if "echo one" in two("git show __spec__:p/spec.json") else "two"
    assert two.file("p y") == wanted, "the result is that of the version which stands"

    assert two.at_once("gitpipe stop-pipeline p", "gitpipe start-pipeline p") == ["", ""]
    assert two.at_once("gitpipe stop-pipeline p", "gitpipe stop-pipeline p") == ["", ""]
    assert two.at_once("gitpipe start-pipeline p", "gitpipe start-pipeline p") == ["", ""]
    assert two("git config --get-all gitpipe.stopped", status=1) == ""
    two.sound()

    two.at_once(f"gitpipe update-pipeline --reprocess -f {one}", "gitpipe delete-pipeline p")
    two.sound()
    recorded = two("git ls-tree --name-only __spec__")
    assert ("p" in recorded.split()) == (two("git branch --list p") != ""), "both or none"
    two("gitpipe update-pipeline --create -f specs/1.json")
    two.sound()

    assert "" in two.at_once("gitpipe delete-pipeline p", "gitpipe delete-pipeline p")
    two.sound()
    assert two("git branch --list p") == "" and "p" not in two("git ls-tree --name-only __spec__").split()


def test_an_update_and_a_commit_to_its_source_at_once(two: Two) -> None:
    """The commit's version and the typed one, in some order; `wait` knows of no trouble."""
    file = two.spec("p.json", "p", "echo one > /pfs/out/y")
    two(f"git add specs && git commit -qm spec && gitpipe create-pipeline -f {file}")
    two.sound()
    other = two.spec("other.json", "p", "echo typed > /pfs/out/y")
    two.spec("p.json", "p", "echo committed > /pfs/out/y")
    two.at_once(f"gitpipe update-pipeline -f {other}", "git add specs/p.json && git commit -qm changed")
    two.sound()
    assert two.file("p y") in ("typed", "committed")
    assert two.file("p y") in two("git show __spec__:p/spec.json")


def test_jobs_and_repos_at_once(two: Two) -> None:
    file = two.spec("p.json", "p", "cp /pfs/a/* /pfs/out")
    two(f"GITPIPE=0 gitpipe create-pipeline -f {file}")
    assert two.at_once("gitpipe run", "gitpipe run") == ["", ""]
    assert two("git rev-list --count p --") == "1", "I2"
    two.sound()

    two("gitpipe create-repo b")
    said = two.at_once("gitpipe delete-repo b", "echo 1 | gitpipe put-file b x -f -")
    gone = two("git branch --list b") == ""
    assert gone == (said[0] == ""), "what was put is lost only where the deletion came after it"
    two(
        "gitpipe delete-pipeline p --keep-repo"
        if gone
        else "gitpipe delete-pipeline p --keep-repo && gitpipe delete-repo b"
    )
    two.sound()
