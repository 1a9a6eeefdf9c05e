"""The model that a run trains, its encoders, and the statistics that it starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoders import create_encoder
from encoders.base import Encoder
from encoders.pretrained import is_repository
from encoders.registry import resolve_name

from ..features.cache import FeatureCache, extract
from ..model.backbones import check_four_bit, load_llm, load_vlm
from ..model.base import ScorerModel
from ..model.checkpoint import frozen_llm, open_checkpoint
from ..model.config import EMBEDDED_LLM, AIGVEvalConfig
from ..model.modeling import AIGVEvalModel
from ..model.modeling_vlm import VlmConfig, VlmModel
from ..model.processing import AIGVEvalProcessor
from ..model.processing_vlm import VlmProcessor
from .config import FitConfig, FitError
from .dataset import Collator, QualityDataset, VlmCollator, VlmDataset
from .rows import TrainingRow

# Rows that give the statistics of an encoder in training; they change anyway.
STATS_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model to train, with its processor and encoders.

    Attributes:
        model: Holds the encoders in training, and those that were trained before, and no others.
        processor: The model's.
        encoders: All of them, in the order of the model's config.
        trained: Names of those that this run trains.
    """

    model: ScorerModel
    processor: Any
    encoders: list[Encoder]
    trained: list[str]

    @property
    def frozen(self) -> list[Encoder]:
        """The encoders that are not trained, whose tokens can be cached."""
        return [e for e in self.encoders if e.spec.name not in self.trained]

    @property
    def is_vlm(self) -> bool:
        """Whether it is a vision-language model, without encoders."""
        return isinstance(self.model, VlmModel)

    @property
    def collate(self) -> Any:
        """Makes batches of the items of `dataset`."""
        kind = VlmCollator if self.is_vlm else Collator
        return kind(encode_prompts=self.processor.encode_prompts)

    def dataset(
        self,
        rows: Sequence[Sequence[TrainingRow]],
        digests: Mapping[str, str],
        cache: FeatureCache,
        **options: Any,
    ) -> QualityDataset:
        """Rows as this model takes them; for the options see `QualityDataset`."""
        if self.is_vlm:
            return VlmDataset(rows, digests, cache, processor=self.processor, **options)
        return QualityDataset(rows, digests, self.encoders, cache, trained=self.trained, **options)


def build_model(config: FitConfig) -> Built:
    """Make or load the model to train.

    Raises:
        FitError: The LLM cannot be loaded as asked, an encoder cannot be made, or the model lacks
            a part that is to be trained.
        ModelError: There is no such base model.
    """
    try:
        kind = open_checkpoint(config.base).model_class if config.base else None
        if config.vlm or kind is VlmModel:
            return _build_vlm(config)
        model, processor, encoders = _from_base(config) if config.base else _new(config)
    except (OSError, ValueError) as error:
        if type(error) not in (OSError, ValueError):  # our own have a message already
            raise
        raise FitError(" ".join(str(error).split())) from error
    hinted = config.ridge or config.align_epochs or config.learn == "distill"
    if hinted and not model.config.score_hints:
        raise FitError(
            "ridge, align_epochs and learn: distill need score_hints, and the model has none"
        )
    if config.learn == "distill" and model.config.lora is None:
        raise FitError("learn: distill trains the LoRA, and the model has none")
    names = [encoder.spec.name for encoder in encoders]
    trained = [resolve_name(name) if name not in names else name for name in config.train_encoders]
    for name in trained:
        if name not in names:
            raise FitError(f"train_encoders: {name} is not among the encoders {', '.join(names)}")
        if next(encoders[names.index(name)].parameters(), None) is None:
            raise FitError(f"train_encoders: {name} has no parameters that could be trained")
    model.set_trained_encoders({e.spec.name: e for e in encoders if e.spec.name in trained})
    return Built(model=model, processor=processor, encoders=encoders, trained=trained)


def _from_base(config: FitConfig) -> tuple[AIGVEvalModel, AIGVEvalProcessor, list[Encoder]]:
    checkpoint = open_checkpoint(config.base or "")
    base = checkpoint.source
    processor = AIGVEvalProcessor.from_pretrained(base)
    saved = AIGVEvalConfig.from_pretrained(base, **_noise(config))
    saved.llm = _lasting_llm(checkpoint.folder, saved)
    saved.llm_4bit = saved.llm_4bit or config.llm_4bit
    if saved.llm_4bit:
        check_four_bit()
    model = AIGVEvalModel.from_pretrained(base, config=saved, dtype=_dtype(config))
    model.model.remove_measured()
    model.load_encoders(processor.encoders)
    encoders = [model.encoders[entry["name"]] for entry in saved.encoders]
    # The frozen ones were checked; optimizer and checkpoints do not need them.
    model.encoders = nn.ModuleDict({name: model.encoders[name] for name in saved.trained_encoders})
    return model, processor, encoders  # type: ignore[return-value]


def _lasting_llm(folder: Path, saved: AIGVEvalConfig) -> str:
    """The LLM as a model that goes on from a saved one names it.

    That of a merged folder where the name leads nowhere here, as a folder of another machine does.
    """
    name, llm = saved.llm, frozen_llm(folder, saved)
    known = name in (EMBEDDED_LLM, llm) or is_repository(name) or Path(name).is_dir()
    return name if known else os.path.abspath(llm)


def _new(config: FitConfig) -> tuple[AIGVEvalModel, AIGVEvalProcessor, list[Encoder]]:
    made = [_make_encoder(entry) for entry in config.encoders]  # first, as some may be missing
    llm = load_llm(config.llm, dtype=_dtype(config), four_bit=config.llm_4bit)
    model_config = AIGVEvalConfig.from_encoders(
        made,
        llm=config.llm,
        lora=config.lora,
        llm_4bit=config.llm_4bit,
        projector_hidden=config.projector_hidden,
        score_hints=config.score_hints,
        **_noise(config),
    )
    by_name = {encoder.spec.name: encoder for encoder in made}
    processor = AIGVEvalProcessor.from_config(model_config)
    encoders = [by_name[entry["name"]] for entry in model_config.encoders]
    return AIGVEvalModel(model_config, llm=llm), processor, encoders


def _build_vlm(config: FitConfig) -> Built:
    for name in ("ridge", "align_epochs", "detector", "train_encoders"):
        if getattr(config, name):
            raise FitError(f"{name} has no place with a vision-language model")
    if config.learn == "distill":
        raise FitError("learn: distill needs projectors, which a vision-language model has none of")
    if config.base:
        base = open_checkpoint(config.base).source
        saved = VlmConfig.from_pretrained(base)
        saved.llm_4bit = saved.llm_4bit or config.llm_4bit
        if saved.llm_4bit:
            check_four_bit()
        model = VlmModel.from_pretrained(base, config=saved, dtype=_dtype(config))
        return Built(
            model=model, processor=VlmProcessor.from_pretrained(base), encoders=[], trained=[]
        )
    assert config.vlm is not None
    vlm = load_vlm(config.vlm, dtype=_dtype(config), four_bit=config.llm_4bit)
    made = VlmConfig(vlm=config.vlm, lora=config.lora, llm_4bit=config.llm_4bit, **config.frames)
    processor = VlmProcessor.from_config(made)
    return Built(model=VlmModel(made, vlm=vlm), processor=processor, encoders=[], trained=[])


def _make_encoder(entry: str | Mapping[str, Any]) -> Encoder:
    name = entry if isinstance(entry, str) else entry["name"]
    options = {} if isinstance(entry, str) else entry.get("options") or {}
    try:
        return create_encoder(name, **options)
    except (TypeError, ValueError) as error:  # a wrong name or option
        raise FitError(f"encoder {name}: {error}") from error


def _noise(config: FitConfig) -> dict[str, Any]:
    return {"feature_dropout": config.feature_dropout, "feature_noise": config.feature_noise}


def _dtype(config: FitConfig) -> torch.dtype:
    return torch.bfloat16 if config.bf16 else torch.float32


def set_stats(built: Built, dataset: QualityDataset, *, device: torch.device) -> None:
    """Standardise each encoder's tokens by the statistics of the training rows.

    For encoders in training, those of some rows before the training; these tokens are cached too,
    so that a run that is stopped here does not compute them again.
    """
    if not isinstance(built.model, AIGVEvalModel):
        return
    stats = dict(zip([e.spec.name for e in built.encoders], feature_stats(dataset)))
    changing = [e for e in built.encoders if e.spec.name in built.trained]
    if changing:
        count = min(len(dataset), STATS_ROWS)
        rows = [dataset.rows[i * len(dataset) // count] for i in range(count)]
        digests = extract([r.video for r in rows], changing, dataset.cache, device=device).digests
        for encoder in changing:
            encoder.to("cpu")  # where cached tokens are joined with prompts
        part = QualityDataset(
            [[row for row in rows if row.video in digests]], digests, changing, dataset.cache
        )
        stats |= zip([e.spec.name for e in changing], feature_stats(part))
    for name, (mean, std) in stats.items():
        built.model.set_feature_stats(name, mean, std)


def feature_stats(dataset: QualityDataset) -> list[tuple[Tensor, Tensor]]:
    """Per encoder, mean (d,) and standard deviation (d,) over the tokens of all rows."""
    count = 0
    sums: list[tuple[Tensor, Tensor, Tensor]] = []  # shift, sum and sum of squares about it
    for index, row in enumerate(dataset.rows):
        tokens = [part.double() for part in dataset.tokens(index, row.prompt)]
        if not sums:
            sums = [(t.mean(0), torch.zeros_like(t[0]), torch.zeros_like(t[0])) for t in tokens]
        for part, (shift, total, squares) in zip(tokens, sums, strict=True):
            total += (part - shift).mean(0)
            squares += (part - shift).square().mean(0)
        count += 1
    result = []
    for shift, total, squares in sums:
        variance = (squares / count - (total / count).square()).clamp(min=0)
        result.append(((shift + total / count).float(), variance.sqrt().float()))
    return result
