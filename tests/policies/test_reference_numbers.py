"""The printed reference numbers of two policies whose weights and inputs follow a rule (see `reference.py`).

They were obtained from LeRobot 0.6.1; the values are those of torch on a CPU in single precision.
"""

import pytest
import torch

from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.act.policy import ACTPolicy
from lerobot_ray.policies.diffusion.config import DiffusionConfig
from lerobot_ray.policies.diffusion.policy import DiffusionPolicy
from tests.policies.reference import fill, last_padded, wave


def feature(kind: str, *shape: int) -> PolicyFeature:
    return PolicyFeature(FeatureType(kind), shape)


@pytest.fixture
def act():
    policy = ACTPolicy(
        ACTConfig(
            chunk_size=8,
            n_action_steps=8,
            dim_model=32,
            n_heads=2,
            dim_feedforward=64,
            n_encoder_layers=1,
            n_vae_encoder_layers=1,
            latent_dim=8,
            dropout=0.0,
            pretrained_backbone_weights=None,
            input_features={
                "observation.images.front": feature("VISUAL", 3, 64, 96),
                "observation.images.wrist": feature("VISUAL", 3, 64, 96),
                "observation.state": feature("STATE", 4),
            },
            output_features={"action": feature("ACTION", 4)},
        )
    )
    policy.load_state_dict(fill(policy.state_dict()))
    return policy


ACT_BATCH = {
    "observation.images.front": wave((2, 3, 64, 96), 0.011, 0.3),
    "observation.images.wrist": wave((2, 3, 64, 96), 0.013, 0.7),
    "observation.state": wave((2, 4), 0.5, 0.1),
    "action": wave((2, 8, 4), 0.21, 0.2),
    "action_is_pad": last_padded(2, 8),
}


def test_act_actions(act):
    assert len(act.state_dict()) == 162
    actions = act.predict_action_chunk(ACT_BATCH)
    assert actions[0, 0].tolist() == pytest.approx([-0.610224, -0.036600, 0.562181, 0.889618], abs=1e-5)
    assert actions[1, 7].tolist() == pytest.approx([-0.610914, -0.036778, 0.562606, 0.890431], abs=1e-5)
    assert actions.sum().item() == pytest.approx(12.8829, abs=1e-4)


def test_act_losses(act):
    act.eval()
    assert act(ACT_BATCH)[0].item() == pytest.approx(0.756772, abs=1e-6)
    act.train()
    torch.manual_seed(0)
    loss, logged = act(ACT_BATCH)
    assert loss.item() == pytest.approx(23.85825, abs=2e-5)
    assert logged["l1_loss"].item() == pytest.approx(0.756530, abs=1e-6)
    assert logged["kld_loss"].item() == pytest.approx(2.310172, abs=2e-6)


def test_act_parameters_are_numbered_as_optimizer_files_number_them(act):
    groups = act.get_optim_params()
    assert [len(group["params"]) for group in groups] == [61, 20]
    names = {id(parameter): name for name, parameter in act.named_parameters()}
    first = [names[id(parameter)] for parameter in groups[0]["params"]]
    assert first[0] == "model.vae_encoder.layers.0.self_attn.in_proj_weight"
    assert first[-1] == "model.action_head.bias"
    assert groups[1]["lr"] == act.config.optimizer_lr_backbone


@pytest.fixture
def diffusion():
    policy = DiffusionPolicy(
        DiffusionConfig(
            horizon=8,
            n_action_steps=4,
            down_dims=(32, 64),
            diffusion_step_embed_dim=16,
            spatial_softmax_num_keypoints=4,
            use_separate_rgb_encoder_per_camera=False,
            pretrained_backbone_weights=None,
            input_features={
                "observation.image": feature("VISUAL", 3, 96, 96),
                "observation.state": feature("STATE", 2),
            },
            output_features={"action": feature("ACTION", 2)},
        )
    )
    policy.load_state_dict(fill(policy.state_dict()))
    return policy.eval()


DIFFUSION_BATCH = {
    "observation.image": wave((2, 2, 3, 96, 96), 0.011, 0.3),
    "observation.state": wave((2, 2, 2), 0.5, 0.1),
    "action": wave((2, 8, 2), 0.21, 0.2),
    "action_is_pad": last_padded(2, 8),
}


@torch.no_grad()
def test_diffusion_condition_and_unet(diffusion):
    assert len(diffusion.state_dict()) == 225
    condition = diffusion.diffusion.condition(DIFFUSION_BATCH)
    assert condition.shape == (2, 20)
    expected = [0.099833, 0.564642, 0.030602, 0.040209, 0.050420, 0.047935]
    assert condition[0, :6].tolist() == pytest.approx(expected, abs=1e-6)
    assert condition.sum().item() == pytest.approx(4.570712, abs=1e-5)
    predicted = diffusion.diffusion.unet(DIFFUSION_BATCH["action"], torch.tensor([3, 50]), condition)
    assert predicted[0, 0].tolist() == pytest.approx([0.051740, 0.008569], abs=1e-6)
    assert predicted[1, 7].tolist() == pytest.approx([0.013874, -0.031366], abs=1e-6)
    assert predicted.sum().item() == pytest.approx(0.34317, abs=1e-5)


@pytest.mark.parametrize(("masked", "expected"), [(False, 1.015706), (True, 1.014112)])
def test_diffusion_losses(diffusion, masked, expected):
    diffusion.config.do_mask_loss_for_padding = masked
    torch.manual_seed(0)
    loss, logged = diffusion(DIFFUSION_BATCH)
    assert loss.item() == pytest.approx(expected, abs=2e-6)
    assert logged is None


def test_diffusion_noise_schedule(diffusion):
    remaining = diffusion.diffusion.schedule.remaining[[0, 1, 50, 98, 99]].tolist()
    assert remaining == pytest.approx([0.99936873, 0.99825251, 0.47826457, 0.00024286, 2.4e-7], abs=1e-8)
