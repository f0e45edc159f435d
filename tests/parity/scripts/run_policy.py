"""run_policy.py FOLDER BATCH OUTPUT: loads a policy and its processors with LeRobot and writes what they give.

BATCH holds raw tensors: a training batch under its own keys, observations of a rollout under `rollout/<t>/<key>`.
"""

import sys

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from safetensors.torch import load_file, save_file

folder, batch_path, output_path = sys.argv[1:]
raw = load_file(batch_path)
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder)
pre, post = make_pre_post_processors(config, pretrained_path=folder)
policy.eval()

batch = {key: value for key, value in raw.items() if not key.startswith("rollout/")}
ready = pre(dict(batch))
found = {f"pre/{key}": value for key, value in ready.items() if isinstance(value, torch.Tensor)}
torch.manual_seed(0)
with torch.no_grad():
    found["loss"] = policy.forward(ready)[0]

policy.reset()
torch.manual_seed(1)
steps = sorted({int(key.split("/")[1]) for key in raw if key.startswith("rollout/")})
for t in steps:
    observation = {key.split("/", 2)[2]: value for key, value in raw.items() if key.startswith(f"rollout/{t}/")}
    found[f"action/{t}"] = post(policy.select_action(pre(observation)))
save_file({key: value.contiguous().clone() for key, value in found.items()}, output_path)
