"""The model that a run trains, its encoders, and the statistics that it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..inference.assessor import find_model
from ..model.checkpoint import kind_of
from ..model.config import AIGVEvalConfig
from ..features.cache import FeatureCache, extract
from ..model.projector import pack_features
from ..model.backbones import check_four_bit, load_llm, load_vlm
from ..model.modeling import AIGVEvalModel
from ..model.processing import AIGVEvalProcessor
from ..model.base import ScorerModel
from ..model.modeling_vlm import QSaveConfig, QSaveModel
from ..model.processing_vlm import QSaveProcessor
from encoders import create_encoder
from encoders.base import Encoder
from encoders.registry import resolve_name

from .answers import AnswerDataset
from .rows import TrainingRow
from .dataset import Collator, QualityDataset
from .config import FitConfig, FitError
from .pixels import PixelAnswerDataset, PixelCollator, PixelDataset

# Rows that the statistics of an encoder in training are taken from; they change anyway.
STATS_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a run trains.

    Attributes:
        model: Holds the encoders in training, and those that were trained before, and no others.
        processor: Its own.
        encoders: All of them, in the order of the model's config.
        trained: Names of those that this run trains.
    """

    model: ScorerModel
    processor: Any
    encoders: list[Encoder]
    trained: list[str]

    @property
    def frozen(self) -> list[Encoder]:
        """The encoders whose tokens don't change."""
        return [e for e in self.encoders if e.spec.name not in self.trained]

    @property
    def sees(self) -> bool:
        """Whether the model sees frames itself, and there are no encoders."""
        return isinstance(self.model, QSaveModel)

    @property
    def collate(self) -> Any:
        """What makes batches of the items of `dataset`."""
        encode = self.processor.encode_prompts
        if self.sees:
            return PixelCollator(encode_prompts=encode)
        return Collator(encode_prompts=encode, pack_features=pack_features)

    def dataset(
        self, rows: Sequence[Sequence[TrainingRow]], digests: Mapping[str, str],
        cache: FeatureCache, *, answers: bool = False, **options: Any,
    ) -> QualityDataset:
        """Rows as this model takes them, with answers to learn or without; see the classes."""
        if self.sees:
            pixels = PixelAnswerDataset if answers else PixelDataset
            return pixels(rows, digests, cache, processor=self.processor, **options)
        features = AnswerDataset if answers else QualityDataset
        return features(rows, digests, self.encoders, cache, trained=self.trained, **options)


def build_model(config: FitConfig) -> Built:
    """Make or load what is to be trained.

    Raises:
        FitError: The LLM can't be loaded as asked, an encoder can't be made, or the model hasn't
            what is to be trained.
        aigveval.inference.assessor.ModelError: There's no such base model.
    """
    try:
        kind = kind_of(find_model(config.base)).model if config.base else None
        if config.vlm or kind is QSaveModel:
            return _seeing(config)
        model, processor, encoders = _from_base(config) if config.base else _new(config)
    except (OSError, ValueError) as error:
        if type(error) not in (OSError, ValueError):  # our own tell what they are
            raise
        raise FitError(" ".join(str(error).split())) from error
    if not model.config.impressions and (config.align_epochs or config.learn == "reading"):
        raise FitError("align_epochs and learn: reading need impressions, and the model has none")
    if config.learn == "reading" and model.config.lora is None:
        raise FitError("learn: reading trains the LoRA, and the model has none")
    names = [encoder.spec.name for encoder in encoders]
    trained = [resolve_name(name) if name not in names else name for name in config.train_encoders]
    for name in trained:
        if name not in names:
            raise FitError(f"train_encoders: {name} is not among the encoders {', '.join(names)}")
    model.set_trained_encoders({e.spec.name: e for e in encoders if e.spec.name in trained})
    return Built(model=model, processor=processor, encoders=encoders, trained=trained)


def _from_base(config: FitConfig) -> tuple[AIGVEvalModel, AIGVEvalProcessor, list[Encoder]]:
    base = find_model(config.base or "")
    processor = AIGVEvalProcessor.from_pretrained(base)
    saved = AIGVEvalConfig.from_pretrained(base, **_noise(config))
    saved.llm_4bit = saved.llm_4bit or config.llm_4bit
    if saved.llm_4bit:
        check_four_bit()
    model = AIGVEvalModel.from_pretrained(base, config=saved, dtype=_dtype(config))
    model.load_encoders(processor.encoders)
    encoders = [model.encoders[entry["name"]] for entry in saved.encoders]
    # The frozen ones were checked; optimizer and checkpoints don't need them.
    model.encoders = nn.ModuleDict({name: model.encoders[name] for name in saved.trained_encoders})
    return model, processor, encoders  # type: ignore[return-value]


def _new(config: FitConfig) -> tuple[AIGVEvalModel, AIGVEvalProcessor, list[Encoder]]:
    made = [_make_encoder(entry) for entry in config.encoders]  # first, as some may be missing
    llm = load_llm(config.llm, dtype=_dtype(config), four_bit=config.llm_4bit)
    model_config = AIGVEvalConfig.from_encoders(
        made, llm=config.llm, lora=config.lora, llm_4bit=config.llm_4bit,
        projector_hidden=config.projector_hidden, impressions=config.impressions, **_noise(config),
    )
    by_name = {encoder.spec.name: encoder for encoder in made}
    processor = AIGVEvalProcessor.from_config(model_config)
    encoders = [by_name[entry["name"]] for entry in model_config.encoders]
    return AIGVEvalModel(model_config, llm=llm), processor, encoders


def _seeing(config: FitConfig) -> Built:
    for name in ("align_epochs", "signs", "train_encoders"):
        if getattr(config, name):
            raise FitError(f"{name} has no place with a vision-language model")
    if config.learn == "reading":
        raise FitError("learn: reading needs projectors, which a vision-language model has none of")
    if config.base:
        base = find_model(config.base)
        saved = QSaveConfig.from_pretrained(base)
        saved.llm_4bit = saved.llm_4bit or config.llm_4bit
        if saved.llm_4bit:
            check_four_bit()
        model = QSaveModel.from_pretrained(base, config=saved, dtype=_dtype(config))
        return Built(
            model=model, processor=QSaveProcessor.from_pretrained(base), encoders=[], trained=[]
        )
    assert config.vlm is not None
    vlm = load_vlm(config.vlm, dtype=_dtype(config), four_bit=config.llm_4bit)
    made = QSaveConfig(
        vlm=config.vlm, lora=config.lora, llm_4bit=config.llm_4bit, **config.frames
    )
    processor = QSaveProcessor.from_config(made)
    return Built(model=QSaveModel(made, vlm=vlm), processor=processor, encoders=[], trained=[])


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
    """Standardise each encoder's tokens by those of the training rows.

    Of encoders in training, those of some rows as they are at the start, which go through the cache
    too, so that a run that is stopped here doesn't begin anew.
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
