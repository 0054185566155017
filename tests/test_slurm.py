"""The SLURM examples: the shell reads them, and under a fake `srun` they give command lines that the program takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from us_i2v.cli.app import app

SCRIPTS = sorted((Path(__file__).parents[1] / "examples" / "slurm").glob("*.sh"))

RECORD = f"""#!{sys.executable}
import json, os, sys
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CPUS")
line = {{"argv": sys.argv, "environment": {{name: os.environ.get(name) for name in names}}}}
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(line) + "\\n")
"""

SRUN = """#!/bin/bash
# Runs its command once a task, as srun does; its own options are left out.
tasks=${SLURM_NTASKS:-1}
while [[ $1 == -* ]]; do
  [[ $1 == --ntasks=* ]] && tasks=${1#--ntasks=}
  [[ $1 == --cpus-per-task=* ]] && export CPUS=${1#--cpus-per-task=}
  shift
done
for ((i = 0; i < tasks; i++)); do SLURM_PROCID=$i "$@" || exit; done
"""

# As slow as a large job's: who reads only the first line has left when the second one comes.
SCONTROL = "#!/bin/bash\necho node7\nsleep 0.2\necho node8\n"


@pytest.fixture
def submitted(tmp_path: Path):
    """Run a script as sbatch would; gives what `us-i2v` or `torchrun` were called with."""
    programs = {"srun": SRUN, "us-i2v": RECORD, "torchrun": RECORD, "scontrol": SCONTROL}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def submit(script: str, *arguments: str, **variables: str) -> list[dict]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record")}
        environment["SLURM_CPUS_PER_TASK"] = "6"
        path = next(path for path in SCRIPTS if path.name == script)
        done = subprocess.run(
            ["bash", path, *arguments], env=environment | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        calls = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
        assert {call["environment"].pop("CPUS") for call in calls} == {"6"}, "srun does not know it by itself"
        return calls

    return submit


def parses(arguments: list[str]) -> dict:
    """Parse a command line as the program would; gives its values."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    return command.make_context(name, arguments).params


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_the_shell_reads_it(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert os.access(script, os.X_OK)
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False, env={"PATH": os.defpath})
    assert done.returncode != 0
    assert "start this with sbatch" in done.stderr


def test_augment(submitted) -> None:
    calls = submitted("augment.sh", "my stills", "out", "--balance", SLURM_JOB_ID="1", SLURM_NTASKS="3")
    assert [call["environment"] for call in calls] == [
        {"RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": "0"} for rank in range(3)
    ]
    values = parses(calls[2]["argv"][1:])
    assert (str(values["data"]), str(values["out"]), values["balance"]) == ("my stills", "out", True)


def test_train(submitted) -> None:
    node = {"SLURM_JOB_ID": "41003", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2"}
    line = ["train-ldm", "my clips", "--ae", "runs/ae", "-o", "runs/ldm"]
    (call,) = submitted("train.sh", *line, **node, SLURM_GPUS_ON_NODE="8")
    own, arguments = call["argv"][1:], call["argv"][call["argv"].index("us_i2v") + 1 :]
    options = dict(zip(own[::2], own[1::2], strict=False))
    assert (options["--nnodes"], options["--nproc-per-node"], options["--rdzv-id"]) == ("2", "8", "41003")
    assert options["--rdzv-endpoint"] == "node7:21003"
    assert options["-m"] == "us_i2v"
    values = parses(arguments)
    assert values["resume"] is True
    assert [str(path) for path in values["data"]] == ["my clips"]


def test_table2(submitted) -> None:
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
    (call,) = submitted("table2.sh", "-o", "table2", "--videos", "busv", "--images", "busi", **array)
    values = parses(call["argv"][1:])
    assert (str(values["output"]), values["cells"]) == ("table2", "3/16")
