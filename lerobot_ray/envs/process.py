"""An environment in a process of its own: it may crash, hang or leak, and its episode is all that is lost.

The process is started by itself rather than through multiprocessing: it imports neither the program that evaluates (a
script, a Ray worker) nor torch, and it is not a fork of a process with threads.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from lerobot_ray.config.env import EnvConfig
from lerobot_ray.core.errors import EnvError
from lerobot_ray.envs.hosts import BUILD_TIMEOUT_S, EnvFailed, close_quietly, in_words
from lerobot_ray.envs.stage import Stage

ORPHAN_CHECK_S = 2.0


class ProcessHost:
    """See `hosts.EnvHost`. The process starts with the first question, and anew with the first one after a failure."""

    def __init__(self, config: EnvConfig, *, timeout_s: float) -> None:
        # By value where a class is defined in the program itself, which the other process does not import.
        self._config, self._timeout_s = cloudpickle.dumps(config), timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._is_built, self._asked, self._gave_up_after_s = False, "", 0.0
        self.connection: Connection | None = None
        self.deadline = float("inf")
        self._start()

    def ask_spec(self) -> None:
        self._ask("spec")

    def ask_reset(self, seed: int, *, with_picture: bool) -> None:
        self._ask("reset", seed, with_picture)

    def ask_step(self, action: np.ndarray, *, with_picture: bool) -> None:
        self._ask("step", action, with_picture)

    def answer(self) -> Any:
        if limit_s := self._gave_up_after_s:
            self._end()
            raise EnvFailed(f"{self._asked} took more than {limit_s:g} s")
        assert self.connection is not None
        try:
            is_fine, value = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise EnvFailed(f"the environment's process ended in {self._asked} ({self._how_it_ended()})") from None
        self._is_built = True
        if not is_fine:
            self._end()  # what an environment is like after it raised, nobody knows
            raise EnvFailed(value)
        return value

    def give_up(self) -> None:
        self._gave_up_after_s = self._limit_s

    def close(self) -> None:
        self._end()

    def _ask(self, method: str, *arguments: Any) -> None:
        if self._process is None:
            self._start()
        assert self.connection is not None
        self._asked = method if self._is_built else f"building the environment, then {method},"
        self.deadline = time.monotonic() + self._limit_s
        try:
            self.connection.send_bytes(pickle.dumps((method, arguments), protocol=5))
        except OSError:  # it ended by itself since the last answer; `answer` will say how
            return

    @property
    def _limit_s(self) -> float:
        return self._timeout_s if self._is_built else max(self._timeout_s, BUILD_TIMEOUT_S)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "lerobot_ray.envs.process", str(theirs.fileno()), str(os.getpid())]
            # What this process can import, that one can: scripts add folders to sys.path, Ray adds working_dir.
            paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths}
            )
        self.connection = Connection(ours.detach())
        self._is_built, self._gave_up_after_s = False, 0.0
        try:
            self.connection.send_bytes(self._config)
        except OSError:  # the first answer will say how it ended
            return

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            code = None
        self._end()
        if code is None:
            return "it stopped answering"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _end(self) -> None:
        process, self._process = self._process, None
        connection, self.connection = self.connection, None
        self._gave_up_after_s, self.deadline = 0.0, float("inf")
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.wait()


def serve(connection: Connection) -> None:
    """What the other process does: one environment, question by question, until nobody asks any more."""
    try:
        stage = Stage(pickle.loads(connection.recv_bytes()))
    except EOFError:
        return
    except Exception as error:
        _send(connection, (False, in_words(error)))
        _wait_for_end(connection)  # a closed end might take the answer with it
        return
    while True:
        try:
            method, arguments = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            break
        try:
            answer = (True, getattr(stage, method)(*arguments))
        except Exception as error:
            answer = (False, in_words(error))
        if not _send(connection, answer):
            break
    close_quietly(stage)


def _wait_for_end(connection: Connection) -> None:
    try:
        while True:
            connection.recv_bytes()
    except (EOFError, OSError):
        return


def _send(connection: Connection, answer: tuple[bool, Any]) -> bool:
    try:
        connection.send_bytes(pickle.dumps(answer, protocol=5))
    except OSError:
        return False
    return True


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone, even if the environment hangs."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise EnvError("lerobot_ray.envs.process is started by an evaluation, not by hand.")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which ends this one
    threading.Thread(target=end_with, args=(int(argv[1]),), daemon=True).start()
    serve(Connection(int(argv[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
