"""Fuzzing of everything that reads a file: `python -m fuzz`.

A case is `(target, seed, number)`: it always makes the same mutated files. Workers of their own process read them.
Right is a valid result or a `PointLiftError`, within 2 s and with memory bounded by the size of the files, both with
the processes that readers fork; all else is a failure, made small and kept in `tests/fuzz/corpus`, which the tests
replay.

    mutate      bytes and text, whatever the format
    containers  zip, .npy and safetensors: changes behind checksums and length fields
    seeds       small good files of every format, and hostile ones written by hand
    targets     what is read: every ending of `FORMATS`, data sets, checkpoints, run folders, recipes, forks
    judge       one case in a worker: outcome, time, memory
    pool        worker processes, and what happens when one dies
    corpus      past failures: made small, kept, found again
"""

Files = dict[str, bytes]  # a case: by path inside its folder; the first is the one that is read
