"""Which of several workers a process is: where it begins in the plan, and which GPU it takes."""

import os
from typing import Any, NamedTuple


class Rank(NamedTuple):
    """The number of a worker, and of all workers. It only says with which part a worker begins."""

    number: int
    size: int


def worker_rank(distributed: Any) -> Rank:
    """Returns the rank from fairseq-generate's options, or from torchrun's or SLURM's environment.

    Args:
        distributed: fairseq's configuration group "distributed_training".
    """
    given = Rank(distributed.distributed_rank, distributed.distributed_world_size)
    # Rank 0 may be fairseq's default, where the size is the number of GPUs.
    if given.number > 0:
        return given
    for number, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if int(os.environ.get(size, 1)) > 1:
            return Rank(int(os.environ.get(number, 0)), int(os.environ[size]))
    array_task = os.environ.get("SLURM_ARRAY_TASK_ID")
    if array_task is not None:
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0))
        return Rank(int(array_task) - first, int(os.environ.get("SLURM_ARRAY_TASK_COUNT", 1)))
    return given


def local_rank(distributed: Any) -> int:
    """Returns the number of this worker among those of this machine, for the choice of a GPU."""
    if distributed.distributed_rank <= 0:
        for name in ("LOCAL_RANK", "SLURM_LOCALID"):
            if name in os.environ:
                return int(os.environ[name])
    return worker_rank(distributed).number
