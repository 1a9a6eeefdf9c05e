"""The options of ``aigveval fit``: one flat, validated set. `fit_yaml` reads them from a file."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from ..model.config import LORA
from ..data.scales import Scale
from ..errors import InputError, UsageError

from ..model.modeling_vlm import FRAMES

from .losses import LOSS_TERMS


class FitError(UsageError, ValueError):
    """Training can't start or go on; the message is one line for the user."""


FROM_BASE = ("llm", "encoders", "vlm", "frames", "lora", "projector_hidden",
             "score_hints")
_NOT_BESIDE_VLM = ("llm", "encoders", "train_encoders", "align_epochs", "detector",
                   "feature_dropout", "feature_noise", "projector_hidden", "score_hints")


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
        valid: Manifests that are measured after each epoch. Without any the last state is kept.
        scale: ``LOW:HIGH``, the lowest and highest score in the manifests, such as ``0:100``; they
            are mapped onto 1-5.
        output_dir: Checkpoints while training, and in the end the folder ``model``. A run that was
            stopped goes on when it's started again with the same folder.
        cache_dir: Feature cache; may be shared by many runs.
        base: A model to go on training: `lite`, a folder or a Hub id. It brings its own `llm`,
            `encoders`, `lora`, `projector_hidden` and `score_hints`.
        llm: `smollm2-135m-instruct`, a folder or a Hub id of a causal LM.
        vlm: In place of `llm` and `encoders`: a folder or a Hub id of an image-text-to-text model,
            which sees the frames itself, see `aigveval.model.modeling_vlm`. Videos are decoded in
            every epoch.
        frames: Of a vlm, fields of `aigveval.model.modeling_vlm.FRAMES`: how many slow and fast
            frames, how large.
        llm_4bit: Load the LLM's frozen weights in 4 bits (NF4, as QLoRA does): needs a CUDA GPU and
            bitsandbytes.
        bf16: Compute in bfloat16 (autocast) and keep the LLM's frozen weights in it; what is
            trained stays float32. For GPUs; right but slow on most CPUs.
        encoders: Names, or mappings with ``name`` and ``options``; at least one. A dimension
            without an encoder gets no score, and none of its scores is trained.
        train_encoders: Names of encoders to train with the rest, as AIGVEval does with Video-Swin
            and SlowFast. Only the others are cached; videos are decoded in every epoch.
        lora: r, alpha, dropout, target_modules (or `all-linear`), use_dora, use_rslora, see
            `aigveval.model.config.AIGVEvalConfig`; null for projectors only.
        projector_hidden: Width of the projectors' hidden layer.
        score_hints: Show the LLM the score heads' hint of each score, as mixed level words, see
            `aigveval.model.projector.AIGVEvalBackbone`. AIGVEval doesn't; a small LLM learns from
            fewer clips with it.
        feature_dropout: Chance that training hides all tokens of an encoder, in [0, 1).
        feature_noise: Std of Gaussian noise on the standardised features in training.
        align_epochs: Passes over the training rows in which the projectors alone learn to give an
            score hints, see `aigveval.train.projector_pretraining`: seconds each,
            and the LLM then learns much faster.
        align_learning_rate: Peak, of the projectors in these passes.
        detector: Before stage sft, fit a detector of the defects which the answers name,
            and is told to the LLM, see `aigveval.model.defect_detector`. Else there's none, or the
            base model's.
        learn: `scores` from the rows' labels; `distill`: with the projectors left as they are, the
            LoRA learns to say what it's shown, see
            `aigveval.train.projector_pretraining.DistillTrainer`; in stage sft, also to put the
            detections into words, see `aigveval.train.answer_targets`.
        epochs: Passes over the training rows.
        max_steps: Stop after so many optimizer steps, whatever `epochs` says.
        batch_size: Clips per forward pass of each process. PLCC, rank and pair terms are over the
            batches of all processes together.
        eval_batch_size: Clips per forward pass of the validation.
        grad_accum: Forward passes per optimizer step. PLCC and rank are per pass.
        learning_rate: Peak, of the projectors.
        lora_learning_rate: Peak, of the LoRA matrices.
        encoder_learning_rate: Peak, of trained encoders.
        weight_decay: AdamW's, on matrices only.
        ema: Decay of a moving average of the trained weights, such as 0.999. The averaged ones are
            then validated and saved.
        warmup: Share of all steps if below 1, else steps; a cosine down to 0 follows.
        max_grad_norm: Gradients are clipped to this norm; 0 for no clipping.
        loss: Weight of the terms level (cross-entropy of the levels), plcc, rank (FAST-VQA's hinge
            on all clips two by two), group_rank (inside of a group only) and pair (Bradley-Terry
            with ties, on preference pairs). The papers' is plcc 1, rank 0.3.
        score_weight: Weight of all these terms together in stages with answers.
        text_weight: Weight of the answers' cross-entropy in stages sft and sft2.
        answer_times: Unit of the times in answers: `tenths` of the clip, or `seconds`.
        answer_variants: Wordings of an answer that is made of a manifest; each epoch has another.
        grpo: Options of stage grpo, see `aigveval.train.grpo_options.GrpoOptions`.
        completions: Files that stage grpo wrote, for sft2. After a grpo in the same list of stages,
            its own by default.
        best_threshold: Least reward, 0-1, of an answer that sft2 learns: the best of its group, if
            it has as much.
        best_mix: Rows of `train` for each of these answers.
        smoothing: Share of the level target that's spread over all levels, in [0, 1).
        rank_min_difference: Only pairs whose scores differ by more count in the rank terms.
        group_batches: Put rows of the same `group` into the same batch.
        group_size: With `group_batches`: at most so many rows of a group in a batch.
        pair_scale: Log-odds of a preference for a point of difference between two scores.
        pair_tie: Rao and Kupper's parameter of ties, above 1; VideoAlign's is 5.
        mismatch_probability: Chance that a row gets a wrong prompt and a low semantic target, where
            the data has prompts and semantic scores.
        mismatch_scores: Range of that target.
        prompt_dropout: Chance that a row loses its prompt.
        seed: Of everything random.
        save_minutes: Checkpoint after the step in which so many minutes have passed since the last
            one, besides the one after each epoch; null for none. A run that is killed loses no more
            than these minutes and one step. Ctrl-C and SIGTERM save the step in progress.
        save_steps: Likewise after so many steps.
        early_stop: Stop after so many epochs without a better mean SROCC.
        gradient_checkpointing: Trade time for memory.
        fsdp: Shard the model over the processes of torchrun or accelerate; else each has a copy.
        fsdp_config: Options of FSDP as transformers' `TrainingArguments` takes them.
        report_to: Where losses and metrics are logged, as transformers' Trainer names it: a list of
            tensorboard, wandb, ...; null takes TensorBoard where it is installed, [] nothing.
            TensorBoard's files are in `output_dir/tensorboard`.
        log_steps: Log the mean loss of every so many steps.
        device: `auto` takes a GPU where there is one.
        threads: Of torch on the CPU; null leaves it alone.
        workers: Threads that decode videos for the cache; with trained encoders, also processes
            that decode during training.
        encode_batch_size: Videos per encoder call, see `aigveval.features.cache.extract`.

    Raises:
        FitError: An option is out of its range; the message names it.
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
    answer_variants: int = 4
    grpo: dict[str, Any] = field(default_factory=lambda: default_grpo())
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
    log_steps: int = 10
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = None
    workers: int = 1
    encode_batch_size: int = 1

    def __post_init__(self) -> None:
        positive = (
            "epochs", "max_steps", "batch_size", "eval_batch_size", "grad_accum", "group_size",
            "learning_rate", "save_steps", "early_stop", "threads", "workers",
            "encode_batch_size", "projector_hidden", "align_learning_rate", "save_minutes",
            "pair_scale", "log_steps", "answer_variants",
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise FitError(f"{name} must be above 0, got {value}")
        for name in ("lora_learning_rate", "encoder_learning_rate", "weight_decay", "warmup",
                     "max_grad_norm", "feature_noise", "rank_min_difference", "seed",
                     "align_epochs", "score_weight", "text_weight", "best_mix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise FitError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("feature_dropout", "smoothing", "mismatch_probability", "prompt_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise FitError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.mismatch_probability + self.prompt_dropout > 1:
            raise FitError("mismatch_probability and prompt_dropout must not exceed 1 together")
        if self.ema is not None and not 0 < self.ema < 1:
            raise FitError(f"ema must lie in (0, 1), got {self.ema}")
        if not self.pair_tie > 1:
            raise FitError(f"pair_tie must be above 1, got {self.pair_tie}")
        if not self.train:
            raise FitError("train must name at least one manifest")
        self.score_scale  # raises
        self._check_loss()
        self._check_encoders()
        self._check_together()
        self._check_stage()

    @property
    def score_scale(self) -> Scale:
        """`scale`, parsed."""
        try:
            return Scale.parse(self.scale)
        except InputError as error:
            raise FitError(f"scale: {error}") from None

    def _check_loss(self) -> None:
        for name, weight in self.loss.items():
            check_known("loss term", name, LOSS_TERMS)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise FitError(f"the weight of loss term {name} must be >= 0, got {weight!r}")
        if not any(self.loss.values()):
            raise FitError("at least one loss term must weigh more than 0")
        try:
            low, high = map(float, self.mismatch_scores)
            right = 1 <= low <= high <= 5
        except (TypeError, ValueError):
            right = False
        if not right:
            raise FitError(
                f"mismatch_scores must be [low, high] within 1-5, got {self.mismatch_scores}"
            )

    def _check_encoders(self) -> None:
        if not self.encoders:
            raise FitError("encoders must name at least one")
        for entry in self.encoders:
            if isinstance(entry, dict):
                for key in entry:
                    check_known("encoder key", key, ("name", "options"))
            if not isinstance(entry, str) and not (isinstance(entry, dict) and "name" in entry):
                raise FitError(f"an encoder is a name or has name and options, got {entry!r}")
        if self.lora is not None:
            for key in self.lora:
                check_known("lora option", key, LORA)
        if self.base is not None:
            for name in FROM_BASE:
                if getattr(self, name) != default_of(name):
                    raise FitError(f"{name} comes with the base model; leave it out")

    def _check_together(self) -> None:
        """What excludes each other."""
        for name in self.frames:
            check_known("field of frames", name, FRAMES)
        if self.frames and self.vlm is None:
            raise FitError("frames needs a vlm; encoders have frames of their own")
        for name in _NOT_BESIDE_VLM if self.vlm is not None else ():
            if getattr(self, name) != default_of(name):
                raise FitError(f"{name} has no place beside vlm, which sees the frames itself")
        if self.train_encoders and self.align_epochs:
            raise FitError("align_epochs needs cached tokens, which train_encoders have none of")
        if self.learn == "distill" and self.train_encoders:
            raise FitError("learn: distill trains the LoRA alone, no train_encoders")
        if self.learn == "distill" and self.fsdp:
            raise FitError("learn: distill can't be combined with fsdp; use DDP (fsdp: false)")
        if self.fsdp and self.ema is not None:
            raise FitError("ema can't be combined with fsdp; use DDP (fsdp: false)")
        if self.fsdp_config and not self.fsdp:
            raise FitError("fsdp_config needs fsdp: true")

    def _check_stage(self) -> None:
        from .grpo_options import GrpoOptions

        for name in self.grpo:
            check_known("option of grpo", name, GrpoOptions.__dataclass_fields__)
        options = GrpoOptions(**self.grpo)
        if not 0 <= self.best_threshold <= 1:
            raise FitError(f"best_threshold must lie in [0, 1], got {self.best_threshold}")
        if self.detector and (self.stage != "sft" or self.answer_times != "tenths"):
            raise FitError("detector: true is for stage sft, with answer_times: tenths")
        if self.stage == "regression":
            return
        if self.train_encoders:
            raise FitError("train_encoders is for stage regression only")
        if self.stage == "sft2" and not self.completions:
            raise FitError("stage sft2 needs completions, the file that stage grpo wrote")
        if self.stage != "grpo":
            if not self.text_weight:
                raise FitError(f"stage {self.stage} needs a text_weight above 0")
            return
        if self.base is None:
            raise FitError("stage grpo goes on from a model that writes answers: name it as base")
        for name in ("ema", "fsdp", "align_epochs", "early_stop"):
            if getattr(self, name):
                raise FitError(f"{name} can't be combined with stage grpo")
        options.groups_per_step(self)


def default_grpo() -> dict[str, Any]:
    """`GrpoOptions` as they are by default."""
    from .grpo_options import GrpoOptions

    return dataclasses.asdict(GrpoOptions())


def check_known(what: str, name: Any, names: Collection[str]) -> None:
    """Raise `FitError` where a name is none of these, offering the nearest."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise FitError(f"unknown {what} {name!r}; {hint}")


def default_of(name: str) -> Any:
    """An option's default, `dataclasses.MISSING` where it has none, None where there is none."""
    option = FitConfig.__dataclass_fields__.get(name)
    if option is None:
        return None
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default
