"""The SLURM recipe: what it submits, seen by a stand-in for sbatch; and, under
recipes/slurm/test.sh, a real SLURM.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import folders
import pytest
import toys
from commands import PLUGIN, ROOT, environment_with

RECIPE = ROOT / "recipes" / "slurm" / "decode.sh"
# Notes how it was called and what it was to run, then runs it, as SLURM would, where the test asks
# for that.
SBATCH = """#!{python}
import json, os, pathlib, subprocess, sys
calls = pathlib.Path({calls!r})
first = next(i for i, word in enumerate(sys.argv) if i and not word.startswith("-"))
with calls.open("a") as file:
    given = {{"options": sys.argv[1:first], "script": sys.argv[first]}}
    given["arguments"] = sys.argv[first + 1:]
    print(json.dumps(given), file=file)
number = len(calls.read_text().splitlines())
if number == int(os.environ.get("REFUSE", 0)):
    sys.exit("sbatch: error: invalid partition specified")
print(f"{{4710 + number}};cluster")
"""
GENERATE = """#!{python}
import json, os, sys
variables = {{"threads": os.environ["OMP_NUM_THREADS"], "venv": os.environ.get("VIRTUAL_ENV")}}
print(json.dumps({{"arguments": sys.argv[1:], **variables}}))
sys.exit(int(os.environ.get("FAIL", 0)))
"""


class Cluster:
    """A folder with a stand-in for sbatch on PATH, and a virtual environment with one for
    fairseq-generate.
    """

    def __init__(self, folder):
        self.folder, self.calls, self.venv = folder, folder / "calls", folder / "an environment"
        (folder / "bin").mkdir()
        (self.venv / "bin").mkdir(parents=True)
        self.write(folder / "bin" / "sbatch", SBATCH)
        self.write(self.venv / "bin" / "fairseq-generate", GENERATE)
        (self.venv / "bin" / "activate").write_text(
            f'export VIRTUAL_ENV="{self.venv}" PATH="{self.venv}/bin:$PATH"\n'
        )
        self.environment = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "VIRTUAL_ENV": str(self.venv),
        }

    def write(self, path, text):
        path.write_text(text.format(python=sys.executable, calls=str(self.calls)))
        path.chmod(0o755)

    def submit(self, *arguments, **environment):
        return run(RECIPE, *arguments, cwd=self.folder, env={**self.environment, **environment})

    @property
    def jobs(self):
        return (
            [json.loads(line) for line in self.calls.read_text().splitlines()]
            if self.calls.exists()
            else []
        )


def run(*command, **more):
    command = ["bash", *map(str, command)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


TEACHER = [
    "data-bin",
    "--path",
    "a teacher.pt:b.pt",
    "--gen-subset",
    "train",
    "--distill-dir",
    "out 1",
]


def test_an_array_and_a_job_behind_it(cluster):
    done = cluster.submit(
        "--workers",
        3,
        "--sbatch",
        "--partition=long --time=1:00:00  --dependency=afterok:9",
        "--",
        *TEACHER,
    )
    assert done.returncode == 0, done.stdout
    array, finish = cluster.jobs
    assert "--array=0-2" in array["options"] and "--dependency=afterok:9" in array["options"]
    assert not any(option.startswith("--array") for option in finish["options"])
    dependencies = [option for option in finish["options"] if option.startswith("--dependency")]
    assert dependencies[-1] == "--dependency=afterany:4711"  # sbatch takes the last one
    for job in (array, finish):
        assert {
            "--partition=long",
            "--time=1:00:00",
            "--ntasks=1",
            "--cpus-per-task=1",
            "--requeue",
        } <= set(job["options"])
        assert job["options"].index("--cpus-per-task=1") < job["options"].index(
            "--partition=long"
        )  # a default, no law
    logs = cluster.folder / "slurm-logs"
    assert logs.is_dir() and f"--output={logs}/decode-%A_%a.log" in array["options"]
    assert all(
        words in done.stdout
        for words in ("job 4711 ", "job 4712 ", f"{logs}/finish-4712.log", "scancel 4712 4711")
    )


def test_the_job_gets_every_argument_as_it_was(cluster):
    words = [*TEACHER, "--bpe", "a b", "$HOME", "it's", '"', "*", "", "two\nlines", "ä"]
    assert cluster.submit("--workers", 1, "--", *words).returncode == 0
    (cluster.folder / "out 1").mkdir()
    (cluster.folder / "out 1" / "manifest.json").write_text(
        '{\n "complete": true,\n "kind": "distilled"\n}\n'
    )
    for job in cluster.jobs:
        copy = shutil.copy(
            job["script"], cluster.folder / "slurm_script"
        )  # SLURM runs a copy from somewhere else
        done = run(copy, *job["arguments"], cwd=cluster.folder, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, done.stdout
        seen = json.loads(done.stdout)
        assert seen["arguments"] == [
            "--user-dir",
            str(PLUGIN),
            *words,
            "--task",
            "teacher_decoding",
        ]
        assert seen["threads"] == "1" and seen["venv"] == str(cluster.venv)


def test_the_finishing_job_fails_unless_the_directory_is_complete(cluster):
    assert cluster.submit("--workers", 1, "--", *TEACHER).returncode == 0
    array, finish = (
        run(job["script"], *job["arguments"], cwd=cluster.folder) for job in cluster.jobs
    )
    assert (
        array.returncode == 0
        and finish.returncode != 0
        and "out 1 is not complete" in finish.stdout
    )
    array, finish = (
        run(j["script"], *j["arguments"], cwd=cluster.folder, env={**os.environ, "FAIL": "7"})
        for j in cluster.jobs
    )
    assert array.returncode == finish.returncode == 7


def test_logs_and_environment_can_be_named(cluster, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(cluster.venv, other)
    done = cluster.submit("--workers", 2, "--logs", "100% logs", "--venv", "other", "--", *TEACHER)
    assert done.returncode == 0, done.stdout
    assert [job["arguments"][0] for job in cluster.jobs] == [str(other)] * 2
    assert (tmp_path / "100% logs").is_dir()
    assert (
        f"--output={tmp_path}/100%% logs/finish-%j.log" in cluster.jobs[1]["options"]
    )  # a % of its own is doubled


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        ([], "no arguments of fairseq-generate"),
        (["--workers", "2", "--"], "no arguments of fairseq-generate"),
        (["--", *TEACHER], "--workers is missing"),
        (["--workers", "two", "--", *TEACHER], "--workers is 'two'"),
        (["--workers", "0", "--", *TEACHER], "--workers is '0'"),
        (["--workers", "2", "--beam", "5", "--", *TEACHER], "unknown option --beam"),
        (["--workers"], "needs a value"),
        (["--workers", "2", "--", "data-bin", "--path", "teacher.pt"], "--distill-dir is missing"),
        (
            ["--workers", "2", "--venv", "absent", "--", *TEACHER],
            "no fairseq-generate in the virtual environment absent",
        ),
    ],
)
def test_it_refuses_what_cannot_work(cluster, arguments, sentence):
    done = cluster.submit(*arguments)
    assert (
        done.returncode != 0 and sentence in done.stdout and len(done.stdout.splitlines()) == 1
    ), done.stdout
    assert not cluster.jobs and not (cluster.folder / "slurm-logs").exists()


def test_it_says_where_sbatch_is_missing_or_refuses(cluster):
    done = cluster.submit("--workers", 2, "--", *TEACHER, REFUSE="1")
    assert (
        done.returncode != 0
        and "invalid partition" in done.stdout
        and "refused the array" in done.stdout
    )
    assert len(cluster.jobs) == 1  # no job that waits for one that does not exist
    cluster.calls.unlink()
    done = cluster.submit("--workers", 2, "--", *TEACHER, REFUSE="2")
    assert (
        done.returncode != 0
        and "job 4711" in done.stdout
        and "finishing job was refused" in done.stdout
    )
    done = cluster.submit("--workers", 2, "--", *TEACHER, PATH="/usr/bin:/bin", VIRTUAL_ENV="")
    assert done.returncode != 0 and "no fairseq-generate; activate" in done.stdout
    bare = cluster.folder / "bare"  # /usr/bin may have an sbatch
    bare.mkdir()
    for tool in ("bash", "basename", "dirname"):
        (bare / tool).symlink_to(shutil.which(tool))
    done = cluster.submit("--workers", 2, "--", *TEACHER, PATH=str(bare))
    assert done.returncode != 0 and "there is no sbatch on this machine" in done.stdout, done.stdout


# With a real SLURM. Small parts, so that there is a middle to be killed in.

real = pytest.mark.skipif(
    "SEQKD_TEST_SLURM" not in os.environ, reason="recipes/slurm/test.sh runs it"
)
PARTS = {"part_size": 4, "max_tokens": 60}


@pytest.fixture(scope="module")
def undisturbed(tiny, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "distilled"
    toys.decode(tiny, teacher, folder, **PARTS)
    return folders.tree(folder)


class Run:
    """A decode through the recipe; it prints what it sees."""

    def __init__(self, data, teacher, folder, workers):
        self.folder, self.logs, self.distilled = folder, folder / "logs", folder / "distilled"
        environment = environment_with(VIRTUAL_ENV=sys.prefix)
        arguments = toys.decode_command(data, teacher, self.distilled, **PARTS)
        done = run(
            RECIPE, "--workers", workers, "--logs", self.logs, "--", *arguments, env=environment
        )
        assert done.returncode == 0, done.stdout
        print(f"\n{done.stdout.rstrip()}")
        self.array, self.finish = re.findall(r"job (\d+) ", done.stdout)

    @property
    def state(self):
        """Returns the states by job or job_task, from the controller: there is no accounting."""
        done = subprocess.run(
            ["squeue", "--all", "--array", "--noheader", "--states=all", "--format=%i %T"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return dict(
            line.split()
            for line in done.stdout.splitlines()
            if line.startswith((self.array, self.finish))
        )

    def wait(self, description, happened, timeout=180):
        until = time.monotonic() + timeout
        while not happened():
            assert time.monotonic() < until, (
                f"{description} did not happen: {self.state}\n{self.output()}"
            )
            time.sleep(0.05)
        print(f"{description}: {self.state}, {self.committed()} parts")

    def committed(self):
        return len(list((self.distilled / "parts").glob("*.part")))

    def ended(self, job):
        return self.state[job] not in ("PENDING", "RUNNING", "COMPLETING")

    def output(self, name="*"):
        return "\n".join(log.read_text() for log in sorted(self.logs.glob(f"{name}.log")))

    def workers_at_it(self):
        """Tasks of the array that have committed a part, by their logs."""
        logs = self.logs.glob("decode-*.log")
        return {log.stem.removeprefix("decode-") for log in logs if "parts done" in log.read_text()}

    def scancel(self, *arguments):
        subprocess.run(["scancel", *arguments], check=True)
        print("scancel", *arguments)


@pytest.mark.trap(17)
@real
def test_a_job_array_leaves_the_bytes_of_one_process(tiny, teacher, undisturbed, tmp_path):
    """With three tasks for two places: the last one comes when the work is done, or nearly."""
    decode = Run(tiny, teacher, tmp_path, 3)
    decode.wait("the finishing job has ended", lambda: decode.ended(decode.finish))
    assert set(decode.state.values()) == {"COMPLETED"} and len(decode.state) == 3 + 1
    assert "is complete: nothing is left to decode" in decode.output("finish-*")
    ranks = re.findall(
        r"began as rank (\d+) of (\d+)", (decode.distilled / "decoding.log").read_text()
    )
    assert {("0", "3"), ("1", "3")} <= set(ranks), ranks
    assert folders.tree(decode.distilled) == undisturbed
    again = Run(tiny, teacher, tmp_path, 1)
    again.wait("once more", lambda: again.ended(again.finish))
    assert (
        set(again.state.values()) == {"COMPLETED"} and folders.tree(decode.distilled) == undisturbed
    )


@pytest.mark.trap(17)
@real
def test_a_worker_killed_in_the_middle_leaves_no_trace(tiny, teacher, undisturbed, tmp_path):
    decode = Run(tiny, teacher, tmp_path, 2)
    victim = f"{decode.array}_0"
    decode.wait("task 0 has committed parts", lambda: victim in decode.workers_at_it())
    decode.scancel("--signal=KILL", "--full", victim)
    decode.wait("task 0 is dead", lambda: decode.ended(victim))
    assert "complete" not in decode.output("decode-*_0")
    decode.wait("the finishing job has ended", lambda: decode.ended(decode.finish))
    assert decode.state[decode.finish] == "COMPLETED" and decode.state[victim] != "COMPLETED"
    assert folders.tree(decode.distilled) == undisturbed


@real
def test_what_cancelled_workers_left_is_decoded_by_the_finishing_job(
    tiny, teacher, undisturbed, tmp_path
):
    """SIGTERM, then SIGKILL: what a time limit does, too."""
    decode = Run(tiny, teacher, tmp_path, 2)
    decode.wait("both tasks have committed parts", lambda: len(decode.workers_at_it()) == 2)
    decode.scancel(decode.array)
    decode.wait(
        "the array is dead", lambda: all(decode.ended(f"{decode.array}_{task}") for task in (0, 1))
    )
    assert "is complete" not in decode.output("decode-*")
    decode.wait("the finishing job has ended", lambda: decode.ended(decode.finish))
    assert decode.state[decode.finish] == "COMPLETED"
    assert (
        "parts done" in decode.output("finish-*")
        and "nothing is left" not in decode.output("finish-*").split("parts done")[0]
    )
    assert folders.tree(decode.distilled) == undisturbed
