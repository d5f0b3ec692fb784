"""Where a worker begins and which GPU it takes, from options and environment."""

from argparse import Namespace

import pytest

from fairseq_seqkd.decoding.rank import local_rank, worker_rank

VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_LOCALID",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_COUNT",
)


@pytest.fixture
def set_environment(monkeypatch):
    """Sets these variables, and none of the others."""

    def set_only(environment):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_only


def options(rank, size):
    return Namespace(distributed_rank=rank, distributed_world_size=size)


@pytest.mark.trap(18)
@pytest.mark.parametrize(
    "environment,expected",
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, (1, 3)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_MIN": "5",
                "SLURM_ARRAY_TASK_COUNT": "8",
            },
            (2, 8),
        ),
        ({"SLURM_ARRAY_TASK_ID": "3"}, (3, 1)),
    ],
)
def test_the_rank_comes_from_the_environment(set_environment, environment, expected):
    set_environment(environment)
    assert worker_rank(options(0, 1)) == expected
    assert worker_rank(options(3, 5)) == (3, 5)
    if environment:  # fairseq's own size is the number of GPUs, whoever started this process
        assert worker_rank(options(0, 8)) == expected


@pytest.mark.parametrize(
    "environment,rank,expected",
    [
        ({}, 0, 0),
        ({}, 3, 3),
        ({"LOCAL_RANK": "1", "RANK": "5", "WORLD_SIZE": "8"}, 0, 1),
        ({"SLURM_LOCALID": "0"}, 2, 2),
        ({"SLURM_LOCALID": "1", "SLURM_PROCID": "6", "SLURM_NTASKS": "8"}, 0, 1),
    ],
)
def test_every_worker_of_a_machine_takes_a_gpu_of_its_own(
    set_environment, environment, rank, expected
):
    set_environment(environment)
    assert local_rank(options(rank, 8)) == expected
