"""Predict the progression of diabetes: python infer.py -inModelDir=MODEL -inVarDir=ATTRIBUTES -outDir=OUT.

For each JSON file of attributes it writes one of the same name, with the prediction in front of them.
"""

import argparse
import json
from pathlib import Path

import gojson
import line

parser = argparse.ArgumentParser()
parser.add_argument("-inModelDir", type=Path, required=True)
parser.add_argument("-inVarDir", type=Path, required=True)
parser.add_argument("-outDir", type=Path, required=True)
flags = parser.parse_args()

model = json.loads((flags.inModelDir / "model.json").read_text())
for name, patient in gojson.read_folder(flags.inVarDir).items():
    result = {"predicted_diabetes_progression": line.predict(model, patient), **patient}
    (flags.outDir / name).write_text(gojson.dumps(result))
