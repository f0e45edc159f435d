"""run_adapter.py FOLDER BATCH OUTPUT: loads an adapter as lerobot-train does and writes its base's and its actions."""

import sys

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file

STEPS = 4
folder, batch_path, output_path = sys.argv[1:]
config = PreTrainedConfig.from_pretrained(folder)
assert config.use_peft
adapter = PeftConfig.from_pretrained(folder)
base = get_policy_class(config.type).from_pretrained(adapter.base_model_name_or_path, config=config)
batch = load_file(batch_path)


def actions(policy):
    policy.eval()
    policy.reset()
    torch.manual_seed(0)
    return torch.stack([policy.select_action(dict(batch)) for _ in range(STEPS)])


found = {"base": actions(base)}  # before the adapter: it replaces layers in this very object
found["adapted"] = actions(PeftModel.from_pretrained(base, folder, config=adapter))
save_file({name: value.detach().contiguous().clone() for name, value in found.items()}, output_path)
