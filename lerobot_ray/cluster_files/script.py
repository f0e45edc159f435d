"""Slurm and shell scripts: what must be set in them, and what must not be in them."""

from __future__ import annotations

import re
import shutil
import subprocess

from lerobot_ray.cluster_files.findings import Finding
from lerobot_ray.cluster_files.rules import marks_in


def check_script(text: str) -> tuple[str, list[Finding]]:
    """A line on what it starts, and the findings."""
    found = [*_syntax(text), *_unset(text), *_security(text), *_head(text)]
    return _in_words(text), found


def _syntax(text: str) -> list[Finding]:
    bash = shutil.which("bash")
    if bash is None:
        return []
    done = subprocess.run([bash, "-n"], input=text, text=True, capture_output=True, check=False)
    return [
        Finding(
            level="error",
            message=f"is not a shell script: {match.group(2)}.",
            remedy="Look for a missing quote, `fi` or `done`.",
            line=int(match.group(1)),
        )
        for match in re.finditer(r"line (\d+): (.+)", done.stderr)
    ][:1]


def _unset(text: str) -> list[Finding]:
    return [
        Finding(level="unset", message=f"yours to set: {what}.", line=number)
        for number, line in enumerate(text.splitlines(), 1)
        for what in marks_in(line)
    ]


def _security(text: str) -> list[Finding]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        code = line.split("#", 1)[0] if not line.startswith("#SBATCH") else line
        if re.search(r"--dashboard-host[= ]+(0\.0\.0\.0|::)", code):
            found.append(
                Finding(
                    level="error",
                    message="opens the dashboard and the job server to the network.",
                    remedy="Leave --dashboard-host out and reach them through SSH.",
                    line=number,
                )
            )
    if "ray start" in text and not re.search(r"RAY_AUTH_MODE=['\"]?token", text):
        found.append(
            Finding(
                level="error",
                message="token authentication is off: other users of the machines run code as you.",
                remedy="export RAY_AUTH_MODE=token, and a token file only you can read, before `ray start`.",
            )
        )
    return found


def _head(text: str) -> list[Finding]:
    joined = text.replace("\\\n", " ").splitlines()
    heads = [line for line in joined if "ray start" in line and "--head" in line and not line.lstrip().startswith("#")]
    if "#SBATCH" in text and any(not re.search(r"--num-cpus[= ]+0", line) for line in heads):
        return [
            Finding(
                level="error",
                message="the head offers CPUs to work.",
                remedy="Start it with --num-cpus=0 --num-gpus=0, and a worker beside it.",
            )
        ]
    return []


def _in_words(text: str) -> str:
    wanted = dict(re.findall(r"^#SBATCH\s+--([\w-]+)=(\S+)", text, re.MULTILINE))
    if not wanted:
        return "  script  starts Ray on this machine"
    nodes = wanted.get("nodes", "1")
    parts = [f"{nodes} node{'s' if nodes != '1' else ''}"]
    if "gpus-per-node" in wanted:
        parts.append(f"{wanted['gpus-per-node']} GPUs each")
    if "cpus-per-task" in wanted:
        parts.append(f"{wanted['cpus-per-task']} CPUs each")
    return (
        f"  script  Slurm job: {', '.join(parts)}, for at most {wanted.get('time', 'the partition’s limit')}\n"
        "  starts  Ray on all of them when Slurm gives them, then the command\n"
        "  grows   never: a Slurm job has the nodes it was given\n"
        "  ends    with the command, or at the time limit"
    )
