"""Where the values of ``transform.secrets`` come from: a folder of the user's, outside git, else the environment.

::

    <folder>/<name>/<key>         mode 0600 or stricter, in folders of mode 0700
    GITPIPE_SECRET_<NAME>_<KEY>   in upper case, all but letters and digits as `_`

Gives values to nobody but the stage that asks for them, and puts none into a message.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gitpipe.errors import NotFound, Refused
from gitpipe.spec import SecretUse
from gitpipe.stage import Secret

PREFIX = "GITPIPE_SECRET_"
MAX_SIZE = 1 << 20
"""Bytes of a value, as in Kubernetes."""

_taken: dict[str, str] = {}


def take_environment() -> None:
    """Move what the environment has of secrets out of it: no process that is started from here inherits them."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        _taken[name] = os.environ.pop(name)


def default_folder() -> Path:
    """``~/.config/gitpipe/secrets``, or where XDG_CONFIG_HOME says."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".config"
    return config / "gitpipe" / "secrets"


def variable(name: str, key: str) -> str:
    """The environment variable that stands for a key of a secret."""
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", f"{name}_{key}".upper())


@dataclass(frozen=True, slots=True)
class Vault:
    """The secrets of one user on this machine; `folder` need not be there."""

    folder: Path

    def take(self, uses: Iterable[SecretUse]) -> tuple[Secret, ...]:
        """The values that a pipeline asks for.

        Raises:
            NotFound: there is no such secret or key.
            Refused: the folder is in a git working tree, or others may read it.
        """
        return tuple(secret for use in uses for secret in self._take(use))

    def hidden(self) -> tuple[str, ...]:
        """What no stage is to see."""
        return (os.path.realpath(self.folder),) if self.folder.is_dir() else ()

    def _take(self, use: SecretUse) -> Iterator[Secret]:
        if use.env_var:
            value = self._value(use.name, use.key)
            if b"\0" in value:
                raise Refused(f"secret {use.name}/{use.key} has a NUL byte, which no variable can: use mount_path")
            # What an editor or `echo` puts at the end of a file is no part of a password.
            yield Secret(re.sub(rb"\r?\n\Z", b"", value), env_var=use.env_var)
        if use.mount_path:
            for key in [use.key] if use.key else self._keys(use.name):
                yield Secret(self._value(use.name, key), path=f"{use.mount_path.rstrip('/')}/{key}")

    def _keys(self, name: str) -> list[str]:
        place = self.folder / name
        try:
            found = sorted(each.name for each in place.iterdir() if not each.name.startswith(".") and each.is_file())
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise Refused(f"secret {name}: cannot read {place}: {error.strerror}") from None
        if not found:
            raise NotFound(f"secret {name} is not there: looked for files in {place} (see docs/secrets.md)")
        return found

    def _value(self, name: str, key: str) -> bytes:
        path, other = self.folder / name / key, variable(name, key)
        value = self._read(path)
        if value is None and other in _taken:
            value = os.fsencode(_taken[other])
        if value is None:
            raise NotFound(
                f"secret {name} has no key {key}: looked for {path}, and for {other} in the environment of the"
                " process that runs the jobs"
            )
        return value

    def _read(self, path: Path) -> bytes | None:
        """The bytes of a file, None where there is none."""
        try:
            # Not blocking, as it might be a pipe.
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Refused(f"cannot read the secret {path}: {error.strerror}") from None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Refused(f"the secret {path} is no file: put its value into a file of that name")
            self._check_place()
            _check_private(path, status)
            for folder in (path.parent, self.folder):
                _check_private(folder, folder.stat())
            with open(file, "rb", closefd=False) as opened:
                value = opened.read(MAX_SIZE + 1)
        finally:
            os.close(file)
        if len(value) > MAX_SIZE:
            raise Refused(f"the secret {path} has more than {MAX_SIZE} bytes: that is data, not a secret")
        return value

    def _check_place(self) -> None:
        """What lies in a working tree is one `git add` away from everybody."""
        real = Path(os.path.realpath(self.folder))
        for folder in (real, *real.parents):
            if (folder / ".git").exists():
                raise Refused(
                    f"{self.folder} lies in the git working tree {folder}, where secrets get committed: move it, and"
                    " name its place by `git config gitpipe.secrets FOLDER`"
                )


def _check_private(path: Path, status: os.stat_result) -> None:
    """As ssh does with keys: what others may read is no secret, what is not ours was put there by somebody."""
    folder = stat.S_ISDIR(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        raise Refused(f"{path} belongs to another user, so that no secret is taken from it: chown it")
    if status.st_mode & 0o077:
        mode = "700" if folder else "600"
        raise Refused(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}), so that no secret is taken from it:"
            f" chmod {mode} {path}"
        )
