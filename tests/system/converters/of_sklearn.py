"""Files that skl2onnx makes of scikit-learn's models."""

from typing import Any

import numpy as np
from case import Case, case, classified, scored, valued
from data import (
    ASKED,
    ENDED,
    FLOWERS,
    IS_BENIGN,
    KINDS,
    LIKED,
    NAMES,
    PASSENGERS,
    PATIENTS,
    PRICE,
    PROGRESS,
    REVIEWS,
    SOME,
    SOME_PASSENGERS,
    SOME_PATIENTS,
    SOME_TUMOURS,
    SOUND,
    SURVIVED,
    TEXTS,
    TUMOURS,
    TWO_TARGETS,
    columns,
    with_gaps,
)
from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    BooleanTensorType,
    FloatTensorType,
    StringTensorType,
)
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

OPSETS = {"": 20, "ai.onnx.ml": 3}
ARRAYS = {"zipmap": False}


def converted(model: Any, rows: np.ndarray, **options: Any) -> ModelProto:
    """Return a file that takes rows (n, features) as its input `X`."""
    options = {id(model): options} if options else None
    return to_onnx(model, rows[:1], target_opset=OPSETS, options=options)


def of_kinds(model: Any, **options: Any) -> Case:
    """Fit the number of the kind of iris."""
    model.fit(FLOWERS, KINDS)
    return classified(converted(model, FLOWERS, **options), {"X": SOME}, model, SOME)


def of_names(model: Any, **options: Any) -> Case:
    """Fit the name of the kind of iris."""
    model.fit(FLOWERS, NAMES)
    return classified(converted(model, FLOWERS, **options), {"X": SOME}, model, SOME)


def of_tumours(model: Any, labels: np.ndarray = IS_BENIGN, **options: Any) -> Case:
    """Fit two classes."""
    model.fit(TUMOURS, labels)
    return classified(
        converted(model, TUMOURS, **options), {"X": SOME_TUMOURS}, model, SOME_TUMOURS
    )


def of_patients(model: Any, targets: np.ndarray = PROGRESS) -> Case:
    """Fit a regression."""
    model.fit(PATIENTS, targets)
    return valued(converted(model, PATIENTS), {"X": SOME_PATIENTS}, model, SOME_PATIENTS)


@case
def sk_logistic_zipmap() -> Case:
    return of_kinds(LogisticRegression(max_iter=1000))


@case
def sk_logistic_strings_zipmap() -> Case:
    return of_names(LogisticRegression(max_iter=1000))


@case
def sk_logistic_arrays() -> Case:
    return of_kinds(LogisticRegression(max_iter=1000), **ARRAYS)


@case
def sk_logistic_strings_arrays() -> Case:
    return of_names(LogisticRegression(max_iter=1000), **ARRAYS)


@case
def sk_logistic_columns() -> Case:
    return of_kinds(LogisticRegression(max_iter=1000), zipmap="columns")


@case
def sk_logistic_strings_columns() -> Case:
    return of_names(LogisticRegression(max_iter=1000), zipmap="columns")


@case
def sk_forest_two_zipmap() -> Case:
    return of_tumours(RandomForestClassifier(10, random_state=0), IS_BENIGN * 4 + 5)


@case
def sk_forest_two_strings() -> Case:
    return of_tumours(RandomForestClassifier(10, random_state=0), SOUND, **ARRAYS)


@case
def sk_tree_whole_numbers() -> Case:
    rows = np.round(FLOWERS).astype(np.int64)
    model = DecisionTreeClassifier(random_state=0).fit(rows, KINDS)
    made = converted(model, rows, **ARRAYS)
    return classified(made, {"X": rows[:ASKED]}, model, rows[:ASKED])


@case
def sk_ridge_double() -> Case:
    rows = PATIENTS.astype(np.float64)
    model = Ridge().fit(rows, PROGRESS)
    return valued(converted(model, rows), {"X": rows[:ASKED]}, model, rows[:ASKED])


@case
def sk_hist_boosting_nan() -> Case:
    rows = with_gaps(TUMOURS)
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(rows, SOUND)
    return classified(converted(model, rows), {"X": rows[:ASKED]}, model, rows[:ASKED])


@case
def sk_naive_bayes() -> Case:
    return of_kinds(GaussianNB(), **ARRAYS)


@case
def sk_knn_classifier() -> Case:
    return of_names(KNeighborsClassifier(5))


@case
def sk_mlp_classifier() -> Case:
    model = make_pipeline(
        StandardScaler(),
        MLPClassifier(hidden_layer_sizes=(8,), random_state=0, max_iter=300, tol=1e-2),
    )
    return of_kinds(model, **ARRAYS)


@case
def sk_svc_probability() -> Case:
    return of_kinds(SVC(probability=True, random_state=0))


@case
def sk_svc_raw() -> Case:
    model = SVC(random_state=0).fit(FLOWERS, NAMES)
    made = converted(model, FLOWERS, raw_scores=True, zipmap=False)
    return scored(made, {"X": SOME}, model, SOME)


@case
def sk_svc_two_raw() -> Case:
    rows = StandardScaler().fit_transform(TUMOURS).astype(np.float32)
    model = SVC(random_state=0).fit(rows, SOUND)
    made = converted(model, rows, raw_scores=True, zipmap=False)
    return scored(made, {"X": rows[:ASKED]}, model, rows[:ASKED])


@case
def sk_linear_svc_two() -> Case:
    rows = StandardScaler().fit_transform(TUMOURS).astype(np.float32)
    model = LinearSVC(random_state=0).fit(rows, IS_BENIGN)
    made, asked = converted(model, rows), rows[:ASKED]
    scores = model.decision_function(asked)[:, None]  # one number: how much it is the second
    return Case(made, {"X": asked}, model.predict(asked), model.classes_, scores=scores)


@case
def sk_linear_svc() -> Case:
    model = LinearSVC(random_state=0).fit(FLOWERS, NAMES)
    return scored(converted(model, FLOWERS), {"X": SOME}, model, SOME)


@case
def sk_sgd_hinge_zipmap() -> Case:
    model = SGDClassifier(random_state=0).fit(FLOWERS, KINDS)
    made = converted(model, FLOWERS, raw_scores=True)
    return scored(made, {"X": SOME}, model, SOME)


@case
def sk_isolation_forest() -> Case:
    model = IsolationForest(n_estimators=20, random_state=0, contamination=0.2).fit(FLOWERS)
    made = converted(model, FLOWERS)
    scores = model.decision_function(SOME)[:, None]
    return Case(made, {"X": SOME}, label=model.predict(SOME), classes=[-1, 1], scores=scores)


@case
def sk_one_class_svm() -> Case:
    model = OneClassSVM(nu=0.2).fit(FLOWERS)
    made = converted(model, FLOWERS)
    scores = model.decision_function(SOME)[:, None]
    return Case(made, {"X": SOME}, label=model.predict(SOME), classes=[-1, 1], scores=scores)


@case
def sk_kmeans() -> Case:
    model = KMeans(3, random_state=0, n_init=1).fit(FLOWERS)
    made = converted(model, FLOWERS)
    return Case(
        made,
        {"X": SOME},
        label=model.predict(SOME),
        classes=[0, 1, 2],
        scores=model.transform(SOME),
    )


@case
def sk_multi_output_classifier() -> Case:
    targets = np.stack([KINDS, KINDS == 1, FLOWERS[:, 0] > 6], axis=1).astype(np.int64)
    model = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(FLOWERS, targets)
    made = converted(model, FLOWERS, zipmap=False)
    answers = [model.predict(SOME), *model.predict_proba(SOME)]
    return Case(made, {"X": SOME}, values=np.concatenate(answers, axis=1))


@case
def sk_multi_output_regressor() -> Case:
    return of_patients(MultiOutputRegressor(Ridge()), TWO_TARGETS)


@case
def sk_linear_regression() -> Case:
    return of_patients(LinearRegression())


@case
def sk_ridge_two_targets() -> Case:
    return of_patients(Ridge(), TWO_TARGETS)


@case
def sk_forest_regressor() -> Case:
    return of_patients(RandomForestRegressor(10, max_depth=5, random_state=0))


@case
def sk_boosting_regressor() -> Case:
    return of_patients(GradientBoostingRegressor(n_estimators=30, random_state=0))


@case
def sk_knn_regressor() -> Case:
    return of_patients(KNeighborsRegressor(5))


@case
def sk_gp_regressor() -> Case:
    model = GaussianProcessRegressor(RBF(0.2) + WhiteKernel(0.5), normalize_y=True)
    model.fit(PATIENTS[:60], PROGRESS[:60])
    return valued(converted(model, PATIENTS), {"X": SOME_PATIENTS}, model, SOME_PATIENTS)


@case
def sk_gp_regressor_std() -> Case:
    rows = PATIENTS[:60].astype(np.float64)
    model = GaussianProcessRegressor(RBF(0.2) + WhiteKernel(0.5)).fit(rows, PROGRESS[:60] / 100)
    means, deviations = model.predict(rows[:ASKED], return_std=True)
    made = converted(model, rows, return_std=True)
    return Case(made, {"X": rows[:ASKED]}, values=np.stack([means, deviations], axis=1))


@case
def sk_pca() -> Case:
    model = PCA(2, random_state=0).fit(FLOWERS)
    return Case(converted(model, FLOWERS), {"X": SOME}, values=model.transform(SOME))


# A table: an input for each of its columns

TYPES = {
    "age": FloatTensorType([None, 1]),
    "fare": FloatTensorType([None, 1]),
    "sex": StringTensorType([None, 1]),
    "port": StringTensorType([None, 1]),
    "alone": BooleanTensorType([None, 1]),
}
TEXT = ["sex", "port"]


def table(last: Any, *, booleans: bool = True, gaps: bool = False) -> Any:
    """Return a pipeline of the columns; the numbers of a table with gaps are filled."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler()) if gaps else StandardScaler()
    parts: list[Any] = [
        ("numbers", numbers, ["age", "fare"]),
        ("text", OneHotEncoder(handle_unknown="ignore"), TEXT),
    ]
    if booleans:
        parts.append(("booleans", "passthrough", ["alone"]))
    return make_pipeline(ColumnTransformer(parts), last)


def of_table(model: Any, **options: Any) -> ModelProto:
    types = list(TYPES.items())
    said = {id(model): options} if options else None
    return to_onnx(model, initial_types=types, target_opset=OPSETS, options=said)


@case
def sk_table_zipmap() -> Case:
    model = table(LogisticRegression()).fit(PASSENGERS, ENDED)
    return classified(of_table(model), columns(SOME_PASSENGERS), model, SOME_PASSENGERS)


@case
def sk_table_arrays() -> Case:
    model = table(RandomForestClassifier(10, random_state=0)).fit(PASSENGERS, SURVIVED * 1)
    made = of_table(model, **ARRAYS)
    return classified(made, columns(SOME_PASSENGERS), model, SOME_PASSENGERS)


@case
def sk_table_columns() -> Case:
    model = table(LogisticRegression()).fit(PASSENGERS, ENDED)
    made = of_table(model, zipmap="columns")
    return classified(made, columns(SOME_PASSENGERS), model, SOME_PASSENGERS)


@case
def sk_table_regressor() -> Case:
    model = table(GradientBoostingRegressor(random_state=0)).fit(PASSENGERS, PRICE)
    return valued(of_table(model), columns(SOME_PASSENGERS), model, SOME_PASSENGERS)


@case
def sk_table_nan() -> Case:
    holes = PASSENGERS.assign(age=with_gaps(PASSENGERS[["age"]].to_numpy())[:, 0])
    model = table(LogisticRegression(), gaps=True).fit(holes, ENDED)
    asked = holes[:ASKED]
    return classified(of_table(model, **ARRAYS), columns(asked), model, asked)


# Texts


def of_texts(model: Any, **options: Any) -> Case:
    model.fit(REVIEWS, LIKED)
    made = to_onnx(
        model,
        initial_types=[("text", StringTensorType([None, 1]))],
        target_opset=OPSETS,
        options={id(model): options} if options else None,
    )
    return classified(made, {"text": TEXTS}, model, TEXTS[:, 0])


@case
def sk_tfidf() -> Case:
    return of_texts(make_pipeline(TfidfVectorizer(), LogisticRegression()), **ARRAYS)


@case
def sk_counts_zipmap() -> Case:
    return of_texts(make_pipeline(CountVectorizer(), MultinomialNB()))
