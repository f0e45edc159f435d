"""Base plus adapter is the trained model: for several methods, saved, loaded again and merged."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.core.errors import CheckpointError, ConfigError, PolicyError
from lerobot_ray.policies.adapters.attach import adapter_of, attach_new, is_quantised
from lerobot_ray.policies.adapters.load import merge_adapter
from lerobot_ray.policies.adapters.plan import adapter_size, build_adapted, plan_adapter, policy_of_run
from lerobot_ray.policies.protocol import PretrainedPolicy
from lerobot_ray.policies.registry import build_policy
from tests.policies.build import config_of, filled
from tests.policies.cases import CASES

ACT, DIFFUSION = "act_vae_two_cameras", "diffusion_resize_groups"


def saved_base(name, folder, **options):
    policy = filled(CASES[name], **options)
    policy.save_pretrained(folder)
    return str(folder)


def based_on(name, base, **options):
    return config_of(CASES[name], pretrained_path=base, **options)


def train(policy, case, steps=3):
    policy.train()
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    for number in range(steps):
        torch.manual_seed(number)
        loss, _ = policy(case.batch(number) | {"stream_index": torch.arange(2)})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def chunk(policy, case):
    policy.eval().reset()
    torch.manual_seed(5)
    return policy.predict_action_chunk(case.observation(0))


@pytest.fixture(scope="module")
def act_base(tmp_path_factory):
    return saved_base(ACT, tmp_path_factory.mktemp("act") / "base")


@pytest.mark.parametrize(
    ("name", "peft"),
    [
        (ACT, PeftConfig(r=4)),
        (ACT, PeftConfig(r=4, target_modules="all-linear")),
        (ACT, PeftConfig(r=2, target_modules=["linear1", "conv2"], full_training_modules=["action_head"])),
        (ACT, PeftConfig(method_type="miss", r=4, target_modules=r".*\.linear[12]")),
        (ACT, PeftConfig(method_type="LOHA", r=4, target_modules="linear1")),
        (ACT, PeftConfig(method_type="OFT", r=4, target_modules=["linear1"])),
        (ACT, PeftConfig(method_type="VERA", r=4, target_modules=["linear1"])),
        (DIFFUSION, PeftConfig(r=4, init_type="gaussian", lora_alpha=16)),
    ],
    ids=["act", "all-linear", "conv", "miss", "loha", "oft", "vera", "diffusion"],
)
def test_base_plus_adapter_is_the_trained_model(tmp_path, name, peft):
    case = CASES[name]
    base = saved_base(name, tmp_path / "base")
    config = based_on(name, base)
    plan = plan_adapter(config, peft)
    size = adapter_size(config, plan)
    policy = build_adapted(config, plan, loads_weights=True)
    parameters = list(policy.parameters())
    assert (size.trained, size.total) == (
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(p.numel() for p in parameters),
    )
    frozen = {name: p.clone() for name, p in policy.named_parameters() if not p.requires_grad}
    fresh = chunk(policy, case).clone()
    if peft.method_type in ("LORA", "miss"):
        torch.testing.assert_close(fresh, chunk(build_policy(config), case))
    train(policy, case)
    assert not torch.allclose(chunk(policy, case), fresh)
    assert all(torch.equal(p, frozen[name]) for name, p in policy.named_parameters() if name in frozen)

    policy.config = policy_of_run(config, plan)
    policy.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "config.json",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    loaded = type(policy).from_pretrained(tmp_path / "adapter")
    assert isinstance(loaded, PretrainedPolicy)
    assert torch.equal(chunk(loaded, case), chunk(policy, case))
    again = build_policy(based_on(name, str(tmp_path / "adapter"), use_peft=True))
    assert torch.equal(chunk(again, case), chunk(policy, case))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = type(policy).from_pretrained(tmp_path / "merged")
    assert adapter_of(merged) is None
    assert not merged.config.use_peft
    torch.testing.assert_close(chunk(merged, case), chunk(policy, case), rtol=1e-4, atol=1e-5)


def test_the_files_are_lerobots(tmp_path, act_base):
    config = based_on(ACT, act_base)
    plan = plan_adapter(config, PeftConfig(r=4, target_modules=["linear1", "linear2"]))
    policy = build_adapted(config, plan, loads_weights=True)
    policy.config = policy_of_run(config, plan)
    policy.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == act_base
    assert settings["inference_mode"] is True
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 8)
    assert settings["target_modules"] == ["linear1", "linear2"]
    assert settings["modules_to_save"] == ["action_head"]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["use_peft"], saved["pretrained_path"]) == (True, act_base)
    keys = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert "base_model.model.model.encoder.layers.0.linear1.lora_A.weight" in keys
    assert "base_model.model.model.action_head.bias" in keys
    assert all("lora_" in key or "action_head" in key for key in keys)


def test_batch_norms_of_the_base_keep_their_statistics(tmp_path):
    name = "diffusion_shared"
    base = saved_base(name, tmp_path / "base", use_group_norm=False)
    config = based_on(name, base, use_group_norm=False)
    policy = build_adapted(config, plan_adapter(config, PeftConfig(r=2)), loads_weights=True)
    before = {key: value.clone() for key, value in policy.named_buffers()}
    assert any("running_mean" in key for key in before)
    train(policy, CASES[name])
    assert all(torch.equal(value, before[key]) for key, value in policy.named_buffers())


BAD = {
    "unknown method": (PeftConfig(method_type="LORRA"), r"LORRA is not a method .* Did you mean LORA\?"),
    "prompt": (PeftConfig(method_type="PREFIX_TUNING"), "a policy has no such prompt"),
    "adalora": (PeftConfig(method_type="ADALORA"), "is not trained here"),
    "unknown module": (
        PeftConfig(target_modules=["linear1", "liner2"]),
        r"liner2 is no module .* Did you mean linear2",
    ),
    "pattern": (PeftConfig(target_modules=r"model\.encdr\..*"), "is no module of ACTPolicy"),
    "no pattern": (PeftConfig(target_modules="model.("), "is not a regular expression"),
    "empty": (PeftConfig(target_modules=[]), "is an empty list"),
    "saved": (PeftConfig(full_training_modules=["action_heat"]), r"full_training_modules: .* Did you mean action_head"),
    "inside attention": (PeftConfig(target_modules=["out_proj"]), "without effect in LeRobot"),
    "attention": (PeftConfig(target_modules=["linear1", "self_attn"]), r"self_attn is a MultiheadAttention"),
    "kind of module": (PeftConfig(target_modules=["norm1"]), "norm1|LayerNorm"),
    "no alpha": (PeftConfig(method_type="MISS", lora_alpha=3), "has no lora_alpha"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_by_name(act_base, case):
    peft, message = BAD[case]
    config = based_on(ACT, act_base)
    with pytest.raises(ConfigError, match=message):
        adapter_size(config, plan_adapter(config, peft))


class Int8Linear(torch.nn.Linear):
    """A linear layer with its weight in eight bits."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features)
        scale = linear.weight.detach().abs().amax() / 127
        whole = (linear.weight.detach() / scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(whole, requires_grad=False)
        self.bias = torch.nn.Parameter(linear.bias.detach(), requires_grad=False)
        self.register_buffer("scale", scale)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight.float() * self.scale, self.bias)


def test_a_quantised_base_is_trained_over_and_not_merged(tmp_path, act_base, monkeypatch):
    config = based_on(ACT, act_base)
    policy = build_policy(config)
    assert not is_quantised(policy)
    for layer in policy.model.encoder.layers:
        layer.linear1 = Int8Linear(layer.linear1)
    assert is_quantised(policy)
    attach_new(policy, PeftConfig(r=2, target_modules=["linear1"]), base=act_base)
    train(policy, CASES[ACT])
    trained = [name for name, p in policy.named_parameters() if "lora_B" in name and p.abs().sum() > 0]
    assert any("model.encoder" in name for name in trained)
    policy.config = policy_of_run(config, plan_adapter(config, PeftConfig(r=2)))
    policy.save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr("lerobot_ray.policies.adapters.load.load_adapted", lambda *_: policy)  # of the same weights
    with pytest.raises(PolicyError, match="is quantised"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_flags_and_files_that_do_not_go_together(tmp_path, act_base):
    config = based_on(ACT, act_base)
    assert plan_adapter(config, None) is None
    with pytest.raises(ConfigError, match=r"there is no adapter_config\.json in it"):
        plan_adapter(based_on(ACT, act_base, use_peft=True), None)
    plan = plan_adapter(config, PeftConfig(r=2))
    policy = build_adapted(config, plan, loads_weights=True)
    policy.config = policy_of_run(config, plan)
    adapter = tmp_path / "adapter"
    policy.save_pretrained(adapter)

    further = plan_adapter(based_on(ACT, str(adapter), use_peft=True), None)
    assert (further.base, further.weights) == (act_base, str(adapter / "adapter_model.safetensors"))
    with pytest.raises(ConfigError, match="holds an adapter already"):
        plan_adapter(based_on(ACT, str(adapter), use_peft=True), PeftConfig(r=2))
    resumed = plan_adapter(config, PeftConfig(r=2), checkpoint=adapter)
    assert (resumed.base, resumed.weights) == (act_base, None)
    with pytest.raises(CheckpointError, match="has r=2, and this run asks for 8"):
        plan_adapter(config, PeftConfig(r=8), checkpoint=adapter)
    with pytest.raises(CheckpointError, match="trains a whole policy"):
        plan_adapter(config, None, checkpoint=adapter)
    with pytest.raises(CheckpointError, match="holds a whole policy"):
        plan_adapter(config, PeftConfig(r=2), checkpoint=tmp_path.parent / act_base)

    settings = adapter / "adapter_config.json"
    text = settings.read_text()
    settings.write_text(text.replace(act_base, "/gone/base"))
    with pytest.raises(PolicyError, match="was trained on /gone/base, which is not here"):
        build_policy(based_on(ACT, str(adapter), use_peft=True))
    assert plan_adapter(config, PeftConfig(r=2), checkpoint=adapter).base == act_base
    settings.write_text(text.replace('"use_dora"', '"use_sth_new": true, "use_dora"'))
    with pytest.raises(PolicyError, match="uses use_sth_new, which the installed peft does not know"):
        build_policy(based_on(ACT, str(adapter), use_peft=True))
