"""The model's configuration: which LLM, which encoders, and the sizes of what is trained."""

import copy
import difflib
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from transformers import AutoConfig, PretrainedConfig

from encoders.base import Encoder
from prompts import DIMENSIONS, LEVELS, build_messages

from ..errors import ModelError
from .defect_detector import check_names

# SmolLM2-135M-Instruct (Apache-2.0), GGUF Q4_1, out of a pinned wheel: needs no model hub.
EMBEDDED_LLM = "smollm2-135m-instruct"
# As LoRA's target_modules: every linear layer of the LLM but its output embedding.
ALL_LINEAR = "all-linear"
LORA = {
    "r": 8,
    "alpha": 16,
    "dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "use_dora": False,
    "use_rslora": False,
}
_LORA_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "r": ((int,), "a whole number"),
    "alpha": ((int, float), "a number"),
    "dropout": ((int, float), "a number"),
    "use_dora": ((bool,), "true or false"),
    "use_rslora": ((bool,), "true or false"),
}
_ENTRY_TYPES = {
    "name": str,
    "options": dict,
    "dimension": str,
    "num_tokens": int,
    "dim": int,
    "time_steps": int,
}
# Names that were changed; saved models and configs of `aigveval fit` may still have the old ones,
# and are read under the new. Options of the model's config and of `aigveval fit`:
OLD_OPTIONS = {"impressions": "score_hints", "signs": "detector"}
# Option (by its new name) -> old value -> new value.
OLD_VALUES = {"learn": {"reading": "distill"}}
# Parts of the keys of a model's weights.
OLD_WEIGHTS = {
    ".told.": ".score_head.",
    "model.signs.whether.": "model.detector.presence.",
    "model.signs.degree.": "model.detector.severity.",
    "model.signs.when.": "model.detector.timing.",
}


def encoder_entry(encoder: Encoder) -> dict[str, Any]:
    """What the config keeps of an encoder: enough to make it again and to notice a change."""
    spec = encoder.spec
    return {
        "name": spec.name,
        "options": encoder.plain_options(),
        "dimension": spec.dimension,
        "num_tokens": spec.num_tokens,
        "dim": spec.dim,
        "time_steps": spec.time_steps,
        "fingerprint": encoder.fingerprint(),
    }


def make_encoder(entry: Mapping[str, Any]) -> Encoder:
    """Make the encoder of an entry.

    Raises:
        ModelError: It is of another package, which isn't here.
    """
    from encoders import EncoderError, create_encoder, list_encoders

    name = entry["name"]
    try:
        return create_encoder(name, **entry["options"])
    except EncoderError as error:
        if name in list_encoders():
            raise
        raise ModelError(
            f"the model was made with the encoder {name} of another package: install that, or "
            "register it by encoders.register_encoder"
        ) from error


def check_encoder(entry: dict[str, Any], encoder: Encoder, *, strict: bool) -> None:
    """Compare an encoder with its entry, which takes over its fingerprint if it has none yet.

    Raises:
        ValueError: Its tokens are not those of the entry, or, if `strict`, its fingerprint isn't.
    """
    found = encoder_entry(encoder)
    for field in ("name", "dimension", "num_tokens", "dim", "time_steps"):
        if found[field] != entry[field]:
            raise ValueError(
                f"encoder {entry['name']}: the config has {field} {entry[field]!r}, "
                f"the encoder has {found[field]!r}"
            )
    trained_with = entry.setdefault("fingerprint", found["fingerprint"])
    if trained_with != found["fingerprint"]:
        message = (
            f"encoder {entry['name']}: the model was trained with fingerprint {trained_with}, "
            f"this one has {found['fingerprint']}; its tokens may differ"
        )
        if strict:
            raise ValueError(message)
        warnings.warn(message, stacklevel=3)


def prompt_order() -> list[str]:
    """The dimensions in the order in which the question shows their evidence."""
    text = build_messages({name: f"@{name}@" for name in DIMENSIONS})[-1]["content"]
    return sorted(DIMENSIONS, key=lambda name: text.index(f"@{name}@"))


def unscored_dimensions(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dimensions that no encoder of a config is for, and that hence get no score."""
    seen = {entry["dimension"] for entry in entries}
    return [dimension for dimension in DIMENSIONS if dimension not in seen]


class ScorerConfig(PretrainedConfig):
    """What the configs of our models share; see `AIGVEvalConfig`.

    Raises:
        ValueError: An option is out of its range; the message names it.
        TypeError: A mistyped option.
    """

    def __init__(
        self,
        *,
        lora: dict[str, Any] | None = LORA,
        llm_4bit: bool = False,
        level_token_ids: Sequence[int] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        explains: bool = False,
        answer_times: Literal["tenths", "seconds"] = "tenths",
        reads_facts: bool = False,
        **kwargs: Any,
    ) -> None:
        options = [*(type(self).__init__.__kwdefaults__ or {})]
        for name in kwargs:
            if name in OLD_OPTIONS:
                raise TypeError(f"option {name!r} is now called {OLD_OPTIONS[name]!r}")
            # transformers keeps any option it doesn't know; a misspelt one would be lost silently.
            if near := difflib.get_close_matches(name, options, 1, cutoff=0.85):
                raise TypeError(f"unknown option {name!r}; did you mean {near[0]!r}?")
        self.lora = None if lora is None else _checked_lora(lora)
        self.llm_4bit = llm_4bit
        self.level_token_ids = None if level_token_ids is None else list(level_token_ids)
        if self.level_token_ids and len(set(self.level_token_ids)) != len(LEVELS):
            raise ValueError(
                f"level_token_ids must be {len(LEVELS)} different ids, got {self.level_token_ids}"
            )
        self.text_config = text_config
        if isinstance(text_config, dict):
            self.text_config = AutoConfig.for_model(**text_config)
        self.explains = explains
        if answer_times not in ("tenths", "seconds"):
            raise ValueError(f"answer_times must be 'tenths' or 'seconds', got {answer_times!r}")
        self.answer_times = answer_times
        self.reads_facts = bool(reads_facts)
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; what was saved under an old name is found."""
        return super().from_dict(new_options(config_dict), **kwargs)

    @property
    def backbone_name(self) -> str:
        """Name of what the model is built upon."""
        raise NotImplementedError

    @property
    def unscored(self) -> list[str]:
        """The dimensions that the model gives no score for."""
        return []


class AIGVEvalConfig(ScorerConfig):
    """Configuration of `AIGVEvalModel`.

    Args:
        llm: `smollm2-135m-instruct`, a folder or a Hub id of a causal LM.
        encoders: One `encoder_entry` per encoder. They are put into the order of the question,
            which is also the order of their tokens in the feature tensor.
        lora: Rank `r`, `alpha`, `dropout` and `target_modules` (names of the LLM's linear layers,
            or `all-linear`) of the LoRA; `use_dora` for DoRA (arXiv 2402.09353), `use_rslora` for
            scaling by the root of the rank (arXiv 2312.03732); None for no LoRA. The default is
            AIGVEval's (arXiv 2506.04715).
        llm_4bit: The LoRA was trained on an LLM in 4 bits, which is also how `from_pretrained`
            loads it where there is a CUDA GPU; elsewhere it loads it whole.
        trained_encoders: Names of encoders whose weights were trained too. They are saved with the
            model, and put in place of those that the encoder comes with.
        projector_hidden: Width of the projectors' hidden layer.
        feature_dropout: Probability, in training, that all tokens of one encoder are set to zero.
        feature_noise: Standard deviation, in training, of Gaussian noise on standardised features.
        score_hints: Whether the question also shows a hint of each score, which the projectors'
            score heads give, as a mix of the level words' embeddings (see
            `projector.AIGVEvalBackbone`). AIGVEval has no such thing; a small LLM learns from fewer
            clips with it.
        feature_clip: Standardised features are limited to +- this many standard deviations, so
            that a freak clip cannot throw the LLM off.
        detector: Names of the defects that a detector looks for in the features; the LLM reads its
            detections before it writes an answer (see `defect_detector.DefectDetector`). None by
            default.
        calibration: How many rated clips familiarity is measured from, see
            `calibration.Calibration`. With 0 there is none, and scores have no intervals.
        damage_only: What the score heads learn only takes points off what the projectors' given
            linear maps say; see `projector.AIGVEvalBackbone`.
        prompt_share: Which share of what the score heads take off the semantic score, for what a
            clip misses of its prompt, they also take off the overall one.
        likeness: Whether there is a `projector.CameraLikeness`.
        local_expert: How many rated clips a `projector.LocalExpert` speaks near. With 0 there is
            none.
        hints_within: The most that scores were found to differ, in points, from what a
            `projector.HintCurve` makes of their hints. It may stand for the LLM then, where scoring
            has to be quick. None where that wasn't measured.
        level_token_ids: First token of each level word, worst first. Filled in by
            `AIGVEvalProcessor.from_config`, as is the next one.
        feature_token_id: Id of the placeholder token.
        text_config: The LLM's own config. Filled in by the model.
        explains: Whether the model was trained to write answers, rather than scores alone.
        answer_times: Unit of the times in its answers: `tenths` of the clip, or `seconds`.
        reads_facts: Whether the LLM is given the clip's facts in words before it writes an answer,
            whose sentences are then checked by them (see `prompts.consistency`).
        **kwargs: Options of `PretrainedConfig`.

    Raises:
        ValueError: An option is out of its range; the message names it.
        TypeError: A mistyped option.
    """

    model_type = "aigveval"
    attribute_map = {"image_token_id": "feature_token_id"}  # the name that TRL looks for

    def __init__(
        self,
        *,
        llm: str = EMBEDDED_LLM,
        encoders: Sequence[dict[str, Any]] = (),
        lora: dict[str, Any] | None = LORA,
        llm_4bit: bool = False,
        trained_encoders: Sequence[str] = (),
        projector_hidden: int = 512,
        feature_dropout: float = 0.0,
        feature_noise: float = 0.0,
        feature_clip: float = 10.0,
        score_hints: bool = True,
        detector: Sequence[str] = (),
        calibration: int = 0,
        damage_only: bool = False,
        prompt_share: float = 0.0,
        likeness: bool = False,
        local_expert: int = 0,
        hints_within: float | None = None,
        level_token_ids: Sequence[int] | None = None,
        feature_token_id: int | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        explains: bool = False,
        answer_times: Literal["tenths", "seconds"] = "tenths",
        reads_facts: bool = False,
        **kwargs: Any,
    ) -> None:
        self.llm = llm
        order = prompt_order()
        entries = [_checked_entry(entry) for entry in encoders]
        self.encoders = sorted(entries, key=lambda entry: order.index(entry["dimension"]))
        names = [entry["name"] for entry in entries]
        if len(set(names)) != len(names):
            raise ValueError(f"encoder names must be unique, got {names}")
        unknown = sorted(set(trained_encoders) - set(names))
        if unknown:
            raise ValueError(f"trained_encoders {unknown} are not among the encoders {names}")
        self.trained_encoders = list(trained_encoders)
        if projector_hidden < 1:
            raise ValueError(f"projector_hidden must be at least 1, got {projector_hidden}")
        self.projector_hidden = projector_hidden
        if not 0 <= feature_dropout < 1:
            raise ValueError(f"feature_dropout must lie in [0, 1), got {feature_dropout}")
        self.feature_dropout = feature_dropout
        if feature_noise < 0:
            raise ValueError(f"feature_noise must not be negative, got {feature_noise}")
        self.feature_noise = feature_noise
        if feature_clip <= 0:
            raise ValueError(f"feature_clip must be positive, got {feature_clip}")
        self.feature_clip = feature_clip
        self.score_hints = bool(score_hints)
        self.detector = check_names(detector)
        for name, clips in (("calibration", calibration), ("local_expert", local_expert)):
            if clips < 0:
                raise ValueError(f"{name} must not be negative, got {clips}")
        self.calibration, self.local_expert = calibration, local_expert
        self.damage_only = bool(damage_only)
        if not 0 <= prompt_share <= 1 or prompt_share and not damage_only:
            raise ValueError(
                f"prompt_share must lie in [0, 1], and needs damage_only, got {prompt_share}"
            )
        self.prompt_share = prompt_share
        self.likeness = bool(likeness)
        if hints_within is not None and not (score_hints and hints_within >= 0):
            raise ValueError(
                f"hints_within must be at least 0, of a model with score_hints, got {hints_within}"
            )
        self.hints_within = hints_within
        self.feature_token_id = feature_token_id
        super().__init__(
            lora=lora,
            llm_4bit=llm_4bit,
            level_token_ids=level_token_ids,
            text_config=text_config,
            explains=explains,
            answer_times=answer_times,
            reads_facts=reads_facts,
            **kwargs,
        )

    @classmethod
    def from_encoders(cls, encoders: Sequence[Encoder], **options: Any) -> "AIGVEvalConfig":
        """The config for these encoders; `options` are those of the constructor."""
        return cls(encoders=[encoder_entry(encoder) for encoder in encoders], **options)

    @property
    def backbone_name(self) -> str:
        return self.llm

    @property
    def unscored(self) -> list[str]:
        return unscored_dimensions(self.encoders)

    @property
    def feature_shapes(self) -> list[tuple[int, int]]:
        """(k, d) of each encoder, in order."""
        return [(entry["num_tokens"], entry["dim"]) for entry in self.encoders]

    @property
    def num_features(self) -> int:
        """K, tokens of all encoders together."""
        return sum(k for k, _ in self.feature_shapes)

    @property
    def feature_dim(self) -> int:
        """D, width of the feature tensor: that of the widest encoder."""
        return max((d for _, d in self.feature_shapes), default=0)


def _checked_entry(entry: dict[str, Any]) -> dict[str, Any]:
    for field, kind in _ENTRY_TYPES.items():
        if not isinstance(entry.get(field), kind):
            raise ValueError(
                f"an encoder entry needs {field!r} ({kind.__name__}), got {entry.get(field)!r}"
            )
    unknown = set(entry) - set(_ENTRY_TYPES) - {"fingerprint"}
    if unknown:
        raise ValueError(f"an encoder entry has unknown fields {sorted(unknown)}")
    if entry["dimension"] not in DIMENSIONS:
        raise ValueError(f"dimension must be one of {DIMENSIONS}, got {entry['dimension']!r}")
    if not entry["name"].isidentifier():  # it names a submodule
        raise ValueError(f"an encoder's name must be an identifier, got {entry['name']!r}")
    for field in ("num_tokens", "dim"):
        if entry[field] < 1:
            raise ValueError(f"{field} must be at least 1, got {entry[field]}")
    return copy.deepcopy(entry)


def _checked_lora(lora: dict[str, Any]) -> dict[str, Any]:
    unknown = set(lora) - set(LORA)
    if unknown:
        raise ValueError(f"lora has unknown fields {sorted(unknown)}; it takes {sorted(LORA)}")
    lora = copy.deepcopy({**LORA, **lora})
    for field, (kinds, what) in _LORA_TYPES.items():
        value = lora[field]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"lora {field} must be {what}, got {value!r}")
    if lora["r"] < 1:
        raise ValueError(f"lora r must be at least 1, got {lora['r']}")
    targets = lora["target_modules"]
    if targets != ALL_LINEAR and (not isinstance(targets, (list, tuple)) or not targets):
        raise ValueError(f"lora target_modules must be a list or {ALL_LINEAR!r}, got {targets!r}")
    return lora


AutoConfig.register(AIGVEvalConfig.model_type, AIGVEvalConfig, exist_ok=True)


def new_options(options: Mapping[str, Any], *, warn: bool = False) -> dict[str, Any]:
    """Options under their new names; what is there under both keeps the new name's value.

    Args:
        options: Name to value.
        warn: Log a line for each old name or value, for a user who may change it.
    """
    found: dict[str, Any] = {}
    for old, value in options.items():
        name = OLD_OPTIONS.get(old, old)
        if name != old and name in options:
            continue
        new = OLD_VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
        if warn and (name != old or new is not value):
            now = name if name != old else f"{name}: {new}"
            was = old if name != old else f"{old}: {value}"
            logging.getLogger(__name__).warning("%s is now called %s", was, now)
        found[name] = new
    return found


def rename_weights(weights: dict[str, Any]) -> None:
    """Put the weights of a state dict under their new keys."""
    for key in list(weights):
        name = key
        for old, new in OLD_WEIGHTS.items():
            name = name.replace(old, new)
        weights[name] = weights.pop(key)
