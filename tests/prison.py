"""A stage that tries to get out, as root and as an ordinary user: what the tests of escapes share.

Run as a program it is the side that owns the worker: it reads attempts from its standard input, a line of JSON each,
runs each as one datum of the same worker, and answers with a line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stagekit import Kit

ROOT = Path(__file__).resolve().parent.parent

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "env")
"""With `env`, since setpriv still has root's rights when it looks for the program that it starts."""
PATHS = os.pathsep.join(
    map(str, (Path(__file__).resolve().parent, ROOT, Path(pytest.__file__).resolve().parent.parent))
)

HELPERS = """
import ctypes, ctypes.util, os, sys
libc = ctypes.CDLL(None, use_errno=True)

def attempt(what, call):
    '''Do it, and say `what: done` or why not; a failing libc call gives its errno.'''
    ctypes.set_errno(0)
    try:
        result = call()
        if result == -1 and ctypes.get_errno():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        import errno
        print(what + ':', errno.errorcode.get(error.errno, error.errno), flush=True)
    except Exception as error:
        print(what + ':', type(error).__name__, error, flush=True)
    else:
        print(what + ': done', flush=True)

def write(path, flags=os.O_WRONLY, data=b'bad'):
    fd = os.open(path, flags)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
"""


def python_for_nobody() -> str:
    """An interpreter that user can run with the tests' modules; "" if there is none."""
    env = {**os.environ, "PYTHONPATH": PATHS, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        if shutil.which("setpriv") and os.path.exists(python):
            argv = [*AS_NOBODY, python, "-c", "import pytest, stagekit"]
            if not subprocess.run(argv, env=env, cwd="/", capture_output=True).returncode:
                return python
    return ""


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: what it printed, what the datum's error was, and the text of its output files."""

    said: str
    error: str
    lost: bool
    files: dict[str, str]

    @property
    def of(self) -> dict[str, str]:
        """What each `attempt` said: its name -> ``done`` or the name of the error."""
        return dict(line.split(": ", 1) for line in self.said.splitlines() if ": " in line)


class Prison:
    """A worker with a host around it that is worth breaking out to.

    ::

        base/kit      the blob cache, the code and the slots of stagekit
             home     the user's home: keys and passwords
             repo     a git repository with a password in its configuration
             readable what may be read and must not be written
    """

    def __init__(self, base: Path, sandbox: str, nobody: bool) -> None:
        self.base, self.nobody = base, nobody
        self.uid = NOBODY if nobody else os.geteuid()
        self.home, self.repo = base / "home", base / "repo"
        for name in (".ssh/id_ed25519", ".git-credentials", ".netrc", ".aws/credentials", ".gnupg/secring.gpg",
                     ".config/gh/hosts.yml", ".local/share/keyrings/login", ".bashrc"):  # fmt: skip
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("secret")
        (base / "readable").write_text("hello")
        subprocess.run(["git", "init", "-q", "-b", "main", self.repo], check=True)
        (self.repo / ".git/config").open("a").write("[http]\n\textraHeader = secret\n")
        self.cache = self.repo / ".git/dvc/cache"
        self.cache.mkdir(parents=True)
        base.chmod(0o755)
        if nobody:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", base], check=True)
        env = {**os.environ, "HOME": str(self.home), "PYTHONPATH": PATHS, "GITPIPE_TOKEN": "secret",
               "RAY_AUTH_TOKEN": "secret", "SSH_AUTH_SOCK": "/run/secret", "http_proxy": "http://u:secret@h",
               "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
        python = python_for_nobody() if nobody else sys.executable
        argv = [python, str(Path(__file__).resolve()), str(self.cache), sandbox]
        self._errors = (base / "errors").open("w+")
        self._driver = subprocess.Popen([*(AS_NOBODY if nobody else ()), *argv], env=env, text=True, cwd="/",
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)  # fmt: skip
        self.pid = self._driver.pid

    def run(self, code: str) -> Outcome:
        """Run Python code as one datum; ``/pfs/in/x`` holds ``input``."""
        assert self._driver.stdin and self._driver.stdout
        self._driver.stdin.write(json.dumps({"code": HELPERS + textwrap.dedent(code)}) + "\n")
        self._driver.stdin.flush()
        answer = self._driver.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise AssertionError(f"the driver ended: {self._errors.read()}")
        return Outcome(**json.loads(answer))

    def blob(self, data: bytes) -> Path:
        """Where the cache has the blob of `data`."""
        md5 = hashlib.md5(data).hexdigest()
        return self.cache / "files/md5" / md5[:2] / md5[2:]

    def close(self) -> None:
        assert self._driver.stdin
        self._driver.stdin.close()
        self._driver.wait(timeout=60)
        self._errors.close()


def _main() -> None:
    kit = Kit(Path(sys.argv[1]))
    worker: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if worker is None or not worker.alive:
            worker = kit.worker(kit.stage("python", "/pfs/in/code.py", sandbox=sys.argv[2], timeout=120))
        result = worker.run(kit.task({"code.py": request["code"].encode(), "x": b"input"}))
        files = {path: data.decode(errors="replace") for path, data in kit.contents(result).items()}
        print(json.dumps({"said": result.log.decode(errors="replace"), "error": result.error, "lost": result.lost,
                          "files": files}), flush=True)  # fmt: skip
    with contextlib.suppress(AssertionError):
        kit.close()


if __name__ == "__main__":
    _main()
