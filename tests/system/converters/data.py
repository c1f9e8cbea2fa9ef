"""The data of the matrix: what scikit-learn brings, and passengers made up here."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

ASKED = 30  # rows that each file is asked

_iris = load_iris()
_order = np.random.default_rng(0).permutation(150)
FLOWERS = _iris.data[_order].astype(np.float32)  # (150, 4)
KINDS = _iris.target[_order]  # int64 (150,)
NAMES = _iris.target_names[KINDS]  # strings (150,)
SOME = FLOWERS[:ASKED]

_tumours = load_breast_cancer()
TUMOURS = _tumours.data[:300, :8].astype(np.float32)  # (300, 8)
IS_BENIGN = _tumours.target[:300]  # 0 and 1
SOUND = np.array(["malignant", "benign"])[IS_BENIGN]
SOME_TUMOURS = TUMOURS[:ASKED]

_patients = load_diabetes()
PATIENTS = _patients.data.astype(np.float32)  # (442, 10)
PROGRESS = _patients.target.astype(np.float32)
TWO_TARGETS = np.stack([PROGRESS, PATIENTS[:, 2] * 1000], axis=1)
SOME_PATIENTS = PATIENTS[:ASKED]


def with_gaps(rows: np.ndarray) -> np.ndarray:
    """Return a copy in which every fifth value or so is missing."""
    gaps = np.random.default_rng(1).random(rows.shape) < 0.2
    return np.where(gaps, np.float32(np.nan), rows)


def passengers(count: int = 200) -> pd.DataFrame:
    """Return a table as people have it: two columns of numbers, two of text, one of booleans."""
    random = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "age": random.uniform(1, 80, count).astype(np.float32),
            "fare": random.gamma(2, 20, count).astype(np.float32),
            "sex": random.choice(["female", "male"], count),
            "port": random.choice(["Cherbourg", "Queenstown", "Zürich, Süd"], count),
            "alone": random.random(count) < 0.5,
        }
    )


PASSENGERS = passengers()
SURVIVED = (
    (PASSENGERS.sex == "female") & (PASSENGERS.age < 60) | (PASSENGERS.fare > 90)
).to_numpy()
ENDED = np.where(SURVIVED, "survived", "died")
PRICE = (PASSENGERS.fare * 2 + PASSENGERS.alone * 30 - PASSENGERS.age / 2).to_numpy()
SOME_PASSENGERS = PASSENGERS[:ASKED]
DTYPES = {"age": np.float32, "fare": np.float32, "sex": object, "port": object, "alone": bool}


def columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return an array (n, 1) for each column."""
    return {name: table[[name]].to_numpy(DTYPES[name]) for name in table.columns}


REVIEWS = [
    "a fine film with a fine cast",
    "dull and far too long",
    "I slept, then I left",
    "warm, funny, and over too soon",
    "the worst cast of the year",
    "a warm film",
    "long, dull, loud",
    "funny cast, fine ending",
    "left early: worst film",
    "soon a classic, fine and funny",
]
LIKED = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 1])
TEXTS = np.array(REVIEWS * 3, dtype=object)[:, None]  # (30, 1)
