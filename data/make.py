"""Write the small sample data that ships with gitpipe: `python data/make.py [FOLDER]` (default: this folder).

The numbers come with scikit-learn.  Its iris table corrects two rows of the file that everyone downloads from the UCI
repository; the widespread form is wanted here, with its two slips and its empty last line, so that sizes and results
compare with what others print.

The film reviews are made up, by `reviews.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from reviews import write_sentiment
from sklearn.datasets import load_diabetes, load_iris

UCI_ROWS = {34: "4.9,3.1,1.5,0.1", 37: "4.9,3.1,1.5,0.1"}
ATTRIBUTES = {"1.csv": (149,), "2.csv": (99, 100, 101, 102, 0, 1)}


def iris_rows() -> list[str]:
    """The 150 measurements, `5.1,3.5,1.4,0.2` each, in the order of the UCI file."""
    rows = [",".join(f"{value:.1f}" for value in row) for row in load_iris().data]
    return [UCI_ROWS.get(number, row) for number, row in enumerate(rows)]


def write_iris(folder: Path) -> None:
    """Write `iris.csv` (with labels, no header) and `attributes/*.csv` (measurements to be classified)."""
    rows = iris_rows()
    names = [f"Iris-{load_iris().target_names[target]}" for target in load_iris().target]
    (folder / "attributes").mkdir(parents=True, exist_ok=True)
    lines = [f"{row},{name}\n" for row, name in zip(rows, names, strict=True)]
    (folder / "iris.csv").write_bytes("".join([*lines, "\n"]).encode())
    for file, numbers in ATTRIBUTES.items():
        (folder / "attributes" / file).write_bytes("".join(rows[n] + "\n" for n in numbers).encode())


DIABETES = ("age", "sex", "bmi", "map", "tc", "ldl", "hdl", "tch", "ltg", "glu", "y")


def write_diabetes(folder: Path) -> None:
    """Write 442 patients to `training_prod.csv` and every tenth of them, from the fourth on, to `holdout.csv` instead.

    `attributes/*.json` have, for three of those held out, the two values that the pipelines' model looks at.
    """
    table = load_diabetes(scaled=True)
    rows = [[f"{value:.6f}" for value in (*row, y)] for row, y in zip(table.data, table.target, strict=True)]
    held, training = rows[3::10], [row for number, row in enumerate(rows) if number % 10 != 3]
    (folder / "attributes").mkdir(parents=True, exist_ok=True)
    for file, part in (("training_prod.csv", training), ("holdout.csv", held)):
        (folder / file).write_bytes("".join(",".join(row) + "\n" for row in (DIABETES, *part)).encode())
    for number, row in enumerate(held[:3], start=1):
        values = [{"name": name, "value": float(row[DIABETES.index(name)])} for name in ("bmi", "ltg")]
        text = json.dumps({"independent_variables": values}, indent=2) + "\n"
        (folder / "attributes" / f"{number}.json").write_bytes(text.encode())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    write_iris(target / "iris")
    write_diabetes(target / "diabetes")
    write_sentiment(target / "sentiment")
