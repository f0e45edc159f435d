"""Steps that read the task: what they refuse, and that a text is tokenised once."""

import numpy as np
import pytest
import torch

from lerobot_ray.core.errors import ProcessorError
from lerobot_ray.processing import Pipeline
from lerobot_ray.processing import tokenize as module
from lerobot_ray.processing.prompt import Pi0NewLine, Pi05Prompt, SmolVLANewLine, state_bins
from lerobot_ray.processing.relative import AbsoluteActions, RelativeActions, link_relative
from lerobot_ray.processing.tokenize import TOKENS, Tokenize
from tests.processing.cases import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(build_tokenizer(tmp_path_factory.mktemp("tokenizer")))


class Counting:
    """The tokenizer, counting the texts it is given."""

    def __init__(self, inner):
        self.inner, self.texts, self.pad_token_id = inner, [], inner.pad_token_id

    def __call__(self, texts, **options):
        self.texts += texts
        return self.inner(texts, **options)


def test_each_text_is_tokenised_once(folder, monkeypatch):
    counting = Counting(module.load_tokenizer(folder))
    step = Tokenize(tokenizer=counting, max_length=4)
    pipeline = Pipeline([step], name="x")
    first = pipeline({"task": ["red", "cube", "red"]})[TOKENS]
    assert torch.equal(pipeline({"task": ["red", "cube", "red"]})[TOKENS], first)
    assert sorted(counting.texts) == ["cube", "red"]
    monkeypatch.setattr(module, "KEPT_TEXTS", 2)
    assert torch.equal(pipeline({"task": ["red", "open"]})[TOKENS][0], first[0])
    assert sorted(counting.texts) == ["cube", "open", "red"]
    assert len(step._known) == 2


@pytest.mark.parametrize("task", [None, [], [1], ["a", None], 3])
def test_a_batch_without_texts(folder, task):
    with pytest.raises(ProcessorError, match="a text or a list of texts"):
        Pipeline([Tokenize(folder)], name="x")({"task": task})


def test_texts_that_do_not_make_one_tensor(folder):
    ragged = {"task": ["red", "red cube"]}
    with pytest.raises(ProcessorError, match="1 to 2 tokens"):
        Pipeline([Tokenize(folder, padding=False)], name="x")(ragged)
    with pytest.raises(ProcessorError, match="truncation"):
        Pipeline([Tokenize(folder, truncation=False, max_length=1)], name="x")(ragged)


def test_a_tokenizer_without_padding_token(folder):
    tokenizer = module.load_tokenizer(folder)
    tokenizer.pad_token = None
    with pytest.raises(ProcessorError, match="no padding token"):
        Pipeline([Tokenize(tokenizer=tokenizer)], name="x")({"task": "red"})


def test_a_tokenizer_that_cannot_be_had(tmp_path):
    with pytest.raises(ProcessorError, match=r"nowhere cannot be loaded.*overrides"):
        Tokenize(str(tmp_path / "nowhere"))
    with pytest.raises(ProcessorError, match="tokenizer_name or a tokenizer"):
        Tokenize()


@pytest.mark.parametrize("step", [SmolVLANewLine(), Pi0NewLine()])
@pytest.mark.parametrize(
    ("task", "expected"),
    [("a", "a\n"), ("a\n", "a\n"), (["a", "b\n", ""], ["a\n", "b\n", "\n"]), (None, None), ([1], [1])],
)
def test_newlines(step, task, expected):
    assert Pipeline([step], name="x")({"task": task})["task"] == expected


def test_the_bins_of_pi05_are_those_of_its_training():
    values = np.array([-2.0, -1.0, 0.0, 1.0, np.nan], dtype=np.float32)
    assert state_bins(values).tolist() == [-1, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "batch",
    [
        {"task": ["a"]},
        {"task": ["a"], "observation.state": torch.ones(1, 2, 3)},
        {"task": ["a"], "observation.state": torch.ones(2, 3)},
        {"observation.state": torch.ones(2, 3)},
    ],
)
def test_a_prompt_that_cannot_be_made(batch):
    with pytest.raises(ProcessorError, match="pi05's prompt needs"):
        Pipeline([Pi05Prompt()], name="x")(batch)


class TestRelative:
    state = torch.tensor([[1.0, 2.0, 3.0]])

    def pair(self, **options):
        pre = Pipeline([RelativeActions(enabled=True, **options)], name="pre")
        post = Pipeline([AbsoluteActions(enabled=True)], name="post")
        link_relative(pre, post)
        return pre, post

    def test_inference_remembers_the_state_and_reset_forgets_it(self):
        pre, post = self.pair()
        assert pre({"observation.state": self.state})["action"] is None
        assert torch.equal(post(torch.zeros(1, 4, 3))[0, 2], self.state[0])
        pre.reset()
        with pytest.raises(ProcessorError, match="run the preprocessor first"):
            post(torch.zeros(1, 3))

    def test_one_observation_step_is_the_current_one(self):
        pre, _ = self.pair()
        batch = {"observation.state": self.state[:, None], "action": torch.zeros(1, 4, 3)}
        assert torch.equal(pre(batch)["action"][0, 0], -self.state[0])

    def test_an_excluded_dimension_ignores_what_is_in_the_state(self):
        pre, _ = self.pair(exclude_joints=["grip"], action_names=["a", "gripper", "b"])
        state = torch.tensor([[1.0, float("nan"), 3.0]])
        assert pre({"observation.state": state, "action": torch.zeros(1, 3)})["action"].tolist() == [[-1.0, 0.0, -3.0]]

    @pytest.mark.parametrize("state", [torch.ones(1, 2), torch.ones(1, 2, 3)])
    def test_states_that_do_not_fit(self, state):
        pre, _ = self.pair()
        with pytest.raises(ProcessorError, match="at least 3 values"):
            pre({"observation.state": state, "action": torch.zeros(1, 4, 3)})

    def test_an_unlinked_step_says_so(self):
        with pytest.raises(ProcessorError, match="not linked"):
            Pipeline([AbsoluteActions(enabled=True)], name="x")(torch.zeros(1, 3))
