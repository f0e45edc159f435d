from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

import pytest

from lerobot_ray.config.encode import encode
from lerobot_ray.config.env import PushtEnvConfig, ReachEnvConfig
from lerobot_ray.config.files import save_train_config
from lerobot_ray.config.optim import AdamConfig, AdamWConfig, CosineDecayWithWarmupSchedulerConfig, SGDConfig
from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.config.policy_file import save_policy_config
from lerobot_ray.core.errors import LerobotRayError
from tests.config.configs import MINIMAL

LEROBOT_FILES = Path(__file__).parent / "lerobot_0_6_1"

# Every flag of lerobot-train, with a value.
LEROBOT_FLAGS = shlex.split("""
--dataset.repo_id=user/data --dataset.repo_type=dataset --dataset.root=data --dataset.episodes=[0,1]
--dataset.image_transforms.enable=true --dataset.image_transforms.max_num_transforms=2
--dataset.image_transforms.random_order=true
--dataset.image_transforms.tfs='{"b":{"weight":0.5,"type":"ColorJitter","kwargs":{"brightness":[0.8,1.2]}}}'
--dataset.revision=main --dataset.use_imagenet_stats=false --dataset.video_backend=torchcodec
--dataset.return_uint8=true --dataset.depth_output_unit=m --dataset.streaming=true --dataset.eval_split=0.1
--env.type=pusht --env.task=PushT-v0 --policy.type=act --policy.device=cpu --policy.push_to_hub=false
--policy.repo_id=u/p --output_dir=outputs/x --job_name=x --resume=false --seed=1 --cudnn_deterministic=true
--num_workers=4 --batch_size=4 --prefetch_factor=2 --persistent_workers=false
--dataloader_multiprocessing_context=fork --steps=10 --env_eval_freq=0 --log_freq=5 --eval_steps=2
--max_eval_samples=3 --tolerance_s=0.001 --save_checkpoint=true --save_freq=5 --save_checkpoint_to_hub=true
--use_policy_training_preset=true --optimizer.type=adamw --optimizer.lr=1e-4 --optimizer.betas=[0.9,0.99]
--scheduler.type=diffuser --scheduler.name=cosine --scheduler.num_warmup_steps=3 --eval.n_episodes=1
--eval.batch_size=1 --eval.use_async_envs=false --eval.recording=true --eval.recording_repo_id=u/r
--eval.recording_private=true --wandb.enable=false --wandb.disable_artifact=true --wandb.project=p --wandb.entity=e
--wandb.notes=n --wandb.run_id=r --wandb.mode=offline --wandb.add_tags=false --peft.method_type=LORA --peft.r=4
--peft.target_modules='["a","b"]' --peft.full_training_modules='["c"]' --peft.init_type=gaussian --peft.lora_alpha=8
--policy.pretrained_path=base --job.target=local --job.image=i --job.timeout=1d --job.detach=true --job.tags='["a"]'
--sample_weighting.type=rabc --sample_weighting.progress_path=p --sample_weighting.head_mode=dense
--sample_weighting.kappa=0.1 --sample_weighting.epsilon=1e-5 --sample_weighting.extra_params='{"fallback_weight":0.5}'
--rename_map='{"a.b":"c.d"}'
""")
NEWER_LEROBOT_FLAGS = shlex.split("""
--dataset.exclude_episodes=[3] --checkpoint_format=dcp --parallelism.dp_replicate=2 --parallelism.dp_shard=-1
--parallelism.context_parallel.ring_degree=1 --parallelism.context_parallel.ulysses_degree=1
--parallelism.cfg_parallel=1 --accelerator.mixed_precision=no --accelerator.gradient_accumulation.steps=2
--accelerator.fsdp.reshard_after_forward=false --accelerator.fsdp.wrap_modules='["Block"]'
--accelerator.fsdp.min_num_params=null --accelerator.fsdp.cpu_offload=true --accelerator.fsdp.ignored_modules=null
--accelerator.ddp.find_unused_parameters=false --accelerator.ddp.gradient_as_bucket_view=true
--accelerator.ddp.static_graph=true --accelerator.compile.enabled=true --accelerator.compile.backend=eager
--accelerator.compile.mode=null --accelerator.compile.regional=false --accelerator.activation_checkpointing.mode=none
--ema.enable=true --ema.decay=null --ema.update_after_step=1 --ema.inv_gamma=1.0 --ema.power=0.7 --ema.min_decay=0.1
--ema.max_decay=0.99 --ema.use_for_eval=false
""")


def parse(*flags, **options):
    return parse_train_config([*MINIMAL, *flags], **options)


def refusal(*flags, **options) -> str:
    with pytest.raises(LerobotRayError) as error:
        parse_train_config([*flags], **options)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestFlags:
    def test_every_flag_of_both_lerobot_versions_arrives(self):
        flags = LEROBOT_FLAGS + NEWER_LEROBOT_FLAGS
        config = encode(parse_train_config(flags))
        for flag in flags:
            name, _, text = flag[2:].partition("=")
            value = config
            for key in name.split("."):
                value = value[key]
            plain = json.loads(json.dumps(value))
            wanted = text if isinstance(plain, str) else json.loads(text)
            assert plain == wanted, name

    def test_both_spellings(self):
        assert parse("--steps", "7", "--dataset.root", "d").steps == parse("--steps=7").steps == 7

    def test_the_last_one_counts(self):
        assert parse("--steps=7", "--steps=8").steps == 8

    def test_a_switch_alone_is_on(self):
        assert parse("--audit").audit is True
        assert parse("--audit", "--steps=3").audit is True

    def test_text_is_taken_as_typed(self):
        config = parse("--job_name=005000", "--policy.pretrained_revision=005000", "--wandb.notes=a: b [c")
        assert (config.job_name, config.policy.pretrained_revision) == ("005000", "005000")
        assert config.wandb.notes == "a: b [c"

    def test_null(self):
        config = parse("--seed=null", "--dataset.root=null", "--dataloader_multiprocessing_context=null")
        assert (config.seed, config.dataset.root, config.dataloader_multiprocessing_context) == (None, None, None)

    def test_auto_is_null_for_numbers(self):
        config = parse("--num_workers=auto", "--ray.num_workers=auto", "--ray.use_gpu=auto")
        assert (config.num_workers, config.ray.num_workers, config.ray.use_gpu) == (None, None, None)

    def test_sections_that_are_off_are_turned_on_by_their_flags(self):
        assert parse("--policy.pretrained_path=x").peft is None
        assert parse("--policy.pretrained_path=x", "--peft.r=4").peft == PeftConfig(r=4)

    def test_a_whole_section_as_text(self):
        assert parse("--env={type: reach, fps: 5}").env == ReachEnvConfig(fps=5)
        assert parse("--env={type: reach, fps: 5}", "--env.fps=6").env == ReachEnvConfig(fps=6)

    def test_discover_packages_path(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "my_plugin_for_parse.py").write_text("LOADED = True")
        assert parse("--policy.discover_packages_path=my_plugin_for_parse").steps == 100_000
        assert "cannot be imported" in refusal(*MINIMAL, "--policy.discover_packages_path=no_such_plugin")

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--stepz=3"], "--stepz=3: there is no such setting. Did you mean --steps?"),
            (["--dataset.epsiodes=[1]"], "Did you mean --dataset.episodes?"),
            (["--chunk_size=50"], "--chunk_size=50: there is no such setting. Did you mean --policy.chunk_size?"),
            (["--policy.chunk_siz=50"], "Did you mean --policy.chunk_size?"),
            (["--policy.horizon=50"], "--policy.horizon=50: there is no such setting."),
            (["--repo=x"], "there is no such setting."),
            (["--lr=1e-4"], "Did you mean --optimizer.lr?"),
            (["--optimizer.learning_rate=1"], "--optimizer.learning_rate=1: there is no such setting."),
            (["--ray.workers=2"], "Did you mean --ray.num_workers?"),
            (["--batch_size=eight"], "--batch_size=eight: expected a whole number, got 'eight'."),
            (["--batch_size=true"], "--batch_size=true: expected a whole number, got True."),
            (["--batch_size"], "--batch_size=true: expected a whole number, got True."),
            (["--batch_size="], "--batch_size=: expected a whole number, got null."),
            (["--dataset.episodes=3"], "--dataset.episodes=3: expected a list of whole numbers, got 3."),
            (["--dataset.episodes=[1,x]"], "--dataset.episodes=[1,x]: expected a whole number, got 'x'."),
            (["--dataset.episodes=[1"], "--dataset.episodes=[1, line 1"),
            (["--dataset.order=shard"], "expected one of frames, shards, lerobot, sequential, got 'shard'."),
            (["--dataset.order=shard"], "Did you mean shards?"),
            (["--policy.type=actt"], "policy.type=actt is not a known kind of policy. Did you mean act?"),
            (["--policy.type=smolvla"], "needs lerobot, which brings it: pip install 'lerobot-ray[lerobot]'."),
            (["--policy.kind=act"], "--policy.kind=act: there is no such setting."),
            (["--optimizer.type=adamm"], "--optimizer.type=adamm: no such optimizer. Did you mean adam"),
            (["--optimizer=adamw"], "--optimizer=adamw: to choose a kind, write --optimizer.type=adamw."),
            (["--env.fps=3"], "--env.type is missing. Known: aloha, gym,"),
            (["--env.type=libero"], "env.type=libero needs an adapter that is not part of this package."),
            (["--rename_map.a.b=c"], "--rename_map.a.b=c: give the whole mapping as JSON or YAML text"),
            (["--reward_model.type=sarm"], "reward models are not trained here"),
            (["--dataset.repo_id=[a,b]"], None),
            (["--policy.push_to_hub=true"], "--policy.push_to_hub=true needs a repository."),
            (["steps=3"], "'steps=3' is not a flag. Flags are written --name=value."),
            (["--"], "'--' is not a flag."),
            (["--a..b=1"], "--a..b: there is no such setting."),
            (["--policy.n_action_steps=200"], "policy.n_action_steps=200 is more than policy.chunk_size=100"),
        ],
    )
    def test_errors(self, flags, message):
        if message is None:  # a name as good as another, for the storage to refuse
            assert parse(*flags).dataset.repo_id == "[a,b]"
            return
        assert message in refusal(*MINIMAL, *flags)

    def test_no_policy_and_no_dataset(self):
        assert refusal("--dataset.repo_id=a").startswith("no policy. Give --policy.type=act")
        assert refusal("--policy.type=act") == "dataset.repo_id is missing. Add --dataset.repo_id=<text>."
        assert refusal() == "dataset.repo_id is missing. Add --dataset.repo_id=<text>."


class TestNotices:
    def said(self, caplog, *flags) -> list[str]:
        with caplog.at_level(logging.WARNING, logger="lerobot_ray"):
            parse_train_config(flags)
        return [record.getMessage() for record in caplog.records]

    @pytest.mark.parametrize(
        "flag",
        [
            "--persistent_workers=true",
            "--dataloader_multiprocessing_context=fork",
            "--dataset.video_backend=pyav",
            "--dataset.return_uint8=true",
        ],
    )
    def test_a_flag_without_meaning_says_so_once(self, caplog, flag):
        said = self.said(caplog, *MINIMAL, flag)
        assert len(said) == 1
        assert said[0].startswith(flag.split("=")[0] + " has no effect: ")
        assert said[0].endswith(".")

    def test_flags_with_meaning_say_nothing(self, caplog):
        assert self.said(caplog, *MINIMAL, "--steps=3", "--num_workers=4") == []

    def test_files_of_lerobot_say_nothing(self, caplog):
        assert self.said(caplog, f"--config_path={LEROBOT_FILES / 'act'}") == []

    def test_a_file_written_by_hand_does(self, caplog, tmp_path):
        run = tmp_path / "run.yaml"
        run.write_text("dataset: {repo_id: a, return_uint8: true}\npolicy: {type: act}\npersistent_workers: false\n")
        said = self.said(caplog, f"--config_path={run}")
        assert [line.split(" has")[0] for line in said] == [
            f"{run}: persistent_workers",
            f"{run}: dataset.return_uint8",
        ]


class TestConfigPath:
    @pytest.fixture
    def run(self, tmp_path):
        """The folder of a run with two checkpoints and `last` on the second."""
        for step in (10, 20):
            config = parse(f"--steps={step}", "--output_dir=out", "--dataset.order=shards", "--resume=auto")
            save_train_config(config, tmp_path / "run" / "checkpoints" / f"{step:06d}" / "pretrained_model")
        (tmp_path / "run" / "checkpoints" / "last").symlink_to("000020")
        return tmp_path / "run"

    @pytest.mark.parametrize(
        ("path", "steps"),
        [
            (".", 20),
            ("checkpoints/000010", 10),
            ("checkpoints/000010/pretrained_model", 10),
            ("checkpoints/000010/pretrained_model/train_config.json", 10),
            ("checkpoints/last", 20),
        ],
    )
    def test_all_that_it_takes(self, run, path, steps):
        config = parse_train_config([f"--config_path={run / path}", "--batch_size=3"])
        assert (config.steps, config.batch_size, config.dataset.order) == (steps, 3, "shards")
        assert (config.resume, config.checkpoint_path) == (False, None)

    def test_a_run_without_its_link(self, run):
        (run / "checkpoints" / "last").unlink()
        assert parse_train_config([f"--config_path={run}"]).steps == 20

    def test_yaml(self, tmp_path):
        file = tmp_path / "run.yaml"
        file.write_text(
            "dataset:\n  repo_id: a\n  episodes: [0, 2]\npolicy:\n  type: act\n  chunk_size: 20\nsteps: 1e4\n"
        )
        config = parse_train_config([f"--config_path={file}", "--policy.n_action_steps=10", "--steps=3"])
        assert (config.policy.chunk_size, config.policy.n_action_steps, config.steps) == (20, 10, 3)
        assert config.dataset.episodes == [0, 2]

    def test_flags_name_themselves_and_files_their_keys(self, tmp_path):
        file = tmp_path / "run.yaml"
        file.write_text("dataset: {repo_id: a}\npolicy: {type: act, chunk_sise: 3}\n")
        assert refusal(f"--config_path={file}") == (
            f"{file}: policy.chunk_sise: there is no such setting. Did you mean policy.chunk_size?"
        )
        file.write_text("dataset: {repo_id: a}\npolicy: {type: actt}\n")
        assert refusal(f"--config_path={file}").startswith(f"{file}: policy.type=actt is not a known kind")
        file.write_text("dataset: {repo_id: a}\npolicy: {type: act}\nsteps: 0\n")
        assert refusal(f"--config_path={file}", "--batch_size=3x").startswith("--batch_size=3x: expected")

    def test_another_type_replaces_the_files_policy(self, tmp_path):
        file = tmp_path / "run.yaml"
        file.write_text("dataset: {repo_id: a}\npolicy: {type: act, n_action_steps: 20}\nenv: {type: reach, fps: 5}\n")
        config = parse_train_config(
            [f"--config_path={file}", "--policy.horizon=32", "--policy.type=diffusion", "--env.type=pusht"]
        )
        assert (config.policy.type, config.policy.horizon) == ("diffusion", 32)
        assert config.env == PushtEnvConfig()
        assert parse_train_config([f"--config_path={file}", "--env=null"]).env is None

    def test_resume(self, run):
        config = parse_train_config([f"--config_path={run}", "--resume=true", "--steps=50"])
        assert (config.resume, config.steps, config.output_dir) == (True, 50, Path("out"))
        assert config.checkpoint_path == run / "checkpoints" / "last"
        direct = run / "checkpoints" / "000010" / "pretrained_model" / "train_config.json"
        config = parse_train_config([f"--config_path={direct}", "--resume=true"])
        assert config.checkpoint_path == run / "checkpoints" / "000010"

    def test_resume_auto(self):
        assert parse("--resume=auto", "--output_dir=o").resume == "auto"
        assert refusal(*MINIMAL, "--resume=auto") == (
            "resume=auto continues what output_dir holds. Add --output_dir=<folder>."
        )

    def test_resume_without_a_checkpoint(self, tmp_path):
        assert "there is no --config_path" in refusal(*MINIMAL, "--resume=true")
        file = tmp_path / "run.yaml"
        file.write_text("dataset: {repo_id: a}\npolicy: {type: act}\n")
        assert "run.yaml is not in one" in refusal(f"--config_path={file}", "--resume=true")

    def test_what_is_not_there(self, tmp_path):
        assert (
            refusal("--config_path=nothing.yaml") == "--config_path=nothing.yaml is neither a file nor a folder here."
        )
        assert "no train_config.json in this folder" in refusal(f"--config_path={tmp_path}")
        assert "not fetched from the Hub" in refusal("--config_path=user/policy")

    def test_a_repository_is_asked_of_the_caller(self, run):
        asked = []

        def fetch(repo_id, *, revision, what):
            asked.append((repo_id, revision))
            return run

        assert parse_train_config(["--config_path=user/policy"], fetch=fetch).steps == 20
        assert asked == [("user/policy", None)]


class TestPolicyPath:
    @pytest.fixture
    def folder(self, tmp_path):
        policy = parse("--policy.chunk_size=20", "--policy.n_action_steps=10", "--policy.repo_id=user/base").policy
        policy.pretrained_revision = "old"
        save_policy_config(policy, tmp_path / "base")
        return tmp_path / "base"

    def test_flags_are_laid_over_it(self, folder):
        config = parse_train_config(["--dataset.repo_id=a", f"--policy.path={folder}", "--policy.n_action_steps=5"])
        assert (config.policy.type, config.policy.chunk_size, config.policy.n_action_steps) == ("act", 20, 5)
        assert (config.policy.pretrained_path, config.policy.pretrained_revision) == (str(folder), None)

    def test_the_base_is_not_pushed_over(self, folder):
        flags = ["--dataset.repo_id=a", f"--policy.path={folder}"]
        assert parse_train_config(flags).policy.repo_id is None
        assert parse_train_config([*flags, "--policy.repo_id=user/new"]).policy.repo_id == "user/new"

    def test_a_checkpoint_will_do(self, folder):
        (folder.parent / "000010").mkdir()
        folder.rename(folder.parent / "000010" / "pretrained_model")
        config = parse_train_config(["--dataset.repo_id=a", f"--policy.path={folder.parent / '000010'}"])
        assert config.policy.pretrained_path == str(folder.parent / "000010" / "pretrained_model")

    def test_in_yaml(self, folder, tmp_path):
        file = tmp_path / "run.yaml"
        file.write_text(f"dataset: {{repo_id: a}}\npolicy:\n  path: {folder}\n  n_action_steps: 5\n")
        config = parse_train_config([f"--config_path={file}", "--policy.device=cpu"])
        assert (config.policy.chunk_size, config.policy.n_action_steps, config.policy.device) == (20, 5, "cpu")
        config = parse_train_config([f"--config_path={file}", "--policy.type=diffusion"])
        assert (config.policy.type, config.policy.pretrained_path) == ("diffusion", None)

    def test_path_and_type_exclude_one_another(self, folder, tmp_path):
        assert "exclude one another" in refusal(*MINIMAL, f"--policy.path={folder}")
        file = tmp_path / "run.yaml"
        file.write_text(f"dataset: {{repo_id: a}}\npolicy: {{path: {folder}, type: act}}\n")
        assert "exclude one another" in refusal(f"--config_path={file}")
        file.write_text("dataset: {repo_id: a}\npolicy: {type: diffusion, horizon: 32}\n")
        config = parse_train_config([f"--config_path={file}", f"--policy.path={folder}"])
        assert (config.policy.type, config.policy.chunk_size) == ("act", 20)

    def test_errors_name_its_file(self, folder):
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "chunk_sise": 3}))
        said = refusal("--dataset.repo_id=a", f"--policy.path={folder}")
        assert said.startswith(f"{folder / 'config.json'}: chunk_sise: there is no such setting.")
        (folder / "config.json").unlink()
        assert "no config.json in this folder" in refusal("--dataset.repo_id=a", f"--policy.path={folder}")
        assert "neither a file nor a folder" in refusal("--dataset.repo_id=a", "--policy.path=./nowhere/at/all")

    def test_a_repository_is_asked_of_the_caller(self, folder):
        asked = []

        def fetch(repo_id, *, revision, what):
            asked.append((repo_id, revision))
            return folder

        flags = ["--dataset.repo_id=a", "--policy.path=user/base", "--policy.pretrained_revision=005000"]
        config = parse_train_config(flags, fetch=fetch)
        assert asked == [("user/base", "005000")]
        assert (config.policy.pretrained_path, config.policy.pretrained_revision) == ("user/base", "005000")


class TestPresets:
    def test_presets_fill_in(self):
        assert parse().optimizer == AdamWConfig(lr=1e-5, weight_decay=1e-4, grad_clip_norm=10.0)
        assert parse().scheduler is None
        assert parse("--policy.optimizer_lr=3e-4").optimizer.lr == 3e-4

    def test_what_is_given_is_applied_on_top(self):
        config = parse("--optimizer.lr=3e-4", "--scheduler.type=constant_with_warmup")
        assert config.optimizer == AdamWConfig(lr=3e-4, weight_decay=1e-4, grad_clip_norm=10.0)
        assert config.scheduler.num_warmup_steps == 1000

    def test_another_type_keeps_what_both_have(self):
        config = parse("--policy.type=diffusion", "--optimizer.type=adamw", "--optimizer.weight_decay=0.1")
        assert config.optimizer == AdamWConfig(lr=1e-4, weight_decay=0.1, betas=(0.95, 0.999), grad_clip_norm=10.0)
        assert parse("--optimizer.type=sgd", "--optimizer.momentum=0.9").optimizer == SGDConfig(1e-5, 1e-4, 10.0, 0.9)

    def test_no_schedule(self):
        assert parse("--policy.type=diffusion").scheduler is not None
        assert parse("--policy.type=diffusion", "--scheduler=null").scheduler is None

    def test_a_schedule_lacks_what_it_needs(self):
        said = refusal(*MINIMAL, "--scheduler.type=cosine_decay_with_warmup", "--scheduler.peak_lr=1e-3")
        assert said.startswith("scheduler.num_warmup_steps is missing.")
        flags = [f"--scheduler.{name}=10" for name in ("num_warmup_steps", "num_decay_steps")]
        config = parse(
            "--scheduler.type=cosine_decay_with_warmup", *flags, "--scheduler.peak_lr=1", "--scheduler.decay_lr=0"
        )
        assert config.scheduler == CosineDecayWithWarmupSchedulerConfig(10, 10, 1.0, 0.0)

    def test_a_saved_run_is_read_as_it_was(self, tmp_path):
        config = parse("--policy.type=diffusion", "--optimizer.lr=3e-4", "--scheduler=null", "--output_dir=o")
        save_train_config(config, tmp_path)
        again = parse_train_config([f"--config_path={tmp_path}"])
        assert (again.optimizer, again.scheduler) == (config.optimizer, None)

    def test_flags_reach_through_a_saved_run(self, tmp_path):
        """A saved run's file holds the result of presets and flags; only what flags gave is kept for another policy."""
        save_train_config(parse("--optimizer.lr=3e-4", "--output_dir=o"), tmp_path)
        path = f"--config_path={tmp_path}"
        assert parse_train_config([path, "--policy.optimizer_weight_decay=0"]).optimizer == AdamWConfig(3e-4, 0.0)
        assert parse_train_config([path, "--optimizer.lr=1e-3"]).optimizer.lr == 1e-3
        assert parse_train_config([path, "--optimizer=null"]).optimizer.lr == 1e-5
        other = parse_train_config([path, "--policy.type=diffusion"])
        assert other.optimizer == AdamConfig(lr=3e-4, weight_decay=1e-6, betas=(0.95, 0.999))

    def test_a_file_from_before_presets(self, tmp_path):
        values = json.loads((LEROBOT_FILES / "diffusion" / "train_config.json").read_text())
        (tmp_path / "train_config.json").write_text(json.dumps({**values, "optimizer": None, "scheduler": None}))
        config = parse_train_config([f"--config_path={tmp_path}"])
        assert config.optimizer.lr == 3e-4
        assert config.scheduler.type == "diffuser"

    def test_by_hand(self):
        off = "--use_policy_training_preset=false"
        assert parse(off, "--optimizer.type=adam").optimizer == AdamConfig()
        assert parse(off, "--optimizer.type=adam").scheduler is None
        assert "needs an optimizer. Add --optimizer.type=adamw." in refusal(*MINIMAL, off)
        assert "optimizer.type is missing" in refusal(*MINIMAL, off, "--optimizer.lr=1")
