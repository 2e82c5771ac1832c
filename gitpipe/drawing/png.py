"""The drawing as PNG, by what is there: Graphviz, or cairosvg.  Neither comes with gitpipe.

Graphviz is started by pydot, which comes with DVC, so that no process is started here.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gitpipe.drawing import markup, svg
from gitpipe.errors import GitpipeError, NotFound
from gitpipe.views import DagInfo

SCALE = 2


def draw(dag: DagInfo) -> bytes:
    """The drawing as a PNG file.

    Raises:
        NotFound: there is no program to make one.
        GitpipeError: that program failed.
    """
    if shutil.which("dot"):
        return _by_graphviz(dag)
    try:
        import cairosvg
    except (ImportError, OSError):  # OSError: without its C library
        raise NotFound(
            "PNG needs Graphviz or cairosvg: `apt-get install graphviz` or `pip install cairosvg`, or --format svg"
        ) from None
    return bytes(cairosvg.svg2png(bytestring=svg.draw(dag).encode(), scale=SCALE))


def _by_graphviz(dag: DagInfo) -> bytes:
    import pydot

    with tempfile.TemporaryDirectory(prefix="gitpipe-dag-") as folder:
        (Path(folder) / "dag.dot").write_text(markup.dot(dag), encoding="utf-8")
        _, said, process = pydot.call_graphviz("dot", ["-Tpng", "-Gdpi=144", "-odag.png", "dag.dot"], folder)
        if process.returncode:
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            raise GitpipeError(f"dot failed: {' '.join(text.split()) or f'exit status {process.returncode}'}")
        return (Path(folder) / "dag.png").read_bytes()
