"""The git hooks and their installer, with real git.

The interpreter that is baked in is a small shell script here: what is tested is what the hooks start, not what that
does.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from gitpipe import hookplace, hooks
from gitpipe.errors import Refused
from gitpipe.repo import Repo

from .conftest import Shell

COMMIT = "git commit -q --allow-empty -m change"


def fake_python(folder: Path, body: str = "") -> Path:
    """An "interpreter" that notes its arguments, working directory and environment in `calls` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "python"
    script.write_text(
        f"#!/bin/sh\ncd_was=$(pwd -P)\nme={str(folder)!r}\n"
        '{ echo "args: $*"; echo "cwd: $cd_was"; echo "worktree: ${GITPIPE_WORKTREE-}"; '
        'env | grep ^GIT_ | sort; } > "$me/call.$$"\nmv "$me/call.$$" "$me/called.$$"\n' + body
    )
    script.chmod(0o755)
    return script


def calls(folder: Path, count: int = 1, patience: float = 60.0) -> list[str]:
    """What the fake interpreter noted, once it was called `count` times; it may be called detached, hence later."""
    end = time.monotonic() + patience
    while len(found := sorted(folder.glob("called.*"))) < count and time.monotonic() < end:
        time.sleep(0.02)
    assert len(found) == count
    return [path.read_text() for path in found]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return fake_python(tmp_path / "py 'n' co")


@pytest.fixture
def folder(scratch: Path, python: Path) -> Path:
    """The hooks folder of the scratch repository, with the hooks installed."""
    hooks.install(scratch / ".git" / "hooks", str(python), "-I")
    return scratch / ".git" / "hooks"


def nudges(repo: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in (repo / ".git/gitpipe/nudge").glob("*"))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.lstat().st_mode) for path in folder.iterdir()}


# What the hooks do


def test_commit_nudges_and_starts_a_runner(scratch: Path, folder: Path, python: Path, sh: Shell) -> None:
    assert sh(COMMIT, scratch, stderr=True) == ""
    assert nudges(scratch) == ["post-commit"]
    (call,) = calls(python.parent)
    assert f"args: -I -m gitpipe.runner {scratch}/.git\n" in call
    assert f"cwd: {scratch}/.git\n" in call
    assert "GIT_INDEX_FILE" not in call and "GIT_AUTHOR" not in call


def test_commit_from_a_linked_worktree_nudges_the_common_dir(
    scratch: Path, folder: Path, python: Path, sh: Shell
) -> None:
    sh("git worktree add -q ../other -b other && cd ../other && " + COMMIT, scratch)
    assert nudges(scratch) == ["post-commit"]
    assert f"gitpipe.runner {scratch}/.git\n" in calls(python.parent)[0]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("git commit -q --amend -m again", ["post-commit", "post-rewrite"]),
        ("git switch -q -c side && git commit -q --allow-empty -m s && git switch -q main && git merge -q side",
         ["post-commit", "post-merge"]),
        ("git format-patch -q -1 --stdout > ../p && git reset -q --hard HEAD~ && git am -q ../p", ["post-applypatch"]),
        ("GITPIPE=0 git commit -q --allow-empty -m quiet", []),
        ("git switch -q -c elsewhere", []),
    ],
)  # fmt: skip
def test_which_actions_nudge(scratch: Path, python: Path, sh: Shell, action: str, expected: list[str]) -> None:
    sh("echo 1 > one && git add one && git commit -qm one", scratch)
    hooks.install(scratch / ".git" / "hooks", str(python), "-I")
    sh(action, scratch)
    assert nudges(scratch) == expected


def test_rebase_nudges_but_starts_no_runner_before_its_end(
    scratch: Path, folder: Path, python: Path, sh: Shell
) -> None:
    make = "echo {0} > {0} && git add {0} && GITPIPE=0 git commit -qm {0}"
    sh("git switch -q -c side && " + " && ".join(make.format(n) for n in "abc"), scratch)
    sh("git switch -q main && " + make.format("d") + " && git switch -q side && git rebase -q main", scratch)
    assert nudges(scratch)[-1] == "post-rewrite"
    calls(python.parent, 1)


def test_a_living_runner_is_not_started_again(scratch: Path, folder: Path, python: Path, sh: Shell) -> None:
    (scratch / ".git/gitpipe").mkdir()
    runner = subprocess.Popen(["sh", "-c", "sleep 30; : gitpipe.runner"])
    try:
        (scratch / ".git/gitpipe/runner.pid").write_text(f"{runner.pid}\n")
        sh(COMMIT, scratch)
        assert nudges(scratch) == ["post-commit"]
        time.sleep(0.2)
        calls(python.parent, 0)
    finally:
        runner.kill()
        runner.wait()


@pytest.mark.parametrize("mark", ["", "nonsense\n", "1\n", "999999999\n", "-1\n"])
def test_a_stale_mark_does_not_keep_a_runner_from_starting(
    scratch: Path, folder: Path, python: Path, sh: Shell, mark: str
) -> None:
    (scratch / ".git/gitpipe").mkdir()
    (scratch / ".git/gitpipe/runner.pid").write_text(mark)
    assert sh(COMMIT, scratch, stderr=True) == ""
    calls(python.parent)


def test_captured_commit_returns_while_the_runner_lives(scratch: Path, tmp_path: Path, sh: Shell) -> None:
    """I9: a started process that held the pipe would keep `$(git commit)` waiting."""
    python = fake_python(tmp_path / "slow", "exec sleep 60\n")
    hooks.install(scratch / ".git" / "hooks", str(python), "-I")
    began = time.monotonic()
    sh(f'out=$({COMMIT} 2>&1); test -z "$out"', scratch)
    assert time.monotonic() - began < 20
    calls(python.parent)
    (called,) = python.parent.glob("called.*")  # named after the process
    pid = int(called.suffix[1:])
    os.kill(pid, 0)  # still there
    os.kill(pid, 9)


def test_missing_interpreter_is_said_once_and_the_commit_passes(
    scratch: Path, folder: Path, python: Path, sh: Shell
) -> None:
    python.unlink()
    said = sh(COMMIT, scratch, stderr=True)
    assert said.count("\n") == 1 and str(python) in said and "gitpipe init" in said
    assert sh(COMMIT, scratch, stderr=True) == ""
    hooks.install(folder, str(python), "-I")
    assert str(python) in sh(COMMIT, scratch, stderr=True)


def test_unwritable_state_never_fails_a_commit(scratch: Path, folder: Path, sh: Shell) -> None:
    (scratch / ".git/gitpipe").write_text("a file where the folder should be")
    assert sh(COMMIT, scratch, stderr=True) == ""


def test_hooks_path_inside_the_worktree(scratch: Path, python: Path, sh: Shell) -> None:
    """A folder called `objects` in the work tree must not pass for a git dir."""
    (scratch / "objects").mkdir()
    hooks.install(scratch / "tools", str(python), "-I")
    sh("git config core.hooksPath tools && " + COMMIT, scratch)
    assert nudges(scratch) == ["post-commit"]
    assert not (scratch / "gitpipe").exists()


def test_checkout_runs_gitpipe_only_where_there_is_data(scratch: Path, folder: Path, python: Path, sh: Shell) -> None:
    sh("git switch -q -c plain", scratch)
    calls(python.parent, 0)
    (scratch / "data").mkdir()
    sh("git switch -q main", scratch)
    (call,) = calls(python.parent)
    head = sh("git rev-parse HEAD", scratch).strip()
    assert f"args: -I -m gitpipe hook post-checkout {head} {head} 1\n" in call
    assert f"worktree: {scratch}\n" in call and f"cwd: {scratch}/.git\n" in call
    sh("git checkout -q -- README", scratch)
    calls(python.parent, 1)


def test_checkout_of_a_new_worktree(scratch: Path, folder: Path, python: Path, sh: Shell) -> None:
    sh("echo 'outs: []' > data.dvc && git add data.dvc && GITPIPE=0 git commit -qm data", scratch)
    sh("git worktree add -q '../linked one' -b linked", scratch)
    (call,) = calls(python.parent)
    assert f"worktree: {scratch.parent}/linked one\n" in call and "GIT_DIR" not in call


def test_refresh_only_where_the_pointer_moved(scratch: Path, folder: Path, python: Path, sh: Shell) -> None:
    sh("GITPIPE=0; export GITPIPE; echo 1 > data.dvc; git add data.dvc; git commit -qm d", scratch)
    (scratch / ".git/gitpipe-data").write_text(sh("git rev-parse HEAD:data.dvc", scratch))
    sh(COMMIT, scratch)
    (call,) = calls(python.parent)
    assert "gitpipe.runner" in call
    sh("echo 2 > data.dvc; git commit -qam d", scratch)
    assert [c for c in calls(python.parent, 3) if "gitpipe hook refresh" in c]


def test_guard_on_output_branches(scratch: Path, folder: Path, sh: Shell) -> None:
    sh(
        "mkdir infer && echo {} > infer/spec.json && git switch -q --orphan __spec__ && git add infer "
        "&& git commit -qm spec && git switch -q -c infer main && git switch -q -c innocent",
        scratch,
    )
    for pack in ("true", "git pack-refs --all"):
        sh(f"{pack} && git switch -q infer", scratch)
        said = sh(COMMIT, scratch, status=1, stderr=True)
        assert said.startswith("infer is the output of a pipeline: ") and said.count("\n") == 1
        # For a merge git runs no pre-commit, but commit-msg.
        merge = "git merge --no-ff -m x $(git commit-tree -p innocent -m side innocent^{tree})"
        said = sh(f"{merge}; status=$?; git reset -q --hard; exit $status", scratch, status=1, stderr=True)
        assert "infer is the output of a pipeline: " in said
        sh(COMMIT + " --no-verify && git switch -q innocent && " + COMMIT, scratch)
        sh("git checkout -q --detach && " + COMMIT, scratch)


SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("subject\n\nProvenance: training@" + SHA, False),
        ("subject\n\nPROVENANCE : training@" + SHA, False),
        ("subject\n\nbody\n\nSigned-off-by: A <a@b>\nprovenance: whatever", False),
        ("subject\n\nPipeline: p@" + SHA + "\nJob: " + SHA[:32], False),
        ("subject\n\nJob: 4711\nPipeline: https://ci.example.org/7", True),
        ("Provenance: a word in a subject", True),
        ("subject\n\nProvenance: x is in the middle\n\nend of the message", True),
        ("subject\n\nbody # no comment\n\n# Provenance: in a comment", True),
        ("subject\n\n# ------------------------ >8 ------------------------\nProvenance: below the scissors", True),
    ],
)
def test_no_forged_provenance(scratch: Path, folder: Path, sh: Shell, message: str, passes: bool) -> None:
    (scratch.parent / "message").write_text(message + "\n")
    commit = "git commit -q --allow-empty -F ../message --cleanup=scissors"
    if not passes:
        said = sh(commit, scratch, status=1, stderr=True)
        assert said.startswith("the message ends in '") and said.count("\n") == 1 and "--no-verify" in said
        sh(commit + " --no-verify", scratch)
        sh("GITPIPE=0 " + commit, scratch)
        return
    assert sh(commit, scratch, stderr=True) == ""


def test_messages_that_are_taken_over_are_no_forgery(scratch: Path, folder: Path, sh: Shell) -> None:
    """A cherry-pick or rebase of an output commit, also one that stopped for a conflict, and an amend of the result."""
    make = "echo {0} > f && git add f && git commit -q --no-verify -m '{0}' -m 'Provenance: t@" + SHA + "'"
    sh("git switch -q -c out && " + make.format("one") + " && git switch -q main", scratch)
    sh("git cherry-pick out && git commit -q --amend --no-edit && git reset -q --hard HEAD~", scratch)
    sh("echo mine > f && git add f && git commit -qm mine", scratch)
    sh("git cherry-pick out", scratch, status=1)
    sh("echo both > f && git add f && git -c core.editor=true cherry-pick --continue", scratch)
    assert SHA in sh("git log -1 --format=%B", scratch)
    sh("git reset -q --hard HEAD~ && git rebase -q main out", scratch, status=1)
    sh("echo both > f && git add f && git -c core.editor=true rebase --continue", scratch)
    assert SHA in sh("git log -1 --format=%B out", scratch)
    sh("git switch -q main && git commit -q --allow-empty -C out", scratch, status=1)


def test_scripts_are_for_any_shell(tmp_path: Path, scratch: Path, folder: Path) -> None:
    """POSIX: no syntax that dash or busybox do not know, and nothing that shellcheck objects to."""
    shells = [shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])]
    scripts = [folder / name for name in hooks.NAMES]
    for shell, script in itertools.product(shells, scripts):
        subprocess.run([*shell, "-n", script], check=True)
    text = "".join(script.read_text() for script in scripts)
    assert not re.search(r"^\s*(local|function|source) |\[\[ |=~|<\(", text, re.MULTILINE)
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs shellcheck")
    # SC2329: a function that this hook does not call; SC203x: variables that are set in subshells on purpose.
    subprocess.run([shellcheck, "-s", "sh", "-e", "SC2329,SC2030,SC2031", *scripts], check=True)


# Who calls git


CALLERS = {
    "as usual": "{commit}",
    "stdin closed": "{commit} <&-",
    "all closed": "{commit} <&- >&- 2>&-",
    "captured": 'out=$({commit} 2>&1); test -z "$out"',
    "no PATH": "git=$(command -v git); env -u PATH $git {args}",
    "PATH of the system": "PATH=/usr/bin:/bin; {commit}",
    "PATH of nothing": "git=$(command -v git); PATH=/nowhere; $git {args}",
    "HOME unset": "unset HOME GIT_CONFIG_GLOBAL; {commit}",
    "another folder": "cd /; git -C {repo} {args}",
    "a folder below": "mkdir -p below/it && cd below/it && {commit}",
    "GIT_DIR": "cd / && GIT_DIR={repo}/.git GIT_WORK_TREE={repo} {commit}",
    "GIT_DIR, relative": "GIT_DIR=.git GIT_WORK_TREE=. {commit}",
    "GIT_INDEX_FILE": "cp .git/index ../index && GIT_INDEX_FILE={repo}/../index {commit}",
    "commit -a": "echo 1 >> README && {commit} -a",
    "commit PATH": "echo 1 >> README && {commit} README",
    "poisoned": "GIT_OBJECT_DIRECTORY={repo}/.git/objects PYTHONPATH=/nowhere PYTHONHOME=/nowhere {commit}",
    "no terminal": "setsid {commit} </dev/null",
}


@pytest.mark.parametrize("caller", CALLERS)
def test_callers(scratch: Path, folder: Path, python: Path, sh: Shell, caller: str) -> None:
    """Editors, desktops, scripts: the hooks run, start what was recorded, leave git's variables out, and never hang."""
    args = "commit -q --allow-empty -m change"
    (scratch / "json.py").write_text("raise SystemExit('imported from the working tree')\n")
    before = sh("git rev-parse HEAD", scratch)
    sh(CALLERS[caller].format(commit=f"git {args}", args=args, repo=scratch), scratch, timeout=30)
    assert sh("git rev-parse HEAD", scratch) != before
    assert nudges(scratch) == ["post-commit"]
    (call,) = calls(python.parent)
    assert f"args: -I -m gitpipe.runner {scratch}/.git\ncwd: {scratch}/.git\n" in call
    assert not [line for line in call.splitlines() if line.startswith("GIT_") and "CONFIG_" not in line]


def test_a_commit_in_a_desktop_runs_what_one_in_a_terminal_runs(scratch: Path, sh: Shell) -> None:
    """Stages find the programs that were found when `gitpipe init` ran, though the editor's PATH is the system's."""
    spec = '{"pipeline": {"name": "p"}, "transform": {"cmd": ["sh", "-c", "echo $PATH > /pfs/out/path"]}, "input": '
    (scratch / "p.json").write_text(spec + '{"pfs": {"repo": "a", "glob": "/"}}, "code": []}')
    sh(
        "export GITPIPE=0; PATH=/opt/tools/bin:$PATH gitpipe init && git config gitpipe.engine local "
        "&& gitpipe create-repo a && gitpipe create-pipeline -f p.json && git worktree add -q ../a a",
        scratch,
    )
    a = scratch.parent / "a"
    sh("export GITPIPE=0; mkdir -p data && echo 1 > data/x && gitpipe add data", a)
    sh("gitpipe=$(command -v gitpipe); PATH=/usr/bin:/bin; git commit -qm one && $gitpipe wait", a)
    told = sh("gitpipe get-file p /path", scratch).strip().split(":")
    assert "/opt/tools/bin" in told and told.index("/opt/tools/bin") < told.index("/usr/bin")
    sh("gitpipe runner stop", scratch)


def test_files_that_the_caller_has_open_are_not_held(scratch: Path, tmp_path: Path, sh: Shell) -> None:
    """`flock 9; git commit`: a runner that had inherited the lock would keep it for minutes."""
    python = fake_python(tmp_path / "slow", "exec sleep 60\n")
    hooks.install(scratch / ".git" / "hooks", str(python), "-I")
    sh(f"exec 9>../lock && flock 9 && {COMMIT}", scratch)
    calls(python.parent)
    sh("flock --nonblock ../lock true", scratch)
    (called,) = python.parent.glob("called.*")
    os.kill(int(called.suffix[1:]), 9)


def test_push_to_here_is_off_until_switched_on(scratch: Path, folder: Path, python: Path, sh: Shell) -> None:
    """I12: nothing runs because somebody pushed, before the owner says so; in a bare repository as well."""
    sh("git clone -q --bare . ../bare.git && git clone -q . ../clone", scratch)
    bare = scratch.parent / "bare.git"
    hooks.install(bare / "hooks", str(python), "-I")
    clone = scratch.parent / "clone"
    for number, (there, state) in enumerate(((scratch, scratch / ".git"), (bare, bare))):
        push = COMMIT + f" && git push -q {there} HEAD:refs/heads/topic"
        sh(push, clone)
        assert not (state / "gitpipe").exists()
        sh("git config gitpipe.receive true", there)
        assert sh(push, clone, stderr=True) == ""
        assert [path.name.rpartition("-")[0] for path in (state / "gitpipe/nudge").iterdir()] == ["post-receive"]
        assert f"gitpipe.runner {state}\n" in calls(python.parent, number + 1)[-1] or number


# What the installer does


def test_install_is_idempotent_and_uninstall_leaves_nothing(scratch: Path, python: Path) -> None:
    folder = scratch / ".git" / "hooks"
    before = snapshot(folder)
    assert any(name.endswith(".sample") for name in before)
    (line,) = hooks.install(folder, str(python), "-I")
    assert "installed" in line and "post-commit" in line
    after = snapshot(folder)
    assert hooks.install(folder, str(python), "-I") == []
    assert snapshot(folder) == after
    assert {state.state for state in hooks.status(folder)} == {"installed"}
    hooks.uninstall(folder)
    assert snapshot(folder) == before
    assert hooks.uninstall(folder) == []
    assert {state.state for state in hooks.status(folder)} == {"missing"}


def test_flags_are_the_strictest_that_work(tmp_path: Path, sealed: Path, sh: Shell) -> None:
    """Installed: isolated.  In the user's site-packages: -E.  By PYTHONPATH alone: nothing may be hidden."""
    package = Path(hooks.__file__).parent
    sh("python3 -m venv --without-pip env")
    python = f"PYTHONNOUSERSITE= {tmp_path}/env/bin/python"
    ask = "-c 'from gitpipe import hooks; print(repr(hooks.interpreter_flags()))'"
    assert sh(f"PYTHONPATH={package.parent} {python} {ask}") == "''\n"
    site = sh(f"{python} -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'").strip()
    sh(f"ln -s {package} {site}/gitpipe")
    assert sh(f"PYTHONPATH= {python} {ask}") == "'-I'\n"
    # A venv hides the user's site-packages unless it is told not to.
    sh(f"rm {site}/gitpipe && sed -i 's/\\(include-system-site-packages = \\).*/\\1true/' env/pyvenv.cfg")
    user = sh(f"{python} -c 'import site; print(site.getusersitepackages())'").strip()
    assert user.startswith(str(sealed))
    sh(f"mkdir -p {user} && ln -s {package} {user}/gitpipe")
    assert sh(f"PYTHONPATH= {python} {ask}") == "'-E'\n"


def test_another_interpreter_renews(folder: Path) -> None:
    (line,) = hooks.install(folder, "/somewhere/else/python", "-E")
    assert "renewed" in line
    assert b"PYTHON=/somewhere/else/python\nFLAGS=-E\n" in (folder / "post-commit").read_bytes()
    assert not list(folder.glob("*.before-gitpipe"))


@pytest.mark.parametrize(("name", "outcome"), [("pre-commit", 1), ("post-commit", 0)])
def test_foreign_hook_runs_first_and_its_failure_counts_as_before(
    scratch: Path, python: Path, sh: Shell, name: str, outcome: int
) -> None:
    folder = scratch / ".git" / "hooks"
    (folder / name).write_bytes(b'#!/bin/sh\necho foreign "$#" >&2\nexit 3\n\n \xff')
    (folder / name).chmod(0o750)
    before = snapshot(folder)
    hooks.install(folder, str(python), "-I")
    assert sh(COMMIT, scratch, status=outcome, stderr=True) == "foreign 0\n"
    assert nudges(scratch) == ([] if name == "pre-commit" else ["post-commit"])
    assert sh("GITPIPE=0 " + COMMIT, scratch, status=outcome, stderr=True) == "foreign 0\n"
    hooks.uninstall(folder)
    assert snapshot(folder) == before


def test_foreign_hook_gets_arguments_stdin_and_keeps_its_status(
    scratch: Path, python: Path, tmp_path: Path, sh: Shell
) -> None:
    folder = scratch / ".git" / "hooks"
    for name in ("post-rewrite", "post-checkout"):
        (folder / name).write_text(f'#!/bin/sh\n{{ echo "$@"; cat; }} > {tmp_path}/{name}\nexit 7\n')
        (folder / name).chmod(0o755)
    hooks.install(folder, str(python), "-I")
    old = sh("git rev-parse HEAD", scratch).strip()
    sh("git commit -q --amend -m new", scratch)
    assert (tmp_path / "post-rewrite").read_text().startswith(f"amend\n{old} ")
    sh("git switch -q -c b", scratch, status=1)  # as git answers for any failing post-checkout
    assert (tmp_path / "post-checkout").read_text().endswith(" 1\n")


def test_symlinked_and_non_executable_hooks_come_back(scratch: Path, python: Path, sh: Shell) -> None:
    folder = scratch / ".git" / "hooks"
    (scratch / "tool.sh").write_text("#!/bin/sh\necho linked >&2\n")
    (scratch / "tool.sh").chmod(0o755)
    (folder / "post-commit").symlink_to("../../tool.sh")
    (folder / "pre-commit").write_text("#!/bin/sh\nexit 9\n")
    (folder / "pre-commit").chmod(0o644)
    hooks.install(folder, str(python), "-I")
    assert sh(COMMIT, scratch, stderr=True) == "linked\n"
    assert (scratch / "tool.sh").read_text() == "#!/bin/sh\necho linked >&2\n"
    hooks.uninstall(folder)
    assert (folder / "post-commit").readlink() == Path("../../tool.sh")
    assert stat.S_IMODE((folder / "pre-commit").stat().st_mode) == 0o644


def test_hook_that_another_installer_wrote_over_ours(folder: Path, python: Path, sh: Shell, scratch: Path) -> None:
    (folder / "post-commit").write_text("#!/bin/sh\necho lfs >&2\n")
    assert "post-commit: foreign" in map(str, hooks.status(folder))
    hooks.install(folder, str(python), "-I")
    assert sh(COMMIT, scratch, stderr=True) == "lfs\n"
    (folder / "post-commit").write_text("#!/bin/sh\necho newer >&2\n")
    hooks.install(folder, str(python), "-I")
    assert sh(COMMIT, scratch, stderr=True) == "newer\n"
    hooks.uninstall(folder)
    assert (folder / "post-commit").read_text() == "#!/bin/sh\necho newer >&2\n"
    assert [path.name for path in folder.glob("*gitpipe*")] == []


@pytest.mark.parametrize("order", ["before", "after", "both"])
def test_pre_commit_framework_in_either_order(scratch: Path, python: Path, sh: Shell, order: str) -> None:
    folder = scratch / ".git" / "hooks"
    (scratch / ".pre-commit-config.yaml").write_text(
        "repos:\n- repo: local\n  hooks:\n  - {id: x, name: x, entry: sh -c 'echo ran >> .git/ran', language: system,"
        " always_run: true, pass_filenames: false, stages: [pre-commit, post-commit]}\n"
    )
    install = "pre-commit install -t pre-commit -t post-commit"
    if order != "after":
        sh(install, scratch)
    hooks.install(folder, str(python), "-I")
    if order != "before":
        sh(install, scratch)
        assert hooks.install(folder, str(python), "-I") == []
    assert {state.state for state in hooks.status(folder)} == {"installed"}
    sh("git add . && git commit -q -m change", scratch)
    assert nudges(scratch) == ["post-commit"]
    assert (scratch / ".git/ran").read_text() == "ran\nran\n"
    hooks.uninstall(folder)
    left = {path.name for path in folder.iterdir() if not path.name.endswith(".sample")}
    assert left == {"pre-commit", "post-commit"}
    sh(COMMIT, scratch)
    assert nudges(scratch) == ["post-commit"]
    assert (scratch / ".git/ran").read_text() == "ran\nran\n" * 2


def test_a_hook_that_pre_commit_dropped_with_ours_comes_back(scratch: Path, python: Path, sh: Shell) -> None:
    """`pre-commit install -f` takes our hook away, which was the one that called the hook from before."""
    folder = scratch / ".git" / "hooks"
    own = "#!/bin/sh\necho own >> .git/ran\n"
    (folder / "pre-commit").write_text(own)
    (folder / "pre-commit").chmod(0o755)
    (scratch / ".pre-commit-config.yaml").write_text("repos: []\n")
    hooks.install(folder, str(python), "-I")
    sh("pre-commit install -f", scratch)
    assert any("back as pre-commit.legacy" in line for line in hooks.uninstall(folder))
    sh("git add . && git commit -q -m change", scratch)
    assert (scratch / ".git/ran").read_text() == "own\n"
    sh("pre-commit uninstall", scratch)
    assert (folder / "pre-commit").read_text() == own
    assert [path.name for path in folder.iterdir() if not path.name.endswith(".sample")] == ["pre-commit"]


TOOLS = ("gitpipe", "dvc", "lfs", "pre-commit")
CONFIG = """\
repos:
- repo: local
  hooks:
  - {id: x, name: x, entry: sh -c 'echo pre-commit >> .git/ran', language: system, always_run: true,
     pass_filenames: false, stages: [post-checkout, pre-push]}
"""


class Bench:
    """A repository in which four tools put their hooks into one folder; each notes in `.git/ran` that it ran."""

    def __init__(self, repo: Path, sh: Shell, tmp_path: Path) -> None:
        self.repo, self.sh, self.folder = repo, sh, repo / ".git" / "hooks"
        (repo / ".pre-commit-config.yaml").write_text(CONFIG)
        python = fake_python(tmp_path / "py", f"echo gitpipe >> {repo}/.git/ran\n")
        self.python = str(python)
        # What the tools' hooks start; that they are installed by the real ones is what counts here.
        for name in ("dvc", "git-lfs"):
            stub = tmp_path / "stubs" / name
            stub.parent.mkdir(exist_ok=True)
            stub.write_text(f'#!/bin/sh\necho {name.removeprefix("git-")} >> "{repo}/.git/ran"\n')
            stub.chmod(0o755)
        self.stubs = tmp_path / "stubs"
        sh("dvc init -q && mkdir data && git add -A && git commit -qm dvc", repo)
        self.dvc_hooks: dict[str, bytes] = {}

    def install(self, tool: str) -> bool:
        """Whether the tool agreed to."""
        if tool == "gitpipe":
            hooks.install(self.folder, self.python, "-I")
        elif tool == "dvc":
            from dvc.exceptions import DvcException
            from dvc.repo import Repo

            try:
                Repo(str(self.repo)).install()
            except DvcException as error:
                assert "already exists" in str(error)
                return False
            names = ("post-checkout", "pre-commit", "pre-push")
            self.dvc_hooks = {name: (self.folder / name).read_bytes() for name in names}
        elif tool == "lfs":
            done = subprocess.run(["git", "lfs", "install", "--local"], cwd=self.repo, capture_output=True, text=True)
            assert done.returncode == 0 or "Hook already exists" in done.stdout + done.stderr
            return done.returncode == 0
        else:
            self.sh("pre-commit install -t post-checkout -t pre-push", self.repo)
        return True

    def uninstall(self, tool: str) -> None:
        """As people do it; DVC has no command for it, and git-lfs removes only what is as it wrote it."""
        if tool == "gitpipe":
            hooks.uninstall(self.folder)
        elif tool == "dvc":
            for name, content in self.dvc_hooks.items():
                for path in self.folder.glob(f"{name}*"):
                    if path.read_bytes() == content:
                        path.unlink()
        elif tool == "lfs":
            self.sh("git lfs uninstall --local", self.repo)
        else:
            self.sh("pre-commit uninstall -t post-checkout -t pre-push", self.repo)

    def ran(self) -> list[str]:
        """The tools whose post-checkout ran at a switch, in their order."""
        (self.repo / ".git" / "ran").unlink(missing_ok=True)
        self.sh(f"PATH={self.stubs}:$PATH git checkout -q main", self.repo)
        path = self.repo / ".git" / "ran"
        return path.read_text().split() if path.exists() else []


@pytest.mark.skipif(not shutil.which("git-lfs"), reason="needs git-lfs")
@pytest.mark.parametrize("orders", range(3))
def test_four_tools_in_any_order(scratch: Path, tmp_path: Path, sh: Shell, orders: int) -> None:
    """Each tool's hook runs once while it is installed, and all uninstalled leave the folder as it was."""
    bench = Bench(scratch, sh, tmp_path)
    before = snapshot(bench.folder)
    permutations = list(itertools.permutations(TOOLS))
    # Six of the 24 pairs, in which each tool is first, last and in the middle: one takes two seconds.
    for order, undo in ((permutations[n], permutations[23 - 5 * n % 24]) for n in (4 * orders, 4 * orders + 13)):
        there = [tool for tool in order if bench.install(tool)]
        assert {"gitpipe", "pre-commit"} <= set(there), order
        assert sorted(bench.ran()) == sorted(there), order
        hooks.install(bench.folder, bench.python, "-I")
        assert sorted(bench.ran()) == sorted(there), f"{order}, gitpipe again"
        for tool in undo:
            bench.uninstall(tool)
            there = [other for other in there if other != tool]
            left = sorted(bench.ran())
            # git-lfs leaves alone what is no more as it was, so a hook of it that was chained runs on.
            assert [other for other in left if other != "lfs"] == sorted(set(there) - {"lfs"}), (order, undo, tool)
            assert left.count("lfs") <= 1
        bench.uninstall("lfs")
        assert snapshot(bench.folder) == before, (order, undo)


@pytest.mark.parametrize("order", [("gitpipe", "pre-commit"), ("pre-commit", "gitpipe"), ("dvc", "gitpipe")])
def test_pre_push_tells_each_tool_what_is_pushed(
    scratch: Path, tmp_path: Path, sh: Shell, order: tuple[str, str]
) -> None:
    """Standard input can be read once only; both have it, byte for byte."""
    bench = Bench(scratch, sh, tmp_path)
    (bench.stubs / "dvc").write_text(f"#!/bin/sh\ncat > {tmp_path}/said\n")
    text = CONFIG.replace("sh -c 'echo pre-commit >> .git/ran'", f"sh -c 'env | grep PRE_COMMIT_TO >> {tmp_path}/said'")
    (scratch / ".pre-commit-config.yaml").write_text(text)
    sh("git add -A && git commit -qm config && git init -q --bare ../far.git && git remote add far ../far.git", scratch)
    sh("git push -q far main", scratch)
    old = sh("git rev-parse HEAD", scratch).strip()
    sh("mkdir -p .dvc && dvc remote add -q -d store ../store && echo 'outs: []' > data.dvc && git add -A", scratch)
    sh("git commit -qm data", scratch)
    for tool in order:
        assert bench.install(tool)
    sh(f"PATH={bench.stubs}:$PATH git push -q far main", scratch)
    (call,) = calls(tmp_path / "py")
    assert "-m gitpipe hook pre-push far\n" in call
    head = sh("git rev-parse HEAD", scratch).strip()
    said = (tmp_path / "said").read_text()
    expected = f"refs/heads/main {head} refs/heads/main {old}\n"
    assert said == (expected if "dvc" in order else f"PRE_COMMIT_TO_REF={head}\n")


def test_a_hook_that_goes_by_its_own_name(scratch: Path, python: Path, sh: Shell) -> None:
    """husky's look for the user's script by the name of `$0`, and its helper beside them."""
    folder = scratch / ".husky" / "_"
    folder.mkdir(parents=True)
    (folder / "h").write_text('n=$(basename "$0")\ns=$(dirname "$(dirname "$0")")/$n\n[ -f "$s" ] && sh -e "$s" "$@"\n')
    (folder / "commit-msg").write_text('#!/usr/bin/env sh\n. "$(dirname "$0")/h"')
    (folder / "commit-msg").chmod(0o755)
    (scratch / ".husky" / "commit-msg").write_text('echo "husky $(cat $1)" >&2\n[ "$(cat $1)" != bad ]\n')
    sh("git config core.hooksPath .husky/_", scratch)
    hooks.install(folder, str(python), "-I")
    assert sh("git commit -q --allow-empty -m good", scratch, stderr=True) == "husky good\n"
    assert sh("git commit -q --allow-empty -m bad", scratch, status=1, stderr=True) == "husky bad\n"


# Which folder


def installed(said: str) -> int:
    return said.count(": installed")


def test_where_git_looks_for_hooks(scratch: Path, sh: Shell) -> None:
    """A linked worktree has those of the repository, a submodule its own."""
    sh("git worktree add -q ../linked -b linked && gitpipe init", scratch)
    linked = scratch.parent / "linked"
    assert installed(sh("gitpipe hooks status", linked)) == len(hooks.NAMES)
    sh("gitpipe hooks uninstall", linked)
    assert installed(sh("gitpipe hooks status", scratch)) == 0

    sh("git init -q ../sub && git -C ../sub commit -q --allow-empty -m sub", scratch)
    sh("git -c protocol.file.allow=always submodule add -q ../sub sub && cd sub && gitpipe init", scratch)
    assert (scratch / ".git/modules/sub/hooks/post-commit").exists()
    assert not (scratch / ".git/hooks/post-commit").exists()
    sh(COMMIT, scratch / "sub")
    assert (scratch / ".git/modules/sub/gitpipe/nudge").is_dir() and not nudges(scratch)
    sh("gitpipe runner stop", scratch / "sub")


def note_hook(folder: Path, name: str, home: Path, more: str = "") -> None:
    """A hook of another tool, which notes in `home` that it ran and where."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\necho "{name} $(basename "$PWD") $*" >> "{home}/ran"\n{more}\n')
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("named", [".husky/_", "{top}/tools", "~/shared", ".git/hooks", "link"])
def test_folders_of_other_tools(scratch: Path, python: Path, sealed: Path, sh: Shell, named: str) -> None:
    """Nothing is written there, its hooks go on running, and the worktrees of data branches have gitpipe's."""
    if named == "link":  # without core.hooksPath
        shutil.rmtree(scratch / ".git/hooks")
        folder = scratch / "tools"
        (scratch / ".git/hooks").symlink_to("../tools")
    else:
        sh(f"git config core.hooksPath '{named.format(top=scratch)}'", scratch)
        folder = Path(scratch, named.format(top=scratch).replace("~", str(sealed))).resolve()
    for name, more in (("post-commit", ""), ("commit-msg", '! grep -q bad "$1"'), ("pre-rebase", "")):
        note_hook(folder, name, sealed, more)
    note_hook(folder, "reference-transaction", sealed, "! grep -q refs/heads/forbidden\n")
    if named == ".husky/_":
        (scratch / ".git/info/exclude").write_text("/.husky/_\n/.tool\n")
    sh("git add . && GITPIPE=0 git commit -qm hooks --allow-empty", scratch)  # a team's, tracked, if it can be
    before, config = snapshot(folder), (scratch / ".git/config").read_bytes()

    sh("export GITPIPE=0; gitpipe init && gitpipe create-repo training", scratch)
    sh("git worktree add -q ../training training", scratch)
    training = scratch.parent / "training"
    assert (training / "data").is_dir()  # post-checkout ran
    (sealed / "ran").unlink()
    repo = Repo(scratch)
    hookplace.install(repo, str(python), "-I")
    for number, place in enumerate((scratch, training), 1):
        assert installed("".join(hookplace.status(Repo(place)))) == len(hooks.NAMES)
        assert sh(COMMIT, place, stderr=True) == ""
        assert [call.count("-m gitpipe.runner") for call in calls(python.parent, number)] == [1] * number
        assert sh("git status --porcelain", place) == ""
    ran = (sealed / "ran").read_text()
    assert ran.count("post-commit repo") == 1
    # A relative folder is another one in each working tree, as ever.
    assert ran.count("post-commit training") == (named in ("{top}/tools", "~/shared", "link"))
    sh("git commit -q --allow-empty -m bad", scratch, status=1)
    sh("git branch forbidden", scratch, status=128)
    sh("git rebase -qf HEAD~", scratch)
    assert "pre-rebase repo HEAD~" in (sealed / "ran").read_text()

    if named == ".husky/_":
        sh("git config core.hooksPath .husky/_", scratch)  # as each `npm install` does
        assert installed("".join(hookplace.status(Repo(training)))) == len(hooks.NAMES)
        assert hookplace.install(repo, str(python), "-I") == []
        sh("git config core.hooksPath /dev/null && git commit -q --allow-empty -m bad", scratch)
        assert len(calls(python.parent, 3)) == 3  # the rebase called it, nothing since
        assert "switches all git hooks off" in hookplace.trouble(repo)
        sh("git config core.hooksPath .husky/_", scratch)
    assert snapshot(folder) == before
    hookplace.uninstall(Repo(training))
    sh("git config --remove-section gitpipe && git config --remove-section notes.gitpipe", scratch)
    assert not (scratch / ".git/gitpipe-hooks").exists() and snapshot(folder) == before
    assert (scratch / ".git/config").read_bytes() == config


def test_a_copy_of_the_repository_leaves_the_first_one_alone(scratch: Path, sh: Shell) -> None:
    sh("git config core.hooksPath .husky/_ && GITPIPE=0 gitpipe init && cp -R . ../copy", scratch)
    copy = scratch.parent / "copy"
    sh(COMMIT, copy)
    assert not nudges(scratch)
    line = "git takes its hooks from " + str(copy / ".husky/_") + ", where gitpipe's are not: `gitpipe hooks install`"
    assert line in sh("gitpipe status", copy) and line in sh("gitpipe hooks status", copy)
    sh("GITPIPE=0 gitpipe hooks install && gitpipe runner stop", copy)
    assert line not in sh("gitpipe status", copy)
    assert sh("git config core.hooksPath", copy).strip() == str(copy / ".git/gitpipe-hooks")
    assert sh("git config core.hooksPath", scratch).strip() == str(scratch / ".git/gitpipe-hooks")


def test_all_folders_that_ever_held_hooks_are_cleaned(scratch: Path, python: Path, sealed: Path, sh: Shell) -> None:
    """``core.hooksPath`` is set, changed and unset between install and uninstall."""
    home = scratch / ".git/hooks"
    note_hook(home, "post-commit", sealed)
    before = snapshot(home)
    repo = Repo(scratch)
    repo.set_config("gitpipe.python", str(python))
    config = (scratch / ".git/config").read_bytes()
    inside = scratch / ".git/mine"
    for value in ("", str(inside), ".husky/_", "", ".husky/_"):
        sh(f"git config core.hooksPath {value}" if value else "git config --unset core.hooksPath; true", scratch)
        hookplace.install(repo, str(python), "-I")
        assert installed("\n".join(hookplace.status(repo))) == len(hooks.NAMES)
        assert (snapshot(home) == before) == bool(value), "one place at a time"
        assert hookplace.trouble(repo) == ""
    # A repository whose hooks somebody moved without gitpipe.
    sh(f"git config core.hooksPath {inside}", scratch)
    hooks.install(home, str(python), "-I")
    sh("git config --unset core.hooksPath", scratch)
    assert "hooks" in "".join(hookplace.uninstall(repo))
    assert snapshot(home) == before and not list(inside.iterdir()) and not (scratch / ".git/gitpipe-hooks").exists()
    assert (scratch / ".git/config").read_bytes() == config
    assert hookplace.uninstall(repo) == []


def test_hooks_in_gits_configuration_are_named(scratch: Path, sh: Shell) -> None:
    """Those of git 2.54 and newer; ours are in the folder all the same."""
    sh("gitpipe init && git config hook.lint.command true && git config hook.lint.event pre-commit", scratch)
    sh("git config --add hook.lint.event update", scratch)
    said = sh("gitpipe hooks status", scratch).splitlines()
    assert said[-1] == "pre-commit: git 2.54 and newer also run hook.lint of the configuration"
    assert len(said) == len(hooks.NAMES) + 1


def test_add_stages_where_its_caller_looks(scratch: Path, sh: Shell) -> None:
    """A desktop's index of its own, and not that of another repository in whose hook gitpipe was called.

    And it says so where the commit that comes next will wake nobody, since another tool has taken git's hooks over.
    """
    sh("export GITPIPE=0; gitpipe init && gitpipe create-repo a && git switch -q a && mkdir -p data", scratch)
    sh("git init -q ../other && cp .git/index ../desktop && echo 1 > data/x", scratch)
    usual = sh("git ls-files --stage", scratch)
    assert "hooks" not in sh("GITPIPE=0 GIT_INDEX_FILE=../desktop gitpipe add data", scratch)
    assert sh("git ls-files --stage", scratch) == usual != sh("GIT_INDEX_FILE=../desktop git ls-files --stage", scratch)
    sh("GITPIPE=0 GIT_INDEX_FILE=$PWD/../other/.git/index gitpipe add data", scratch)
    assert sh("git ls-files --stage", scratch) == sh("GIT_INDEX_FILE=../desktop git ls-files --stage", scratch)
    assert not (scratch.parent / "other/.git/index").exists()
    sh("git config core.hooksPath .husky/_ && echo 2 > data/x", scratch)
    assert "where gitpipe's are not: `gitpipe hooks install`" in sh("GITPIPE=0 gitpipe add data", scratch)


def test_files_go_before_commits(scratch: Path, sh: Shell) -> None:
    """I7: what pushed commits name, those in between too, is on the DVC remote before git pushes; else git does not."""
    sh(
        "export GITPIPE=0; dvc init -q && dvc remote add -q -d store ../store && git add -A && git commit -qm d",
        scratch,
    )
    sh("export GITPIPE=0; gitpipe init && gitpipe create-repo a && git worktree add -q ../a a", scratch)
    a = scratch.parent / "a"
    store = scratch.parent / "store"

    def commit(text: str) -> None:
        sh(f"export GITPIPE=0; mkdir -p data && echo {text} > data/x && gitpipe add data && git commit -qm {text}", a)

    commit("one")
    commit("two")
    sh("git init -q --bare ../far.git && git remote add far ../far.git", scratch)
    assert sh("git push -q far main a", scratch, stderr=True) == ""
    assert sorted(p.read_text() for p in store.rglob("*") if p.is_file() and p.stat().st_size == 4) == [
        "one\n",
        "two\n",
    ]
    assert len(list(store.rglob("*.dir"))) == 3  # with the empty one that a repo begins with
    sh("git clone -q -b a ../far.git ../clone", a)
    sh("dvc remote add -q --local -d s ../store && dvc pull -q", scratch.parent / "clone")
    assert (scratch.parent / "clone/data/x").read_text() == "two\n"

    commit("three")
    store.rename(scratch.parent / "gone")
    store.write_text("in the way")
    said = sh("git push -q far a", scratch, status=1, stderr=True).splitlines()
    assert said[0].startswith("gitpipe: pre-push: cannot push to DVC remote store: ")
    assert said[0].endswith("nothing was pushed (--no-verify pushes without, git config gitpipe.push false always)")
    assert len(said) == 2 and said[1].startswith("error: failed to push")
    sh("git config gitpipe.push false && git push -q far a && git push -q far :a", scratch)


def test_unwritable_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "hooks").write_text("")
    with pytest.raises(Refused, match=r"cannot change the git hooks in .*hooks: "):
        hooks.install(tmp_path / "hooks", "/usr/bin/python3", "-I")
