"""What a git hook does in Python, on the few occasions when its shell script finds that there is something to do.

``python -m gitpipe hook post-checkout …``: bring ``data/`` to the branch.  A hook never fails the command that it runs
in (I9): what goes wrong is one line on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(args: Sequence[str]) -> int:
    """Run one hook; always 0.  The working tree is named by GITPIPE_WORKTREE, as the current folder is the git dir."""
    top = Path(os.environ.get("GITPIPE_WORKTREE") or Path.cwd())
    from gitpipe.errors import GitpipeError

    try:
        from gitpipe.project import open_project

        for line in open_project(top).checkouts.refresh(top):
            print(f"gitpipe: {line}", file=sys.stderr)
    except GitpipeError as error:
        print(f"gitpipe: {args[0] if args else 'hook'}: {error}", file=sys.stderr)
    return 0
