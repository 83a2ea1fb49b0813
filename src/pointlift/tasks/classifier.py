"""`PointClassifier`: clouds in, labels out, in the manner of scikit-learn: a frozen trunk and a linear head."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from pointlift.core.errors import CheckpointError, DataError, UsageError, first_few
from pointlift.models.base import PointModel
from pointlift.tasks.cloud_input import Clouds, clouds_of, codes_of, encode_labels
from pointlift.tasks.feature_cache import FeatureCache
from pointlift.tasks.frozen import SIZES, STATISTICS, FrozenFeatures, describe_features, frozen_features, size_features
from pointlift.tasks.linear_head import fit_logistic
from pointlift.tasks.metrics import confusion_matrix, mean_class_accuracy
from pointlift.tasks.predict import check_pooling
from pointlift.tasks.record import versions
from pointlift.tasks.resolve import resolve_model
from pointlift.weights.hashing import state_hash

logger = logging.getLogger(__name__)


def _head_offers(name: str):
    """For `available_if`: whether the head that is or will be fitted has this method."""

    def check(self: PointClassifier) -> bool:
        return self.head is None or hasattr(getattr(self, "head_", self.head), name)

    return check


class PointClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of point clouds: one pass through a frozen trunk, and a linear head on its features.

    X, wherever it appears, is a folder of class folders (or any other that `pl.load_dataset` opens), a data set or a
    split of one, a list of files, `PointCloud`s or arrays (N, 3), or one array (n, N, 3). Clouds may differ in size.
    Labels `y` are of any hashable type; None takes those of the data set (class names). Of a data set with parts,
    `fit` takes the training part; everything else takes the test part, or all clouds where there is none.

    Features are kept on disk by content, preparation and weights: another `fit`, another head or another fold of
    cross-validation computes nothing twice.

    Args:
        model: A registry name, a run folder, a model file, or a model in memory. A name without weights is a network
            of random weights (seed 0): a fair baseline, and said so in the log and in `record_`.
        pooling: "statistics" (see `tasks.frozen`), or one of `models.features.Pooling` ("cls+max", "mean", …).
        C: Inverse strength of the head's penalty. "auto" and several values are chosen by accuracy on held-out
            training clouds.
        size: Whether logarithms of extents and radius join the features, which normalisation to the unit sphere
            takes away; together they weigh as much as the trunk. "auto": when the unit of the data set is known, for
            clouds that are measured, not modelled.
        head: A scikit-learn classifier instead of logistic regression; reads the features as they are (not
            standardised). `C` does not apply then.
        cache: True for the user's cache folder (`$POINTLIFT_HOME/features`), a folder, or False.
        batch_size: Clouds per forward pass.
        device: "auto", "cpu", "cuda", …; a model in memory stays where it is.
        random_state: Decides which clouds are held out to choose C; None draws it anew (`record_["seed"]` says it).

    Attributes:
        classes_: (k,) the labels, sorted.
        head_: The fitted head.
        record_: What the classifier is made of and how C was chosen.
        score_: After `score`: accuracy, mean class accuracy, number of clouds, and how many of them were in training.

    Example:
        >>> clf = pl.PointClassifier().fit("my_clouds/train")  # doctest: +SKIP
        >>> clf.score("my_clouds/test")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PointModel = "point_mae_tiny",
        *,
        pooling: str = STATISTICS,
        C: float | Sequence[float] | Literal["auto"] = "auto",
        size: bool | Literal["auto"] = "auto",
        head: Any = None,
        cache: bool | str | os.PathLike[str] = True,
        batch_size: int = 32,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.model, self.pooling, self.C, self.size, self.head = model, pooling, C, size, head
        self.cache, self.batch_size, self.device, self.random_state = cache, batch_size, device, random_state

    def fit(self, X: Any, y: Any = None) -> PointClassifier:
        """Learn the head.

        Raises:
            UsageError: X or y of no known kind, no labels, fewer than two classes, or a wrong option.
            DataError: Clouds that cannot be used; FileFormatError names the file.
        """
        self._check_options()
        seed = self._seed()
        began = time.perf_counter()
        clouds = clouds_of(X, y, "fit")
        labels = _labels(clouds)
        self.classes_, codes = encode_labels(labels)
        network = self._network_for_fit()
        meta = clouds.meta
        self.unit_, self.up_axis_ = (None, None) if meta is None else (meta.unit, meta.up_axis)
        self.size_ = self.unit_ is not None if self.size == "auto" else bool(self.size)
        found = self._frozen(network, clouds)
        features = self._joined(found)
        extracted = time.perf_counter()
        if self.head is None:
            few = SIZES if self.size_ else 0
            self.head_, best, tried = fit_logistic(features, codes, self.C, few=few, seed=seed)
        else:
            self.head_, best, tried = clone(self.head).fit(features, codes), None, {}
        self.trained_on_ = frozenset(found.keys)
        self.record_ = {
            "model": None if isinstance(self.model, PointModel) else str(self.model),
            **describe_features(network, self.pooling),
            "features": features.shape[1],
            "size": self.size_,
            "clouds": len(codes),
            "classes": len(self.classes_),
            "data": None if meta is None else meta.name,
            "data_hash": None if clouds.dataset is None else clouds.dataset.content_hash(),
            "head": "logistic" if self.head is None else repr(self.head),
            "C": best,
            "C_tried": {str(C): accuracy for C, accuracy in tried.items()},
            "seed": seed,
            "held_out_accuracy": tried.get(best) if best is not None else None,
            "computed": found.computed,
            "cached": len(found.keys) - found.computed,
            "seconds": {
                "features": round(extracted - began, 3),
                "head": round(time.perf_counter() - extracted, 3),
            },
            "versions": versions(),
        }
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,) of clouds.

        Raises:
            sklearn.exceptions.NotFittedError: `fit` comes first.
        """
        features = self._features(X)
        return self.classes_[self._codes(features)]

    @available_if(_head_offers("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, k), in the order of `classes_`."""
        features = self._features(X)
        return self.head_.predict_proba(features)

    @available_if(_head_offers("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """The head's scores: (n, k), or (n,) for two classes."""
        features = self._features(X)
        return self.head_.decision_function(features)

    def features(self, X: Any) -> np.ndarray:
        """What the head reads: (n, F) float32, before it standardises them."""
        return self._features(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Share of right labels; details in `score_`. Labels that `fit` did not see count as wrong.

        Raises:
            UsageError: No labels, or none that `fit` saw.
        """
        check_is_fitted(self)
        clouds = clouds_of(X, y, "score")
        labels = _labels(clouds)
        truth = codes_of(labels, self.classes_)
        if (truth < 0).all():
            raise UsageError(
                f"none of the {len(truth)} labels is known: {first_few(_texts(labels), 3)}",
                f"labels as `fit` was given them: {first_few(_texts(self.classes_.tolist()), 3)}",
            )
        found = self._frozen(self._network(), clouds)
        predicted = self._codes(self._joined(found))
        accuracy = float(np.average(predicted == truth, weights=sample_weight))
        known = truth >= 0
        matrix = confusion_matrix(predicted[known], truth[known], len(self.classes_))
        seen = sum(key in self.trained_on_ for key in found.keys)
        self.score_ = {
            "accuracy": accuracy,
            "mean_class_accuracy": mean_class_accuracy(matrix),
            "clouds": len(truth),
            "of_unknown_class": int((~known).sum()),
            "also_in_training": seen,
            "computed": found.computed,
            "data": None if clouds.meta is None else clouds.meta.name,
            "data_hash": None if clouds.dataset is None else clouds.dataset.content_hash(),
        }
        if seen:
            logger.warning("%d of the %d clouds scored were fitted on: this says little of others", seen, len(truth))
        return accuracy

    def _check_options(self) -> None:
        if self.pooling != STATISTICS:
            check_pooling(self.pooling)
        if self.size not in (True, False, "auto"):
            raise UsageError(f"size {self.size!r}", "True, False or 'auto'")
        if self.batch_size < 1:
            raise UsageError(f"batch_size {self.batch_size}", "at least 1")

    def _seed(self) -> int:
        """Of `random_state`, as scikit-learn understands it."""
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except ValueError:
            raise UsageError(f"random_state {self.random_state!r}", "a number, None or a RandomState") from None

    def _features(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._joined(self._frozen(self._network(), clouds_of(X, None, "score")))

    def _codes(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self.head_.predict(features), dtype=np.int64)

    def _frozen(self, network: PointModel, clouds: Clouds) -> FrozenFeatures:
        meta = clouds.meta
        if self.size_ and meta is not None and None not in (meta.unit, self.unit_) and meta.unit != self.unit_:
            raise DataError(
                f"clouds in {meta.unit}, and the classifier learned sizes in {self.unit_}",
                "the same unit",
                "Convert one of them, or fit with size=False",
            )
        return frozen_features(
            network,
            clouds.split,
            pooling=self.pooling,
            cache=self._cache(),
            batch_size=self.batch_size,
        )

    def _joined(self, found: FrozenFeatures) -> np.ndarray:
        if not self.size_:
            return found.pooled
        return np.concatenate([found.pooled, size_features(found.geometry, self.up_axis_)], axis=1)

    def _cache(self) -> FeatureCache | None:
        if self.cache is False or self.cache is None:
            return None
        return FeatureCache() if self.cache is True else FeatureCache(self.cache)

    def _network_for_fit(self) -> PointModel:
        network = self._loaded = self._resolved()
        if network.origin is None and not isinstance(self.model, PointModel):
            _say_untrained(str(self.model))
        return network

    def _network(self) -> PointModel:
        """The trunk of the fit: kept, or loaded again in another process; in either case it must be the same one."""
        kept: PointModel | None = self.__dict__.get("_loaded")
        network = self._resolved() if kept is None else kept
        found, expected = state_hash(network.state_dict()), self.record_["model_hash"]
        if found != expected:
            raise CheckpointError(
                f"{self.record_['arch']} has weights {found[:12]}…",
                f"{expected[:12]}…, which this classifier was fitted with",
                "Fit it again, or put the weights back",
            )
        self._loaded = network
        return network

    def _resolved(self) -> PointModel:
        if isinstance(self.model, PointModel):
            return self.model
        return resolve_model(os.fspath(self.model), device=self.device)

    def __getstate__(self) -> dict[str, Any]:
        """Without the trunk: it is named by `model`, and checked by its hash when it is needed again."""
        return {k: v for k, v in super().__getstate__().items() if k != "_loaded"}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


@functools.cache
def _say_untrained(name: str) -> None:
    """Once per process: cross-validation fits many times."""
    logger.warning("%s has no trained weights: these are features of a random network (seed 0)", name)


def _labels(clouds: Clouds) -> list:
    if clouds.labels is None:
        raise UsageError("clouds without labels", "y, one label per cloud, or a folder of class folders")
    return clouds.labels


def _texts(labels: Sequence[Any]) -> list[str]:
    return [repr(label) for label in dict.fromkeys(labels)]
