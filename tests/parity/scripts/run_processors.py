"""run_processors.py FOLDER BATCH TASKS OUTPUT: both pipelines of a folder, loaded and applied by LeRobot.

TASKS is a JSON list of texts. Writes what comes out, and both pipelines saved again beside OUTPUT in `again/`.
"""

import json
import sys
from pathlib import Path

import torch
from lerobot.policies.factory import PolicyProcessorPipeline
from lerobot.processor import policy_action_to_transition, transition_to_policy_action
from safetensors.torch import load_file, save_file

folder, batch_path, tasks, output_path = sys.argv[1:]
names = json.loads((Path(folder) / "policy_preprocessor.json").read_text())["steps"]
if any(step["registry_name"].startswith("pi0_") for step in names):
    import lerobot.policies.pi0.processor_pi0
if any(step["registry_name"].startswith("pi05_") for step in names):
    import lerobot.policies.pi05.processor_pi05  # noqa: F401

pre = PolicyProcessorPipeline.from_pretrained(folder, "policy_preprocessor.json")
post = PolicyProcessorPipeline.from_pretrained(
    folder,
    "policy_postprocessor.json",
    to_transition=policy_action_to_transition,
    to_output=transition_to_policy_action,
)
done = pre({**load_file(batch_path), "task": json.loads(tasks)})
found = {f"pre/{key}": value for key, value in done.items() if isinstance(value, torch.Tensor)}
found["post"] = post(done["action"])
save_file({key: value.contiguous().clone() for key, value in found.items()}, output_path)
for pipeline in (pre, post):
    pipeline.save_pretrained(Path(output_path).parent / "again")
Path(output_path).with_suffix(".json").write_text(json.dumps({"keys": list(done), "task": done["task"]}))
