"""Saved generators draw what the saving process would have drawn."""

import random

import numpy as np
import torch
from safetensors.torch import load_file

from lerobot_ray.checkpoint.rng import load_rng_state, save_rng_state


def draws():
    return random.random(), np.random.normal(), torch.randn(3).tolist()


def test_draws_continue(tmp_path):
    draws()  # an odd number of normals leaves a cached gaussian
    np.random.seed(0)
    save_rng_state(tmp_path)
    expected = draws()
    draws()
    load_rng_state(tmp_path)
    assert draws() == expected


def test_keys_and_shapes_are_lerobots(tmp_path):
    save_rng_state(tmp_path)
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(tmp_path / "rng_state.safetensors").items()}
    assert shapes == {
        "py_rng_version": (1,),
        "py_rng_state": (625,),
        "np_rng_state_values": (624,),
        "np_rng_state_index": (1,),
        "np_rng_has_gauss": (1,),
        "np_rng_cached_gaussian": (1,),
        "torch_rng_state": (5056,),
    }
