"""``python -m gitpipe``: the same command line as ``gitpipe`` and ``git pipe``."""

from __future__ import annotations

from gitpipe.cli import main

main()
