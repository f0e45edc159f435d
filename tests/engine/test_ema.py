"""LeRobot's decay schedule, number by number."""

import pytest
import torch

from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.engine.ema import Ema, ema_decay


def test_the_decay_is_a_copy_first_then_rises_between_its_bounds():
    config = EmaConfig(enable=True)
    assert ema_decay(config, 1) == 0.0
    assert ema_decay(config, 2) == pytest.approx(1 - 2**-0.75)
    assert ema_decay(config, 11) == pytest.approx(1 - 11**-0.75)
    assert ema_decay(config, 10**9) == 0.9999
    late = EmaConfig(enable=True, update_after_step=10)
    assert [ema_decay(late, n) for n in (1, 11)] == [0.0, 0.0]
    assert ema_decay(late, 12) == pytest.approx(1 - 2**-0.75)
    assert ema_decay(EmaConfig(enable=True, decay=0.9), 2) == 0.9


def test_the_average_is_the_recursion():
    layer = torch.nn.Linear(2, 1, bias=False)
    config = EmaConfig(enable=True)
    ema = Ema(layer, config)
    expected = layer.weight.detach().clone()
    for n in range(1, 8):
        with torch.no_grad():
            layer.weight.add_(1.0)
        ema.update()
        decay = ema_decay(config, n)
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    assert torch.allclose(ema.shadow["weight"], expected)
