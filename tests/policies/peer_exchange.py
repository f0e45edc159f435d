"""Run by `test_peer.py` under LeRobot's interpreter: LeRobot's side of an exchange of policy folders.

peer_exchange.py ROOT     loads ROOT/here/<case>, and writes ROOT/there/<case>, with the actions of both
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from tests.policies.cases import CASES, ROLLOUT_STEPS, Case
from tests.policies.make_policy_goldens import build, get_policy_class


def actions(policy, case: Case) -> np.ndarray:
    policy.reset()
    torch.manual_seed(1)
    return np.stack([policy.select_action(case.observation(i)).numpy() for i in range(ROLLOUT_STEPS)])


def main(root: Path) -> None:
    torch.set_num_threads(1)
    for name in (path.name for path in sorted((root / "here").iterdir())):
        case = CASES[name]
        loaded = get_policy_class(case.type).from_pretrained(root / "here" / name, strict=True)
        torch.manual_seed(5)
        own = build(case).eval()
        own.save_pretrained(root / "there" / name)
        np.savez(root / "there" / f"{name}.npz", loaded=actions(loaded, case), own=actions(own, case))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
