"""Where `gitpipe`, `git pipe` and `python -m gitpipe` start: the command line, or the lean path that hooks take.

A hook runs at every commit or switch of branches, so it must not pay for the command line's imports.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Hand over to `gitpipe.hookmain` for ``hook …``, to `gitpipe.precommit` for ``pre-commit …``, else to the CLI."""
    if sys.argv[1:2] == ["hook"]:
        from gitpipe.hookmain import main as hook

        sys.exit(hook(sys.argv[2:]))
    try:
        if sys.argv[1:2] == ["pre-commit"]:
            from gitpipe.precommit import main as pre_commit

            sys.exit(pre_commit(sys.argv[2:]))
        from gitpipe.cli import main as cli

        cli()
    except KeyboardInterrupt:  # while the imports were at work, which take longer than many a command
        print("gitpipe: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
