"""Parameters and GPU memory of the presets, counted without a GPU and without a download.

    python examples/benchmarks/preset_memory.py [PRESET...]

The networks are put on torch's meta device, where a forward and a backward pass have shapes but no
values; what lives at any time is summed up. So the figures are those of float32 and of torch's
plain kernels. Not in them: CUDA itself (about 0.5 GB), fragmentation, and cuDNN's work space. The
presets' catalogue holds them rounded up.
"""

import argparse
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, BlipVisionConfig, BlipVisionModel

from aigveval.model.backbones import inject_lora
from aigveval.model.config import LORA
from aigveval.model.projector import FeatureProjector
from aigveval.presets import list_presets, read_catalogue, read_preset
from encoders import Encoder, create_encoder
from encoders.checkpoints import RANDOM

TEXT_TOKENS = 110  # the question, and a prompt of about 30 words
GIB = 2**30


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made inside take at one time."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        self.known = {tensor.untyped_storage()._cdata: 0 for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return out

    def note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        self.live -= self.known.pop(key)


def num_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def make_encoder(name: str, options: dict[str, Any]) -> Encoder:
    """The network of a preset's encoder with random weights, on the meta device."""
    of_the_papers = not name.endswith(("_lite", "_flow"))
    encoder: Any = create_encoder(name, **options, **({"weights": RANDOM} if of_the_papers else {}))
    if name == "semantic_blip":  # a random one is tiny
        encoder.network = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                image_size=224,
            )
        )
        encoder.spec = type(encoder.spec)(**{**vars(encoder.spec), "dim": 1024, "size": 224})
        encoder.picture = type(encoder.picture)(**{**vars(encoder.picture), "size": 224})
    return encoder.eval()


def measure_encoder(encoder: Encoder) -> int:
    """Peak bytes of one clip's `encode`."""
    frames = torch.zeros(64, 3, 240, 320, dtype=torch.uint8)
    view = encoder.preprocess(frames[torch.from_numpy(encoder.frame_indices(64, 24.0))])
    encoder.to("meta")
    with torch.no_grad(), PeakBytes(encoder) as peak:
        encoder.encode(view[None].to("meta"))
    return peak.peak


def measure_llm(
    config: dict[str, Any], shapes: list[tuple[int, int]], preset: dict[str, Any]
) -> dict[str, int]:
    """Bytes of the LLM with LoRA and projectors, and peaks of scoring and of a training step."""
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="sdpa"
        )
        llm.requires_grad_(False)
        frozen = sum(value.numel() for value in llm.parameters())
        inject_lora(llm.base_model, {**LORA, **preset["lora"]}, name=preset["llm"])
        width = llm.config.hidden_size
        projectors = nn.ModuleList(
            FeatureProjector(
                k,
                d,
                width,
                hidden=preset["projector_hidden"],
                embedding_rms=1.0,
                clip=10.0,
                dropout=0.0,
                noise=0.0,
            )
            for k, d in shapes
        )
    trained = [p for m in (llm, projectors) for p in m.parameters() if p.requires_grad]
    length = TEXT_TOKENS + sum(k for k, _ in shapes)

    def run(batch: int) -> torch.Tensor:
        with torch.device("meta"):
            parts = [one(torch.zeros(batch, k, d))[0] for one, (k, d) in zip(projectors, shapes)]
            embeds = torch.cat([*parts, torch.zeros(batch, TEXT_TOKENS, width)], dim=1)
            mask, positions = torch.zeros(batch, 1, length, length), torch.arange(length)[None]
            return llm.base_model(
                inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state[:, -4:]

    with PeakBytes(llm, projectors) as training:
        run(preset["batch_size"]).mean().backward()
    with torch.no_grad(), PeakBytes(llm, projectors) as scoring:
        run(1)
    return {
        "frozen": frozen,
        "trained": sum(value.numel() for value in trained),
        "bytes": num_bytes(llm) + num_bytes(projectors),
        "scoring": scoring.peak,
        # Gradients of what's trained are in the peak; AdamW's two moments are not.
        "training": training.peak + 2 * sum(value.nbytes for value in trained),
    }


def main(names: list[str]) -> None:
    llms = read_catalogue()["llms"]
    for name in names:
        preset = {"batch_size": 16, **read_preset(name)}
        sizes, peaks, shapes, counts = [], [], [], {}
        for entry in preset["encoders"]:
            entry = {"name": entry} if isinstance(entry, str) else entry
            encoder = make_encoder(entry["name"], entry.get("options") or {})
            shapes.append((encoder.spec.num_tokens, encoder.spec.dim))
            counts[entry["name"]] = sum(value.numel() for value in encoder.parameters())
            peaks.append(measure_encoder(encoder))
            sizes.append(num_bytes(encoder))
        llm = measure_llm(llms[preset["llm"]]["config"], shapes, preset)
        score = sum(sizes) + llm["bytes"] + max(*peaks, llm["scoring"])
        train = max(sum(sizes) + max(peaks), llm["bytes"] + llm["training"])
        print(
            f"{name}: tokens {shapes}, encoders {counts}, LLM {llm['frozen']}, "
            f"trained {llm['trained']}"
        )
        print(
            f"  encoders {sum(sizes) / GIB:.2f} GiB, their peaks "
            f"{[round(peak / GIB, 2) for peak in peaks]}, LLM {llm['bytes'] / GIB:.2f}, its peak "
            f"scoring {llm['scoring'] / GIB:.2f}, training {llm['training'] / GIB:.2f}"
        )
        print(
            f"  score {score / GIB:.1f} GiB, train at batch {preset['batch_size']} "
            f"{train / GIB:.1f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("presets", nargs="*", metavar="PRESET")
    chosen = parser.parse_args().presets
    torch.set_num_threads(1)
    others = [name for name in list_presets() if name != "lite"]
    main(chosen or [name for name in others if "encoders" in read_preset(name)])
