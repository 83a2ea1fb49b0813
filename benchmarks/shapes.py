"""Procedural shapes: how fast they are made, and how far hand-made descriptors get on them.

    python benchmarks/shapes.py [--points 1024] [--train 2000] [--test 800] [--trees 300] [--option level=0.5 …]

Prints, from one run: shapes per second and class on one thread, the time of a training epoch, and the accuracy of
extra-trees on bounding box + moments (the task must not be a toy: at most 70 %).
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations_with_replacement

import numpy as np

from pointlift.core.seeds import generator
from pointlift.data.shapes import CLASSES, ShapeConfig, load_shapes, make_shape


def descriptors(xyz: np.ndarray) -> np.ndarray:
    """Bounding box and moments of a cloud (N, 3), in the frame as given and along the horizontal main axes.

    The pose about z is unknown, so a descriptor in x and y alone would be handicapped: extents, corners, moments of
    order 2 to 4, skewness and kurtosis are taken in both frames, besides covariance eigenvalues, the moments of the
    distances from the centroid and from the upright axis through it, and all mixed moments of order 2 to 4 of the
    coordinates along the main axes, divided by their deviations.
    """
    centered = xyz.astype(np.float64) - xyz.mean(axis=0, dtype=np.float64)
    covariance = centered.T @ centered / len(centered)
    _, axes = np.linalg.eigh(covariance[:2, :2])
    turned = centered.copy()
    turned[:, :2] = centered[:, :2] @ axes[:, ::-1]
    # The sign of a main axis is arbitrary: let the heavier tail point to its positive side.
    turned[:, :2] *= np.where((turned[:, :2] ** 3).sum(axis=0) < 0, -1.0, 1.0)
    radius, ring = np.linalg.norm(centered, axis=1), np.hypot(centered[:, 0], centered[:, 1])
    return np.concatenate(
        [
            _frame_features(centered),
            _frame_features(turned),
            np.sort(np.ptp(turned, axis=0)),
            np.linalg.eigvalsh(covariance),
            covariance[np.triu_indices(3)],
            _moments(radius[:, None]),
            _moments(ring[:, None]),
            _mixed_moments(turned / turned.std(axis=0)),
        ]
    )


def _frame_features(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high, high - low, _moments(points)])


def _moments(values: np.ndarray) -> np.ndarray:
    """Mean, central moments 2 to 4, skewness and kurtosis of each column."""
    mean = values.mean(axis=0)
    second, third, fourth = (((values - mean) ** k).mean(axis=0) for k in (2, 3, 4))
    return np.concatenate([mean, second, third, fourth, third / second**1.5, fourth / second**2])


def _mixed_moments(points: np.ndarray) -> np.ndarray:
    """Means of all products of two to four coordinates."""
    products = (c for order in (2, 3, 4) for c in combinations_with_replacement(range(3), order))
    return np.array([points[:, list(columns)].prod(axis=1).mean() for columns in products])


def baseline(train: int, test: int, trees: int, **options: object) -> tuple[float, np.ndarray]:
    """Accuracy of extra-trees on `descriptors`, and the confusion matrix (true class in rows)."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import confusion_matrix

    data = load_shapes(train=train, test=test, **options)
    features = [np.stack([descriptors(s["xyz"]) for s in split]) for split in (data.train, data.test)]
    model = ExtraTreesClassifier(n_estimators=trees, random_state=0).fit(features[0], data.train.labels)
    predicted = model.predict(features[1])
    table = confusion_matrix(data.test.labels, predicted, labels=range(len(data.meta.classes)))
    return float(np.mean(predicted == data.test.labels)), table


def speed(points: int, repeats: int = 60) -> dict[str, tuple[float, float]]:
    """Median and least milliseconds per shape of each class, on one thread (the least: on a busy machine)."""
    config = ShapeConfig(points=points)
    times = {}
    for name in CLASSES:
        taken = []
        for i in range(repeats):
            start = time.perf_counter()
            make_shape(name, generator(0, "speed", name, i), config=config)
            taken.append(time.perf_counter() - start)
        times[name] = 1e3 * float(np.median(taken)), 1e3 * min(taken)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=800)
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=VALUE", help="options of load_shapes")
    arguments = parser.parse_args()
    times = speed(arguments.points)
    for name, (median, least) in times.items():
        print(f"{name:8s} median {median:5.2f} ms, least {least:5.2f} ms")
    for what, mean in zip(("medians", "least times"), np.mean(list(times.values()), axis=0), strict=True):
        print(f"mean of the {what} {mean:.2f} ms: {1e3 / mean:.0f} shapes/s, {mean * 2:.1f} s for 2,000 shapes")
    options = {k: json.loads(v) for k, v in (o.split("=", 1) for o in arguments.option)}
    accuracy, table = baseline(arguments.train, arguments.test, arguments.trees, points=arguments.points, **options)
    for name, row, right in zip(CLASSES, table, np.diag(table), strict=True):
        others = sorted(((n, c) for c, n in zip(CLASSES, row, strict=True) if n and c != name), reverse=True)
        print(f"{name:8s} {right / row.sum():5.0%}  taken for " + ", ".join(f"{c} {n}" for n, c in others[:4]))
    print(f"extra-trees on bounding box + moments: {accuracy:.1%} of {arguments.test} test shapes")


if __name__ == "__main__":
    main()
