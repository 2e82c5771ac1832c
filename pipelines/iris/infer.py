"""Name the species of each flower: python infer.py MODEL ATTRIBUTES OUT.

For each CSV file of measurements (no header) it writes one of the same name: one species a line.
"""

import sys
from pathlib import Path

import joblib
import pandas as pd

model_folder, attributes, out = map(Path, sys.argv[1:4])

model = joblib.load(model_folder / "model.joblib")
for path in sorted(attributes.glob("*.csv")):
    measurements = pd.read_csv(path, header=None).to_numpy()
    species = model.predict(measurements)
    (out / path.name).write_text("".join(f"{name}\n" for name in species))
