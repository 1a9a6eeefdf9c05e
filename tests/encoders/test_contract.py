"""What every registered encoder promises, whatever it computes."""

import contextlib
import copy
import importlib.util
import inspect
import pickle

import cv2
import numpy as np
import pytest
import torch

from encoders import EncoderSpec
from encoders.checkpoints import RANDOM
from encoders.registry import ENCODERS

from tests.encoders import tiny_models
from tests.encoders.elsewhere import Elsewhere, wanted

EXTRAS = {"technical_pyiqa": "pyiqa"}  # packages that not every installation has
INSTALLED = [name for name in ENCODERS if importlib.util.find_spec(EXTRAS.get(name, "torch"))]
# Always given: what makes a network of the papers without its checkpoint, and makes it quick.
ALWAYS = {
    "technical_fastvqa": {
        "weights": RANDOM,
        "variant": "fastervqa",
        "num_frames": 8,
        "embed_dim": 12,
    },
    "technical_timm": {"model": "test_vit", "weights": RANDOM, "grid": 5},
    "technical_pyiqa": {"metrics": ("piqe", "entropy"), "size": 256},
    # As few as show that time steps are local.
    "technical_lite": {"num_frames": 6},
    "semantic_lite": {"num_frames": 6},
    "semantic_objects": {"num_frames": 6},
    "motion_slowfast": {"weights": RANDOM, "size": 64},
    "motion_i3d": {"num_frames": 8, "size": 32},
    "semantic_clip": {"model": tiny_models.open_clip_folder()},
    "semantic_blip": {"weights": RANDOM},
}
# Other values of each option of each constructor that has any: a new option has to be added here.
# Models, their weights, and options that need them, are left to the encoder's own tests.
OPTIONS = {
    "technical_fastvqa": {
        "variant": "dover",
        "num_frames": 16,
        "frame_interval": 1,
        "num_clips": 2,
        "segments": 4,
        "time_steps": 2,
        "spatial_map": True,
        "strict_upstream": True,
        "drop_path": 0.1,
        "embed_dim": 6,
    },
    "technical_timm": {"num_frames": 4, "grid": 4},
    "technical_pyiqa": {"metrics": ("entropy",), "num_frames": 4, "size": 320},
    "motion_slowfast": {"pathways": "both", "num_frames": 16, "size": 48},
    "motion_i3d": {"num_frames": 9, "size": 48, "crop_bars": True},
    "technical_lite": {"num_frames": 4, "crop_bars": True, "distinctness": "clip"},
    "motion_flow": {
        "num_tokens": 8,
        "num_frames": 32,
        "size": 96,
        "crop_bars": True,
        "skip_fades": True,
    },
    "semantic_lite": {"num_frames": 4, "crop_bars": True},
    "semantic_objects": {"num_frames": 4},
    "semantic_clip": {"num_frames": 4, "patch_grid": 2, "whole": True},
    "semantic_blip": {"num_frames": 4, "strict_upstream": True},
}
TEXT_DEPENDENT = {"semantic_lite", "semantic_clip", "motion_i3d"}
# Encoders whose tokens also carry the whole clip: the part of a token that is local in time.
LOCAL_PART = {"motion_flow": slice(0, 171)}
WHOLE = {"motion_i3d"}  # whose tokens are of the whole clip
# Networks whose tokens see further in time than half of this file's clips.
FAR_SIGHTED = {"technical_fastvqa", "motion_slowfast"}

PROMPTS = ["a cat sleeping on a sofa", "a red sports car drives through rain"]

# Frames ----------------------------------------------------------------------------------------


def scene(t, height=96, width=128, *, seed=0, speed=3):
    """A textured picture that moves: uint8 (t, 3, h, w)."""
    rng = np.random.default_rng(seed)
    world = np.zeros((height, width + speed * t, 3), np.float32)
    for cells, weight in ((5, 1.0), (25, 0.5)):
        grid = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        world += weight * cv2.resize(grid, world.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    world = np.clip(128 + 45 * world, 0, 255).astype(np.uint8)
    frames = np.stack([world[:, speed * n : speed * n + width] for n in range(t)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def flat(t, value):
    colour = torch.tensor(value, dtype=torch.uint8).view(1, 3, 1, 1)
    return colour.expand(t, 3, 96, 128)


def noise(t):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (t, 3, 96, 128), generator=generator, dtype=torch.uint8)


CLIPS = {  # eight, to be encoded as one batch and one by one
    "scene": scene(48),
    "still": scene(1).expand(48, -1, -1, -1),
    "one frame": scene(1, seed=1),
    "black": flat(48, (0, 0, 0)),
    "white": flat(48, (255, 255, 255)),
    "blue": flat(48, (10, 20, 200)),
    "noise": noise(48),
    "strip": scene(9, 16, 400, speed=1),
}

# Fixtures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make(make_encoder):
    return lambda name, **options: make_encoder(name, **{**ALWAYS.get(name, {}), **options})


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoder(request, make):
    if request.param not in INSTALLED:
        pytest.skip(f"pip install '.[{EXTRAS[request.param]}]' first")
    return make(request.param)


@pytest.fixture(scope="module")
def views(encoder):
    return torch.stack([encoder.preprocess(wanted(encoder, clip)) for clip in CLIPS.values()])


@pytest.fixture(scope="module")
def tokens(encoder, views):
    """Of the eight clips, each alone: (8, m, e)."""
    with torch.no_grad():
        return torch.cat([encoder.encode(view[None]) for view in views])


def prompts(count):
    return [PROMPTS[n % len(PROMPTS)] for n in range(count)]


# Spec and fingerprint --------------------------------------------------------------------------


def test_the_tables_of_this_file_name_registered_encoders():
    assert {*OPTIONS, *ALWAYS, *EXTRAS} <= set(ENCODERS)
    assert TEXT_DEPENDENT <= set(ENCODERS) and set(LOCAL_PART) <= set(ENCODERS)


def test_the_spec_goes_by_the_registered_name(encoder, request):
    spec = encoder.spec
    assert isinstance(spec, EncoderSpec) and ENCODERS[spec.name]
    assert spec.name == request.node.callspec.params["encoder"]
    assert spec.name.split("_")[0] == spec.dimension
    assert len(spec.mean) == len(spec.std)


def test_every_option_is_keyword_only_and_checked_here(encoder):
    parameters = inspect.signature(type(encoder)).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    left = {p.name for p in parameters} - {"model", "weights", "flow"}
    assert left == set(OPTIONS.get(encoder.spec.name, {}))


def test_fingerprints_differ_between_encoders_and_options(encoder, make):
    name = encoder.spec.name
    options = OPTIONS.get(name, {})
    others = [make(name, **{option: options[option]}) for option in options]
    prints = [one.fingerprint() for one in (encoder, *others)]
    prints += [make(other).fingerprint() for other in INSTALLED if other != name]
    assert len(set(prints)) == len(prints)
    assert encoder.fingerprint() == prints[0]


def test_the_fingerprint_is_the_same_in_another_process(encoder, elsewhere):
    """Of an encoder that is made there, by a name and options."""
    _, fingerprints = elsewhere[encoder.spec.name]
    assert set(fingerprints) == {encoder.fingerprint()}


def test_other_options_give_tokens_of_their_own_spec(encoder, make):
    options = OPTIONS.get(encoder.spec.name, {})
    other = make(encoder.spec.name, **options)
    spec = other.spec
    view = other.preprocess(wanted(other, CLIPS["scene"]))
    with torch.no_grad():
        out = other(view[None], PROMPTS[:1])
    assert out.shape == (1, spec.num_tokens, spec.dim)
    assert (spec != encoder.spec) == bool(options)


# Frames and views ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 33, 150, 18000])
def test_the_frames_it_wants_are_ascending_and_in_range(encoder, num_frames):
    for fps in (1.0, 8.0, 23.976, 30.0, 240.0):
        indices = encoder.frame_indices(num_frames, fps)
        assert indices.dtype == np.int64 and indices.ndim == 1
        assert 1 <= len(indices) <= 256  # bounded, however long the clip
        assert indices[0] >= 0 and indices[-1] < num_frames
        assert (np.diff(indices) > 0).all()


def test_the_frames_it_wants_spread_over_a_long_clip(encoder):
    indices = encoder.frame_indices(18000, 30.0)
    assert indices[0] < 2 * 18000 / len(indices) and indices[-1] > 18000 * (1 - 2 / len(indices))


@pytest.mark.parametrize(
    "height, width, t",
    [
        (17, 33, 8),
        (240, 240, 8),
        (720, 1280, 8),
        (16, 16, 8),
        (96, 128, 1),
        (96, 128, 2),
        (640, 360, 5),
        (16, 400, 8),
        (400, 16, 8),
        (1, 1, 3),
    ],
)
def test_a_view_has_one_shape_whatever_the_frames(encoder, views, height, width, t):
    view = encoder.preprocess(wanted(encoder, scene(t, height, width, speed=1)))
    assert view.shape == views.shape[1:] and view.dtype == views.dtype
    assert torch.isfinite(view.float()).all()


def test_a_view_is_the_same_for_a_seed_and_frames_are_left_alone(encoder):
    frames = wanted(encoder, scene(48, 270, 480))
    before = frames.clone()
    state = torch.get_rng_state()
    first = encoder.preprocess(frames, seed=5)
    np.random.seed(1)
    assert torch.equal(first, encoder.preprocess(frames, seed=5))
    assert torch.equal(first, encoder.preprocess(frames.clone(), seed=5))
    assert torch.equal(frames, before)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is not touched
    first.zero_()  # nor does the view share memory with the frames
    assert torch.equal(frames, before)


@pytest.mark.parametrize(
    "wrong, got",
    [
        (
            lambda frames: frames / 255,
            "Tensor of float32 (2, 3, 40, 56); of floats in 0..1 make them by "
            "(x * 255).round().to(torch.uint8)",
        ),
        (lambda frames: frames.permute(0, 2, 3, 1), "Tensor of uint8 (2, 40, 56, 3)"),
        (lambda frames: frames.numpy(), "ndarray of uint8 (2, 3, 40, 56)"),
        (lambda frames: frames[None], "Tensor of uint8 (1, 2, 3, 40, 56)"),
        (lambda frames: frames[:0], "Tensor of uint8 (0, 3, 40, 56)"),
        (list, "list"),
    ],
)
def test_other_frames_than_uint8_are_refused(encoder, wrong, got):
    frames = torch.zeros(2, 3, 40, 56, dtype=torch.uint8)
    with pytest.raises(ValueError) as caught:
        encoder.preprocess(wrong(frames))
    assert str(caught.value) == f"frames must be a tensor of uint8 (t, 3, h, w), got {got}"


def test_one_text_for_all_clips_is_refused(encoder, views):
    with pytest.raises(TypeError, match=r"a prompt for each clip, got \[None, 'a dog'\]$"):
        encoder(views[:1], [None, "a dog"])
    with pytest.raises(TypeError, match="must be a list with a prompt for each clip, got 'a dog'"):
        encoder(views[:1], "a dog")


def test_frames_may_come_in_any_memory_layout(encoder):
    frames = wanted(encoder, scene(48))
    decoded = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(encoder.preprocess(decoded), encoder.preprocess(frames.contiguous()))


@pytest.mark.parametrize("dtype, device", [(torch.bfloat16, "cpu"), (torch.float32, "meta")])
def test_defaults_of_torch_change_nothing(encoder, views, dtype, device):
    """`torch.set_default_dtype` and `torch.set_default_device`, of which a script may make use."""
    frames = wanted(encoder, CLIPS["scene"])
    with torch.no_grad():
        expected = encoder(views[:1], PROMPTS[:1])
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                view, found = encoder.preprocess(frames), encoder(views[:1], PROMPTS[:1])
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(view, views[0])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # attention goes another way


# Tokens ----------------------------------------------------------------------------------------


def test_tokens_are_finite_and_shaped_as_the_spec_says(encoder, tokens):
    out = encoder.join(tokens, prompts(len(tokens)))
    assert out.shape == (len(CLIPS), encoder.spec.num_tokens, encoder.spec.dim)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all() and torch.isfinite(tokens).all()
    assert out.abs().max() < 1e4


def test_a_batch_of_eight_gives_what_eight_batches_of_one_give(encoder, views, tokens):
    with torch.no_grad():
        together = encoder.encode(views)
    scale = tokens.abs().mean()
    assert (together - tokens).abs().max() <= 1e-4 * scale
    joined = encoder.join(together, prompts(8))
    alone = torch.cat([encoder.join(tokens[n : n + 1], [p]) for n, p in enumerate(prompts(8))])
    assert (joined - alone).abs().max() <= 1e-4 * max(1, alone.abs().mean())


def test_forward_is_join_of_encode(encoder, views, tokens):
    with torch.no_grad():
        out = encoder(views[:1], PROMPTS[:1])
    assert out.dtype == torch.float32
    assert torch.equal(out, encoder.join(tokens[:1], PROMPTS[:1]))


def test_an_encoder_remembers_nothing_of_the_clip_before(encoder, views, tokens):
    """Nor of what its caller did to the view and the tokens since."""
    buffer = views[:1].clone()
    with torch.no_grad():
        encoder.encode(views[1:2])
        encoder.encode(buffer).fill_(7)
        assert torch.equal(encoder.encode(buffer), tokens[:1])
        buffer.copy_(views[6:7])
        assert torch.equal(encoder.encode(buffer), tokens[6:7])


def test_clips_that_differ_give_tokens_that_differ(tokens):
    of = dict(zip(CLIPS, tokens))
    names = ("scene", "noise", "strip", "black")  # not all flat colours: they move alike
    for n, name in enumerate(names):
        for other in names[:n]:
            assert not torch.allclose(of[name], of[other])


def test_only_an_encoder_that_reads_the_prompt_changes_with_it(encoder, tokens):
    first = encoder.join(tokens[:2], [PROMPTS[0], PROMPTS[1]])
    other = encoder.join(tokens[:2], [PROMPTS[0], PROMPTS[0]])
    assert torch.allclose(first[0], other[0], atol=1e-5)  # rows do not see each other's prompt
    without = encoder.join(tokens[:2], None)
    if encoder.spec.name in TEXT_DEPENDENT:
        assert not torch.allclose(first[1], other[1])
        assert without.shape == first.shape and not torch.allclose(first, without)
    else:
        assert torch.equal(first, other) and torch.equal(first, without)


def test_time_steps_are_local_in_time(encoder, views, tokens):
    """Damage to the second half of a clip leaves the first half's tokens alone."""
    if encoder.spec.name in WHOLE:
        assert encoder.spec.time_steps == 0
        return
    frames = CLIPS["scene"].clone()
    frames[len(frames) // 2 :] = noise(48)[len(frames) // 2 :]
    view = encoder.preprocess(wanted(encoder, frames))
    with torch.no_grad():
        damaged = encoder.encode(view[None])[0]
    steps = encoder.spec.time_steps
    assert 1 < steps <= len(damaged)
    part = LOCAL_PART.get(encoder.spec.name, slice(None))
    change = (damaged - tokens[0]).abs()[:steps, part].amax(1)
    if encoder.spec.name in FAR_SIGHTED:
        assert change[: steps // 4].max() < 0.5 * change[-steps // 4 :].min()
        return
    # A step next to the damage may look across it: flow has two frames and a gap of four.
    assert change[: steps // 2 - 2].max() <= 1e-4 * tokens[0].abs().mean()
    assert change[steps // 2 + 1 :].min() > 1e-2 * tokens[0].abs().mean()


# As a module -----------------------------------------------------------------------------------


def test_it_comes_frozen_and_in_eval_mode(encoder):
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_training_mode_changes_no_frozen_statistics(encoder, views, tokens):
    encoder.train()
    try:
        with torch.no_grad():
            encoder.encode(views[1:2])
            assert torch.equal(encoder.encode(views[:1]), tokens[:1])
    finally:
        encoder.eval()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["deepcopy", "pickle"]
)
def test_a_copy_gives_the_same_tokens(encoder, views, tokens, copied):
    twin = copied(encoder)
    assert twin.spec == encoder.spec and twin.fingerprint() == encoder.fingerprint()
    assert not any(module.training for module in twin.modules())
    with torch.no_grad():
        assert torch.equal(twin(views[:1], PROMPTS[:1]), encoder.join(tokens[:1], PROMPTS[:1]))


@pytest.fixture(scope="module")
def elsewhere(make):
    """By encoder, what one worker of a loader makes: a process takes long to start."""
    made = {}
    for name in INSTALLED:
        with contextlib.suppress(pytest.skip.Exception):  # without its weights
            made[name] = make(name)
    loader = torch.utils.data.DataLoader(
        Elsewhere(made, ALWAYS, list(CLIPS.values())[:2]),
        batch_size=2,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    return dict(zip(made, loader, strict=True))


def test_views_can_be_made_in_a_worker_of_a_data_loader(encoder, views, elsewhere):
    found, _ = elsewhere[encoder.spec.name]
    assert torch.equal(found, views[:2])


def test_the_view_does_not_depend_on_the_number_of_threads(encoder, views):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for n, clip in enumerate(CLIPS.values()):
                assert torch.equal(encoder.preprocess(wanted(encoder, clip)), views[n])
    finally:
        torch.set_num_threads(before)
