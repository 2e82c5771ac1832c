"""Fit a support vector machine to every CSV file in a folder: python train-svm.py IN OUT.

Each row is sepal length, sepal width, petal length, petal width (cm), species; there is no header.
"""

import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.svm import SVC

folder, out = Path(sys.argv[1]), Path(sys.argv[2])

table = pd.concat(pd.read_csv(path, header=None) for path in sorted(folder.glob("*.csv")))
measurements, species = table.iloc[:, :4].to_numpy(), table.iloc[:, 4].to_numpy(dtype=str)

model = SVC(kernel="rbf", gamma="scale", random_state=7)
model.fit(measurements, species)
joblib.dump(model, out / "model.joblib")
