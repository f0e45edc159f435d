"""Philox against its published vectors, the shape of the distributions, and the promise: a split changes nothing."""

import math

import pytest
import torch

from lerobot_ray.policies import noise

KNOWN_ANSWERS = [  # Random123's kat_vectors for philox4x32-10: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, answer):
    got = noise.philox(tuple(torch.tensor([word]) for word in counter), key)
    assert [int(word) for word in got] == list(answer)


def test_words_are_pinned():
    """Resumed runs rely on these: whoever changes them changes the noise of every run under way."""
    got = noise.words(42, noise.DIFFUSION_LOSS, torch.tensor([0, 5, 2**40 + 3]), 5)
    assert got.tolist() == PINNED_WORDS


PINNED_WORDS = [
    [2615453395, 4218663479, 1875027030, 2505978328, 2327442525],
    [3425870112, 2399323010, 4166411992, 2432238093, 1091974252],
    [797317460, 661383246, 378921056, 2871143400, 1687354483],
]


def test_normal_numbers_are_normal():
    drawn = noise.normals(1, noise.ACT_LATENT, torch.arange(2000), (101,)).double()
    assert drawn.shape == (2000, 101)
    standard_error = 1 / math.sqrt(drawn.numel())
    assert abs(drawn.mean()) < 4 * standard_error
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2) * standard_error
    assert abs((drawn**3).mean()) < 4 * math.sqrt(15) * standard_error
    assert abs((drawn**4).mean() - 3) < 4 * math.sqrt(96) * standard_error
    ranks = drawn.flatten().sort().values
    expected = torch.special.ndtr(ranks)
    distance = (expected - (torch.arange(len(ranks)) + 0.5) / len(ranks)).abs().max()
    assert distance < 1.95 * standard_error  # Kolmogorov-Smirnov at 0.1 %


def test_neighbours_are_uncorrelated():
    drawn = noise.normals(3, 7, torch.arange(4000), (24,))
    correlation = torch.corrcoef(drawn.T) - torch.eye(24)  # between places of one sample
    assert correlation.abs().max() < 5 / math.sqrt(4000)
    between_samples = (drawn[1:] * drawn[:-1]).mean()
    assert abs(between_samples) < 5 / math.sqrt(drawn.numel())


def test_uniform_and_integer_cover_their_range_evenly():
    words = noise.words(9, 3, torch.arange(50_000), 2)
    uniform = noise.as_uniform(words)
    assert 0 <= float(uniform.min()) < 1e-4
    assert 1 - 1e-4 < float(uniform.max()) < 1
    counts = torch.bincount(noise.as_integer(words, 100).flatten(), minlength=100).double()
    assert len(counts) == 100
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 50 < float(chi_square) < 165  # 99 degrees of freedom


def test_extreme_words_stay_finite():
    extreme = torch.tensor([[0, 0, 0xFFFFFFFF, 0xFFFFFFFF]])
    assert noise.as_normal(extreme).isfinite().all()
    assert noise.as_uniform(extreme).max() < 1
    assert noise.as_integer(extreme, 2**31).max() == 2**31 - 1


def test_a_split_batch_draws_what_the_whole_batch_draws():
    whole = torch.tensor([7, 3, 2**33, 12, 0, 99])
    together = noise.normals(5, 2, whole, (3, 5))
    apart = torch.cat([noise.normals(5, 2, part, (3, 5)) for part in (whole[:1], whole[1:4], whole[4:])])
    assert torch.equal(together, apart)


@pytest.mark.parametrize("other", [{"seed": 6}, {"seed": 5 + 2**32}, {"purpose": 1}, {"stream_index": [8]}])
def test_every_part_of_the_key_matters(other):
    base = {"seed": 5, "purpose": 2, "stream_index": [7]}
    drawn = [
        noise.words(key["seed"], key["purpose"], torch.tensor(key["stream_index"]), 8) for key in (base, base | other)
    ]
    assert (drawn[0] != drawn[1]).all()


def test_more_words_begin_with_the_same_words():
    few, many = (noise.words(1, 1, torch.arange(3), count) for count in (6, 50))
    assert torch.equal(few, many[:, :6])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # raised inside torch's own compiler
def test_compiled_draws_are_the_same():
    compiled = torch.compile(noise.words, fullgraph=True, dynamic=False)
    place = torch.tensor([0, 1, 2**62 + 5])
    assert torch.equal(compiled(2**40 + 1, 2, place, 11), noise.words(2**40 + 1, 2, place, 11))
