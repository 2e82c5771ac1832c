"""A line through data, `y = intercept + coefficient * value + …`: fit it by least squares, predict with it.

Sums are plain loops: `sum` rounds otherwise since Python 3.12, and the same data are to give the same digits anywhere.
"""

import math


def fit(columns: list[list[float]], y: list[float]) -> list[float]:
    """The intercept and a coefficient a column, by a QR decomposition with Householder's reflections.

    Raises:
        ValueError: a value is not finite, or more than one line is possible: too few rows, or a column that follows
            from others.
    """
    count = len(columns) + 1
    upper = [[1.0] * len(y), *(list(column) for column in columns)]
    if not all(math.isfinite(value) for column in (*columns, y) for value in column):
        raise ValueError("a value is not a finite number")
    if len(y) < count:
        raise ValueError(f"{len(y)} rows are too few to fit {count} numbers")
    mirrors, diagonal = [], []
    for k in range(count):
        length = 0.0
        for value in upper[k][k:]:
            length = _hypot(length, value)
        if length <= 1e-12 * max(map(abs, upper[k])):
            raise ValueError("a column is constant, or follows from the others: no single line fits best")
        length = math.copysign(length, upper[k][k])
        mirror = [value / length for value in upper[k][k:]]
        mirror[0] += 1
        for column in upper[k + 1 :]:
            column[k:] = _reflect(mirror, column[k:])
        mirrors.append(mirror)
        diagonal.append(-length)

    answer = [0.0] * count
    for k in reversed(range(count)):
        q = [0.0] * len(y)
        q[k] = 1.0
        for j in reversed(range(k + 1)):
            q[j:] = _reflect(mirrors[j], q[j:])
        answer[k] = _dot(q, y)
        for j in range(k + 1, count):
            answer[k] -= answer[j] * upper[j][k]
        answer[k] /= diagonal[k]
    return answer


def predict(model: dict, patient: dict) -> float:
    """The y that a model gives for the attributes of a patient, both as their JSON files have them.

    Raises:
        KeyError: a variable of the model is not among the attributes.
    """
    values = {each["name"]: each["value"] for each in patient["independent_variables"]}
    y = model["intercept"]
    for each in model["coefficients"]:
        y += each["coefficient"] * values[each["name"]]
    return y


def _reflect(mirror: list[float], column: list[float]) -> list[float]:
    share = -_dot(mirror, column) / mirror[0]
    return [value + share * m for value, m in zip(column, mirror, strict=True)]


def _dot(one: list[float], other: list[float]) -> float:
    total = 0.0
    for a, b in zip(one, other, strict=True):
        total += a * b
    return total


def _hypot(a: float, b: float) -> float:
    # As Go's math.Hypot; Python's own one rounds better, and so to other digits.
    big, small = max(abs(a), abs(b)), min(abs(a), abs(b))
    if big == 0:
        return 0.0
    ratio = small / big
    return big * math.sqrt(1 + ratio * ratio)
