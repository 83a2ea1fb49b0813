"""Linear SVM on frozen features: what self-supervised papers score a backbone by (card data-protocols, section 11)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudDataset, CloudSplit
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.models.base import PointModel
from pointlift.tasks.classification import Scores
from pointlift.tasks.config import SvmConfig
from pointlift.tasks.evaluate import Evaluation, describe_voting
from pointlift.tasks.feature_cache import RowCache
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
from pointlift.tasks.strength import best_of, try_strengths


@dataclass(frozen=True)
class Official:
    """A released linear SVM (card data-protocols, section 11).

    Attributes:
        arch: How names of the architecture begin.
        data: Name of the data set.
        variant: Its edition, in small letters; empty for any.
        kind: "svc" or "linear_svc", as in `FittedSvm`.
        C: As released: chosen on the test split.
        features: What it read there.
    """

    arch: str
    data: str
    variant: str
    kind: str
    C: float
    features: str


OFFICIAL = (
    Official("point_m2ae", "modelnet40", "", "svc", 0.012, "mean + max of the coarsest level, first 1,024 HDF5 points"),
    Official("point_m2ae", "scanobjectnn", "obj_bg", "svc", 0.042, "mean + max of the coarsest level, 2,048 points"),
    Official("point_bert", "modelnet40", "", "linear_svc", 1.0, "512 values of the contrastive head, 1,024 points"),
)


@dataclass(frozen=True)
class FittedSvm:
    """A linear SVM with how its C came about.

    Attributes:
        classifier: Fitted; `decision_function` and `predict`.
        C: Inverse regularisation.
        how: For the record: "held-out fifth of train", "official" (with what was released) or "given".
        tried: Accuracy on held-out training clouds by C; empty unless searched.
        kind: "linear_svc" (one class against the rest, squared hinge) or "svc" (one against one, libsvm).
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


def fit_svm(
    features: np.ndarray, labels: np.ndarray, config: SvmConfig, *, arch: str, data: str, variant: str | None = None
) -> FittedSvm:
    """A linear SVM on training features (n, F), its C as `config` says.

    The search is that of `try_strengths`; of equally good values the smallest is taken.

    Args:
        features: (n, F).
        labels: (n,).
        config: How C is chosen.
        arch, data, variant: Model, data set and edition, for which there may be an official C.

    Raises:
        UsageError: There is no official C for this model and data set, or nothing can be held out.
    """
    if config.C == "official":
        released = _official(arch, data, variant)
        classifier = _fit(released.kind, released.C, features, labels, False)
        how = f"official: released for {released.features}, chosen on the test split"
        return FittedSvm(classifier, released.C, how, {}, released.kind, False)
    if config.C != "search":
        C = float(config.C)
        return FittedSvm(_fit("linear_svc", C, features, labels, True), C, "given", {}, "linear_svc", True)

    def trial(C: float, split: int, rest: np.ndarray, held: np.ndarray) -> float:
        return svm_accuracy(features[rest], labels[rest], features[held], labels[held], C=C)

    tried = try_strengths(labels, trial, purpose="svm")
    best = best_of(tried)
    how = "held-out fifth of train"
    return FittedSvm(_fit("linear_svc", best, features, labels, True), best, how, tried, "linear_svc", True)


def svm_pooling(model: PointModel) -> str:
    """How an SVM's features are pooled: as the model says, but without a class token that was never trained.

    That is the case of new networks, and of weights that came without one (Point-MAE's pre-training); then mean and
    maximum over the patches are joined, what its objective was made for.
    """
    own = model.config.pooling
    if "cls" not in own.split("+"):
        return own
    began_anew = model.load_report is not None and "cls_token" in model.load_report.new
    return "mean+max" if model.origin is None or began_anew else own


@dataclass(frozen=True)
class Frozen:
    """Features of several splits, with what a record says of them.

    Attributes:
        tables: One (n, F) float64 array for each split.
        described: `describe_features`, with how many clouds were computed and how many came from the cache.
    """

    tables: list[np.ndarray]
    described: dict[str, Any]


def frozen_tables(
    model: PointModel, splits: Sequence[CloudSplit], config: DataConfig, cache: RowCache | None
) -> Frozen:
    """Features for a linear SVM, clouds being treated as `config` says; the model is left as it was."""
    kept, model.preprocess = model.preprocess, preprocess_of(config)
    try:
        pooling = svm_pooling(model)
        found = [frozen_features(model, split, pooling=pooling, cache=cache) for split in splits]
        described = describe_features(model, pooling)
    finally:
        model.preprocess = kept
    counts = {
        "computed": sum(f.computed for f in found),
        "cached": sum(len(set(f.keys)) - f.computed for f in found),
    }
    return Frozen([f.pooled.astype(np.float64) for f in found], described | counts)


def evaluate_svm(
    model: PointModel,
    dataset: CloudDataset | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    svm: SvmConfig | None = None,
    cache: RowCache | None = None,
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
        cache: Where features are looked up and kept; None computes all.
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
    frozen = frozen_tables(model.to(target), (train, test), config, cache)
    learned, asked = frozen.tables
    meta = dataset.meta
    fitted = fit_svm(learned, labels, svm, arch=model.arch, data=meta.name, variant=meta.variant)
    logits = svm_logits(fitted.classifier, asked, len(meta.classes))
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
            "features": frozen.described,
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


def _official(arch: str, data: str, variant: str | None) -> Official:
    edition = str(variant or "").lower()
    for released in OFFICIAL:
        if arch.startswith(released.arch) and data == released.data and released.variant in edition:
            return released
    known = ", ".join(f"{r.arch} on {r.data}{f' ({r.variant})' if r.variant else ''}" for r in OFFICIAL)
    raise UsageError(f"--svm.C official for {arch} on {data}", f"one of {known}", "--svm.C search, or a number")


def _classifier(kind: str, C: float, *, standardised: bool) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    from pointlift.tasks.squared_hinge import SquaredHingeSvm

    if standardised:  # ours: the same problem as LinearSVC, whose solver takes minutes for ten thousand clouds
        return make_pipeline(StandardScaler(), SquaredHingeSvm(C))
    if kind == "svc":
        return make_pipeline(SVC(C=C, kernel="linear", decision_function_shape="ovr", random_state=0))
    # The primal is faster where there are more clouds than channels.
    return make_pipeline(LinearSVC(C=C, dual="auto", random_state=0, max_iter=5000))


def _fit(kind: str, C: float, features: np.ndarray, labels: np.ndarray, standardised: bool) -> Any:
    return _classifier(kind, C, standardised=standardised).fit(features, labels)


def svm_logits(classifier: Any, features: np.ndarray, count: int) -> np.ndarray:
    """Decision values (n, count) float32 whose largest is the prediction; classes without training clouds come last."""
    values = np.asarray(classifier.decision_function(features))
    if values.ndim == 1:  # two classes have one value
        values = np.stack([-values, values], axis=1)
    logits = np.full((len(features), count), values.min() - 1, np.float32)
    logits[:, classifier.classes_] = values
    return logits
