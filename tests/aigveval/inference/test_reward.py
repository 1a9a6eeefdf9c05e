"""A model as a reward."""

import copy
import math
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import aigveval
from aigveval.errors import AssessmentError
from aigveval.inference import reward as module
from aigveval.inference.reward import VideoReward

from ..engines import tiny_assessor
from ..tiny_llm import make_llm, make_tokenizer
from tests import media

VIDEOS = torch.stack(
    [
        torch.stack([torch.tensor(media.scene(n, seed=s)).permute(2, 0, 1) for n in range(4)])
        for s in range(3)
    ]
)  # uint8 (3, 4, 3, 64, 96)
PROMPTS = ["a dog", "a cat", "a red bus"]
MIX = {"technical": 0.3, "motion": 0.3, "semantic": 0.6}


@pytest.fixture(scope="module")
def assessor():
    return tiny_assessor(batch_size=2)


@pytest.fixture(scope="module")
def reward(assessor):
    return VideoReward(assessor, weights=MIX)


@pytest.fixture(scope="module")
def expected(assessor):
    rows = [assessor.score(video, prompt) for video, prompt in zip(VIDEOS, PROMPTS)]
    return torch.tensor(
        [sum(MIX[name] * getattr(row, name).score for name in MIX) / 1.2 for row in rows]
    )


def test_it_is_the_weighted_mean_of_the_scores(reward, expected):
    found = reward(VIDEOS, PROMPTS)
    assert found.dtype == torch.float32 and found.shape == (3,) and found.device == VIDEOS.device
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert len(set(found.tolist())) == 3


def test_weights_of_numpy(assessor):
    weights = {name: np.float32(weight) for name, weight in MIX.items()}
    assert VideoReward(assessor, weights=weights).weights == pytest.approx(
        VideoReward(assessor, weights=MIX).weights
    )


def test_by_default_overall_counts(assessor):
    found = VideoReward(assessor)(VIDEOS, PROMPTS)
    rows = assessor.score_many(VIDEOS, prompts=PROMPTS)
    assert found.tolist() == pytest.approx([row.overall.score for row in rows], abs=1e-4)


@pytest.mark.parametrize(
    "videos",
    [
        VIDEOS.permute(0, 1, 3, 4, 2).numpy() / np.float32(255),
        SimpleNamespace(
            frames=[[Image.fromarray(f.permute(1, 2, 0).numpy()) for f in v] for v in VIDEOS]
        ),
        list(VIDEOS),
        (VIDEOS / 255).requires_grad_(),
    ],
    ids=["numpy", "diffusers", "list", "tensor that learns"],
)
def test_what_generators_give(reward, expected, videos):
    torch.testing.assert_close(reward(videos, PROMPTS), expected, atol=1e-4, rtol=0)


def test_it_has_no_part_in_training(reward, expected):
    state = torch.get_rng_state()
    videos = (VIDEOS / 255).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = reward(videos, PROMPTS)
        assert torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not found.requires_grad and not found.is_inference()
    assert torch.equal(torch.get_rng_state(), state)
    weight = torch.ones(3, requires_grad=True)
    (found * weight).sum().backward()  # what a policy gradient does with it
    assert torch.equal(weight.grad, found)


def test_what_cannot_be_scored_is_nan(reward, expected):
    videos = [VIDEOS[0], VIDEOS[1].float(), VIDEOS[2]]
    said = r"^2 of 3 videos have no reward: frames\[1\]: expected floats in 0..1, got 0..2"
    with pytest.warns(UserWarning, match=said) as caught:
        found = reward(videos, ["a dog", "a cat", None])
    assert caught[0].filename == __file__
    assert found[0] == pytest.approx(expected[0].item(), abs=1e-4)
    assert found.isnan().tolist() == [False, True, True]


def test_what_cannot_be_scored_may_raise(assessor):
    strict = VideoReward(assessor, weights=MIX, on_error="raise")
    said = r"^1 of 2 videos have no reward: frames\[1\]: no semantic score without a prompt$"
    with pytest.raises(AssessmentError, match=said):
        strict(VIDEOS[:2], ["a dog", None])


def test_paths(reward, expected, tmp_path):
    pictures = VIDEOS[0].permute(0, 2, 3, 1).numpy()
    clip = media.write_video(
        tmp_path / "a.mkv", codec="ffv1", pix_fmt="bgr0", num_frames=4, pictures=pictures
    )
    with warnings.catch_warnings(record=True):
        found = reward([str(clip), tmp_path / "gone.mp4"], PROMPTS[0])
    assert found[0] == pytest.approx(expected[0].item(), abs=1e-4) and math.isnan(found[1])


def test_a_single_clip_is_refused(reward):
    for video in (VIDEOS[0], "a.mp4"):
        with pytest.raises(ValueError, match="^expected several clips, got a single one"):
            reward(video, "a dog")


def test_many_threads_at_once(reward, expected):
    """Each with clips of its own, in an order of its own."""

    def call(shift):
        order = [(n + shift) % 3 for n in range(3)]
        return order, reward(VIDEOS[order], [PROMPTS[n] for n in order])

    with ThreadPoolExecutor(4) as pool:
        for order, found in pool.map(call, range(12)):
            torch.testing.assert_close(found, expected[order], atol=1e-4, rtol=0)


def load_tiny(model, **options):
    LOADED.append(model)
    assert not torch.is_autocast_enabled("cpu")
    return tiny_assessor(**options)


LOADED = []


@pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy])
def test_a_copy_loads_its_model_when_it_is_first_needed(monkeypatch, expected, again):
    monkeypatch.setattr(module, "load", load_tiny)
    LOADED.clear()
    reward = VideoReward("tiny", weights=MIX, fps=8, batch_size=2)
    assert len(pickle.dumps(reward)) < 1000
    other = again(reward)
    assert LOADED == ["tiny"] and other.weights == reward.weights and other.fps == 8
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: other(VIDEOS, PROMPTS), range(2)))
    assert LOADED == ["tiny", "tiny"] and other.assessor.batch_size == 2
    judge = again(reward.as_trl(column="x"))
    for rewards in (*found, judge(prompts=PROMPTS, completions=list(VIDEOS), x=PROMPTS)):
        assert torch.equal(torch.as_tensor(rewards), reward(VIDEOS, PROMPTS))


def test_to_load_within_a_call_has_no_part_in_training(monkeypatch, expected):
    monkeypatch.setattr(module, "load", load_tiny)
    other = copy.deepcopy(VideoReward("tiny", weights=MIX))
    state = torch.manual_seed(7).get_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(other(VIDEOS, PROMPTS), expected, atol=1e-4, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_copy_has_the_assessor_that_was_given(reward):
    other = pickle.loads(pickle.dumps(reward))
    assert other.assessor is not reward.assessor
    assert torch.equal(other(VIDEOS, PROMPTS), reward(VIDEOS, PROMPTS))


def test_two_hundred_calls_need_no_more_memory_than_fifty(reward):
    """New pixels and new prompts in every call, as in a training."""
    process = pytest.importorskip("psutil").Process()
    generator = torch.Generator().manual_seed(0)
    used, threads = [], []
    for number in range(200):
        videos = torch.randint(0, 256, (1, 4, 3, 256, 256), dtype=torch.uint8, generator=generator)
        reward(videos, [f"a dog {number}"])
        if number in (49, 199):
            used.append(process.memory_info().rss)
            threads.append(threading.active_count())
    assert used[1] - used[0] < 20 * 2**20  # these clips have 118 MB
    assert threads[1] <= threads[0] + reward.assessor.workers


class TestTrl:
    """Called as `GRPOTrainer` does: by keyword, with the columns of the data set."""

    def test_a_model_that_writes_prompts(self, reward, expected):
        asked = []

        def render(texts):
            asked.extend(texts)
            return VIDEOS

        function = reward.as_trl(render)
        found = function(
            prompts=PROMPTS, completions=["x", "y", "z"], completion_ids=[[1]] * 3, other=[0] * 3
        )
        assert asked == ["x", "y", "z"] and found == pytest.approx(expected.tolist(), abs=1e-4)
        assert all(isinstance(value, float) for value in found)
        assert function.__name__ == reward.__name__ == "video_reward"

    def test_a_training(self, reward, tmp_path):
        """The trainer itself, with a tiny model as the writer."""
        trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
        sizes = []

        def render(texts):
            sizes.append(len(texts))
            return torch.rand(len(texts), 4, 3, 32, 32)

        config = trl.GRPOConfig(
            str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=4,
            max_steps=2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
        )
        trainer = trl.GRPOTrainer(
            model=make_llm(),
            processing_class=make_tokenizer(),
            reward_funcs=reward.as_trl(render),
            args=config,
            train_dataset=datasets.Dataset.from_dict({"prompt": PROMPTS}),
        )
        trainer.train()
        logged = [e["rewards/video_reward/mean"] for e in trainer.state.log_history[:2]]
        assert sizes == [4, 4] and all(1 <= value <= 5 for value in logged)

    def test_conversations_and_a_column(self, reward, expected):
        asked = []

        def render(texts):
            asked.extend(texts)
            return VIDEOS

        parts = [{"type": "text", "text": "y"}]
        found = reward.as_trl(render, column="wish")(
            prompts=[[{"role": "user", "content": "Write it better"}]] * 3,
            completions=[
                [{"role": "assistant", "content": content}] for content in ("x", parts, "")
            ],
            wish=PROMPTS,
        )
        assert asked == ["x", "y", ""] and found == pytest.approx(expected.tolist(), abs=1e-4)

    def test_a_column_that_is_not_there(self, reward):
        judge = reward.as_trl(column="wish")
        with pytest.raises(ValueError, match="has no column 'wish'; its others are seed, text$"):
            judge(prompts=PROMPTS, completions=list(VIDEOS), seed=[1, 2, 3], text=PROMPTS)

    def test_completions_that_are_videos(self, reward, expected):
        found = reward.as_trl()(prompts=PROMPTS, completions=list(VIDEOS))
        assert found == pytest.approx(expected.tolist(), abs=1e-4)


class TestOptions:
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"sharpness": 1}, "^weights are of overall, technical, motion, semantic, got 'sharp"),
            ({"motion": -1}, "^the weight of motion must be at least 0, got -1$"),
            ({"motion": "1"}, "^the weight of motion must be a number, got '1'$"),
            (
                {"motion": torch.tensor(0.5)},
                r"^the weight of motion must be a number, got tensor\(0.5000\); of one in a tensor "
                r"or array make it by float\(x\)$",
            ),
            ({"motion": math.nan}, "^the weight of motion must be at least 0, got nan$"),
            ({"motion": 0}, "^the sum of the weights must be finite and above 0, got 0$"),
            ({}, "^the sum of the weights must be finite and above 0, got 0$"),
            (["motion"], r"^weights must be numbers by the name of a score, got \['motion'\]$"),
        ],
    )
    def test_weights(self, assessor, weights, message):
        with pytest.raises(ValueError, match=message):
            VideoReward(assessor, weights=weights)

    def test_others(self, assessor, monkeypatch):
        with pytest.raises(ValueError, match=r"^on_error must be one of \('nan', 'raise'\), got"):
            VideoReward(assessor, on_error="ignore")
        with pytest.raises(ValueError, match="^an assessor has its options already, got device$"):
            VideoReward(assessor, device="cpu")
        asked = {}
        monkeypatch.setattr(module, "load", lambda model, **options: asked.update(options))
        aigveval.VideoReward("folder", device="cpu", batch_size=4)
        assert asked == {"device": "cpu", "batch_size": 4}

    def test_a_score_without_weight_need_not_be_there(self, assessor):
        reward = VideoReward(assessor, weights={"semantic": 0, "motion": 2}, on_error="raise")
        assert reward(VIDEOS[:1])[0] == pytest.approx(
            assessor.score(VIDEOS[0]).motion.score, abs=1e-4
        )
