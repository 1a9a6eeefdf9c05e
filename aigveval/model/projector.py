"""Fusion: encoder tokens, standardised and projected, into the LLM's embeddings.

Axis legend: b batch, k tokens of one encoder, d its width, K tokens of all encoders, D the widest
d, s sequence, h width of the LLM.
"""

import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from encoders.base import Encoder, join_rows
from prompts import SCORES, clean
from prompts.rubric import MAX_SCORE, MIN_SCORE

from .calibration import Calibration, clip_vectors, distance, left_out_distances
from .config import AIGVEvalConfig
from .defect_detector import DefectDetector

MIDDLE = (MIN_SCORE + MAX_SCORE) / 2  # the score hint of features without any evidence
_BEND = 0.5  # points before the ends of the scale
_SOFTNESS = 0.1  # points
_POINTS = 33  # of a hint curve
_STIFFNESS, _TIGHT = 0.5, 1e3  # how much bends count, and that it ends at the top
# Of the distances that rated clips have from those with other prompts, the quantiles at which a
# `LocalExpert` begins to fall silent, and is.
_NEAR, _FAR = 0.25, 0.75
_LEAST_SLOPE = 0.1  # so that the order of clips stays
_Outputs = tuple[Tensor, Tensor, Tensor]  # of `FeatureProjector.forward`


def pack_features(tokens: Sequence[Tensor]) -> Tensor:
    """Tokens (b, k_i, d_i) of several encoders to one tensor (b, K, D), zero-padded in width."""
    width = max(part.shape[-1] for part in tokens)
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[-1])) for part in tokens], 1)


def unpack_features(features: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Inverse of `pack_features`: (b, K, D) and each encoder's (k, d) to (b, k_i, d_i)."""
    expected = (sum(k for k, _ in shapes), max(d for _, d in shapes))
    if features.ndim != 3 or tuple(features.shape[1:]) != expected:
        raise ValueError(
            f"features must be (b, {expected[0]}, {expected[1]}), got {tuple(features.shape)}"
        )
    parts = features.split([k for k, _ in shapes], dim=1)
    return [part[..., :d] for part, (_, d) in zip(parts, shapes)]


def join_tokens(encoder: Encoder, tokens: Tensor, text: Sequence[str | None] | None) -> Tensor:
    """`encoders.base.join_rows` with prompts as the question has them, cleaned: (b, k, d)."""
    return join_rows(encoder, tokens, text and [clean(prompt or "") for prompt in text])


def bounded(scores: Tensor) -> Tensor:
    """Scores of any size in 1-5, in the same order: what is worse than bad still differs.

    They stay as they are up to `_BEND` from an end, and come near it exponentially from there.
    """
    beyond = ((scores - MIDDLE).abs() - (MAX_SCORE - MIDDLE - _BEND)).clamp_min(0)
    bent = _BEND * -torch.expm1(-beyond / _BEND)
    return scores - (scores - MIDDLE).sign() * (beyond - bent)


def taken_off(points: Tensor) -> Tensor:
    """What lies below 0 as it is, what lies above as 0, with a smooth bend between."""
    return -_SOFTNESS * nn.functional.softplus(-points / _SOFTNESS)


def mix_levels(scores: Tensor, levels: Tensor) -> Tensor:
    """Scores (...) and embeddings (5, h) of the level words, worst first, to embeddings (..., h).

    Between two levels it's a linear mix, as `prompts.level_distribution`, of `bounded` scores.
    """
    steps = bounded(scores) - MIN_SCORE
    # With a gradient at a level itself too, which is where new projectors begin.
    below = steps.detach().nan_to_num().long().clamp(max=len(levels) - 2)
    share = (steps - below).unsqueeze(-1).to(levels.dtype)
    return torch.lerp(levels[below], levels[below + 1], share)


class FeatureProjector(nn.Module):
    """One encoder's tokens (b, k, d) to LLM embeddings (b, k, h), and what makes score hints.

    Standardisation by fixed statistics, Linear-GELU-Linear, and a learned embedding of each
    token's position. It starts with the position alone, as large as the LLM's own embeddings
    (`embedding_rms`): the projection has to be learned.

    The score head gives four numbers per token, which make the score hints (see
    `AIGVEvalBackbone`) together with those of `probe` (4, d), a linear map that is given, not
    trained: zero, unless `set_probe` was called. Its bias is `probe_bias` (4,), or where that is
    None a part of the score head's.
    """

    mean: Tensor
    std: Tensor
    probe: Tensor
    probe_bias: Tensor | None

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        width: int,
        *,
        hidden: int,
        embedding_rms: float,
        clip: float,
        dropout: float,
        noise: float,
        damage_only: bool = False,
    ) -> None:
        super().__init__()
        self.clip, self.dropout, self.noise = clip, dropout, noise
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("probe", torch.zeros(len(SCORES), dim))
        self.register_buffer("probe_bias", None)
        if damage_only:
            self.add_probe_bias()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, width)
        self.score_head = nn.Linear(hidden, len(SCORES))
        self.position = nn.Parameter(torch.empty(num_tokens, width))
        nn.init.normal_(self.position, std=embedding_rms)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reset the projection and the score head; positions and statistics stay."""
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(self.up.in_features))
        nn.init.zeros_(self.up.bias)
        for head in (self.down, self.score_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.probe.zero_()
        if self.probe_bias is not None:
            self.probe_bias.zero_()

    def add_probe_bias(self) -> None:
        """Keep the given map's bias apart from the score head's."""
        self.probe_bias = self.probe.new_zeros(len(SCORES))

    @property
    def constant(self) -> Tensor:
        """The bias (4,) of the score hints, to be changed in place."""
        return self.score_head.bias.detach() if self.probe_bias is None else self.probe_bias

    @torch.no_grad()
    def set_stats(self, mean: Tensor, std: Tensor) -> None:
        """See `AIGVEvalModel.set_feature_stats`."""
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != self.mean.shape or not value.isfinite().all():
                raise ValueError(
                    f"{name} must be finite and of shape {tuple(self.mean.shape)}, "
                    f"got {tuple(value.shape)}"
                )
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    @torch.no_grad()
    def set_probe(self, weight: Tensor, bias: Tensor) -> None:
        """A linear map from tokens to the scores, beside the trained one.

        Args:
            weight: (4, d), of the standardised tokens.
            bias: (4,), added to the bias once.
        """
        self.probe.copy_(weight)
        self.constant.add_(bias.to(self.constant))

    def standardise(self, tokens: Tensor) -> Tensor:
        """Tokens (..., d) by the fixed statistics, limited to `clip` standard deviations."""
        x = (tokens.to(self.up.weight.dtype) - self.mean) / self.std
        return x.clamp(-self.clip, self.clip)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (b, k, d) to embeddings (b, k, h), and in points what the score head and what the
        given linear map say, both (b, k, 4)."""
        x = self.standardise(tokens)
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        if self.training and self.dropout:
            x = x * (torch.rand(len(x), 1, 1, device=x.device) >= self.dropout)
        hidden = nn.functional.gelu(self.up(x))
        given = nn.functional.linear(x, self.probe, self.probe_bias)
        return self.down(hidden) + self.position, self.score_head(hidden), given


class CameraLikeness(nn.Module):
    """How far a clip's evidence is like that of camera-made clips, and what that adds to scores.

    A linear map of the clip's mean standardised tokens, 0 on average over generated clips of 2023
    and 1 over camera-made ones. From `threshold` on, `gain` times the rest is added to the score
    hints, but of no more than `reach`: what tells the two apart says nothing of the order inside
    of either.
    """

    weight: Tensor
    bias: Tensor
    threshold: Tensor
    reach: Tensor
    gain: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("reach", torch.zeros(()))
        self.register_buffer("gain", torch.zeros(len(SCORES)))

    def forward(self, means: Tensor) -> Tensor:
        """Mean standardised tokens of all encoders, (b, d), to points (b, 4)."""
        likeness = means @ self.weight + self.bias
        beyond = (likeness - self.threshold).clamp_min(0).minimum(self.reach)
        return beyond[:, None] * self.gain


class LocalExpert(nn.Module):
    """What the raters of some clips saw in them, for clips like those.

    Raters of one data set may mark down what those of another don't mind, which should stay there.
    So a linear map of the clip's mean standardised tokens moves the hints of the scores whose
    `share` is 1 towards its own, each by `reach` points at most: with full weight for clips that
    are up to `near` from the rated ones, with none for those from `far` on. Distances are those of
    familiarity (see `calibration`).
    """

    clips: Tensor
    near: Tensor
    far: Tensor
    reach: Tensor
    weight: Tensor
    bias: Tensor
    share: Tensor

    def __init__(self, *, clips: int, compared: int, width: int) -> None:
        super().__init__()
        self.register_buffer("clips", torch.zeros(clips, compared))
        self.register_buffer("near", torch.zeros(()))
        self.register_buffer("far", torch.ones(()))
        self.register_buffer("reach", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(len(SCORES), width))
        self.register_buffer("bias", torch.zeros(len(SCORES)))
        self.register_buffer("share", torch.zeros(len(SCORES)))

    @torch.no_grad()
    def place(self, vectors: Tensor, groups: Sequence[str]) -> None:
        """Set where it speaks.

        Args:
            vectors: (n, compared) of the rated clips, as of `ScoreHints.compared`.
            groups: n prompts, two at least.
        """
        self.clips.copy_(vectors)
        apart = left_out_distances(vectors, groups)
        self.near.copy_(apart.quantile(_NEAR))
        self.far.copy_(apart.quantile(_FAR))

    def forward(self, said: Tensor, means: Tensor, vectors: Tensor) -> Tensor:
        """Points (b, 4) to add.

        Args:
            said: Score hints (b, 4) of what holds for all clips.
            means: Mean standardised tokens of all encoders, (b, width).
            vectors: (b, compared), as of `ScoreHints.compared`.
        """
        own = nn.functional.linear(means, self.weight, self.bias)
        apart = distance(vectors.float(), self.clips)
        gate = ((self.far - apart) / (self.far - self.near)).clamp(0, 1)
        moved = (own - said).clamp(-self.reach, self.reach)
        return gate[:, None] * self.share * moved


class HintCurve(nn.Module):
    """What the LLM makes of score hints: a curve for each score, without and with a prompt.

    It's linear between points that are spread evenly over 1-5, from 1 to 5, and always rises.
    """

    points: Tensor

    def __init__(self) -> None:
        super().__init__()
        straight = torch.linspace(MIN_SCORE, MAX_SCORE, _POINTS)
        self.register_buffer("points", straight.repeat(2, len(SCORES), 1))

    def forward(self, hints: Tensor, known: Tensor) -> Tensor:
        """Score hints (b, 4), unbounded, and whether the prompt is known (b,), to scores (b, 4)."""
        places = (bounded(hints) - MIN_SCORE) * ((_POINTS - 1) / (MAX_SCORE - MIN_SCORE))
        below = places.nan_to_num().long().clamp(0, _POINTS - 2)
        curves = self.points[known.long()]  # (b, 4, n)
        low, high = (curves.gather(2, (below + n)[..., None])[..., 0] for n in (0, 1))
        return torch.lerp(low, high, places - below)

    @torch.no_grad()
    def fit(self, hints: Tensor, known: Tensor, scores: Tensor) -> None:
        """Set the curves by the scores (b, 4) that the LLM gave, NaN where it gave none.

        The sum of fourth powers of what is left is minimised, as the largest of it matters, with a
        small penalty on bends.
        """
        import numpy as np
        from scipy.optimize import lsq_linear

        span = MAX_SCORE - MIN_SCORE
        steps = np.tril(np.ones((_POINTS, _POINTS)))[:, 1:]  # from the rises
        bends = np.diff(np.eye(_POINTS), 2, axis=0)
        fixed = np.vstack([_STIFFNESS * bends, _TIGHT * np.eye(1, _POINTS, _POINTS - 1)]) @ steps
        values = np.append(np.zeros(len(bends)), _TIGHT * span)
        least = _LEAST_SLOPE * span / (_POINTS - 1)
        own = HintCurve().to(hints.device)  # straight: gives the place of each hint
        for prompt in (0, 1):
            for column in range(len(SCORES)):
                rows = (known.long() == prompt) & scores[:, column].isfinite()
                if not rows.any():
                    continue
                at = own(hints[rows], known[rows])[:, column].cpu().double().numpy()
                places = (at - MIN_SCORE) * ((_POINTS - 1) / (MAX_SCORE - MIN_SCORE))
                design = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(_POINTS)))
                goal = scores[rows, column].cpu().double().numpy()
                weights = np.ones(len(goal))
                for _ in range(12):
                    root = np.sqrt(weights)
                    matrix = np.vstack([root[:, None] * design @ steps, fixed])
                    wanted = np.append(root * (goal - MIN_SCORE), values)
                    curve = MIN_SCORE + steps @ lsq_linear(matrix, wanted, (least, np.inf)).x
                    left = np.abs(goal - design @ curve)
                    weights = np.sqrt(weights * ((left / (left.max() + 1e-9)) ** 2 + 1e-3))
                    weights *= len(weights) / weights.sum()
                curve = curve.clip(MIN_SCORE, MAX_SCORE)  # from rounding
                self.points[prompt, column] = torch.from_numpy(curve).to(self.points)


class ScoreHints(nn.Module):
    """Projectors and what stands beside them: features to score hints, familiarity and defects.

    A score's hint is `MIDDLE` plus the outputs of score heads and given maps, averaged over each
    encoder's tokens and summed over the encoders. With `config.damage_only` the score heads' sum
    goes through `taken_off`: what they learn of damage then can't change the order of clips without
    any. And a share of what it takes off the semantic score goes off the overall one too. The width
    is h, of the LLM's embeddings.
    """

    def __init__(self, config: AIGVEvalConfig, width: int) -> None:
        super().__init__()
        self._add_parts(config, width, 1.0)

    def _add_parts(self, config: AIGVEvalConfig, width: int, embedding_rms: float) -> None:
        self.config = config
        self.projectors = nn.ModuleDict(
            {
                entry["name"]: FeatureProjector(
                    entry["num_tokens"],
                    entry["dim"],
                    width,
                    hidden=config.projector_hidden,
                    embedding_rms=embedding_rms,
                    clip=config.feature_clip,
                    dropout=config.feature_dropout,
                    noise=config.feature_noise,
                    damage_only=config.damage_only,
                )
                for entry in config.encoders
            }
        )
        for name, parameter in self.projectors.named_parameters():
            if ".score_head." in name:  # DDP would wait for the gradient of what isn't used
                parameter.requires_grad_(config.score_hints)
        self.detector: DefectDetector | None = None
        if config.detector:
            self.add_detector(config.detector)
        self.likeness: CameraLikeness | None = None
        if config.likeness:
            self.add_likeness()
        self.local_expert: LocalExpert | None = None
        if config.local_expert:
            self.add_local_expert(config.local_expert)
        self.calibration: Calibration | None = None
        if config.calibration:
            self.add_calibration(config.calibration)
        self.hint_curve: HintCurve | None = None
        if config.hints_within is not None:
            self.add_hint_curve(config.hints_within)

    @property
    def device(self) -> torch.device:
        return next(self.projectors.parameters()).device

    def score_hints(self, features: Tensor) -> Tensor:
        """Features (b, K, D) to the score hints (b, 4), unbounded."""
        return self._score_hints(features, self._outputs(features))

    def _score_hints(self, features: Tensor, outputs: Sequence[_Outputs]) -> Tensor:
        learnt = torch.stack([part.mean(1) for _, part, _ in outputs]).sum(0)
        given = torch.stack([part.mean(1) for _, _, part in outputs]).sum(0)
        said = MIDDLE + given
        if self.config.damage_only:
            learnt = taken_off(learnt)
        hints = said + learnt
        if self.config.prompt_share:
            missed = self.config.prompt_share * learnt[:, SCORES.index("semantic")]
            hints[:, SCORES.index("overall")] += missed
        if self.likeness is not None or self.local_expert is not None:
            tokens = self.standardised(features)
            means = torch.cat([part.mean(1) for part in tokens], dim=1)
            if self.likeness is not None:
                lift = self.likeness(means)
                said, hints = said + lift, hints + lift
            if self.local_expert is not None:
                hints = hints + self.local_expert(said, means, self.compared(tokens))
        return hints

    def learn_damage_only(self, *, prompt_share: float = 0.0) -> None:
        """Have the score heads only take points off from now on; for new ones.

        Args:
            prompt_share: As in the config.
        """
        self.config.damage_only, self.config.prompt_share = True, prompt_share
        for projector in cast(Iterable[FeatureProjector], self.projectors.values()):
            projector.add_probe_bias()

    def add_detector(self, names: Sequence[str]) -> None:
        """Add a new, untrained detector of these defects."""
        self.config.detector = list(names)
        self.detector = DefectDetector(self.config.encoders, names)
        # No gradients: see `train.detector_fit`.
        self.detector.requires_grad_(False).eval().to(self.device)

    def add_likeness(self) -> CameraLikeness:
        """Add a likeness that adds nothing yet."""
        self.config.likeness = True
        self.likeness = CameraLikeness(sum(d for _, d in self.config.feature_shapes))
        return self.likeness.to(self.device)

    def add_local_expert(self, clips: int) -> LocalExpert:
        """Add an expert near that many rated clips, which says nothing yet."""
        self.config.local_expert = clips
        self.local_expert = LocalExpert(
            clips=clips,
            compared=self._compared_width(),
            width=sum(d for _, d in self.config.feature_shapes),
        )
        return self.local_expert.to(self.device)

    def add_calibration(self, clips: int) -> Calibration:
        """Add statistics for intervals and familiarity, to be set by `Calibration.fit`."""
        self.config.calibration = clips
        self.calibration = Calibration(
            width=self._compared_width(), clips=clips, scores=len(SCORES)
        )
        return self.calibration.to(self.device)

    def remove_measured(self) -> None:
        """Drop what was measured, intervals too: it doesn't hold for a model that is trained on.

        Nor do the raters of a `LocalExpert`, who would speak over new ones.
        """
        self.config.local_expert, self.local_expert = 0, None
        self.config.calibration, self.calibration = 0, None
        self.config.hints_within, self.hint_curve = None, None

    def add_hint_curve(self, within: float) -> HintCurve:
        """Add a straight curve, by which hints are said to be as near to scores as that."""
        self.config.hints_within = within
        self.hint_curve = HintCurve()
        return self.hint_curve.to(self.device)

    def trusted(self, features: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Features (b, K, D) to familiarity (b,) and half widths (b, 4); None where unknown."""
        if self.calibration is None:
            return None, None
        return self.calibration(self.compared(self.standardised(features)))

    def compared(self, standardised: Sequence[Tensor]) -> Tensor:
        """Each encoder's standardised tokens (b, k, d_i) to what familiarity compares, (b, d)."""
        return clip_vectors([standardised[number] for number in self._compared()])

    def _compared(self) -> list[int]:
        """Numbers of the encoders of motion, or of all where there is none."""
        dimensions = [entry["dimension"] for entry in self.config.encoders]
        motion = [n for n, dimension in enumerate(dimensions) if dimension == "motion"]
        return motion or list(range(len(dimensions)))

    def _compared_width(self) -> int:
        return sum(self.config.feature_shapes[number][1] for number in self._compared())

    def standardised(self, features: Tensor) -> list[Tensor]:
        """Features (b, K, D) to each encoder's tokens (b, k, d), standardised."""
        parts = unpack_features(features, self.config.feature_shapes)
        projectors = cast(Iterable[FeatureProjector], self.projectors.values())
        return [project.standardise(part) for project, part in zip(projectors, parts)]

    def _outputs(self, features: Tensor) -> list[_Outputs]:
        parts = unpack_features(features, self.config.feature_shapes)
        return [project(part) for project, part in zip(self.projectors.values(), parts)]


class AIGVEvalBackbone(ScoreHints):
    """Projectors and language model: token ids and features to the last hidden state.

    With `config.score_hints` the LLM also reads score hints, as level words: in the four
    placeholders after the features' stands the hint of each score, and to each token's embedding
    its own hint of its encoder's dimension is added. A value between "fair" and "good" is a mix of
    the two words' embeddings. LLMs copy words well, so little training is enough, where the meaning
    of projected features has to be learned from thousands of clips.
    """

    def __init__(self, config: AIGVEvalConfig, language_model: PreTrainedModel) -> None:
        nn.Module.__init__(self)
        self.language_model = language_model
        embedding: Tensor = language_model.get_input_embeddings().weight  # type: ignore[assignment]
        # A sample of the vocabulary is enough for a scale.
        rms = embedding[::64].float().square().mean().sqrt().item()
        self._add_parts(config, embedding.shape[1], rms)
        # Models with ALiBi take none.
        arguments = inspect.signature(language_model.forward).parameters
        self._takes_positions = "position_ids" in arguments

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """See `AIGVEvalModel.forward`; further arguments go to the language model."""
        is_feature = input_ids.eq(self.config.feature_token_id)  # type: ignore[arg-type]
        # The placeholder's id lies beyond the vocabulary; whatever row 0 holds is overwritten.
        embeds = self.language_model.get_input_embeddings()(input_ids.masked_fill(is_feature, 0))
        if features is not None:
            counts = is_feature.sum(1).tolist()
            needed = features.shape[1] + len(SCORES) * self.config.score_hints
            if len(features) != len(input_ids) or set(counts) != {needed}:
                raise ValueError(
                    f"placeholder counts per row are {counts}, "
                    f"but features are {len(features)} rows that fill {needed}"
                )
            projected = self.project(features)
            embeds = embeds.masked_scatter(is_feature.unsqueeze(-1), projected.to(embeds.dtype))
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if self._takes_positions:
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(1) - 1).clamp_min(0)
            kwargs["position_ids"] = position_ids
        return self.language_model(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)

    def project(self, features: Tensor) -> Tensor:
        """Features (b, K, D) to what stands in the placeholders, (b, K, h) or (b, K + 4, h)."""
        outputs = self._outputs(features)
        hints = self._score_hints(features, outputs)
        if not self.config.score_hints:
            return torch.cat([embeddings for embeddings, *_ in outputs], dim=1)
        ids = torch.tensor(self.config.level_token_ids, device=features.device)
        levels = self.language_model.get_input_embeddings()(ids)
        shown = []
        for (embeddings, learnt, given), entry in zip(outputs, self.config.encoders):
            hint = (MIDDLE + learnt + given)[..., SCORES.index(entry["dimension"])]
            shown.append(embeddings + mix_levels(hint, levels))
        return torch.cat([*shown, mix_levels(hints, levels)], dim=1)
