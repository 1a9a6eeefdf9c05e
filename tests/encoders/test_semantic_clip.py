"""semantic_clip: towers of open_clip and transformers, scalars, prompts, weights."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from encoders import WeightsError, clip_towers, create_encoder
from encoders.checkpoints import RANDOM
from encoders.testing import check_encoder

from tests.encoders import tiny_models

PROMPT = "a red car in the rain"
WIDTH = tiny_models.EMBEDDING
FOLDERS = {
    "open_clip": tiny_models.open_clip_folder,
    "clip": tiny_models.clip_folder,
    "siglip": tiny_models.siglip_folder,
}


def make(model="open_clip", **options):
    if model in FOLDERS:
        model = FOLDERS[model]()
    return create_encoder("semantic_clip", model=model, **{"num_frames": 4, **options})


@pytest.fixture(scope="module")
def encoder():
    return make()


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 90, 160), generator=generator, dtype=torch.uint8)


def tokens_of(encoder, frames, prompt=PROMPT):
    with torch.no_grad():
        return encoder(encoder.preprocess(frames)[None], [prompt])[0]


# Tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_grid", [0, 2])
def test_both_libraries_give_the_same_tokens_for_the_same_weights(frames, patch_grid):
    ours, theirs = make("open_clip", patch_grid=patch_grid), make("clip", patch_grid=patch_grid)
    expected, found = tokens_of(ours, frames), tokens_of(theirs, frames)
    assert ours.spec == theirs.spec
    assert (found - expected).abs().max() < 1e-4 and expected.abs().mean() > 0.1


def test_embeddings_are_open_clips_own(encoder, frames):
    """By its transform, model and tokenizer, as its README has it."""
    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{tiny_models.open_clip_folder()}"
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_models.open_clip_folder()}")
    pictures = [transform(Image.fromarray(frame.permute(1, 2, 0).numpy())) for frame in frames]
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack(pictures))
        text = model.encode_text(tokenizer([PROMPT]))[0]
    tokens = tokens_of(encoder, frames)
    assert torch.allclose(tokens[:4, :WIDTH], images, atol=1e-3) and images.std() > 1
    assert torch.allclose(tokens[4, :WIDTH], text, atol=1e-5)
    cosines = F.cosine_similarity(images, text[None], dim=1)
    assert torch.allclose(tokens[:4, WIDTH], cosines, atol=1e-5)


def test_siglip_is_run_as_transformers_runs_it(frames):
    from transformers import AutoImageProcessor, AutoTokenizer, SiglipModel

    folder = tiny_models.siglip_folder()
    model = SiglipModel.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
    words = AutoTokenizer.from_pretrained(folder)(
        [PROMPT], padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        out = model(pixel_values=pixels["pixel_values"], input_ids=words["input_ids"])
    similarity = (out.logits_per_text[0] - model.logit_bias) / model.logit_scale.exp()
    tokens = tokens_of(make("siglip"), frames)
    # It resizes with torchvision, we with Pillow: a pixel may differ by a level.
    assert torch.allclose(tokens[:4, -4], similarity, atol=1e-3)
    assert similarity.std() > 1e-3


def test_neighbours_tell_how_steady_a_clip_is(encoder, frames):
    still = tokens_of(encoder, frames[:1].expand(4, -1, -1, -1))
    assert torch.allclose(still[:4, -3:], torch.ones(4, 3), atol=1e-5)
    cut = tokens_of(encoder, frames[[0, 0, 1, 1]])
    similarity = F.cosine_similarity(cut[0, :WIDTH], cut[2, :WIDTH], dim=0)
    assert similarity < 0.9
    assert torch.allclose(
        cut[:4, -3], torch.stack([still[0, -3], still[0, -3], similarity, still[0, -3]]), atol=1e-5
    )  # before
    assert torch.allclose(cut[:4, -2], cut[[0, 2, 0, 0], -3], atol=1e-5)  # after
    assert torch.allclose(cut[4, -4:], cut[:4, -4:].mean(0), atol=1e-5)


def test_without_a_prompt_its_parts_are_zero(encoder, frames):
    given, none = tokens_of(encoder, frames), tokens_of(encoder, frames, " ")
    assert not none[4, :WIDTH].any() and not none[:, WIDTH].any() and not none[:, -1].any()
    assert torch.equal(none[:4, :WIDTH], given[:4, :WIDTH]) and given[:, -1].eq(1).all()
    assert torch.equal(none[:4, -3:-1], given[:4, -3:-1])


def test_cells_are_means_over_the_feature_map(frames):
    encoder = make(patch_grid=2)
    view = encoder.preprocess(frames)[None]
    with torch.no_grad():
        tokens = encoder.encode(view)[0].unflatten(0, (4, 5))
        features = encoder.towers.image_and_map(encoder.pixels(view))[1]
    assert features.shape == (4, 64, 4, 4)
    corner = features[:, :, 2:, :2].mean((2, 3))  # lower left: third of four, row by row
    assert torch.allclose(tokens[:, 3], corner, atol=1e-5)
    whole = tokens_of(encoder, frames)
    assert encoder.spec.num_tokens == 21 and encoder.spec.dim == 68
    assert not whole[:20].unflatten(0, (4, 5))[:, 1:, 64:].any()


def test_the_whole_frame_can_be_seen_or_its_centre(frames):
    marked = frames.clone()
    marked[..., :20] = 255  # outside of the centre square of 90
    for whole in (False, True):
        encoder = make(whole=whole)
        same = torch.equal(encoder.preprocess(frames), encoder.preprocess(marked))
        assert same is not whole


# Prompts ---------------------------------------------------------------------------------------


def test_a_prompt_is_encoded_once_as_long_as_the_weights_stay(frames, monkeypatch):
    encoder, calls = make(), []
    run = encoder.towers.text
    monkeypatch.setattr(encoder.towers, "text", lambda **t: calls.append(1) or run(**t))
    tokens = encoder.encode(encoder.preprocess(frames)[None]).repeat(3, 1, 1)
    first = encoder.join(tokens, [PROMPT, "a cat", PROMPT])
    assert len(calls) == 2 and torch.equal(first[0], first[2])
    assert torch.equal(encoder.join(tokens, ["a cat", PROMPT, PROMPT])[1], first[0])
    assert len(calls) == 2
    with torch.autocast("cpu", torch.bfloat16):
        encoder.join(tokens[:1], [PROMPT])
    assert len(calls) == 3
    encoder.load_state_dict({k: v * 1.1 for k, v in encoder.state_dict().items()})
    assert not torch.allclose(encoder.join(tokens, [PROMPT] * 3)[0], first[0])
    assert len(calls) == 4


def test_what_is_remembered_is_bounded(encoder, frames, monkeypatch):
    monkeypatch.setattr("encoders.semantic_clip._REMEMBERED", 3)
    tokens = encoder.encode(encoder.preprocess(frames)[None])
    expected = encoder.join(tokens, ["prompt 0"])
    for n in range(5):
        encoder.join(tokens, [f"prompt {n}"])
        assert len(encoder._known) <= 3
    assert torch.equal(encoder.join(tokens, ["prompt 0"]), expected)


def test_another_thread_may_forget_prompts_meanwhile(encoder, frames, monkeypatch):
    tokens = encoder.encode(encoder.preprocess(frames)[None]).repeat(3, 1, 1)
    prompts = ["prompt a", "prompt b", "prompt a"]
    expected = encoder.join(tokens, prompts)
    encoder._known.clear()
    run = encoder._run_text

    def run_text(prompts, device):
        encoder._known.clear()
        return run(prompts, device)

    monkeypatch.setattr(encoder, "_run_text", run_text)
    assert torch.equal(encoder.join(tokens, prompts), expected)


def test_a_prompt_beyond_the_context_is_cut(encoder, frames):
    long = " ".join(["car"] * 100)
    assert torch.equal(tokens_of(encoder, frames, long), tokens_of(encoder, frames, f"{long} cat"))


def test_each_clip_needs_its_prompt(encoder):
    with pytest.raises(ValueError) as caught:
        encoder.join(torch.zeros(2, 4, WIDTH), [PROMPT])
    assert str(caught.value) == "2 clips need as many prompts, got 1"


# Training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["open_clip", "clip", "siglip"])
def test_it_keeps_every_promise(model):
    check_encoder(make(model, num_frames=2, patch_grid=2 if model == "siglip" else 0))


def test_training_the_towers_brings_frames_and_prompt_together(frames):
    encoder = make()
    view = encoder.preprocess(frames)[None]
    before = encoder(view, [PROMPT])
    encoder.requires_grad_(True).train()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.02)
    similarity = []
    for _ in range(4):
        loss = -encoder(view, [PROMPT])[0, 4, WIDTH]
        similarity.append(-loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(
            p.grad is not None and p.grad.any()
            for p in encoder.parameters()
            if p.ndim == 2 and len(p) < 1000
        )  # of 49408 words few are in the prompt
        optimizer.step()
    assert similarity == sorted(similarity) and similarity[-1] > similarity[0] + 0.05
    encoder.requires_grad_(False).eval()  # what was remembered before is forgotten
    assert not torch.allclose(encoder(view, [PROMPT])[0, 4, :WIDTH], before[0, 4, :WIDTH])


# Weights ---------------------------------------------------------------------------------------


@pytest.fixture
def named_model(tmp_path, monkeypatch):
    """The tiny network as one of open_clip's own, and a checkpoint of it."""
    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    config = tmp_path / "ViT-Tiny.json"
    config.write_text(json.dumps(tiny_models.OPEN_CLIP), encoding="utf-8")
    open_clip.add_model_config(config)
    path = tmp_path / "tiny.pt"
    torch.save({"epoch": 3, "state_dict": tiny_models.open_clip_model().state_dict()}, path)
    return path


def test_a_name_of_open_clip_with_a_checkpoint(named_model, encoder, frames):
    named = make("ViT-Tiny", weights=named_model)
    assert torch.equal(tokens_of(named, frames), tokens_of(encoder, frames))
    assert named.fingerprint() == encoder.fingerprint()  # the same weights, had in another way
    assert json.loads(json.dumps(named.options()))["weights"] == str(named_model)


INCEPTION = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "interpolation": "bilinear",
    "resize_mode": "squash",
}
OPENAI = {**INCEPTION, "mean": (0.48, 0.45, 0.4), "resize_mode": "shortest"}


@pytest.mark.parametrize(
    "tags, as_published",
    [
        ({"one": INCEPTION, "other": {**INCEPTION, "hf_hub": "org/model"}}, True),
        ({"one": INCEPTION, "other": OPENAI}, False),
        ({}, False),
    ],
)
def test_a_checkpoint_is_shown_its_pictures_as_its_names_tags_are(
    named_model, encoder, tags, as_published, monkeypatch
):
    """SigLIP's weights by path would otherwise get OpenAI's mean and see the centre only."""
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-Tiny", tags)
    picture = make("ViT-Tiny", weights=named_model).picture
    if as_published:
        assert (picture.mean, picture.std) == ((127.5,) * 3, (63.75,) * 3)
        assert (picture.interpolation, picture.crop) == ("bilinear", False)
    else:
        assert picture == encoder.picture


def test_the_checkpoint_of_a_siglip_is_shown_pictures_as_siglips_are():
    """Of each of open_clip's own names."""
    names = [name for name in open_clip.list_models() if "SigLIP" in name]
    for name in names:
        found = clip_towers._published_input(name)
        assert (found["mean"], found["resize_mode"]) == ((0.5, 0.5, 0.5), "squash"), name
    assert len(names) > 5


def test_the_fingerprint_is_of_the_weights_not_of_their_place(tmp_path, encoder):
    moved = tmp_path / "moved"
    shutil.copytree(tiny_models.open_clip_folder(), moved)
    assert make(str(moved)).fingerprint() == encoder.fingerprint()
    options = {"whole": True}, {"patch_grid": 1}, {"num_frames": 3}
    others = [make(**one).fingerprint() for one in options] + [make("clip").fingerprint()]
    assert len({encoder.fingerprint(), *others}) == 5


def test_random_weights_have_to_be_asked_for(named_model, frames):
    with pytest.raises(WeightsError) as caught:
        make("ViT-Tiny")
    assert str(caught.value) == (
        "ViT-Tiny: no weights given; give as weights a checkpoint's path or one of its tags: none"
    )
    encoder = make("ViT-Tiny", weights=RANDOM)
    assert encoder.weights_id.endswith(f" {RANDOM}")
    again = make("ViT-Tiny", weights=RANDOM)
    assert torch.equal(tokens_of(encoder, frames), tokens_of(again, frames))


def test_a_folder_without_weights_is_refused(tmp_path):
    shutil.copy(Path(tiny_models.open_clip_folder()) / "open_clip_config.json", tmp_path)
    with pytest.raises(WeightsError, match=f"^{tmp_path}: can't be loaded .*Required pretrained"):
        make(str(tmp_path))
    with pytest.raises(ValueError) as caught:
        make(str(tmp_path), weights="openai")
    assert str(caught.value) == f"{tmp_path} brings its own weights; leave out weights='openai'"


def test_a_folder_that_lacks_a_part_is_refused(tmp_path):
    """transformers would fill it with random weights, and only warn."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "clip"
    shutil.copytree(tiny_models.clip_folder(), folder)
    state = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in state.items() if "visual_projection" not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError) as caught:
        make(str(folder))
    assert str(caught.value) == f"{folder}: lacks the weights visual_projection.weight"


def test_a_checkpoint_of_something_else_is_refused(named_model, tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="^ViT-Tiny .*other.pt: can't be loaded .*; give a ch"):
        make("ViT-Tiny", weights=tmp_path / "other.pt")


@pytest.mark.parametrize(
    "options, error, message",
    [
        (
            {"model": "ViT-L-41"},
            ValueError,
            "open_clip has no model 'ViT-L-41' (nor is it a folder); did you mean ViT-L-16",
        ),
        (
            {"model": "ViT-L-14", "weights": "openai"},
            ValueError,
            "ViT-L-14: openai was trained with QuickGELU; give ViT-L-14-quickgelu",
        ),
        (
            {"model": "ViT-B-16", "weights": "opnai"},
            WeightsError,
            "ViT-B-16: no tag or file opnai; give as weights a checkpoint's path or one of its tags: "
            "openai, laion400m_e31",
        ),
        (
            {"model": "no-such-org/no-such-model"},
            WeightsError,
            "no-such-org/no-such-model: can't be loaded (LocalEntryNotFoundError",
        ),
        ({"model": "./gone"}, WeightsError, "./gone: no such folder"),
        (
            {"model": "tests"},
            WeightsError,
            "tests: has neither config.json nor open_clip_config.json",
        ),
        ({"patch_grid": -1}, ValueError, "patch_grid must be at least 0, got -1"),
    ],
)
def test_wrong_options_are_answered_in_one_line(options, error, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(error) as caught:
        create_encoder("semantic_clip", **options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_grid_finer_than_the_feature_map_is_refused():
    with pytest.raises(ValueError, match="^patch_grid must be at most 4, the side of the feature"):
        make(patch_grid=5)


def test_a_folder_of_both_kinds_is_transformers_and_one_of_another_is_open_clips(
    tmp_path, encoder, frames
):
    """As repositories on the Hub are: with two sets of weights, or with timm's config."""
    for source in (tiny_models.open_clip_folder(), tiny_models.clip_folder()):
        shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    assert make(str(tmp_path)).fingerprint() == make("clip").fingerprint()
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16"}', encoding="utf-8")
    assert make(str(tmp_path)).fingerprint() == encoder.fingerprint()
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match=f"^{tmp_path}/config.json: not a readable config .JSON"):
        make(str(tmp_path))


def test_another_kind_of_model_is_refused():
    folder = tiny_models.blip_folder()
    with pytest.raises(ValueError) as caught:
        make(folder)
    assert str(caught.value) == f"{folder}: 'blip' is neither CLIP nor SigLIP"


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **options):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(WeightsError) as caught:
        create_encoder("semantic_clip")
    assert str(caught.value) == (
        "ViT-L-14-quickgelu openai: can't be loaded (ConnectionError: Name or service not known); "
        "where a model hub is reached, download it and give the folder as the option model, or "
        "the file as weights"
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["RN50", "convnext_base", "ViT-B-32"])
def test_networks_of_other_kinds_have_embeddings_and_a_feature_map(model, frames):
    encoder = make(model, weights=RANDOM, num_frames=1, patch_grid=3)
    tokens = tokens_of(encoder, frames[:1])
    assert tokens.shape == (11, encoder.spec.dim) and torch.isfinite(tokens).all()
    assert tokens[:10, :-4].std(1).min() > 0
