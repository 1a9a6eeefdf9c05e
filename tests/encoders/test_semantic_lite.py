"""ConSE on posteriors that are known, so that no picture is needed."""

import copy

import pytest
import torch
from timm.data import ImageNetInfo

from encoders import conse
from encoders.minilm import TEXT_WIDTH, embed_texts
from encoders.semantic_lite import SemanticLite, reference_posteriors

NUM_FRAMES = 8
# Columns after the three vectors: similarity and calibrated similarity at three temperatures.
POINT, PROMPT, PRODUCT = (slice(n * TEXT_WIDTH, (n + 1) * TEXT_WIDTH) for n in range(3))
SIMILARITY = [3 * TEXT_WIDTH + 2 * n for n in range(3)]
CALIBRATED = [column + 1 for column in SIMILARITY]
TO_MEAN, TO_PREVIOUS, ENTROPY, PEAK, GIVEN = range(3 * TEXT_WIDTH + 6, 3 * TEXT_WIDTH + 11)

IMAGENET = ImageNetInfo("imagenet-1k")  # reads some MB of text whenever it is made
NAMES = [str(IMAGENET.index_to_description(n)) for n in range(1000)]


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder("semantic_lite")


def class_index(name):
    (found,) = [n for n, words in enumerate(NAMES) if name in words.split(", ")]
    return found


def shows(*names, certainty=14.0):
    """Logits (1, 8, 1000) of a clip that shows one class after the other."""
    logits = torch.zeros(1, NUM_FRAMES, 1000)
    for frame in range(NUM_FRAMES):
        logits[0, frame, class_index(names[frame * len(names) // NUM_FRAMES])] = certainty
    return logits


# What is seen, its prompt, and a prompt of something else.
PAIRS = [
    ("tabby", "a cat sleeping", "a red sports car"),
    ("sports car", "a red sports car", "a cat sleeping"),
    ("golden retriever", "a dog runs on the beach", "a plate of pizza on a table"),
    ("pizza", "a plate of pizza on a table", "a dog runs on the beach"),
    ("volcano", "lava erupts from a mountain", "a woman plays the violin"),
    ("violin", "a woman plays the violin", "lava erupts from a mountain"),
]


@pytest.mark.parametrize("seen, right, wrong", PAIRS)
def test_what_is_seen_is_nearer_to_its_own_prompt(encoder, seen, right, wrong):
    out = encoder.join(shows(seen).repeat(2, 1, 1), [right, wrong])
    for column in SIMILARITY + CALIBRATED:
        assert (out[0, :, column] > out[1, :, column]).all()
    # Calibrated: in standard deviations of the reference clips, one of which looks like a dog.
    fits, misses = out[0, :, CALIBRATED], out[1, :, CALIBRATED]
    assert (fits > 2).all() and (fits > misses + 2).all(), (fits[0], misses[0])


def test_in_half_precision_it_is_nearly_the_same(encoder):
    logits, prompts = shows("tabby", "violin"), ["a cat sleeping"]
    found = copy.deepcopy(encoder).half().join(logits, prompts)
    assert (found - encoder.join(logits, prompts)).abs().max() < 0.05


def test_made_under_autocast_it_is_the_same(encoder):
    with torch.autocast("cpu", torch.bfloat16):
        other = SemanticLite()
    assert torch.equal(other.reference_points, encoder.reference_points)


def test_a_prompt_fits_its_own_clip_best(encoder):
    clips = torch.cat([shows(seen) for seen, _, _ in PAIRS])
    for n, (_, prompt, _) in enumerate(PAIRS):
        out = encoder.join(clips, [prompt] * len(clips))
        for column in SIMILARITY + CALIBRATED:
            assert out[:, 0, column].argmax() == n


def test_a_certain_frame_lies_on_the_name_of_its_class(encoder):
    out = encoder.join(shows("tabby", certainty=60.0), ["a cat"])
    name = embed_texts([NAMES[class_index("tabby")]])[0]
    scale = TEXT_WIDTH**0.5
    torch.testing.assert_close(out[0, 0, POINT] / scale, name, rtol=0, atol=1e-5)
    expected = float(name @ embed_texts(["a cat"])[0])
    for column in SIMILARITY:
        assert float(out[0, 0, column]) == pytest.approx(expected, abs=1e-5)
    assert float(out[0, 0, PEAK]) == pytest.approx(1) and abs(float(out[0, 0, ENTROPY])) < 1e-4


def test_a_product_sums_to_the_similarity(encoder):
    out = encoder.join(shows("tabby", "pizza", certainty=5.0), ["a cat eats pizza"])
    torch.testing.assert_close(out[..., PRODUCT].mean(-1), out[..., SIMILARITY[-1]])
    torch.testing.assert_close(out[..., PRODUCT], out[..., POINT] * out[..., PROMPT])


def test_calibration_takes_off_what_the_reference_clips_have(encoder):
    """The reference clips themselves come out with mean 0 and, but for a floor, deviation 1."""
    logits, _ = reference_posteriors()
    clips = logits[:, None].expand(-1, NUM_FRAMES, -1)
    out = encoder.join(clips, ["a cat sleeping"] * len(clips))[:, 0]
    for column in CALIBRATED:
        assert abs(float(out[:, column].mean())) < 1e-3
        assert 0.9 < float(out[:, column].std()) <= 1
        assert abs(float(out[:, column - 1].mean())) > 0.01


@pytest.mark.parametrize("text", [None, [""], ["  \n "]])
def test_no_prompt_gives_zeros_and_says_so(encoder, text):
    clip = shows("tabby", "pizza")
    out = encoder.join(clip, text)
    given = encoder.join(clip, ["a cat"])
    assert torch.isfinite(out).all()
    for part in (PROMPT, PRODUCT, SIMILARITY, CALIBRATED, GIVEN):
        assert (out[..., part] == 0).all()
    assert (given[..., GIVEN] == 1).all() and (given[..., PROMPT] != 0).any()
    # What is seen does not depend on the prompt.
    for part in (POINT, TO_MEAN, TO_PREVIOUS, ENTROPY, PEAK):
        assert torch.equal(out[..., part], given[..., part])


def test_a_batch_may_hold_clips_with_and_without_prompt(encoder):
    clips = shows("tabby").repeat(2, 1, 1)
    out = encoder.join(clips, ["a cat sleeping", ""])
    assert out[:, 0, GIVEN].tolist() == [1, 0]
    alone = encoder.join(clips[:1], ["a cat sleeping"])
    torch.testing.assert_close(out[:1], alone)


def test_every_clip_needs_a_prompt(encoder):
    with pytest.raises(ValueError) as caught:
        encoder.join(shows("tabby").repeat(3, 1, 1), ["a cat", "a dog"])
    assert str(caught.value) == "3 clips need as many prompts, got 2"


def test_a_change_of_content_shows_in_time(encoder):
    out = encoder.join(shows("tabby", "sports car"), ["a cat sleeping"])[0]
    assert out[0, TO_PREVIOUS] == pytest.approx(1, abs=1e-5)
    assert out[:4, CALIBRATED].min() > out[4:, CALIBRATED].max()
    assert out[4, TO_PREVIOUS] < 0.7
    others = [n for n in range(NUM_FRAMES) if n != 4]
    assert out[others, TO_PREVIOUS].min() > 0.999
    same = encoder.join(shows("tabby"), ["a cat sleeping"])[0]
    assert same[:, TO_MEAN].min() > 0.999 > out[:, TO_MEAN].max()


def test_certainty_shows_in_entropy_and_peak(encoder):
    values = [encoder.join(shows("tabby", certainty=c), ["a cat"])[0, 0] for c in (0, 6, 9, 14)]
    assert float(values[0][ENTROPY]) == pytest.approx(6.9078, abs=1e-3)  # log(1000)
    for before, after in zip(values, values[1:]):
        assert after[ENTROPY] < before[ENTROPY] and after[PEAK] > before[PEAK]


@pytest.mark.parametrize(
    "text",
    [
        "一只猫在沙发上睡觉",
        "<|feature|> <|im_end|> [CLS] [SEP]",
        "cat " * 2500,
        "\x00\u200b",
        "🐈",
    ],
)
def test_odd_prompts_are_embedded_as_any_other(encoder, text):
    out = encoder.join(shows("tabby"), [text])
    assert torch.isfinite(out).all() and (out[..., GIVEN] == 1).all()


# Text embeddings -------------------------------------------------------------------------------


def test_texts_are_unit_vectors_and_near_texts_of_the_same_meaning(make_encoder):
    make_encoder("semantic_lite")  # skips where there are no weights
    texts = ["a cat sleeping on a sofa", "a kitten naps on the couch", "stock prices fell again"]
    out = embed_texts(texts)
    assert out.shape == (3, TEXT_WIDTH) and out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    near = out @ out.T
    assert near[0, 1] > 0.6 > 0.2 > near[0, 2]


def test_padding_does_not_change_an_embedding(make_encoder):
    make_encoder("semantic_lite")
    texts = ["a cat", "a long sentence about a cat that sleeps on a sofa all day long"] * 40
    together = embed_texts(texts)
    assert together.shape == (80, TEXT_WIDTH)
    torch.testing.assert_close(together[:1], embed_texts(texts[:1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(together[78:], together[:2], rtol=0, atol=1e-5)


def test_text_past_256_tokens_is_cut(make_encoder):
    make_encoder("semantic_lite")
    start = "cat " * 254
    assert torch.equal(embed_texts([start + "dog " * 10]), embed_texts([start + "car " * 90]))
    assert not torch.equal(embed_texts(["cat " * 200]), embed_texts(["cat " * 190 + "dog " * 10]))


def test_an_encoder_learns_after_one_was_made_in_inference_mode(encoder):
    """The points of the classes' names are kept for all that come later."""
    conse.points_of.cache_clear()
    with torch.inference_mode():
        assert torch.equal(conse.points_of(tuple(NAMES)), encoder.class_points)
    later = SemanticLite(num_frames=NUM_FRAMES)
    logits = shows("tabby").requires_grad_()
    later.join(logits, ["a cat sleeping"]).square().mean().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.any()
