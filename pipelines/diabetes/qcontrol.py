"""Let a model through if it is good enough:

python qcontrol.py -inModelFile=model.json -inTestDir=FOLDER -threshold=60.0 -outDir=OUT [-strict]

The root of the mean squared error (RMSE) of its predictions for the patients in FOLDER, whose y is known, must not be
above the threshold.  Then the model is written with its RMSE; else nothing is, or, with -strict, the program fails.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import gojson
import line

parser = argparse.ArgumentParser()
parser.add_argument("-inModelFile", type=Path, required=True)
parser.add_argument("-inTestDir", type=Path, required=True)
parser.add_argument("-threshold", type=float, required=True)
parser.add_argument("-outDir", type=Path, required=True)
parser.add_argument("-strict", action="store_true")
flags = parser.parse_args()

model = json.loads(flags.inModelFile.read_text())
patients = gojson.read_folder(flags.inTestDir).values()
errors = [line.predict(model, patient) - patient["dependent_variable"] for patient in patients]
rmse = math.sqrt(math.fsum(error * error for error in errors) / len(errors))

print(f"RMSE {rmse:.4f}, threshold {flags.threshold:g}")
if rmse <= flags.threshold:
    (flags.outDir / "model.json").write_text(gojson.dumps({"rmse": rmse, **model}))
elif flags.strict:
    sys.exit(f"the model is not good enough: its RMSE is {rmse:.4f}, the threshold {flags.threshold:g}")
