"""The two towers of a CLIP-like model, out of open_clip or out of transformers.

Both give the same: an embedding of a picture and one of a text in a joint space (Radford et al.,
ICML 2021; SigLIP: Zhai et al., ICCV 2023), and the feature map of the picture before it is pooled.

Axis legend: n pictures, b texts, e width of the joint space, c channels of the feature map.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .base import seeded
from .checkpoints import RANDOM
from .frame_encoder import Interpolation, PictureInput
from .pretrained import (
    ask_hub,
    check_complete,
    hub_errors,
    model_folder,
    no_bars,
    reason_of,
    state_id,
)
from .weights import WeightsError

DEFAULT_MODEL, DEFAULT_TAG = "ViT-L-14-quickgelu", "openai"
_OPEN_CLIP_CONFIG = "open_clip_config.json"
_INSTEAD = (
    "where a model hub is reached, download it and give the folder as the option model, "
    "or the file as weights"
)
# The first of them that a repository has is fetched.
_WEIGHTS = ("model*.safetensors", "open_clip*.safetensors", "pytorch_model*.bin", "open_clip*.bin")
_KINDS = ("clip", "siglip")
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # of Pillow


class Towers(nn.Module):
    """What `SemanticClip` asks of a model.

    Attributes:
        picture: How it was shown its pictures.
        width: e.
        weights_id: The architecture and a SHA-256 of its weights.
    """

    picture: PictureInput
    width: int
    weights_id: str

    def image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (n, 3, size, size) to embeddings (n, e)."""
        raise NotImplementedError

    def image_and_map(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the last layer's feature map (n, c, rows, columns)."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """b texts to the arguments of `text`; what the context has no room for is cut."""
        raise NotImplementedError

    def text(self, **tokens: Tensor) -> Tensor:
        """Tokens of b texts to embeddings (b, e)."""
        raise NotImplementedError


def load_towers(model: str, weights: str | None) -> Towers:
    """Load a model by name, out of a folder, or from the Hugging Face Hub.

    Args:
        model: A name of open_clip (`ViT-B-16`), a folder of open_clip or transformers, or a Hub
            repository with the files of such a folder.
        weights: For a name of open_clip: a tag (`laion2b_s34b_b88k`), the path of a checkpoint or
            `random`; None is the default model's own. A folder has its own.

    Raises:
        WeightsError: The weights can't be had, are not this network's or not complete.
        ValueError: There is no such model, or it is not one of these kinds.
    """
    if "/" in model or "\\" in model or Path(model).expanduser().is_dir():
        if weights is not None:
            raise ValueError(f"{model} brings its own weights; leave out weights={weights!r}")
        folder = model_folder(model, weights=_WEIGHTS, instead=_INSTEAD)
        # Where a repository has both, the Hub's weights for transformers are the ones fetched.
        kind = _kind(folder / "config.json")
        if kind not in _KINDS and (folder / _OPEN_CLIP_CONFIG).is_file():
            return OpenClipTowers(f"local-dir:{folder}", called=model)
        if kind is None:
            raise WeightsError(f"{folder}: has neither config.json nor {_OPEN_CLIP_CONFIG}")
        if kind not in _KINDS:
            raise ValueError(f"{model}: {kind!r} is neither CLIP nor SigLIP")
        return TransformersTowers(folder, called=model)
    if weights is None and model == DEFAULT_MODEL:
        weights = DEFAULT_TAG
    return OpenClipTowers(model, weights, called=model)


def _drop_unused(model: Any) -> None:
    """Leave no parameter that no token depends on: trained, it would never get a gradient."""
    for name in ("logit_scale", "logit_bias", "text_decoder"):
        if isinstance(getattr(model, name, None), (nn.Parameter, nn.Module)):
            delattr(model, name)


class OpenClipTowers(Towers):
    """A model of open_clip (code: MIT; each tag's weights have a licence of their own).

    Args:
        name: As `open_clip.create_model` takes it.
        weights: Tag, path or `random`; None where the name holds a folder. Pictures are prepared
            for a file as for the name's tags where these agree on it, else as for OpenAI's CLIP.
        called: What to call it in messages.
    """

    model: Any  # has methods that nn.Module knows nothing of

    def __init__(self, name: str, weights: str | None = None, *, called: str) -> None:
        super().__init__()
        import open_clip

        if not name.startswith("local-dir:"):
            _check_name(name, weights)
        random = weights == RANDOM
        source = None if random or weights is None else os.path.expanduser(weights)
        given = source is not None and os.path.isfile(source)
        instead = "give a checkpoint of this model" if given else _INSTEAD
        with hub_errors(called if source is None else f"{called} {source}", instead=instead):
            config = open_clip.get_model_config(name)
            if source and (tag := open_clip.get_pretrained_cfg(name, source)):
                if repository := tag.get("hf_hub"):
                    ask_hub(repository.rpartition("/")[0])
                open_clip.download_pretrained(tag)  # first, as `create_model` logs before it raises
            with seeded():
                self.model = open_clip.create_model(
                    name,
                    pretrained=source,
                    require_pretrained=not random,
                    load_weights=not random,
                    pretrained_image=False,
                    pretrained_text=False,
                )
            self.tokenizer: Any = open_clip.get_tokenizer(name)
        written = json.dumps(config, sort_keys=True)
        architecture = hashlib.sha256(written.encode()).hexdigest()[:8]
        self.weights_id = f"{architecture} {RANDOM if random else state_id(self.model)}"
        _drop_unused(self.model.eval())
        shown = open_clip.get_model_preprocess_cfg(self.model)
        if given:
            shown |= _published_input(name)
        self.picture = _open_clip_input(shown, called)
        self.width = config["embed_dim"]
        # The final norm comes after the pooling where attention pools; it has another width then.
        self._norm = getattr(self.model.visual, "attn_pool", None) is None

    def image(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels, normalize=False)

    def image_and_map(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model.visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=self._norm
        )
        return out["image_features"], out["image_intermediates"][-1]

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"text": self.tokenizer(list(texts))}

    def text(self, **tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens["text"], normalize=False)


class TransformersTowers(Towers):
    """A CLIP or SigLIP of transformers.

    Args:
        folder: With the model's config, weights, tokenizer and image processor.
        called: What to call it in messages.
    """

    model: Any

    def __init__(self, folder: Path, *, called: str) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

        instead = "give a folder with the files of a CLIP or SigLIP model"
        with hub_errors(called, instead=instead), no_bars():
            config = AutoConfig.from_pretrained(folder)
            self.model, report = AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
            check_complete(called, report["missing_keys"])
            # Out of the mapped file into memory of its own, aligned as any other: the last digits
            # of a product depend on it, and a copy of the network should give the same.
            for value in self.model.parameters():
                value.data = value.data.clone()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self.picture = transformers_input(AutoImageProcessor.from_pretrained(folder))
        self._is_clip = config.model_type == "clip"
        vision, text = config.vision_config, config.text_config
        self._rows = vision.image_size // vision.patch_size
        self.width = config.projection_dim if self._is_clip else vision.hidden_size
        self._context = text.max_position_embeddings
        # What a network does beyond what its weights tell.
        details = [
            (part.num_attention_heads, part.hidden_act, part.layer_norm_eps)
            for part in (vision, text)
        ]
        self.weights_id = f"{config.model_type} {details} {state_id(self.model)}"
        _drop_unused(self.model.eval())

    def image(self, pixels: Tensor) -> Tensor:
        return self._project(self.model.vision_model(pixel_values=pixels))

    def image_and_map(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model.vision_model(pixel_values=pixels)
        features = out.last_hidden_state
        if self._is_clip:  # the first token is the class token; SigLIP has none, and norms its own
            features = self.model.vision_model.post_layernorm(features[:, 1:])
        return self._project(out), features.transpose(1, 2).unflatten(2, (self._rows, -1))

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        # SigLIP was trained on full contexts and has no mask; CLIP never looks past the end.
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self._context,
            truncation=True,
            return_tensors="pt",
        )
        return {"input_ids": tokens["input_ids"]}

    def text(self, **tokens: Tensor) -> Tensor:
        pooled = self.model.text_model(**tokens).pooler_output
        return self.model.text_projection(pooled) if self._is_clip else pooled

    def _project(self, out: Any) -> Tensor:
        pooled = out.pooler_output
        return self.model.visual_projection(pooled) if self._is_clip else pooled


def transformers_input(processor: Any) -> PictureInput:
    """What an image processor of transformers does, as far as it resizes, crops and normalises.

    Raises:
        ValueError: It does something else, such as keeping the aspect ratio.
    """
    size, crop_size = dict(processor.size or {}), dict(processor.crop_size or {})
    crop = bool(getattr(processor, "do_center_crop", False))
    if crop:
        sides = {size.get("shortest_edge", size.get("height")), *crop_size.values()}
    else:
        sides = {size.get("height"), size.get("width")}
    if len(sides) != 1 or None in sides or int(processor.resample) not in _RESAMPLE:
        raise ValueError(
            f"its image processor gives no square of one size, or by a filter of its own: "
            f"{size} {crop_size} {processor.resample}"
        )
    return PictureInput(
        size=int(sides.pop()),
        mean=_scaled(processor.image_mean),
        std=_scaled(processor.image_std),
        interpolation=_RESAMPLE[int(processor.resample)],
        crop=crop,
    )


def _published_input(name: str) -> dict[str, Any]:
    """How a model's published weights were shown their pictures; empty where they differ in it.

    Of a file open_clip takes OpenAI's mean, std and centre square, even if it is a SigLIP's.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    found = [
        {
            field: value
            for field, value in open_clip.get_pretrained_cfg(name, tag).items()
            if field in ("mean", "std", "interpolation", "resize_mode")
        }
        for tag in tags
    ]
    return found[0] if found and all(one == found[0] for one in found) else {}


def _open_clip_input(given: dict[str, Any], model: str) -> PictureInput:
    size, mode = given["size"], given["resize_mode"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1 or mode not in ("shortest", "squash"):
        raise ValueError(f"{model}: pictures of {size} px by {mode!r} are not supported")
    return PictureInput(
        size=sides.pop(),
        mean=_scaled(given["mean"]),
        std=_scaled(given["std"]),
        interpolation=given["interpolation"],
        crop=mode == "shortest",
    )


def _kind(config: Path) -> str | None:
    """What transformers calls a model, by its config; None where there is no config."""
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{config}: not a readable config ({reason_of(error)})") from error
    return str(found.get("model_type", "unknown")) if isinstance(found, dict) else "unknown"


def _scaled(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(255 * value for value in values)


def _check_name(name: str, weights: str | None) -> None:
    """Say early, and in one line, what open_clip says late, in a log, or not at all."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()"
        raise ValueError(f"open_clip has no model {name!r} (nor is it a folder); {hint}")
    if weights == RANDOM:
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = open_clip.get_pretrained_cfg(name, weights or "")
    if not tag and not (weights and Path(weights).expanduser().is_file()):
        raise WeightsError(
            f"{name}: {'no weights given' if weights is None else f'no tag or file {weights}'}; "
            f"give as weights a checkpoint's path or one of its tags: {', '.join(tags) or 'none'}"
        )
    # With the other activation function the network runs, and gives worse features.
    if tag.get("quick_gelu", False) and not config.get("quick_gelu", False):
        raise ValueError(f"{name}: {weights} was trained with QuickGELU; give {name}-quickgelu")
