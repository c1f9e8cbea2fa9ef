"""Files of LightGBM and XGBoost (onnxmltools, and skl2onnx with its converters) and CatBoost."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, case, classified, valued
from catboost import CatBoostClassifier, CatBoostRegressor
from data import (
    ASKED,
    FLOWERS,
    IS_BENIGN,
    KINDS,
    NAMES,
    PATIENTS,
    PROGRESS,
    SOME,
    SOME_PATIENTS,
    SOME_TUMOURS,
    SOUND,
    TUMOURS,
    with_gaps,
)
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import (
    convert_lightgbm as of_lightgbm,
)
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as of_xgboost
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from xgboost import XGBClassifier, XGBRegressor

LIGHT: dict[str, Any] = {"n_estimators": 20, "random_state": 0, "verbose": -1, "n_jobs": 1}
EXTREME: dict[str, Any] = {"n_estimators": 20, "random_state": 0, "n_jobs": 1}
CAT: dict[str, Any] = {
    "iterations": 20,
    "random_seed": 0,
    "verbose": False,
    "thread_count": 1,
    "allow_writing_files": False,
}
OPSETS = {"": 20, "ai.onnx.ml": 3}


def types(rows: np.ndarray) -> Any:
    return [("input", FloatTensorType([None, rows.shape[1]]))]


def of_light(model: Any, rows: np.ndarray, labels: np.ndarray, **options: Any) -> Case:
    model.fit(rows, labels)
    asked = rows[:ASKED]
    made = convert_lightgbm(model, initial_types=types(rows), target_opset=15, **options)
    answer = classified if hasattr(model, "classes_") else valued
    return answer(made, {"input": asked}, model, asked)


@case
def lgbm_zipmap() -> Case:
    return of_light(LGBMClassifier(**LIGHT), FLOWERS, KINDS)


@case
def lgbm_arrays() -> Case:
    return of_light(LGBMClassifier(**LIGHT), FLOWERS, KINDS, zipmap=False)


@case
def lgbm_two_zipmap() -> Case:
    return of_light(LGBMClassifier(**LIGHT), TUMOURS, IS_BENIGN)


@case
def lgbm_strings_zipmap() -> Case:
    return of_light(LGBMClassifier(**LIGHT), FLOWERS, NAMES)


@case
def lgbm_two_nan() -> Case:
    return of_light(LGBMClassifier(**LIGHT), with_gaps(TUMOURS), SOUND, zipmap=False)


@case
def lgbm_regressor() -> Case:
    return of_light(LGBMRegressor(**LIGHT), PATIENTS, PROGRESS)


def in_pipeline(model: Any, convert: Any, labels: np.ndarray, **options: Any) -> Case:
    """Return a pipeline that skl2onnx converts with the converter of onnxmltools.

    No scaler is in it: float32 of the file and of the library may fall on two sides of a threshold.
    """
    known = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}
    update_registered_converter(
        type(model),
        type(model).__name__,
        calculate_linear_classifier_output_shapes,
        convert,
        options=known,
    )
    line = make_pipeline(SimpleImputer(), model).fit(FLOWERS, labels)
    made = to_onnx(line, FLOWERS[:1], target_opset=OPSETS, options={id(model): options})
    return classified(made, {"X": SOME}, line, SOME)


@case
def lgbm_pipeline_columns() -> Case:
    return in_pipeline(LGBMClassifier(**LIGHT), of_lightgbm, KINDS, zipmap="columns")


@case
def xgb_pipeline_zipmap() -> Case:
    return in_pipeline(XGBClassifier(**EXTREME), of_xgboost, KINDS, zipmap=True)


@case
def xgb_pipeline_columns() -> Case:
    return in_pipeline(XGBClassifier(**EXTREME), of_xgboost, KINDS, zipmap="columns")


def of_extreme(model: Any, rows: np.ndarray, labels: np.ndarray) -> Case:
    model.fit(rows, labels)
    asked = rows[:ASKED]
    made = convert_xgboost(model, initial_types=types(rows), target_opset=15)
    answer = classified if hasattr(model, "classes_") else valued
    return answer(made, {"input": asked}, model, asked)


@case
def xgb_classifier() -> Case:
    return of_extreme(XGBClassifier(**EXTREME), FLOWERS, KINDS)


@case
def xgb_two_nan() -> Case:
    return of_extreme(XGBClassifier(**EXTREME), with_gaps(TUMOURS), IS_BENIGN)


@case
def xgb_regressor() -> Case:
    return of_extreme(XGBRegressor(**EXTREME), PATIENTS, PROGRESS)


def of_cat(model: Any, rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> Case:
    model.fit(rows, labels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        model.save_model(str(path), format="onnx")
        made = path.read_bytes()
    answer = classified if isinstance(model, CatBoostClassifier) else valued
    return answer(made, {"features": asked}, model, asked)


@case
def cat_zipmap() -> Case:
    return of_cat(CatBoostClassifier(**CAT), FLOWERS, KINDS, SOME)


@case
def cat_strings_zipmap() -> Case:
    return of_cat(CatBoostClassifier(**CAT), FLOWERS, NAMES, SOME)


@case
def cat_two_zipmap() -> Case:
    return of_cat(CatBoostClassifier(**CAT), TUMOURS, SOUND, SOME_TUMOURS)


@case
def cat_two_nan() -> Case:
    rows = with_gaps(TUMOURS)
    return of_cat(CatBoostClassifier(**CAT), rows, IS_BENIGN, rows[:ASKED])


@case
def cat_regressor() -> Case:
    return of_cat(CatBoostRegressor(**CAT), PATIENTS, PROGRESS, SOME_PATIENTS)
