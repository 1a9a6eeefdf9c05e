"""A training small enough for tests: encoders, an LLM, rated clips and a config for them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from aigveval.train.config import FitConfig
from encoders import registry
from encoders.base import Encoder, EncoderSpec

from tests.aigveval.features.test_cache import write_video

CLIPS = 30


class Brightness(Encoder):
    """The first and last frame's mean colour; text-free."""

    def __init__(self, name: str, dimension: str, dim: int) -> None:
        super().__init__()
        self.spec = EncoderSpec(
            name=name,
            dimension=dimension,
            num_tokens=2,
            dim=dim,
            stream="fast",
            size=8,
            mean=(0.0,) * 3,
            std=(255.0,) * 3,
            time_steps=2,
        )

    def frame_indices(self, num_frames, fps):
        return np.unique(np.array([0, num_frames - 1], dtype=np.int64))

    def preprocess(self, frames, *, seed=0):
        return frames.float()[[0, -1]].mean((2, 3))

    def encode(self, view):
        return view[..., : self.spec.dim]


class WordCount(Brightness):
    """Also reads the prompt: one more channel with its length."""

    def encode(self, view):
        return view[..., :2]

    def join(self, tokens, text=None):
        counts = [float(len(t.split())) for t in text] if text else [0.0] * len(tokens)
        extra = tokens.new_tensor(counts).view(-1, 1, 1).expand(-1, tokens.shape[1], 1)
        return torch.cat([tokens, extra], -1)


class Mixed(Brightness):
    """Colours through a layer that can be trained, and a batch norm."""

    def __init__(self, name: str, dimension: str, dim: int) -> None:
        super().__init__(name, dimension, dim)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = torch.nn.Linear(3, dim)
        self.norm = torch.nn.BatchNorm1d(dim)
        self.requires_grad_(False)

    def preprocess(self, frames, *, seed=0):
        return super().preprocess(frames) + seed % 7

    def encode(self, view):
        return self.norm(self.mix(view / 255).transpose(1, 2)).transpose(1, 2)


ENCODERS = {
    "technical_sharp": lambda: Brightness("technical_sharp", "technical", 3),
    "motion_moving": lambda: Brightness("motion_moving", "motion", 2),
    "semantic_matching": lambda: WordCount("semantic_matching", "semantic", 3),
}
REGISTERED = {**ENCODERS, "motion_mixed": lambda: Mixed("motion_mixed", "motion", 4)}


def make_llm(
    folder: Path,
    *,
    texts: Sequence[str] = (),
    vocab_size: int = 400,
    hidden: int = 32,
    heads: int = 2,
    initializer_range: float = 0.2,
) -> None:
    """Two random layers and a tokenizer of bytes, the level words and what else is in the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [f": {word}" for word in ("bad", "poor", "fair", "good", "excellent")] * 50
    tokenizer.train_from_iterator(
        [*texts, *words],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<s>", "</s>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    set_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=heads,
            max_position_embeddings=1024,
            # The usual 0.02 lets next to nothing through two random layers.
            initializer_range=initializer_range,
        )
    ).save_pretrained(folder)


class Killed(Exception):
    """Stands for a kill at a certain optimizer step."""


def run_and_kill(
    config: FitConfig,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: int,
    callback: str = "ProgressCallback",
) -> None:
    """Start a training, and end it in a callback of `fit` after so many steps."""
    from aigveval.train import fit

    kind = getattr(fit, callback)
    step_end = kind.on_step_end

    def kill(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed
        step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "on_step_end", kill)
        with pytest.raises(Killed):
            fit.main(config)


def make_data(folder: Path) -> None:
    """Clips whose brightness is their technical quality; motion and overall are partly known.

    Writes train.jsonl (24 rows), valid.jsonl (6), and pairs.jsonl (20 pairs of the training
    clips, the brighter preferred, neighbours called the same).
    """
    (folder / "videos").mkdir()
    rows = []
    for i in range(CLIPS):
        level = 10 + 7 * i
        write_video(folder / "videos" / f"{i}.mp4", level, frames=4)
        score = 1 + 4 * i / (CLIPS - 1)
        rows.append(
            {
                "video": f"videos/{i}.mp4",
                "prompt": f"a scene of kind {'very ' * (i % 4)}good",
                "technical": round(score, 3),
                "motion": round(6 - score, 3) if i % 3 else None,
                "semantic": float(1 + i % 4),
                "overall": None,
                "group": f"g{i // 4}",
            }
        )
    parts = {"train": [row for i, row in enumerate(rows) if i % 5], "valid": rows[::5]}
    random = np.random.default_rng(0)
    chosen = [random.choice(len(parts["train"]), 2, replace=False) for _ in range(20)]
    parts["pairs"] = [
        {
            "video_a": parts["train"][a]["video"],
            "video_b": parts["train"][b]["video"],
            "prompt": f"a scene of kind {n % 4}",
            "technical": "same" if abs(a - b) < 3 else "A" if a > b else "B",
            "semantic": "A" if n % 2 else None,
        }
        for n, (a, b) in enumerate(chosen)
    ]
    for name, part in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text)


def make_config(data: Path, llm: Path, output: Path, **options) -> FitConfig:
    """A config that trains in a second."""
    config = FitConfig(
        train=[str(data / "train.jsonl")],
        valid=[str(data / "valid.jsonl")],
        output_dir=str(output),
        cache_dir=str(data / "cache"),
        llm=str(llm),
        encoders=list(ENCODERS),
        projector_hidden=16,
        epochs=4,
        batch_size=6,
        learning_rate=5e-3,
        lora_learning_rate=1e-3,
        warmup=0.1,
        device="cpu",
        report_to=[],
        log_steps=1,
        feature_noise=0.1,
        mismatch_probability=0.25,
        prompt_dropout=0.1,
        save_steps=2,
        lora={"r": 2, "alpha": 4, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
    )
    return replace(config, **options)


def history(output: str | Path) -> list[dict]:
    """What a run has logged."""
    last = max(Path(output).glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    return json.loads((last / "trainer_state.json").read_text())["log_history"]


def losses(output: str | Path) -> list[float]:
    """The training losses of a run, as logged."""
    return [entry["loss"] for entry in history(output) if "loss" in entry]


def begin() -> None:
    """In a process of its own, before the command line runs."""
    registry._registered.update(REGISTERED)
    torch.set_num_threads(1)
