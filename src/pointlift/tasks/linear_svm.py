"""Linear SVM on frozen features: what self-supervised papers score a backbone by (card data-protocols, section 11)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.data.dataset import CloudDataset, stratified_split
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.models.base import PointModel
from pointlift.tasks.classification import Scores
from pointlift.tasks.config import SvmConfig
from pointlift.tasks.evaluate import Evaluation, describe_voting
from pointlift.tasks.frozen import describe_features, frozen_features
from pointlift.tasks.inputs import data_config_of
from pointlift.tasks.predict import preprocess_of
from pointlift.tasks.record import (
    SCHEMA,
    Record,
    describe_dataset,
    describe_device,
    describe_model,
    describe_quirks,
    describe_transform,
    versions,
)
from pointlift.tasks.resolve import resolve_device

GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
HELD = 0.2

# Released choices, all made on the test split: (architecture's beginning, data set) -> (kind, C).
OFFICIAL: dict[tuple[str, str], tuple[str, float]] = {
    ("point_m2ae", "modelnet40"): ("svc", 0.012),
    ("point_m2ae", "scanobjectnn"): ("svc", 0.042),
    ("point_bert", "modelnet40"): ("linear_svc", 1.0),
}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedSvm:
    """A linear SVM with how its C came about.

    Attributes:
        classifier: Fitted; `decision_function` and `predict`.
        C: Inverse regularisation.
        how: For the record: "held-out fifth of train", "official" or "given".
        tried: Accuracy on held-out training clouds by C; empty unless searched.
        kind: "linear_svc" (one class against the rest, liblinear) or "svc" (one against one, libsvm).
        standardised: Whether features were; the released protocols take them as they are.
    """

    classifier: Any
    C: float
    how: str
    tried: dict[float, float]
    kind: str
    standardised: bool


def svm_accuracy(
    train: np.ndarray, train_label: np.ndarray, test: np.ndarray, test_label: np.ndarray, *, C: float
) -> float:
    """Share of test clouds that a linear SVM on standardised features gets right.

    Args:
        train: Features (n, F).
        train_label: (n,).
        test: Features (m, F).
        test_label: (m,).
        C: Inverse regularisation.
    """
    classifier = _classifier("linear_svc", C, standardised=True).fit(train, train_label)
    return float((classifier.predict(test) == test_label).mean())


def fit_svm(features: np.ndarray, labels: np.ndarray, config: SvmConfig, *, arch: str, data: str) -> FittedSvm:
    """A linear SVM on training features (n, F), its C as `config` says.

    The search takes the smallest of the best C on a fifth of every class held out of these clouds, and stops at the
    first C that is no better than those before.

    Raises:
        UsageError: There is no official C for this model and data set, or nothing can be held out.
    """
    if config.C == "official":
        kind, C = _official(arch, data)
        return FittedSvm(_fit(kind, C, features, labels, False), C, "official", {}, kind, False)
    if config.C != "search":
        C = float(config.C)
        return FittedSvm(_fit("linear_svc", C, features, labels, True), C, "given", {}, "linear_svc", True)
    rest, held = stratified_split(labels, HELD, 0, "svm")
    tried: dict[float, float] = {}
    for C in GRID:
        tried[C] = svm_accuracy(features[rest], labels[rest], features[held], labels[held], C=C)
        if tried[C] < max(tried.values()):
            break
    best = max(tried, key=lambda C: (tried[C], -C))
    how = "held-out fifth of train"
    return FittedSvm(_fit("linear_svc", best, features, labels, True), best, how, tried, "linear_svc", True)


def evaluate_svm(
    model: PointModel,
    dataset: CloudDataset | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    svm: SvmConfig | None = None,
    device: str = "auto",
    command: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a frozen backbone: a linear SVM learns on features of the training part and is scored on the test part.

    Args:
        model: Any model; a head is not used.
        dataset: The data set; read as `data` says when None.
        data: Overrides of the data configuration that came with the model.
        svm: How C is chosen.
        device: "auto", "cpu", "cuda", …
        command: The command line, for the record.
        training: How the weights came about, for the record.

    Raises:
        UsageError: No test part, no labels, or no official C.
    """
    svm = svm or SvmConfig()
    config = data_config_of(model, data)
    target = resolve_device(device)
    begun, started = time.perf_counter(), datetime.now(UTC)
    if dataset is None:
        dataset = dataset_from_config(config)
    train, test = dataset.train, dataset.part("test")
    labels, truth = train.class_labels(), test.class_labels()
    model = model.to(target)
    kept, model.preprocess = model.preprocess, preprocess_of(config)
    try:
        pooling = model.config.pooling
        learned, asked = (frozen_features(model, part, pooling=pooling).pooled for part in (train, test))
        described = describe_features(model, pooling)
    finally:
        model.preprocess = kept
    fitted = fit_svm(learned.astype(np.float64), labels, svm, arch=model.arch, data=dataset.meta.name)
    logits = _logits(fitted.classifier, asked.astype(np.float64), len(dataset.meta.classes))
    scores = Scores(logits, truth, np.arange(len(truth)))
    metrics = {name: value for name, value in scores.metrics().items() if name != "loss"}
    record = Record(
        {
            "schema": SCHEMA,
            "task": "classification",
            "protocol": "svm",
            "command": command,
            "dataset": describe_dataset(dataset, {"train": len(train), "test": len(test)}),
            "split": "test",
            "metrics": metrics,
            "points": config.points,
            **describe_transform(build_transform(config, dataset.meta, "test")),
            "svm": {
                "C": fitted.C,
                "chosen": fitted.how,
                "tried": {str(C): accuracy for C, accuracy in fitted.tried.items()},
                "kind": fitted.kind,
                "standardised": fitted.standardised,
            },
            "features": described,
            "voting": describe_voting(None),
            "model": {**describe_model(model), "pretrained": model.origin},
            "training": None if training is None else dict(training),
            "quirks": describe_quirks(model),
            "versions": versions(),
            "device": describe_device(target, "fp32"),
            "time": {
                "started": started.isoformat(timespec="seconds"),
                "evaluate_seconds": round(time.perf_counter() - begun, 3),
            },
        }
    )
    return Evaluation(record, scores, test.names)


def _official(arch: str, data: str) -> tuple[str, float]:
    for (begins, name), choice in OFFICIAL.items():
        if arch.startswith(begins) and name == data:
            return choice
    known = ", ".join(f"{a} on {d}" for a, d in OFFICIAL)
    raise UsageError(f"--svm.C official for {arch} on {data}", f"one of {known}", "--svm.C search, or a number")


def _classifier(kind: str, C: float, *, standardised: bool) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    if kind == "svc":
        svm: Any = SVC(C=C, kernel="linear", decision_function_shape="ovr", random_state=0)
    else:  # the primal is faster where there are more clouds than channels
        svm = LinearSVC(C=C, dual="auto", random_state=0, max_iter=5000)
    return make_pipeline(StandardScaler(), svm) if standardised else make_pipeline(svm)


def _fit(kind: str, C: float, features: np.ndarray, labels: np.ndarray, standardised: bool) -> Any:
    return _classifier(kind, C, standardised=standardised).fit(features, labels)


def _logits(classifier: Any, features: np.ndarray, count: int) -> np.ndarray:
    """Decision values (n, count) float32 whose largest is the prediction; classes without training clouds come last."""
    values = np.asarray(classifier.decision_function(features))
    if values.ndim == 1:  # two classes have one value
        values = np.stack([-values, values], axis=1)
    logits = np.full((len(features), count), values.min() - 1, np.float32)
    logits[:, classifier.classes_] = values
    return logits
