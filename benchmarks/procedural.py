"""Procedural shapes: how fast they are made.

    python -m benchmarks.procedural [--points 8192] [--shapes 150] [--runs 7] [--workers 2] [--json FILE]
    python -m benchmarks.procedural --sheet sheet.png       look at 36 of them instead

Prints the median over several runs of: shapes per second of all worker processes together (wall clock), CPU time per
shape (which other programs on the machine disturb less), and where the time goes. The target: 150 shapes/s on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pointlift.core.seeds import generator
from pointlift.data.procedural import ProceduralConfig, draw_program, make_shape, make_with_program, write_procedural
from pointlift.data.procedural.surface import sample_program
from pointlift.data.shapes.draw import Draw


def make_some(first: int, count: int, points: int) -> float:
    """Make shapes `first` to `first + count`; CPU seconds."""
    config = ProceduralConfig(points=points)
    start = time.process_time()
    for index in range(first, first + count):
        make_shape(index, config)
    return time.process_time() - start


def rates(points: int, shapes: int, runs: int, workers: int) -> tuple[list[float], list[float]]:
    """Shapes per second of all workers, and CPU milliseconds per shape, of each run."""
    per_second, cpu = [], []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(make_some, [0] * workers * 4, [2] * workers * 4, [points] * workers * 4))  # start, import
        for run in range(runs):
            firsts = [(run * workers + w) * shapes for w in range(workers)]
            start = time.perf_counter()
            spent = sum(pool.map(make_some, firsts, [shapes] * workers, [points] * workers))
            per_second.append(workers * shapes / (time.perf_counter() - start))
            cpu.append(1e3 * spent / (workers * shapes))
    return per_second, cpu


def stages(points: int, shapes: int) -> dict[str, float]:
    """CPU milliseconds per shape of each step, in one process."""
    config = ProceduralConfig(points=points)
    spent = {"compose": 0.0, "sample": 0.0}
    for index in range(shapes):
        rng = generator(0, "procedural", index, 0)
        clock = [time.process_time()]
        program = draw_program(config, Draw(rng))
        clock.append(time.process_time())
        sample_program(program, points, rng)
        clock.append(time.process_time())
        for name, seconds in zip(spent, np.diff(clock), strict=True):
            spent[name] += float(seconds)
    spent["all, with redraws and scaling"] = make_some(0, shapes, points)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_procedural(Path(folder), count=shapes, config=config)
        spent["all, and written to disk"] = time.process_time() - start
    return {name: 1e3 * seconds / shapes for name, seconds in spent.items()}


def draw_sheet(path: Path, first: int = 0) -> None:
    """Thirty-six shapes, shaded by their normals; what looks away from the viewer is left out."""
    import matplotlib.pyplot as plt

    light = np.array([0.48, -0.72, 0.5])
    cos, sin = np.cos(0.44), np.sin(0.44)
    tilt = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    figure, axes = plt.subplots(6, 6, figsize=(18, 18))
    for index, axis in enumerate(axes.flat, first):
        program, xyz, normals = make_with_program(index, ProceduralConfig(), 0)
        xyz, normals = xyz @ tilt, normals @ tilt
        order = np.argsort(-xyz[:, 1])
        order = order[normals[order, 1] < 0]
        shade = 0.2 + 0.7 * np.clip(normals[order] @ light, 0, 1)
        axis.scatter(*xyz[order][:, [0, 2]].T, s=2, c=shade, cmap="bone", vmin=0, vmax=1.1, linewidths=0)
        axis.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
        axis.axis("off")
        axis.set_title(f"{index}: {len(program.body)} joined, {len(program.cutters)} cut, {len(program.wires)} wires")
    figure.tight_layout()
    figure.savefig(path, dpi=60)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=8192)
    parser.add_argument("--shapes", type=int, default=150, help="per worker and run")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="draw a contact sheet and measure nothing")
    given = parser.parse_args()
    if given.sheet:
        draw_sheet(given.sheet)
        return
    load = os.getloadavg()[0]
    per_second, cpu = rates(given.points, given.shapes, given.runs, given.workers)
    steps = stages(given.points, given.shapes)
    result = {
        "command": "python -m benchmarks.procedural " + " ".join(sys.argv[1:]),
        "points": given.points,
        "workers": given.workers,
        "shapes_per_second": round(statistics.median(per_second), 1),
        "shapes_per_second_runs": [round(r, 1) for r in per_second],
        "cpu_ms_per_shape": round(statistics.median(cpu), 2),
        "cpu_ms_per_shape_runs": [round(c, 2) for c in cpu],
        "cpu_ms_by_step": {name: round(ms, 2) for name, ms in steps.items()},
        "load_before": round(load, 2),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    print(f"{result['shapes_per_second']} shapes/s of {given.points} points, {given.workers} processes (median of "
          f"{given.runs}; {min(per_second):.0f} to {max(per_second):.0f}); load before: {load:.1f}")  # fmt: skip
    by_cpu = 1e3 / result["cpu_ms_per_shape"]
    print(f"{result['cpu_ms_per_shape']} ms CPU per shape: {by_cpu:.0f} shapes/s per core of one's own, "
          f"{by_cpu * given.workers:.0f} on {given.workers}")  # fmt: skip
    for name, ms in steps.items():
        print(f"  {name:32s} {ms:6.2f} ms")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
