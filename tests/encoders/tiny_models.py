"""Models of the libraries' own kinds, small enough for a test, as folders on disk.

Their weights are random: what is tested is that they are loaded and run as the libraries do.
"""

import atexit
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

SIZE, PATCH, WIDTH, LAYERS, HEADS = 64, 16, 64, 2, 4
EMBEDDING, TEXT_WIDTH, TEXT_HEADS = 32, 32, 2
OPEN_CLIP = {
    "embed_dim": EMBEDDING,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": LAYERS,
        "width": WIDTH,
        "head_width": WIDTH // HEADS,
        "patch_size": PATCH,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": TEXT_WIDTH,
        "heads": TEXT_HEADS,
        "layers": LAYERS,
    },
}


@lru_cache(maxsize=1)
def root():
    folder = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def seeded(make, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args, **options).eval()


@lru_cache(maxsize=1)
def open_clip_model():
    model = seeded(open_clip.CLIP, **OPEN_CLIP)
    with torch.no_grad():  # as they come, tokens hardly differ between pictures or texts
        for name, value in model.named_parameters():
            if value.ndim > 1 and "logit" not in name:
                value.mul_(4)
    return model


@lru_cache(maxsize=1)
def open_clip_folder():
    folder = root() / "open_clip"
    folder.mkdir()
    config = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {k: v.clone().contiguous() for k, v in open_clip_model().state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return str(folder)


def as_transformers(state):
    """Weights of open_clip's CLIP under the names of transformers' `CLIPModel`."""
    out = {}
    for name, value in state.items():
        if name.startswith("visual."):
            name = f"vision_model.{name.removeprefix('visual.')}"
        elif name not in ("logit_scale", "text_projection"):
            name = f"text_model.{name}"
        for old, new in (
            ("transformer.resblocks", "encoder.layers"),
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
            ("attn.out_proj", "self_attn.out_proj"),
            ("ln_pre", "pre_layrnorm"),
            ("ln_post", "post_layernorm"),
            ("ln_final", "final_layer_norm"),
            ("conv1.weight", "embeddings.patch_embedding.weight"),
            ("class_embedding", "embeddings.class_embedding"),
            (
                "vision_model.positional_embedding",
                "vision_model.embeddings.position_embedding.weight",
            ),
            ("text_model.positional_embedding", "text_model.embeddings.position_embedding.weight"),
            ("token_embedding", "embeddings.token_embedding"),
        ):
            name = name.replace(old, new)
        if "attn.in_proj" in name:
            kind = name.rpartition("_")[2]
            for part, rows in zip("qkv", value.chunk(3)):
                key = name.replace(f"attn.in_proj_{kind}", f"self_attn.{part}_proj.{kind}")
                out[key] = rows
        elif name == "vision_model.proj":
            out["visual_projection.weight"] = value.T
        elif name == "text_projection":
            out["text_projection.weight"] = value.T
        else:
            out[name] = value
    return out


@lru_cache(maxsize=1)
def clip_folder():
    """The same network as `open_clip_folder`, of transformers."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    text = {
        "vocab_size": 49408,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": TEXT_HEADS,
        "eos_token_id": 49407,
        "bos_token_id": 49406,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": SIZE,
        "patch_size": PATCH,
        "hidden_act": "gelu",
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING)
    model = CLIPModel(config)
    model.load_state_dict(as_transformers(open_clip_model().state_dict()), strict=True)
    words = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(words.bpe_ranks.items(), key=lambda item: item[1])]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): n for word, n in words.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    processor = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    return saved("clip", model, tokenizer, processor)


@lru_cache(maxsize=1)
def siglip_folder():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
    )

    shared = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 3,
    }
    vocabulary = ["</s>", "<unk>", "a", "cat", "red", "car", "sofa", "rain"]
    config = SiglipConfig(
        text_config={
            **shared,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        vision_config={**shared, "image_size": SIZE, "patch_size": PATCH},
    )
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(vocabulary)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    )
    processor = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    return saved("siglip", seeded(SiglipModel, config), tokenizer, processor)


@lru_cache(maxsize=None)
def blip_folder(kind="BlipForImageTextRetrieval"):
    import transformers

    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": PATCH,
        "initializer_range": 0.1,  # as it comes, 1e-10, every picture would look alike
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "vocab_size": 20,
        "num_attention_heads": 2,
        "encoder_hidden_size": 128,
    }
    config = transformers.BlipVisionConfig(**vision)
    if kind != "BlipVisionModel":
        config = transformers.BlipConfig(
            vision_config=vision, text_config=text, projection_dim=16, image_text_hidden_size=16
        )
    model = seeded(getattr(transformers, kind), config)
    processor = transformers.BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    return saved(kind, model, processor)


def saved(name, *parts):
    for part in parts:
        part.save_pretrained(root() / name)
    return str(root() / name)
