"""What goes to the Hub beyond what the policy's own fields say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class HubConfig:
    """Checkpoints on the Hub (`save_checkpoint_to_hub`, `policy.repo_id`)."""

    what: Literal["all", "model"] = "all"
    """all: everything a resume needs. model: without the optimizer's state, which is twice the size of the model."""
