"""The options of ``aigveval fit``: one flat, validated set; `stages` reads them from YAML."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..data.scales import Scale
from ..errors import InputError, UsageError
from ..model.config import LORA, new_options
from ..model.modeling_vlm import FRAMES
from .rewards import NAMES

LOSS_TERMS = ("level", "plcc", "rank", "group_rank", "pair")
FROM_BASE = ("llm", "encoders", "vlm", "frames", "lora", "projector_hidden", "score_hints")
_NOT_BESIDE_VLM = (
    "llm",
    "encoders",
    "train_encoders",
    "ridge",
    "align_epochs",
    "detector",
    "feature_dropout",
    "feature_noise",
    "projector_hidden",
    "score_hints",
)
_POSITIVE = """
    max_steps batch_size eval_batch_size grad_accum group_size learning_rate save_steps
    early_stop threads workers encode_batch_size projector_hidden align_learning_rate save_minutes
    pair_scale log_steps answer_variants"""
_NOT_NEGATIVE = """
    lora_learning_rate encoder_learning_rate weight_decay warmup max_grad_norm feature_noise
    rank_min_difference seed epochs align_epochs score_weight text_weight best_mix"""
_SHARES = "feature_dropout smoothing mismatch_probability prompt_dropout"
_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
}


class FitError(UsageError, ValueError):
    """Training cannot start or go on; the message is one line for the user."""


# ---- the options of stage grpo ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GrpoOptions:
    """Group, sampling and rewards of GRPO (arXiv 2402.03300).

    Group size, beta and temperature are VideoScore2's (arXiv 2509.22799); Q-Save's are not public.
    The rest are choices.

    Attributes:
        group: Answers to each clip, which are compared with each other.
        beta: Weight of the KL divergence from the model that the stage started from; 0 for none.
        temperature: Of the sampling.
        top_p: Of the sampling. Below 1, answers come from a distribution that differs from that of
            the loss; VideoScore2 has 0.95.
        max_new_tokens: Maximum length of an answer; one with two defects has about 70 of SmolLM2's,
            one made of facts about 250. None for 160, or 480 where the model reads facts.
        clip: Clipping range of the ratio of a token's probabilities, around 1.
        loss: How the tokens of a batch are averaged, as TRL's `loss_type` names it.
        rewards: Weight of each reward of `aigveval.train.rewards`; those that are not named have
            none. Their weighted mean lies within 0-1; one that has nothing to judge, as `facts`
            where a row has none, is left out of it.

    Raises:
        FitError: An option is out of its range; the message names it.
    """

    group: int = 8
    beta: float = 0.04
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    clip: float = 0.2
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    rewards: dict[str, Any] = field(
        default_factory=lambda: {
            "format": 1.0,
            "smooth": 1.0,
            "defect_f1": 1.0,
            "time_iou": 0.5,
            "consistency": 1.0,
            "facts": 1.0,
            "length": 0.25,
        }
    )

    def __post_init__(self) -> None:
        _require(self, "group", lambda v: v >= 2, "be at least 2")
        _require(self, "temperature max_new_tokens clip", lambda v: v > 0, "be above 0")
        _require(self, "beta", lambda v: v >= 0, "not be negative")
        _require(self, "top_p", lambda v: 0 < v <= 1, "lie in (0, 1]")
        _check_weights("reward", self.rewards, NAMES, all_of="of grpo.rewards")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> GrpoOptions:
        """Options as they stand in a config, checked."""
        hints = typing.get_type_hints(cls)
        for name in options:
            check_known("option of grpo", name, hints)
        return cls(**{n: convert(f"grpo.{n}", v, hints[n]) for n, v in options.items()})

    @property
    def weights(self) -> dict[str, float]:
        """Of the rewards that count, adding up to 1."""
        total = sum(self.rewards.values())
        return {name: weight / total for name, weight in self.rewards.items() if weight}

    def groups_per_step(self, config: FitConfig) -> int:
        """How many groups an optimizer step has, in all processes together.

        Raises:
            FitError: They are not whole.
        """
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # of torchrun or accelerate
        completions = config.batch_size * config.grad_accum * processes
        if completions % self.group:
            each = f" x {processes} processes" if processes > 1 else ""
            raise FitError(
                f"batch_size x grad_accum{each} = {completions} answers per step must be a "
                f"multiple of grpo.group = {self.group}"
            )
        return completions // self.group


# ---- all options --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Options of a stage of the training.

    Attributes:
        stage: `regression`, scores alone; `sft`, scores and answers together; `grpo`, answers by
            their rewards, from a model that writes answers; `sft2`, sft on the best of those
            answers besides.
        train: Manifests to train on: of clips with scores (`aigveval.data.manifest`), of preference
            pairs (`aigveval.data.preference_pairs`), or both. Stages with answers learn these from
            the files of `aigveval cot`, and from manifests with labels of defects
            (`aigveval.data.attributions`), of which the answers are made; other clips still teach
            the scores.
        valid: Manifests to validate on after each epoch. Without any the last state is kept.
        scale: ``LOW:HIGH``, the lowest and highest score in the manifests, such as ``0:100``; they
            are mapped onto 1-5.
        output_dir: Checkpoints while training, and in the end the folder ``model``. A run that was
            stopped resumes when it is started again with the same folder.
        cache_dir: Feature cache; may be shared by many runs.
        base: A model to go on training: `lite`, a folder or a Hub id. It brings its own `llm`,
            `encoders`, `lora`, `projector_hidden` and `score_hints`.
        llm: `smollm2-135m-instruct`, a folder or a Hub id of a causal LM.
        vlm: In place of `llm` and `encoders`: a folder or a Hub id of an image-text-to-text model,
            which sees the frames itself, see `aigveval.model.modeling_vlm`. Videos are decoded in
            every epoch.
        frames: For a vlm, fields of `aigveval.model.modeling_vlm.FRAMES`: how many slow and fast
            frames, how large.
        llm_4bit: Load the LLM's frozen weights in 4 bits (NF4, as QLoRA does): needs a CUDA GPU and
            bitsandbytes.
        bf16: Compute in bfloat16 (autocast) and keep the LLM's frozen weights in it; what is
            trained stays float32. For GPUs; correct but slow on most CPUs.
        encoders: Names, or mappings with ``name`` and ``options``; at least one. A dimension
            without an encoder is neither trained nor scored.
        train_encoders: Names of encoders to train with the rest, as AIGVEval does with Video-Swin
            and SlowFast. Only the others are cached; videos are decoded in every epoch.
        lora: r, alpha, dropout, target_modules (or `all-linear`), use_dora, use_rslora, see
            `aigveval.model.config.AIGVEvalConfig`; null for projectors only.
        projector_hidden: Width of the projectors' hidden layer.
        score_hints: Show the LLM the projectors' prediction of each score, as mixed level words,
            see `aigveval.model.projector.AIGVEvalBackbone`. AIGVEval does not; a small LLM learns
            from fewer clips with it.
        feature_dropout: Probability that training hides all tokens of an encoder, in [0, 1).
        feature_noise: Std of Gaussian noise on the standardised features in training.
        ridge: First of all, learn the ratings by ridge regression on mean tokens, on top of what
            the score heads of `base` say; see `aigveval.train.ridge`. Seconds, and best for some
            dozens of clips. With `epochs: 0` nothing else is trained.
        align_epochs: Epochs of pretraining the projectors alone, by their score heads, see
            `aigveval.train.projector_pretraining`: seconds each, and the LLM then learns much
            faster.
        align_learning_rate: Peak, of the projectors in these epochs.
        detector: Before stage sft, fit a detector of the defects which the answers name; the prompt
            then lists what it finds, see `aigveval.model.defect_detector`. Else there is none, or
            the base model's.
        learn: `scores` from the rows' labels; `distill`: the projectors are frozen, and the LoRA
            learns to say what their score heads predict, see
            `aigveval.train.trainer.DistillTerm`; in stage sft, also to put the detections in its
            prompt into words, see `aigveval.train.answer_targets`.
        epochs: Passes over the training rows; 0, of stage regression, for what is fitted before.
        max_steps: Stop after so many optimizer steps, whatever `epochs` says.
        batch_size: Clips per forward pass of each process. PLCC, rank and pair terms are over the
            batches of all processes together.
        eval_batch_size: Clips per forward pass of the validation.
        grad_accum: Forward passes per optimizer step. PLCC and rank are per pass.
        learning_rate: Peak, of the projectors.
        lora_learning_rate: Peak, of the LoRA matrices.
        encoder_learning_rate: Peak, of trained encoders.
        weight_decay: AdamW's, on matrices only.
        ema: Decay of an exponential moving average of the trained weights, such as 0.999. The
            averaged ones are then validated and saved.
        warmup: Share of all steps if below 1, else steps; a cosine down to 0 follows.
        max_grad_norm: Gradients are clipped to this norm; 0 for no clipping.
        loss: Weight of the terms level (cross-entropy of the levels), plcc, rank (FAST-VQA's hinge
            on all clips two by two), group_rank (inside of a group only) and pair (Bradley-Terry
            with ties, on preference pairs). The papers' is plcc 1, rank 0.3.
        score_weight: Weight of all these terms together in stages with answers.
        text_weight: Weight of the answers' cross-entropy in stages sft and sft2.
        answer_times: Unit of the times in answers: `tenths` of the clip, or `seconds`.
        facts: Stage sft gives the LLM the facts of rows that have some (see `aigveval cot`), in
            words, before it writes; the model then reads facts whenever it explains.
        answer_variants: Wordings of an answer that is made of a manifest; each epoch has another.
        grpo: Options of stage grpo, see `GrpoOptions`.
        completions: Files that stage grpo wrote, for sft2. After a grpo in the same list of stages,
            its own by default.
        best_threshold: Lowest reward, 0-1, with which sft2 learns the best answer of a group.
        best_mix: Rows of `train` for each of these answers.
        smoothing: Share of the level target that is spread over all levels, in [0, 1).
        rank_min_difference: Only pairs whose scores differ by more count in the rank terms.
        group_batches: Put rows of the same `group` into the same batch.
        group_size: With `group_batches`: at most so many rows of a group in a batch.
        pair_scale: Log-odds of a preference for a point of difference between two scores.
        pair_tie: Rao and Kupper's parameter of ties, above 1; VideoAlign's is 5.
        mismatch_probability: Probability that a row gets a wrong prompt and a low semantic target,
            where the data has prompts and semantic scores.
        mismatch_scores: Range of that target.
        prompt_dropout: Probability that a row loses its prompt.
        seed: Of everything random.
        save_minutes: Checkpoint after the step in which so many minutes have passed since the last
            one, besides the one after each epoch; null for none. A run that is killed loses no more
            than these minutes and one step. Ctrl-C and SIGTERM save the current step.
        save_steps: Likewise after so many steps.
        early_stop: Stop after so many epochs without a better mean SROCC.
        gradient_checkpointing: Trade time for memory.
        fsdp: Shard the model over the processes of torchrun or accelerate; else each has a copy.
        fsdp_config: Options of FSDP as transformers' `TrainingArguments` takes them.
        report_to: Where losses and metrics are logged, as transformers' Trainer names it: a list of
            tensorboard, wandb, ...; null takes TensorBoard where it is installed, [] nothing.
            TensorBoard's files are in `output_dir/tensorboard`.
        trainer: Further arguments of transformers' `TrainingArguments` by their own names, such as
            `lr_scheduler_type: linear`; none that an option here determines.
        log_steps: Log the mean loss of every so many steps.
        device: `auto` takes a GPU where there is one.
        threads: Of torch on the CPU; null keeps torch's default.
        workers: Threads that decode videos for the cache; with trained encoders, also processes
            that decode during training.
        encode_batch_size: Videos per encoder call, see `aigveval.features.cache.extract`.

    Raises:
        FitError: An option has a wrong type or is out of its range; the message names it.
    """

    stage: Literal["regression", "sft", "grpo", "sft2"] = "regression"
    train: list[str]
    output_dir: str
    cache_dir: str
    valid: list[str] = field(default_factory=list)
    scale: str = "1:5"
    base: str | None = None
    llm: str = "smollm2-135m-instruct"
    llm_4bit: bool = False
    bf16: bool = False
    encoders: list[Any] = field(
        default_factory=lambda: ["semantic_lite", "motion_flow", "technical_lite"]
    )
    vlm: str | None = None
    frames: dict[str, Any] = field(default_factory=dict)
    train_encoders: list[str] = field(default_factory=list)
    lora: dict[str, Any] | None = field(default_factory=lambda: dict(LORA))
    projector_hidden: int = 512
    score_hints: bool = True
    feature_dropout: float = 0.0
    feature_noise: float = 0.0
    ridge: bool = False
    align_epochs: int = 0
    align_learning_rate: float = 1e-3
    detector: bool = False
    learn: Literal["scores", "distill"] = "scores"
    epochs: int = 10
    max_steps: int | None = None
    batch_size: int = 16
    eval_batch_size: int = 32
    grad_accum: int = 1
    learning_rate: float = 5e-4
    lora_learning_rate: float = 2e-4
    encoder_learning_rate: float = 1e-5
    weight_decay: float = 0.05
    ema: float | None = None
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    loss: dict[str, Any] = field(
        default_factory=lambda: {"level": 1.0, "plcc": 1.0, "rank": 0.3, "pair": 1.0}
    )
    score_weight: float = 1.0
    text_weight: float = 1.0
    answer_times: Literal["tenths", "seconds"] = "tenths"
    facts: bool = True
    answer_variants: int = 4
    grpo: dict[str, Any] = field(default_factory=lambda: dataclasses.asdict(GrpoOptions()))
    completions: list[str] = field(default_factory=list)
    best_threshold: float = 0.8
    best_mix: float = 1.0
    smoothing: float = 0.0
    rank_min_difference: float = 0.0
    group_batches: bool = False
    group_size: int = 8
    pair_scale: float = 2.0
    pair_tie: float = 5.0
    mismatch_probability: float = 0.15
    mismatch_scores: list[Any] = field(default_factory=lambda: [1.0, 1.5])
    prompt_dropout: float = 0.0
    seed: int = 0
    save_minutes: float | None = 1.0
    save_steps: int | None = None
    early_stop: int | None = None
    gradient_checkpointing: bool = False
    fsdp: bool = False
    fsdp_config: dict[str, Any] = field(default_factory=dict)
    report_to: list[str] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    log_steps: int = 10
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = None
    workers: int = 1
    encode_batch_size: int = 1

    def __post_init__(self) -> None:
        # the old name from Python; `stages` translates those in files
        object.__setattr__(self, "learn", new_options({"learn": self.learn}, warn=True)["learn"])
        hints = typing.get_type_hints(FitConfig)
        for name, value in vars(self).items():
            value = convert(name, _with_text_for_paths(value), hints[name])
            object.__setattr__(self, name, value)
        _require(self, _POSITIVE, lambda v: v > 0, "be above 0")
        _require(self, _NOT_NEGATIVE, lambda v: 0 <= v < math.inf, "not be negative")
        _require(self, "seed", lambda v: v < 2**32, "be below 2 ** 32")
        _require(self, _SHARES, lambda v: 0 <= v < 1, "lie in [0, 1)")
        _require(self, "ema", lambda v: 0 < v < 1, "lie in (0, 1)")
        _require(self, "pair_tie", lambda v: v > 1, "be above 1")
        _require(self, "best_threshold", lambda v: 0 <= v <= 1, "lie in [0, 1]")
        if self.mismatch_probability + self.prompt_dropout > 1:
            raise FitError("mismatch_probability and prompt_dropout must not exceed 1 together")
        if not self.train:
            raise FitError("train must name at least one manifest")
        self.score_scale  # raises
        _check_weights("loss term", self.loss, LOSS_TERMS, all_of="loss term")
        try:
            low, high = map(float, self.mismatch_scores)
        except (TypeError, ValueError):
            low = high = math.nan
        if not 1 <= low <= high <= 5:
            raise FitError(
                f"mismatch_scores must be [low, high] within 1-5, got {self.mismatch_scores}"
            )
        self._check_model()
        self._check_combinations()
        self._check_grpo()

    @property
    def score_scale(self) -> Scale:
        """`scale`, parsed."""
        try:
            return Scale.parse(self.scale)
        except InputError as error:
            raise FitError(f"scale: {error}") from None

    def _check_model(self) -> None:
        if not self.encoders:
            raise FitError("encoders must name at least one")
        for entry in self.encoders:
            if isinstance(entry, dict):
                for key in entry:
                    check_known("encoder key", key, ("name", "options"))
            if not isinstance(entry, str) and not (isinstance(entry, dict) and "name" in entry):
                raise FitError(f"an encoder is a name or has name and options, got {entry!r}")
        for key in self.lora or ():
            check_known("lora option", key, LORA)
        for name in self.frames:
            check_known("field of frames", name, FRAMES)
        for name in FROM_BASE if self.base is not None else ():
            if getattr(self, name) != default_of(name):
                raise FitError(f"{name} comes with the base model; leave it out")

    def _check_combinations(self) -> None:
        """Options that exclude each other."""
        for name in _NOT_BESIDE_VLM if self.vlm is not None else ():
            if getattr(self, name) != default_of(name):
                raise FitError(f"{name} has no place beside vlm, which sees the frames itself")
        distills, first = self.learn == "distill", self.ridge or self.align_epochs
        if self.frames and self.vlm is None:
            raise FitError("frames needs a vlm; encoders have frames of their own")
        if self.train_encoders and first:
            tokens = "cached tokens, which train_encoders have none of"
            raise FitError(f"ridge and align_epochs need {tokens}")
        if not self.epochs and (self.stage != "regression" or not first):
            stage = "stage regression with ridge or align_epochs"
            raise FitError(f"epochs: 0 is for {stage}; nothing would learn")
        if distills and self.train_encoders:
            raise FitError("learn: distill trains the LoRA alone, no train_encoders")
        if distills and self.fsdp:
            raise FitError("learn: distill can't be combined with fsdp; use DDP (fsdp: false)")
        if self.fsdp and self.ema is not None:
            raise FitError("ema can't be combined with fsdp; use DDP (fsdp: false)")
        if self.fsdp_config and not self.fsdp:
            raise FitError("fsdp_config needs fsdp: true")
        if self.early_stop is not None and not self.valid:
            raise FitError("early_stop needs manifests to validate on: name them as valid")
        if self.detector and (self.stage != "sft" or self.answer_times != "tenths"):
            raise FitError("detector: true is for stage sft, with answer_times: tenths")
        if self.stage != "regression" and self.train_encoders:
            raise FitError("train_encoders is for stage regression only")
        if self.stage == "sft2" and not self.completions:
            raise FitError("stage sft2 needs completions, the file that stage grpo wrote")
        if self.stage.startswith("sft") and not self.text_weight:
            raise FitError(f"stage {self.stage} needs a text_weight above 0")
        if self.stage == "grpo" and self.base is None:
            raise FitError("stage grpo goes on from a model that writes answers: name it as base")

    def _check_grpo(self) -> None:
        options = GrpoOptions.of(self.grpo)
        if self.stage == "grpo":
            for name in ("ema", "fsdp", "ridge", "align_epochs", "early_stop"):
                if getattr(self, name):
                    raise FitError(f"{name} can't be combined with stage grpo")
            options.groups_per_step(self)


def _with_text_for_paths(value: Any) -> Any:
    """What is stored as JSON and YAML holds no `Path`."""
    if isinstance(value, list | tuple):
        return [_with_text_for_paths(one) for one in value]
    if isinstance(value, dict):
        return {key: _with_text_for_paths(one) for key, one in value.items()}
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _require(options: Any, names: str, right: Callable[[Any], bool], must: str) -> None:
    """Raise `FitError` where an option has a value, and it is not right."""
    for name in names.split():
        value = getattr(options, name)
        if value is not None and not right(value):
            prefix = "grpo." if isinstance(options, GrpoOptions) else ""
            raise FitError(f"{prefix}{name} must {must}, got {value}")


def _check_weights(
    what: str, weights: Mapping[str, Any], names: Collection[str], *, all_of: str
) -> None:
    for name, weight in weights.items():
        check_known(what, name, names)
        right = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (right and 0 <= weight < math.inf):
            raise FitError(f"the weight of {what} {name} must be >= 0, got {weight!r}")
    if not any(weights.values()):
        raise FitError(f"at least one {all_of} must weigh more than 0")


def check_known(what: str, name: Any, names: Collection[str]) -> None:
    """Raise `FitError` where a name is none of these, offering the nearest."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise FitError(f"unknown {what} {name!r}; {hint}")


def default_of(name: str) -> Any:
    """An option's default, `dataclasses.MISSING` where it has none, None for an unknown option."""
    option = FitConfig.__dataclass_fields__.get(name)
    if option is None:
        return None
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default


def convert(name: str, value: Any, hint: Any) -> Any:
    """A value, out of YAML or Python, as the type hint of its option."""
    if typing.get_origin(hint) is types.UnionType:
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    kind, entries = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Literal:
        if value not in entries:
            raise FitError(f"{name} must be one of {entries}, got {value!r}")
        return value
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)  # YAML takes 5e-4 for text
    if kind is list and entries == (str,):
        value = [value] if isinstance(value, str) else value
        right = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    else:
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not right:
        raise FitError(f"{name} must be {_KINDS[kind.__name__]}, got {value!r}")
    return value
