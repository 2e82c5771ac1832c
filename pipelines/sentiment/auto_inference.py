"""Tell the sentiment of each review in a folder: how likely it is to be favourable, and how likely not to be.

auto_inference.py --model_weights MODEL --vocab_file VOCAB --review_files FOLDER --output_dir OUT

For each file below the folder it writes one of the same name: `Pred - [[ 0.50981182  0.49018815]]`, favourable first.
"""

import argparse
import math
import pickle
import re
from pathlib import Path

parser = argparse.ArgumentParser(description="Tell the sentiment of film reviews.")
parser.add_argument("--model_weights", type=Path, required=True, help="the model, from train.py")
parser.add_argument("--vocab_file", type=Path, required=True, help="the words that it knows, from train.py")
parser.add_argument("--review_files", type=Path, required=True, help="a folder with a review in each file")
parser.add_argument("--output_dir", type=Path, required=True, help="where the predictions go")
flags = parser.parse_args()

model = pickle.loads(flags.model_weights.read_bytes())
vocabulary = flags.vocab_file.read_text(encoding="utf-8").splitlines()
if len(vocabulary) != len(model["weights"]):
    raise SystemExit(f"{flags.vocab_file} and {flags.model_weights} are not of one training")
weights = dict(zip(vocabulary, model["weights"], strict=True))

for path in sorted(path for path in flags.review_files.rglob("*") if path.is_file()):
    text = path.read_text(encoding="utf-8", errors="replace").lower()
    known = sorted(set(re.findall(model["word"], text)) & weights.keys())
    score = model["bias"] + sum(weights[word] for word in known) / math.sqrt(len(known) or 1)
    favourable = round(1 / (1 + math.exp(-max(-30.0, min(30.0, score)))), 8)
    target = flags.output_dir / path.relative_to(flags.review_files)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"Pred - [[ {favourable:.8f}  {1 - favourable:.8f}]]\n")
