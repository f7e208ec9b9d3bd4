"""The lock of a result: all that it was made from; and making it again, to compare.

`results/bench-….lock.json` stands beside a result's rows. It holds, without clock, host name or
absolute path: the checksums of the data, and how they can be had; of every run all that `urban
train` needs, a user's own method in full; the benchmark's options; and the scores.
"""

from urbancli.reproduction.again import (
    Difference,
    bench_again,
    data_differences,
    input_notes,
    score_differences,
    tolerances,
    train_again,
    trained_anew,
    version_notes,
)
from urbancli.reproduction.lock import lock_file, read_lock, write_lock

__all__ = [
    "Difference",
    "bench_again",
    "data_differences",
    "input_notes",
    "lock_file",
    "read_lock",
    "score_differences",
    "tolerances",
    "train_again",
    "trained_anew",
    "version_notes",
    "write_lock",
]
