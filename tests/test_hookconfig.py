"""gitpipe's entries in a ``.pre-commit-config.yaml`` that somebody wrote by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gitpipe.errors import BadData, Refused
from gitpipe.hookconfig import FILE, add_hooks, with_hooks

from .conftest import ROOT

LAYOUTS = {
    "indented": "# ours\nrepos:\n  # first\n  - repo: meta   # why\n    hooks:\n      - id: identity\n\n# the end\n",
    "flush": "repos:\n- repo: meta\n  hooks: [{id: identity}]\nfail_fast: true   # yes\n",
    "key behind": "repos:\n  - repo: meta\n    hooks:\n      - id: identity\n        # deep\n\n# x\nfail_fast: true\n",
    "block scalar": "repos:\n- repo: local\n  hooks:\n  - id: x\n    name: x\n    entry: |\n      a\n      # b\n\n",
    "crlf": "repos:\r\n  - repo: meta\r\n    hooks:\r\n      - id: identity\r\n",
    "document marks": "---\nrepos:\n- repo: meta\n  hooks:\n  - id: identity\n...\n",
    "umlaut": "# für später\nrepos:\n- repo: meta\n  hooks:\n  - {id: identity, name: 'prüfen'}\n",
}


def without_ours(text: str) -> str:
    """The text without the lines that gitpipe puts in."""
    lines = text.splitlines(keepends=True)
    ours = with_hooks("repos: []\n").count("\n") - 1
    first = next(n for n in range(len(lines)) if any("gitpipe-track" in line for line in lines[n : n + 3]))
    del lines[first : first + ours]
    return "".join(lines)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_other_byte_stays(layout: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(LAYOUTS[layout].encode())
    path.chmod(0o640)
    (line,) = add_hooks(path)
    assert "pre-commit install --allow-missing-config -t pre-commit -t pre-merge-commit -t commit-msg" in line
    new = path.read_bytes().decode()
    assert without_ours(new) == LAYOUTS[layout]
    assert yaml.safe_load(new)["repos"][:-1] == yaml.safe_load(LAYOUTS[layout])["repos"]
    assert ("\r\n" in new) == (layout == "crlf") and new.count("\r") == (new.count("\n") if layout == "crlf" else 0)
    assert path.stat().st_mode & 0o777 == 0o640
    assert add_hooks(path) == [f"{FILE} has gitpipe's hooks already"]
    assert path.read_bytes().decode() == new


def test_some_of_the_hooks_are_there(tmp_path: Path) -> None:
    """Somebody chose them; what was left out is named."""
    path = tmp_path / FILE
    text = "repos:\n- repo: local\n  hooks:\n  - id: gitpipe-guard\n    name: x\n    language: system\n    entry: x\n"
    path.write_text(text)
    (line,) = add_hooks(path)
    assert line.endswith("not there: gitpipe-track, gitpipe-check, gitpipe-run, gitpipe-push")
    assert path.read_text() == text


def test_a_list_that_is_empty_and_a_last_line_without_end() -> None:
    text = with_hooks("default_stages: [pre-commit]\nrepos: []  # none yet\nfail_fast: true\n")
    assert without_ours(text) == "default_stages: [pre-commit]\nrepos:  # none yet\nfail_fast: true\n"
    for text in (
        "repos: [] # [] none\n",
        "# ü\nrepos: [ ]\n",
        "repos: [\n]\n",
        "repos: []  # a\r\nfail_fast: true\r\n",
    ):
        new = with_hooks(text)
        assert [repo["repo"] for repo in yaml.safe_load(new)["repos"]] == ["local"]
        assert {line for line in text.splitlines() if "[" not in line and "]" not in line} <= set(new.splitlines())
        assert new.count("\r\n") in (0, new.count("\n"))
        assert ("# [] none" in new, "# a" in new) == ("# [] none" in text, "# a" in text)
    text = "repos:\n  -   repo: meta\n      hooks:\n      -   id: identity"
    assert without_ours(with_hooks(text)) == text + "\n"


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert add_hooks(path) == [
        f"{FILE} is written, with gitpipe's hooks; next: pre-commit install --allow-missing-config"
    ]
    config = yaml.safe_load(path.read_text())
    assert config["default_install_hook_types"] == ["pre-commit", "pre-merge-commit", "commit-msg"]
    for number, comments in enumerate(("# none yet", "\r\n  # later\r\n")):
        (tmp_path / str(number)).write_bytes(comments.encode())
        assert "is written" in add_hooks(tmp_path / str(number))[0]
        text = (tmp_path / str(number)).read_bytes().decode()
        assert text.startswith(comments) and text.replace("\r\n", "\n").endswith(path.read_text())
        assert text.count("\r\n") in (0, text.count("\n"))
    (tmp_path / "other").write_text("")
    assert add_hooks(tmp_path / "other")
    assert (tmp_path / "other").read_text() == path.read_text()


def test_the_entries_are_those_that_other_repositories_get() -> None:
    (mine,) = yaml.safe_load(with_hooks(""))["repos"]
    offered = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    assert [hook["id"] for hook in mine["hooks"]] == list(offered)
    for hook in mine["hooks"]:
        other = offered[hook["id"]]
        same = {key: value for key, value in other.items() if key not in ("description", "minimum_pre_commit_version")}
        assert {**hook, "entry": hook["entry"].removesuffix(" --max-size=10MB"), "language": "python"} == same
        assert other["minimum_pre_commit_version"] == "3.2.0"  # `stages: [pre-commit]` was `[commit]` before


def test_an_entry_by_url_counts_as_there() -> None:
    text = "repos:\n- repo: https://example.org/gitpipe\n  rev: v1\n  hooks: [{id: gitpipe-check}]\n"
    assert with_hooks(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("repos:\n- repo: [\n", r"config.yaml:3: not valid YAML: .*; nothing was changed"),
        ("a\n", "expected a list `repos`"),
        ("repos: 3\n", "expected a list `repos`"),
        ("repos: [3]\n", "expected a list `repos`"),
        ("a: b\n", "expected a list `repos`"),
        ("\tx: 1\n", r"config.yaml:1: not valid YAML"),
    ],
)
def test_malformed_files_stay_untouched(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadData, match=said) as failed:
        add_hooks(tmp_path / FILE)
    assert "\n" not in str(failed.value)
    assert (tmp_path / FILE).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_flow_style_is_refused_and_stays(tmp_path: Path) -> None:
    text = "repos: [{repo: meta, hooks: [{id: identity}]}]\n"
    (tmp_path / FILE).write_text(text)
    with pytest.raises(Refused, match="a line for each `- repo:`"):
        add_hooks(tmp_path / FILE)
    assert (tmp_path / FILE).read_text() == text


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("repos: []\n")
    (tmp_path / FILE).symlink_to("real")
    add_hooks(tmp_path / FILE)
    assert (tmp_path / FILE).is_symlink() and "gitpipe-check" in (tmp_path / "real").read_text()
