"""Pipelines written here, applied by LeRobot: the same numbers, and the same files when it writes them again."""

import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot_ray.processing import load_processors, make_default_processors
from tests.parity.peer import peer_python, run_peer
from tests.processing.cases import TOKENIZER_TYPES, batch, build_tokenizer, stats
from tests.processing.test_goldens import PLAIN_TYPES, described

pytestmark = pytest.mark.lerobot


def peer_has(module):
    extra = os.environ.get("PEER_PYTHONPATH", "")
    command = [peer_python(), "-c", f"import {module}"]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": extra}, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return str(build_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize("kind", [*PLAIN_TYPES, *TOKENIZER_TYPES])
def test_pipelines_written_here_do_the_same_there(kind, tmp_path, tokenizer, monkeypatch):
    if kind in TOKENIZER_TYPES:
        if not peer_has("transformers"):
            pytest.skip("the peer has no transformers; name a folder that has them in PEER_PYTHONPATH")
        monkeypatch.setattr("lerobot_ray.processing.defaults.PALIGEMMA_TOKENIZER", tokenizer)
    names = {"text_encoder_name": tokenizer, "vlm_model_name": tokenizer}
    pre, post = make_default_processors(described(kind, **names), stats())
    folder = tmp_path / "policy"
    for pipeline in (pre, post):
        pipeline.save_pretrained(folder)

    arrays = batch(kind)
    tensors = {key: torch.as_tensor(value) for key, value in arrays.items() if not isinstance(value, list)}
    save_file(tensors, tmp_path / "batch.safetensors")
    run_peer(
        "run_processors.py",
        folder,
        tmp_path / "batch.safetensors",
        json.dumps(arrays["task"]),
        tmp_path / "theirs.safetensors",
    )
    theirs, texts = load_file(tmp_path / "theirs.safetensors"), json.loads((tmp_path / "theirs.json").read_text())
    done = load_processors(folder)[0]({**tensors, "task": arrays["task"]})
    assert set(done) == set(texts["keys"])
    assert done["task"] == texts["task"]
    ours = {f"pre/{key}": value for key, value in done.items() if isinstance(value, torch.Tensor)}
    ours["post"] = post(done["action"])
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
