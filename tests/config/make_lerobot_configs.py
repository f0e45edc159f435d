"""Makes the files of `lerobot_0_6_1/` with LeRobot itself; run by hand with an interpreter that has it.

    <python with lerobot 0.6.1> tests/config/make_lerobot_configs.py tests/config/lerobot_0_6_1

They are what `lerobot-train` saves beside a checkpoint: parsed from flags, validated, presets applied. Written with
lerobot 0.6.1, draccus 0.11.6, Python 3.12.
"""

import os
import sys
from pathlib import Path

RUNS = {
    "act": ["--policy.type=act", "--policy.push_to_hub=false", "--dataset.episodes=[0,2]", "--job_name=a"],
    "diffusion": [
        "--policy.type=diffusion",
        "--policy.repo_id=user/policy",
        "--policy.optimizer_lr=3e-4",
        "--dataset.image_transforms.enable=true",
        "--seed=null",
    ],
    "pusht": ["--policy.type=act", "--policy.push_to_hub=false", "--env.type=pusht", "--eval.n_episodes=3"],
    "by_hand": [
        "--policy.type=diffusion",
        "--policy.push_to_hub=false",
        "--use_policy_training_preset=false",
        "--optimizer.type=sgd",
        "--optimizer.momentum=0.9",
        "--scheduler.type=constant_with_warmup",
        "--sample_weighting.type=uniform",
        "--wandb.enable=true",
        "--wandb.mode=offline",
    ],
}
COMMON = ["--dataset.repo_id=local/data", "--dataset.root=data", "--policy.device=cpu"]


def main(folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import draccus
    import lerobot.envs.configs
    import lerobot.policies  # noqa: F401  (registers the policy types)
    from lerobot.configs.train import TrainPipelineConfig

    for name, flags in RUNS.items():
        flags = [*flags, *COMMON, f"--output_dir=outputs/{name}"]
        sys.argv = ["lerobot-train", *flags]
        config = draccus.parse(TrainPipelineConfig, args=flags)
        config.validate()
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(target)
        config.policy.save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
