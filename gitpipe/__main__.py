"""`python -m gitpipe`: the command line, or the lean path that the git hooks take.

A hook runs at every switch of branches, so it must not pay for the command line's imports.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Hand over to `gitpipe.hookmain` for ``gitpipe hook …``, else to the command line."""
    if sys.argv[1:2] == ["hook"]:
        from gitpipe.hookmain import main as hook

        sys.exit(hook(sys.argv[2:]))
    from gitpipe.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
