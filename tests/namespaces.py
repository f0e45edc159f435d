"""Namespaces of Linux: processes of one's own, which `ray stop` and its like may kill; another machine's name."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest


def in_own_processes(*command: str) -> list[str]:
    """The command line that runs `command` as the first process of a new namespace, which ends with it."""
    return [*_unshare("--pid", "--fork", "--kill-child", "--mount-proc"), *command]


def on_a_machine_called(name: str, *command: str) -> list[str]:
    """The command line that runs `command` where the host has this name: a cluster cannot tell it from another one."""
    return [*_unshare("--uts"), "sh", "-c", 'hostname "$0" && exec "$@"', name, *command]


@functools.cache
def _unshare(*words: str) -> list[str]:
    """`unshare` with these words, as root or as a user. Skips the test where the system allows neither."""
    for command in (["unshare", *words], ["unshare", "--user", "--map-root-user", *words]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("this machine lets nobody make namespaces (unshare)")
