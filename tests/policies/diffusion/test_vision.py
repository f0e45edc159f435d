"""Crops and keypoints of the image encoder."""

import pytest
import torch

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.policies.diffusion.vision import SpatialSoftmax
from tests.policies.build import build
from tests.policies.cases import DIFFUSION_SMALL, Case


def encoder(**options):
    case = Case("diffusion", DIFFUSION_SMALL | options, cameras={"front": (48, 56)})
    return build(case).diffusion.rgb_encoder[0]


def places(count=4, height=48, width=56):
    """Images whose pixels say where they are, channel 0 the row, channel 1 the column, channel 2 the image."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = [torch.stack([rows, columns, torch.full_like(rows, number)]) for number in range(count)]
    return torch.stack(images).float()


def corners(cropped):
    """Checks that a crop is whole, and returns each one's top left pixel."""
    first = cropped[:, :2, 0, 0]
    expected = places(1, *cropped.shape[-2:])[0, :2] + first[:, :, None, None]
    assert torch.equal(cropped[:, :2], expected)
    assert torch.equal(cropped[:, 2, 0, 0], torch.arange(len(cropped)).float())
    return first.long().tolist()


def test_the_centre_in_evaluation_and_where_nothing_is_random():
    assert corners(encoder(crop_shape=(40, 50)).eval()._crop(places(), None)) == [[4, 3]] * 4
    assert corners(encoder(crop_shape=(40, 50), crop_is_random=False).train()._crop(places(), None)) == [[4, 3]] * 4


def test_one_random_place_for_all_from_torchs_generator():
    ours = encoder(crop_shape=(40, 50)).train()
    torch.manual_seed(0)
    found = corners(ours._crop(places(), None))
    torch.manual_seed(0)
    place = [int(torch.randint(0, 9, (1,))), int(torch.randint(0, 7, (1,)))]
    assert found == [place] * 4


def test_a_random_place_for_each_from_words():
    ours = encoder(crop_shape=(40, 50)).train()
    words = torch.tensor([[0, 0], [2**32 - 1, 2**32 - 1], [2**31, 2**30], [0, 2**32 - 1]])
    cropped = ours._crop(places(), words)
    assert corners(cropped) == [[0, 0], [8, 6], [4, 1], [0, 6]]
    assert cropped.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_of_the_whole_image_draws_nothing():
    ours = encoder(crop_shape=(48, 56)).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ours._crop(places(), None)
    assert torch.equal(torch.get_rng_state(), before)


def test_keypoints_are_where_attention_is():
    pool = SpatialSoftmax(1, 3, 5, 1)
    torch.nn.init.constant_(pool.nets.weight, 100.0)
    for row, y in ((0, -1.0), (1, 0.0), (2, 1.0)):
        for column, x in ((0, -1.0), (3, 0.5), (4, 1.0)):
            features = torch.zeros(1, 1, 3, 5)
            features[0, 0, row, column] = 1.0
            assert pool(features)[0, 0].tolist() == pytest.approx([x, y], abs=1e-5)


def test_images_of_another_size_are_refused():
    with pytest.raises(PolicyError, match=r"images are \(40, 56\) where policy.input_features says \(48, 56\)"):
        encoder()(torch.zeros(1, 3, 40, 56))
    encoder(resize_shape=(48, 56))(torch.zeros(1, 3, 40, 50))
