"""JSON to the byte as Go's `json.MarshalIndent(value, "", "  ")` writes it, and a folder of JSON files read.

Python's own `json` differs in one thing, the numbers: 242.0 and 6.1e-05 are 242 and 0.000061 in Go.
"""

import json
from decimal import Decimal
from pathlib import Path


def number(value: float) -> str:
    """The fewest digits that give the same float; an exponent only below 1e-6 and from 1e21 on."""
    shortest = Decimal(repr(float(value)))
    if value and not 1e-6 <= abs(value) < 1e21:
        digits, exponent = f"{shortest.normalize():e}".split("e")
        return f"{digits}e{int(exponent):+d}"
    return f"{shortest:f}".removesuffix(".0")


def dumps(value, margin: str = "") -> str:
    """A dict (keys in their order), a list, a string or a number as indented JSON, without a newline at the end."""
    deeper = margin + "  "
    if isinstance(value, dict) and value:
        items = [f"{deeper}{json.dumps(key)}: {dumps(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(deeper + dumps(item, deeper) for item in value) + f"\n{margin}]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


def read_folder(folder: Path) -> dict[str, dict]:
    """The JSON files of a folder, by name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
