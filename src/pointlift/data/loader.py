"""Batches in a fixed order: the same for any number of worker processes, a fixed share of them per rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pointlift.core.errors import PointLiftError, UsageError
from pointlift.core.seeds import generator
from pointlift.data.batches import Batch, collate
from pointlift.data.dataset import CloudSplit, Sample
from pointlift.data.pipeline import CloudTransform

# What `prepare` gave is remembered up to this many bytes per process, when it ran farthest-point sampling.
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class _Order:
    """One batch to make: which clouds, in which epoch and step (they decide the randomness)."""

    epoch: int
    step: int
    indices: np.ndarray


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker; torch would wrap it in the worker's traceback."""

    error: PointLiftError


class _Maker:
    """Makes batches from orders; lives in the main process or, as a copy, in each worker."""

    def __init__(
        self,
        split: CloudSplit,
        transform: CloudTransform,
        seed: int,
        collate: Callable[[Sequence[Sample]], Batch],
    ) -> None:
        self.split, self.transform, self.seed, self.collate = split, transform, seed, collate
        self._cache: dict[int, Sample] = {}
        self._room = CACHE_BYTES

    def __getitem__(self, order: _Order) -> Batch:
        def shared() -> np.random.Generator:
            return generator(self.seed, "batch", order.epoch, order.step)

        samples = []
        for i in order.indices:
            rng = generator(self.seed, "sample", order.epoch, int(i))
            samples.append(self.transform.draw(self._prepared(int(i)), rng, shared))
        return self.collate(samples)

    def _prepared(self, i: int) -> Sample:
        sample = self._cache.get(i)
        if sample is None:
            stored = self.split[i]
            try:
                sample = self.transform.prepare(stored)
            except PointLiftError as error:
                raise type(error)(f"{self.split.names[i]}: {error.given}", error.expected, error.fix) from error
            if self.transform.costly(len(stored["xyz"])):
                self._remember(i, sample)
        return sample

    def _remember(self, i: int, sample: Sample) -> None:
        size = sum(np.asarray(value).nbytes for value in sample.values())
        if size <= self._room:
            self._room -= size
            self._cache[i] = sample


class _Careful:
    """The maker as a torch data set in a worker: errors for the user travel as values."""

    def __init__(self, maker: _Maker) -> None:
        self.maker = maker

    def __getitem__(self, order: _Order) -> Batch | _Failure:
        try:
            return self.maker[order]
        except PointLiftError as error:
            return _Failure(error)


class _Plan:
    """This rank's orders of the epoch that is set; knows nothing of the loader, which it must not keep alive."""

    def __init__(
        self, count: int, seed: int, *, batch_size: int, shuffle: bool, drop_last: bool, rank: int, world_size: int,
        pad: bool,
    ) -> None:  # fmt: skip
        self.count, self.seed, self.epoch = count, seed, 0
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.rank, self.world_size, self.pad = rank, world_size, pad

    def __iter__(self) -> Iterator[_Order]:
        """This rank's share of each global batch of `batch_size * world_size`."""
        everyone = (
            generator(self.seed, "order", self.epoch).permutation(self.count) if self.shuffle else np.arange(self.count)
        )
        whole = self.batch_size * self.world_size
        for step, start in enumerate(range(0, self.count, whole)):
            chosen = everyone[start : start + whole]
            if len(chosen) < whole and self.drop_last:
                return
            if self.pad and (missing := -len(chosen) % self.world_size):
                chosen = np.concatenate([chosen, np.resize(everyone, missing)])
            share = np.array_split(chosen, self.world_size)[self.rank]
            if len(share):
                yield _Order(self.epoch, step, share)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Loader:
    """An iterable of batches; `set_epoch` before every epoch. Made by `make_loader`."""

    def __init__(self, maker: _Maker, plan: _Plan, workers: int) -> None:
        self._maker, self._plan, self.workers = maker, plan, workers
        self._processes: Any = None

    @property
    def split(self) -> CloudSplit:
        """The clouds that the batches are made of; `index` in a batch is the position in it."""
        return self._maker.split

    @property
    def transform(self) -> CloudTransform:
        """What happens to each of them."""
        return self._maker.transform

    @property
    def batch_size(self) -> int:
        """Clouds per batch and rank."""
        return self._plan.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Order and randomness of the next iteration; the same epoch gives the same batches."""
        self._plan.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        if self.workers == 0:
            for order in self._plan:
                yield self._maker[order]
            return
        for batch in self._worker_batches():
            if isinstance(batch, _Failure):
                self.close()
                raise batch.error
            yield batch

    def _worker_batches(self) -> Iterator[Batch | _Failure]:
        """The worker processes stay between epochs; each order tells them its epoch."""
        import torch
        from torch.utils.data import DataLoader

        if self._processes is None:
            self._processes = DataLoader(
                _Careful(self._maker),  # type: ignore[arg-type]
                sampler=self._plan,
                batch_size=None,
                num_workers=self.workers,
                persistent_workers=True,
                collate_fn=_as_is,
                # Its own: drawing from the global one would make dropout depend on the number of workers.
                generator=torch.Generator(),
            )
        yield from self._processes

    def close(self) -> None:
        """End the worker processes; the next iteration starts new ones."""
        self._processes = None


def _as_is(batch: Any) -> Any:
    return batch


def make_loader(
    split: CloudSplit,
    transform: CloudTransform,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    workers: int = 0,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
    pad: bool | None = None,
    collate: Callable[[Sequence[Sample]], Batch] = collate,
) -> Loader:
    """Batches of a split.

    The order depends on (seed, epoch), what happens to a cloud on (seed, epoch, index), what a batch shares
    on (seed, epoch, step): not on the number of workers, nor on which rank makes the batch.

    Args:
        split: The clouds.
        transform: What happens to each of them.
        batch_size: Clouds per batch and rank; all ranks together make one global batch per step.
        seed: Decides order and randomness.
        shuffle: A new order every epoch, instead of the stored one.
        workers: Processes that make batches; 0 makes them in this one.
        drop_last: Leave out a last global batch that is not full.
        rank: Which share of every global batch to give.
        world_size: How many shares there are.
        pad: Repeat clouds so that every rank gets as many in the last step (training needs this, scores must
            not have it: there every cloud comes exactly once over all ranks, and ranks may differ by a batch).
            Default: as `shuffle`.
        collate: Makes a batch of samples.

    Raises:
        UsageError: No clouds, or `drop_last` would leave none.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size} processes", "a rank from 0 to world_size - 1")
    if batch_size < 1:
        raise UsageError(f"a batch size of {batch_size}", "at least 1")
    if len(split) == 0:
        raise UsageError("a split without clouds", "at least one cloud", "Check data.root: is the part you need there?")
    if drop_last and len(split) < batch_size * world_size:
        raise UsageError(
            f"{len(split)} clouds do not fill one batch of {batch_size}"
            + (f" on {world_size} processes" if world_size > 1 else ""),
            f"a batch size of at most {len(split) // world_size}",
            "Lower data.batch_size, or keep the last batch (drop_last false)",
        )
    plan = _Plan(
        len(split),
        seed,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
        pad=shuffle if pad is None else pad,
    )
    return Loader(_Maker(split, transform, seed, collate), plan, workers)
