"""Any box of a tensor out of parts that were cut anyhow; what is not there is noticed; torch reads the folder too."""

import itertools

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lerobot_ray.checkpoint.assemble import write_whole
from lerobot_ray.checkpoint.saved import open_saved, write_parts
from lerobot_ray.checkpoint.shares import own_parts
from lerobot_ray.checkpoint.tensors import Part
from lerobot_ray.core.errors import CheckpointError

WHOLE = {
    "rows": torch.arange(35, dtype=torch.float32).reshape(7, 5),
    "numbers": torch.arange(11),
    "half": torch.arange(6, dtype=torch.bfloat16).reshape(1, 6),
    "one": torch.tensor(3.5),
    "nothing": torch.zeros(0, 4),
}


def write_in_rows(folder, cuts, *, world_size=None):
    """A file for each piece between two cuts, given as shares of the length of a tensor; the last ones may be empty."""
    edges = [0.0, *sorted(cuts), 1.0]
    for rank, (first, last) in enumerate(itertools.pairwise(edges)):
        parts = {}
        for name, tensor in WHOLE.items():
            length = len(tensor) if tensor.ndim else 0
            low, high = round(first * length), round(last * length)
            if low < high:
                parts[name] = Part(tensor[low:high].clone(), (low,) + (0,) * (tensor.ndim - 1), tuple(tensor.shape))
            elif rank == 0 and not length:
                parts[name] = Part(tensor, (0,) * tensor.ndim, tuple(tensor.shape))
        write_parts(parts, folder, rank=rank, world_size=world_size or len(edges) - 1)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.floats(0, 1), max_size=4), low=st.integers(0, 6), rows=st.integers(1, 7), column=st.integers(0, 4)
)
def test_any_box_comes_out_of_any_parts(tmp_path_factory, cuts, low, rows, column):
    folder = tmp_path_factory.mktemp("parts")
    write_in_rows(folder, cuts)
    high = min(7, low + rows)
    with open_saved(folder) as saved:
        assert {name: tensor.shape for name, tensor in saved.items()} == {n: tuple(t.shape) for n, t in WHOLE.items()}
        for name, tensor in WHOLE.items():
            assert torch.equal(saved[name].read(), tensor), name
            assert saved[name].read().dtype == tensor.dtype
        box = saved["rows"].box((low, column), (high - low, 5 - column))
        assert torch.equal(box, WHOLE["rows"][low:high, column:])


def test_a_missing_file_and_a_missing_rank_are_noticed(tmp_path):
    write_in_rows(tmp_path / "parts", [0.5])
    (tmp_path / "parts" / "rank-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the files of 1 ranks"), open_saved(tmp_path / "parts"):
        pass
    write_in_rows(tmp_path / "gap", [0.5, 0.75])
    full = tmp_path / "gap" / "rank-00001-of-00003.safetensors"
    write_parts({}, full.parent, rank=1, world_size=3)
    with (
        pytest.raises(CheckpointError, match=r"numbers of (rows|numbers)"),
        open_saved(tmp_path / "gap"),
    ):
        pass
    with pytest.raises(CheckpointError, match="not there"), open_saved(tmp_path / "none"):
        pass
    save_file({"a": torch.ones(2)}, full)
    with pytest.raises(CheckpointError, match="which parts"), open_saved(tmp_path / "gap"):
        pass


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # it says so even where that was asked for
def test_torch_reads_the_folder(tmp_path):
    """The words of its reader, which no release promises to keep: then `docs/checkpoints.md` says too much."""
    write_in_rows(tmp_path, [0.3, 0.6])
    into = {name: torch.zeros_like(WHOLE[name]) for name in ("rows", "numbers", "half")}
    dcp.load(into, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert all(torch.equal(tensor, WHOLE[name]) for name, tensor in into.items())


def test_assembled_it_is_the_file_that_safetensors_writes(tmp_path):
    write_in_rows(tmp_path / "parts", [0.3, 0.6])
    with open_saved(tmp_path / "parts") as saved:
        write_whole(saved, tmp_path / "ours.safetensors")
    save_file(WHOLE, tmp_path / "theirs.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    loaded = load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in WHOLE.items())


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_of_copies_each_is_written_once_and_all_ranks_write_about_as_much(world_size):
    torch.manual_seed(0)
    tensors = {f"{i}": torch.rand(int(torch.randint(1, 200, ()))) for i in range(100)}
    shares = [own_parts(tensors, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(name for share in shares for name in share) == sorted(tensors)
    amounts = [sum(part.tensor.numel() for part in share.values()) for share in shares]
    assert max(amounts) - min(amounts) <= 200


def test_what_each_rank_has_for_itself_is_the_first_ones():
    """Buffers: a batch norm's averages are of the samples of its rank."""
    tensors = {"weight": torch.ones(9), "mean": torch.ones(9), "bias": torch.ones(3)}
    shares = [own_parts(tensors, rank=rank, world_size=2, of_first={"mean"}) for rank in range(2)]
    assert [sorted(share) for share in shares] == [["mean", "weight"], ["bias"]]
