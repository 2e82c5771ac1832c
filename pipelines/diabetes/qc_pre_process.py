"""A table's rows as JSON files: python qc_pre_process.py -inFile=holdout.csv -outDir=OUT.

1.json, 2.json, … have the form of the attribute files that `infer.py` reads, and the observed y besides.
"""

import argparse
import csv
from pathlib import Path

import gojson

parser = argparse.ArgumentParser()
parser.add_argument("-inFile", type=Path, required=True)
parser.add_argument("-outDir", type=Path, required=True)
flags = parser.parse_args()

with flags.inFile.open(newline="") as file:
    for number, row in enumerate(csv.DictReader(file), start=1):
        observed = float(row.pop("y"))
        patient = {
            "independent_variables": [{"name": name, "value": float(value)} for name, value in row.items()],
            "dependent_variable": observed,
        }
        (flags.outDir / f"{number}.json").write_text(gojson.dumps(patient))
