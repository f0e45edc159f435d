"""continue_training.py CHECKPOINT BATCH OUTPUT: one more optimizer step from a checkpoint, with LeRobot.

Writes the loss before and every parameter after the step.
"""

import sys
from pathlib import Path

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.optim.optimizers import load_optimizer_state
from lerobot.optim.schedulers import load_scheduler_state
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from safetensors.torch import load_file, save_file

checkpoint, batch_path, output_path = Path(sys.argv[1]), *sys.argv[2:]
folder, state = checkpoint / "pretrained_model", checkpoint / "training_state"
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder)
pre, _ = make_pre_post_processors(config, pretrained_path=str(folder))
optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
preset = config.get_scheduler_preset()
schedule = preset.build(optimizer, 10) if preset else None
optimizer = load_optimizer_state(optimizer, state)
if schedule is not None:
    schedule = load_scheduler_state(schedule, state)

policy.train()
torch.manual_seed(0)
loss, _ = policy.forward(pre(load_file(batch_path)))
loss.backward()
optimizer.step()
if schedule is not None:
    schedule.step()
found = {f"parameter/{name}": value for name, value in policy.named_parameters()}
found["loss"] = loss
found["lr"] = torch.tensor([group["lr"] for group in optimizer.param_groups], dtype=torch.float64)
save_file({key: value.detach().contiguous().clone() for key, value in found.items()}, output_path)
