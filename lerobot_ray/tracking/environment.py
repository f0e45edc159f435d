"""What a run runs on: versions, hardware, the code's commit. Gathered from this process, without a network."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

MAIN_PACKAGES = ("lerobot-ray", "torch", "ray", "datasets", "pyarrow", "av", "safetensors", "huggingface_hub", "peft")
_GIT_TIMEOUT_S = 5.0


def describe_environment() -> dict[str, Any]:
    """JSON values. Devices are those of torch if this process has imported it; `packages` is everything installed."""
    packages = installed_packages()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": _num_cpus(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        **_devices(),
        "versions": {name: packages[name] for name in MAIN_PACKAGES if name in packages},
        "packages": packages,
    }


def installed_packages() -> dict[str, str]:
    """Name -> version of every installed distribution."""
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(filter(None, found), key=str.lower)}


def describe_code(folder: Path) -> dict[str, Any]:
    """The git commit of a folder and whether files differ from it; empty where there is no repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {"git_commit": commit, "git_dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # not imported for this: it takes seconds
    if torch is None:
        return {}
    if not torch.cuda.is_available():
        return {"devices": ["cpu"]}
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"devices": names, "cuda": torch.version.cuda}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
