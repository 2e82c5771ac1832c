"""``transform.secrets``: what a stage gets of them, and that nobody else does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gitpipe import cli
from gitpipe.errors import BadSpec, GitpipeError, NotFound, Refused, StageFailed, UsageError
from gitpipe.spec import SecretUse, Spec, load_specs
from gitpipe.stage import MAX_LOG, Secret, Stage
from gitpipe.stage.secret import Redactor
from gitpipe.vault import Vault, variable

from .conftest import Shell, end_runner
from .lab import Lab, new_lab
from .stagekit import Kit, both, needs_sandbox, own_processes_with, seconds

VALUE = "hunter2-Qx7!vR9z"
LINES = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASC\n-----END KEY-----\n"
WORDS = [VALUE, *LINES.split()[2:4]]


@pytest.fixture
def safe(sealed: Path) -> Path:
    """The folder of secrets where it is by default, with ``db/password`` and ``db/key.pem``."""
    for folder in (".config", ".config/gitpipe", ".config/gitpipe/secrets", ".config/gitpipe/secrets/db"):
        (sealed / folder).mkdir(mode=0o700)
    put(sealed / ".config/gitpipe/secrets/db/password", VALUE + "\n")
    put(sealed / ".config/gitpipe/secrets/db/key.pem", LINES)
    return sealed / ".config/gitpipe/secrets"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


# -- the spec ----------------------------------------------------------------------------------------------------------


def load(*secrets: Any) -> Spec:
    transform = {"cmd": ["true"], "secrets": list(secrets)}
    spec = {"pipeline": {"name": "p"}, "transform": transform, "input": {"pfs": {"repo": "r", "glob": "/"}}}
    return load_specs(json.dumps(spec).encode(), "p.json")[0]


def test_both_spellings_and_what_is_recorded() -> None:
    snake = {"name": "db", "key": "password", "env_var": "PW", "mount_path": "/secrets//db/"}
    camel = {"name": "db", "key": "password", "envVar": "PW", "mountPath": "/secrets/db"}
    spec = load(snake, {"name": "aws", "mount_path": "/var/run/aws"}, {"name": "nothing-to-do"})
    assert spec.transform.secrets[:2] == (
        SecretUse("db", "password", "/secrets/db", "PW"),
        SecretUse("aws", mount_path="/var/run/aws"),
    )
    assert load(camel).transform.secrets == spec.transform.secrets[:1]
    assert spec.ignored == () and Spec.from_json(spec.to_json()) == spec
    assert spec.transform_digest("x") != load().transform_digest("x"), "what it gets is part of what it does"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("db", "transform.secrets[0]: expected an object"),
        ({"key": "x"}, "transform.secrets[0].name: is missing"),
        ({"name": "../db", "key": "x"}, "transform.secrets[0].name: expected letters, digits"),
        ({"name": "db", "key": ".."}, "transform.secrets[0].key: expected letters, digits"),
        ({"name": "db", "env_var": "PW"}, "transform.secrets[0].key: is missing: env_var holds"),
        ({"name": "db", "key": "x", "env_var": "A=B"}, "transform.secrets[0].env_var: 'A=B' cannot be"),
        ({"name": "db", "mount_path": "secrets"}, "expected the absolute path of a folder"),
        ({"name": "db", "mount_path": "/a/../b"}, "expected the absolute path of a folder"),
        ({"name": "db", "mount_path": "/pfs/db"}, "expected a folder elsewhere than in /pfs, /code"),
        ({"name": "db", "mount_path": "//usr/"}, "/usr is full of what every program needs"),
        ({"name": "db", "key": "x", "env_var": "PATH"}, "PATH is set by gitpipe itself"),
        ({"name": "db", "key": "x", "env_var": "PACH_JOB_ID"}, "PACH_JOB_ID is set by gitpipe itself"),
        ({"name": "db", "mount_path": "/"}, "expected a folder elsewhere than in /pfs, /code"),
    ],
)
def test_what_cannot_be(secret: Any, said: str) -> None:
    with pytest.raises(BadSpec) as error:
        load(secret)
    assert said in str(error.value) and str(error.value).startswith("p.json:1: ") and "\n" not in str(error.value)


# -- where values come from --------------------------------------------------------------------------------------------


def test_files(safe: Path) -> None:
    """A variable has no line feed at its end, a file has all its bytes; without a key it is all files."""
    uses = [SecretUse("db", "password", "/a", "PW"), SecretUse("db", mount_path="/all/")]
    assert Vault(safe).take(uses) == (
        Secret(VALUE.encode(), env_var="PW"),
        Secret(f"{VALUE}\n".encode(), path="/a/password"),
        Secret(LINES.encode(), path="/all/key.pem"),
        Secret(f"{VALUE}\n".encode(), path="/all/password"),
    )
    assert Vault(safe).take([SecretUse("nothing-to-do")]) == ()
    (safe / "db/linked").symlink_to("password")
    assert Vault(safe).take([SecretUse("db", "linked", env_var="PW")]) == (Secret(VALUE.encode(), env_var="PW"),)


def refusal(folder: Path, use: SecretUse, kind: type[GitpipeError] = Refused) -> str:
    with pytest.raises(kind) as error:
        Vault(folder).take([use])
    text = str(error.value)
    assert "\n" not in text and not any(word in text for word in WORDS)
    return text


PASSWORD = SecretUse("db", "password", env_var="PW")


def test_what_is_missing_is_named(safe: Path) -> None:
    absent = refusal(safe, SecretUse("db", "user", env_var="U"), NotFound)
    assert absent.startswith(f"secret db has no key user: looked for {safe}/db/user, and for GITPIPE_SECRET_DB_USER in")
    assert "looked for files in" in refusal(safe, SecretUse("none", mount_path="/x"), NotFound)
    assert "GITPIPE_SECRET_DB_PASSWORD" in refusal(safe / "nowhere", PASSWORD, NotFound)
    assert variable("my-db", "key.pem") == "GITPIPE_SECRET_MY_DB_KEY_PEM"


def test_what_others_can_read_is_not_taken(safe: Path) -> None:
    (safe / "db/password").chmod(0o640)
    assert refusal(safe, PASSWORD).endswith(
        f"(mode 0640), so that no secret is taken from it: chmod 600 {safe}/db/password"
    )
    (safe / "db/password").chmod(0o400)
    for folder in (safe / "db", safe):
        folder.chmod(0o750)
        assert refusal(safe, PASSWORD).endswith(f"chmod 700 {folder}")
        folder.chmod(0o700)
    assert Vault(safe).take([PASSWORD])


def test_what_lies_in_a_working_tree_is_not_taken(safe: Path, sh: Shell, tmp_path: Path) -> None:
    sh(f"git init -q {tmp_path}/tree && cp -rp {safe} {tmp_path}/tree/secrets")
    assert f"lies in the git working tree {tmp_path}/tree, where" in refusal(tmp_path / "tree/secrets", PASSWORD)
    (tmp_path / "link").symlink_to("tree/secrets")
    assert "lies in the git working tree" in refusal(tmp_path / "link", PASSWORD)


def test_what_is_no_secret_at_all(safe: Path) -> None:
    os.mkfifo(safe / "db/pipe", 0o600)
    assert "is no file" in refusal(safe, SecretUse("db", "pipe", env_var="P"))
    (safe / "db/folder").mkdir(mode=0o700)
    assert "is no file" in refusal(safe, SecretUse("db", "folder", env_var="P"))
    put(safe / "db/large", "x" * (1 << 20) + "x")
    assert "more than 1048576 bytes" in refusal(safe, SecretUse("db", "large", env_var="P"))
    put(safe / "db/nul", "a\0b")
    assert "NUL" in refusal(safe, SecretUse("db", "nul", env_var="P"))
    assert Vault(safe).take([SecretUse("db", "nul", "/x")])[0].value == b"a\0b"


# -- in a worker -------------------------------------------------------------------------------------------------------


def secret(path: str, value: str = VALUE) -> Secret:
    return Secret(value.encode(), path=path)


@both
def test_a_variable(kit: Kit, sandbox: str) -> None:
    """It wins over ``env``, and is not taken for a path; the agent and the sandbox do not have it."""
    value = "/pfs/in " + VALUE
    script = 'printf %s "$PW" > /pfs/out/x; printf %s "$OTHER" > /pfs/out/y'
    stage = kit.stage(
        "sh", "-c", script, sandbox=sandbox, env=(("PW", "x"), ("OTHER", "y")), secrets=(Secret(value.encode(), "PW"),)
    )
    result = kit.worker(stage).run(kit.task())
    assert kit.contents(result) == {"x": value.encode(), "y": b"y"}


@needs_sandbox
@pytest.mark.parametrize(
    "folder",
    ["/secrets", "/etc/gitpipe-creds", "/var/run/secrets/db", "/opt/a/b", "/tmp/creds", "/srv", "/root/.aws", "/var/x"],
)
def test_files_wherever_they_are_wanted(kit: Kit, folder: str) -> None:
    """Read-only, of this user alone, for each datum; all else there is as it was."""
    around = str(Path(folder).parent)
    script = (
        f"cat {folder}/key > /pfs/out/key; stat -c %a {folder}/key > /pfs/out/mode; ls -A {folder} > /pfs/out/ls;"
        f"touch {folder}/x || echo x > {folder}/key || rm -f {folder}/key || touch {around}/gitpipe-x"
        f" && [ {around} != /tmp ] && echo writable > /pfs/out/writable; ls -A {around} > /pfs/out/around;"
        " ls /proc/self/fd > /pfs/out/fds"
    )
    value = VALUE * 9000  # more than a pipe takes
    worker = kit.worker(kit.stage("sh", "-c", script, secrets=(secret(f"{folder}/key", value), secret("/z/y"))))
    for _ in range(2):
        result = worker.run(kit.task())
        found = {name: data.decode() for name, data in kit.contents(result).items()}
        around_it = set(found.pop("around").split("\n"))
        assert found == {"key": value, "mode": "400\n", "ls": "key\n", "fds": "0\n1\n2\n3\n"}, result.log
        if around in ("/etc", "/var", "/"):
            assert around_it >= {name for name in os.listdir(around) if around != "/" or name in ("etc", "usr")}


@needs_sandbox
def test_what_others_have_there_stays_hidden(kit: Kit) -> None:
    """A folder that is put together anew, to have one more in it, shows no home and no temporary file of the host."""
    mark = f"gitpipe-{os.getpid()}"
    place = Path("/var/tmp") / mark
    place.touch()
    try:
        result = kit.sh("ls -A /var/tmp /home /root /run", secrets=(secret("/var/x/key"), secret("/etc/x/key")))
    finally:
        place.unlink()
    assert result.ok and mark.encode() not in result.log


def test_a_mount_needs_a_sandbox(kit: Kit) -> None:
    """And a variable none; nothing is left of the attempt."""
    with pytest.raises(
        StageFailed, match=r"pipeline p has a secret with mount_path, which needs the sandbox.*use env_var"
    ):
        kit.worker(kit.stage("true", sandbox="none", secrets=(secret("/x/key"),)))


@needs_sandbox
def test_the_folder_of_secrets_is_hidden_from_all(kit: Kit, tmp_path: Path) -> None:
    """Wherever it lies, and also from the stage that gets one of them."""
    folder = Path("/var/lib") / f"gitpipe-test-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700)
    except PermissionError:
        pytest.skip("no place outside of homes and temporary folders to write to")
    try:
        put(folder / "db/password", VALUE)
        script = f"ls -AR {folder}; cat {folder}/db/password; touch {folder}/x"
        open_ = kit.worker(kit.stage("sh", "-c", script)).run(kit.task())
        assert VALUE.encode() in open_.log, "else this test shows nothing"
        covered = kit.worker(kit.stage("sh", "-c", script, hidden=(str(folder),))).run(kit.task())
        assert VALUE.encode() not in covered.log and b"password\n" not in covered.log
        assert b"Read-only" in covered.log
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


def test_what_is_shown_of_a_stage(kit: Kit) -> None:
    stage = kit.stage("true", secrets=(Secret(VALUE.encode(), "PW"),))
    for text in (repr(stage), str(stage), repr(stage.secrets), repr(stage.secrets[0]), f"{vars(Stage).keys()}"):
        assert VALUE not in text
    assert stage != kit.stage("true", secrets=(Secret(b"another", "PW"),)), "a warm worker has the old value"


@needs_sandbox
def test_other_processes_do_not_see_it(kit: Kit) -> None:
    """Not in an argument list, nor in the environment of any process but its own; not from another sandbox."""
    mine = seconds(300)
    value = f"{VALUE}-{os.getpid()}-{time.time_ns()}"  # other tests have theirs in processes of theirs
    secrets = (Secret(value.encode(), "PW"), secret("/secrets/key", value))
    holder = kit.worker(kit.stage("sh", "-c", f"touch /pfs/out/there; sleep {mine}", secrets=secrets))
    thread = threading.Thread(target=holder.run, args=(kit.task(),))
    thread.start()
    try:
        while not (sleeping := own_processes_with(f"sleep {mine}")):
            assert thread.is_alive()
        script = (
            "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/root/secrets/* | tr '\\0' '\\n'; ls /secrets"
        )
        other = kit.sh(script)
        assert b"LC_ALL" in other.log and value.encode() not in other.log
        holders = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                assert value.encode() not in (process / "cmdline").read_bytes()
                if value.encode() in (process / "environ").read_bytes():
                    holders.add((process / "cmdline").read_bytes().split(b"\0")[0])
            except OSError:
                continue
        assert sleeping and b"sleep" in holders and holders <= {b"sh", b"sleep"}
    finally:
        holder.abort()
        thread.join()


# -- what is printed ---------------------------------------------------------------------------------------------------


@both
def test_it_is_taken_out_of_logs(kit: Kit, sandbox: str) -> None:
    """Every occurrence, each line of one of several lines, in what err_cmd says, too, and in errors."""
    secrets = (Secret(VALUE.encode(), "PW"), Secret(LINES.encode(), "KEY"), Secret(b"abc", "SHORT"))
    script = 'echo "x${PW}y$PW"; echo "$KEY" >&2; echo "$KEY" | sed "/./s/^/  > /"; echo $SHORT'
    result = kit.sh(script, sandbox=sandbox, secrets=secrets)
    assert result.log == b"x***y***\n***\n\n  > ***\n  > ***\n  > ***\n  > ***\n\nabc\n"
    assert result.ok
    unfit = kit.sh('mkfifo "/pfs/out/$PW"', sandbox=sandbox, secrets=secrets)
    assert unfit.error.startswith("/pfs/out/*** is a") and VALUE not in repr(unfit)
    failing = kit.stage("sh", "-c", "env; exit 1", err_cmd=("env",), secrets=secrets, sandbox=sandbox)
    result = kit.worker(failing).run(kit.task())
    assert result.recovered and result.log.count(b"PW=***\n") == 2 and VALUE not in repr(result)


def test_one_that_was_cut_in_two(kit: Kit) -> None:
    """Where a long log has its middle left out, wherever that falls."""
    size = MAX_LOG // 4
    for shift in (0, 3, len(VALUE) - 1):
        script = (
            f"yes | head -c {size - shift}; printf %s $PW; yes | head -c {MAX_LOG}; printf %s $PW; yes | head -c 90"
        )
        log = kit.sh(script, secrets=(Secret(VALUE.encode(), "PW"),)).log
        assert (
            b"bytes left out" in log
            and b"***" in log
            and VALUE[3:].encode() not in log
            and VALUE[:3].encode() not in log
        )
    redactor = Redactor([Secret(VALUE.encode())])
    for split in range(1, len(VALUE)):
        log = f"a{VALUE[:split]}\n[... 9 bytes left out ...]\n{VALUE[split:]}z".encode()
        assert redactor.log(log) == b"a***\n[... 9 bytes left out ...]\n***z"


def test_what_is_left_as_it_is() -> None:
    redactor = Redactor([Secret(b"abc"), Secret(b"\n \n"), Secret(b"a.c+")])
    assert redactor.log(b"abc abcc+ a.c+ ***\n") == b"abc abcc+ *** ***\n"
    assert redactor.text("x\udcffa.c+") == "x\udcff***"
    assert Redactor([]).log(b"abc") == b"abc"
    longer = Redactor([Secret(b"pass"), Secret(b"password")])
    assert longer.log(b"password passw") == b"*** ***w"


# -- in a job ----------------------------------------------------------------------------------------------------------

DB: list[dict[str, str]] = [{"name": "db", "key": "password", "env_var": "PW"}]


def using(lab: Lab, script: str, secrets: Sequence[dict[str, str]] = DB, name: str = "p", **more: Any) -> None:
    transform = {"cmd": ["sh", "-c", script], "secrets": list(secrets)}
    lab.pipeline(name, {}, input={"pfs": {"repo": "in", "glob": "/*"}}, transform=transform, **more)


def test_a_job_gets_them_from_the_folder(lab: Lab, safe: Path) -> None:
    """Another value makes no datum another one; what a pipeline gets is, as it stands in its spec."""
    lab.data("in", {"a": "1"})
    using(lab, "echo said $PW; printf %s $PW | md5sum > /pfs/out/$(basename /pfs/in/*)")
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.printed("p") == ["said ***"]
    first = lab.files("p")["a"]
    put(safe / "db/password", "another value")
    lab.data("in", {"a": "1", "b": "2"})
    assert lab.ran() == ["p: 1 + 1 / 2 success"]
    assert lab.files("p")["a"] == first and lab.files("p")["b"] != first
    using(lab, "echo said $PW; printf %s $PW | md5sum > /pfs/out/$(basename /pfs/in/*)", [{**DB[0], "env_var": "PASS"}])
    assert lab.ran() == ["p: 2 + 0 / 2 success"]


def test_another_place(lab: Lab, safe: Path, tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.data("in", {"a": "1"})
    using(lab, "[ -n $PW ] && echo $PW")
    place = tmp_path / "place"
    safe.rename(place)
    (job,) = lab.run()
    assert job.state == "failed" and f"looked for {safe}/db/password" in job.reason
    lab.git("config", "gitpipe.secrets", str(place))
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    lab.git("config", "gitpipe.secrets", "~/x")
    assert lab.project.settings.secrets == str(sealed / "x")
    lab.git("config", "gitpipe.secrets", "place")
    with pytest.raises(UsageError, match=r"gitpipe.secrets is 'place': use the absolute path"):
        lab.project  # noqa: B018
    lab.git("config", "--unset", "gitpipe.secrets")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert lab.project.settings.secrets == str(tmp_path / "xdg/gitpipe/secrets")


def test_the_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once, and no process that is started then has it; a file comes first."""
    monkeypatch.setenv("GITPIPE_SECRET_WEB_TOKEN", VALUE)
    lab.data("in", {"a": "1"})
    using(lab, "env; echo $TOKEN", [{"name": "web", "key": "token", "env_var": "TOKEN"}])
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert not any(name.startswith("GITPIPE_SECRET_") for name in os.environ)
    printed = lab.printed("p")
    assert "TOKEN=***" in printed and printed[-1] == "***" and not any("GITPIPE_SECRET" in line for line in printed)
    lab.data("in", {"a": "2"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"], "it is still known"


@pytest.mark.parametrize("mount", [False, True])
def test_a_missing_one_fails_the_job_before_any_datum(lab: Lab, safe: Path, mount: bool) -> None:
    """In one line; when it is there, `run` goes on."""
    use = {"name": "db", "mount_path": "/x"} if mount else {"name": "db", "key": "user", "env_var": "U"}
    lab.data("in", {"a": "1"})
    lab.pipeline("other", {"in": "/"})
    if mount:
        (safe / "db").rename(safe / "gone")
        lab.git("config", "gitpipe.sandbox", "auto")
    using(lab, "touch /pfs/out/ran; echo ran", [use])
    jobs = {job.pipeline: job for job in lab.run()}
    assert jobs["other"].state == "success" and jobs["p"].state == "failed"
    assert jobs["p"].reason.startswith("secret db ") and str(safe / "db") in jobs["p"].reason
    assert lab.printed("p") == [] and lab.head("p") == ""
    assert {each.state for each in lab.project.datums.list("p")} == {"not run"}
    if not mount:
        put(safe / "db/user", "ada\n")
        assert lab.ran() == ["p: 1 + 0 / 1 success"]


def test_without_a_sandbox_a_mount_fails_the_job(lab: Lab, safe: Path) -> None:
    lab.git("config", "gitpipe.sandbox", "none")
    lab.data("in", {"a": "1"})
    using(lab, "true", [{"name": "db", "key": "password", "mount_path": "/x"}])
    using(lab, "[ $PW ] && cp /pfs/in/* /pfs/out", name="q")
    jobs = {job.pipeline: job for job in lab.run()}
    assert jobs["q"].state == "success"
    assert "mount_path, which needs the sandbox" in jobs["p"].reason and "use env_var" in jobs["p"].reason


def test_what_was_fetched_gets_none_before_it_is_trusted(lab: Lab, safe: Path, tmp_path: Path) -> None:
    """I12: a spec from elsewhere cannot have a secret by asking for it, and `trust` says what it asks for."""
    theirs = new_lab(tmp_path / "theirs")
    theirs.data("in", {"a": "1"})
    using(theirs, "cp /pfs/in/* /pfs/out; echo stolen $PW; echo $PW > /pfs/out/stolen", name="thief")
    lab.git("fetch", "-q", str(theirs.root), "__spec__:__spec__", "in:in")
    assert lab.ran() == [] and lab.head("thief") == ""
    asked: list[str] = []
    with pytest.raises(GitpipeError, match="nothing was trusted"):
        lab.project.trust(False, lambda text: bool(asked.append(text)))
    assert "with the secrets db/password" in asked[0] and lab.ran() == []


COMMANDS = """list-repo --raw; inspect-repo p --raw; list-commit p --raw; inspect-commit p --raw; list-branch p --raw
list-pipeline --raw; inspect-pipeline p --raw; inspect-pipeline p; list-job --raw; inspect-job p --raw
inspect-job bad --raw; inspect-job bad; list-datum p --raw; list-datum bad --raw; list-worker --raw; logs --raw
logs; logs --pipeline bad; status; status --raw; explain p --raw; explain p; explain bad --raw; explain bad
dag; dag --raw; log p --provenance; log p --raw; diff p --raw; list-file p / --raw; inspect-file p in/a --raw; trust"""


@needs_sandbox
def test_it_is_nowhere_in_the_repository(
    scratch: Path, safe: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in a git object, a note, a blob, the local state, or in what any command prints: the value is looked for."""
    secrets = [*DB, {"name": "db", "mount_path": "/secrets"}, {"name": "db", "key": "key.pem", "env_var": "KEY"}]
    print_all = 'env; cat /secrets/*; echo "$KEY" >&2; '
    specs = []
    for name, end, err in (("p", "cp -r /pfs/in/* /pfs/out", []), ("bad", "exit 3", []), ("poor", "exit 3", ["env"])):
        transform = {"cmd": ["sh", "-c", print_all + end], "secrets": secrets, "err_cmd": err}
        spec = {"pipeline": {"name": name}, "transform": transform, "input": {"pfs": {"repo": "in", "glob": "/*"}}}
        specs.append({**spec, "code": [], "datum_tries": 1})
    (scratch / "specs.json").write_text(json.dumps(specs))
    (scratch / "in").mkdir()
    (scratch / "in/a").write_text("1")
    (scratch / "in/b").write_text("2")
    sh("gitpipe init && git config gitpipe.engine local && gitpipe create-repo in", scratch)
    shown = [
        sh("gitpipe create-pipeline -f specs.json && gitpipe put-file in -r -f in", scratch, stderr=True),
        sh("gitpipe wait", scratch, status=3, stderr=True),
    ]
    monkeypatch.chdir(scratch)
    for command in COMMANDS.replace("\n", ";").split(";"):
        status = cli.run(command.split())
        out, err = capfd.readouterr()
        assert status in (0, 1, 3), f"{command}: {err}"
        shown.append(f"$ {command}\n{out}{err}")
    text = "\n".join(shown)
    assert text.count("PW=***") >= 6 and '"recovered": 1' in text and "exit status 3: " in text
    assert not [word for word in WORDS if word in text]
    end_runner(scratch)
    objects = subprocess.run(
        ["git", "cat-file", "--batch", "--batch-all-objects"], cwd=scratch, capture_output=True, check=True
    ).stdout
    assert b"env_var" in objects and not [word for word in WORDS if word.encode() in objects]
    files = {path: content for path in scratch.rglob("*") if (content := read(path))}
    assert any(path.name.startswith("journal.sqlite") for path in files) and any(p.suffix == ".jsonl" for p in files)
    assert not [path for path, content in files.items() if any(word.encode() in content for word in WORDS)]


def read(path: Path) -> bytes:
    """The bytes of a file; none where it is none, or gone meanwhile: git tidies up by itself."""
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""
