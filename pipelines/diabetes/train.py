"""Fit a line: python train.py -inFile=training_prod.csv -outDir=OUT.

The progression of the disease (column y) is explained by body mass index and a serum value (columns bmi and ltg).
"""

import argparse
import csv
import sys
from pathlib import Path

import gojson
import line

NAMES = ["bmi", "ltg"]

parser = argparse.ArgumentParser()
parser.add_argument("-inFile", type=Path, required=True)
parser.add_argument("-outDir", type=Path, required=True)
flags = parser.parse_args()

with flags.inFile.open(newline="") as file:
    rows = list(csv.DictReader(file))
try:
    *columns, y = [[float(row[name]) for row in rows] for name in [*NAMES, "y"]]
    intercept, *coefficients = line.fit(columns, y)
except KeyError as error:
    sys.exit(f"{flags.inFile.name}: there is no column {error}")
except ValueError as error:
    sys.exit(f"{flags.inFile.name}: {error}")

pairs = [{"name": name, "coefficient": value} for name, value in zip(NAMES, coefficients, strict=True)]
(flags.outDir / "model.json").write_text(gojson.dumps({"intercept": intercept, "coefficients": pairs}))
