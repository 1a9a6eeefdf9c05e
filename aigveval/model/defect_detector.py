"""The defect detector: linear maps from the encoders' tokens to defects, which the LLM then reads.

A small LLM cannot learn from a few thousand clips to see in projected tokens which of a score of
defects a clip has, and when. So linear maps detect them (`DefectDetector`), and the detections,
each with its certainty, stand as a line of text between the levels and the answer that the LLM
writes. The LLM weighs them against the scores: it names defects, leaves others out, and explains.
Where it only learnt to repeat them, it isn't asked: see `inference.explain.Explainer.writes`.

Axis legend: b batch, k tokens of one encoder, d its width, e widths of all encoders together,
n defects, t time steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prompts import SCORES, Defect, Detection
from prompts.answer import TENTHS
from prompts.defects import DEFECTS

MIDDLE_SEVERITY = 3.0
NAMED_FROM = 5  # certainty from which on a detection counts as a defect
OF_PROMPT = frozenset({"prompt_mismatch", "wrong_object", "missing_object", "wrong_count"})
_MIN_CERTAINTY = 0.2  # of a detection that the LLM reads
_MAX_DETECTIONS = 3  # of a clip
_WHOLE = 0.9  # share of the clip from which on a defect lasts all of it


class DefectDetector(nn.Module):
    """Standardised tokens of each encoder to defects with certainty, severity and time range.

    `presence` maps a clip's tokens, averaged over time, to the logits of a softmax over the defects
    of the picture and none: as in the data that it is fitted to, one defect stands out. Another
    softmax does the same for the defects that only a prompt makes, of which the likeliest alone
    counts. A detection is as certain as the defect is against none, less where another one is
    likelier. Where the picture has a likely defect, one of the prompt counts only if it is more
    certain, as nobody knows how well the prompt would fit without the damage. `severity` maps the
    same averages to how grave each defect is, and `timing` the tokens of a time step to whether the
    step has it. `train.detector_fit` fits the weights.

    Args:
        entries: Encoders as in `AIGVEvalConfig.encoders`.
        names: Of the defects, each of `prompts.defects.DEFECTS`.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.dims = [entry["dim"] for entry in entries]
        # Tokens that are no time steps describe the clip as a whole.
        self.timed = [entry["time_steps"] == entry["num_tokens"] for entry in entries]
        times = [entry["time_steps"] for entry, timed in zip(entries, self.timed) if timed]
        self.steps = max(times, default=1)
        width, count = sum(self.dims), len(self.names)
        self.picture = [n for n, name in enumerate(self.names) if name not in OF_PROMPT]
        self.prompt = [n for n, name in enumerate(self.names) if name in OF_PROMPT]
        self.presence = nn.Linear(width, count + 2)  # the last two: none of each kind
        self.severity = nn.Linear(width, count)
        self.timing = nn.Linear(width, count)
        for linear in (self.presence, self.severity, self.timing):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def averaged(self, tokens: Sequence[Tensor]) -> Tensor:
        """Tokens (b, k, d) of each encoder to (b, e). Each encoder counts alike."""
        return torch.cat([x.mean(1) / d**0.5 for x, d in zip(tokens, self.dims)], dim=1)

    def stepwise(self, tokens: Sequence[Tensor]) -> Tensor:
        """Tokens (b, k, d) of each encoder to (b, t, e)."""
        parts = []
        for x, timed, d in zip(tokens, self.timed, self.dims, strict=True):
            at = torch.arange(self.steps, device=x.device) * x.shape[1] // self.steps
            part = x[:, at] if timed else x.mean(1, keepdim=True).expand(-1, self.steps, -1)
            parts.append(part / d**0.5)
        return torch.cat(parts, dim=2)

    @torch.no_grad()
    def detect(self, tokens: Sequence[Tensor], scored: Tensor) -> list[list[Detection]]:
        """The likeliest defects of each clip, the likeliest first; times are in tenths of it.

        Args:
            tokens: (b, k, d) of each encoder, standardised.
            scored: (b, 4) which scores there are; a dimension without has no detections.
        """
        clips = self.averaged(tokens)
        own = [SCORES.index(DEFECTS[name].dimension) for name in self.names]
        excluded = ~scored.to(clips.device)[:, own]
        rows = zip(
            self.certainties(clips, excluded).tolist(),
            (MIDDLE_SEVERITY + self.severity(clips)).tolist(),
            self.timing(self.stepwise(tokens)).transpose(1, 2).tolist(),
        )
        return [self._of_clip(*row) for row in rows]

    def certainties(self, clips: Tensor, excluded: Tensor) -> Tensor:
        """Averaged tokens (b, e) to the certainty of each defect (b, n), 0-1.

        Args:
            clips: Of `averaged`.
            excluded: (b, n), defects that count for nothing.
        """
        logits, count = self.presence(clips), len(self.names)
        found = logits.new_zeros(len(logits), count)
        for none, group in enumerate((self.picture, self.prompt)):
            if group:
                found[:, group] = certainty(logits[:, [*group, count + none]], excluded[:, group])
        if self.prompt:
            likeliest = found[:, self.prompt].amax(1, keepdim=True)
            found[:, self.prompt] *= found[:, self.prompt] == likeliest
        if self.picture and self.prompt:
            damaged = found[:, self.picture].amax(1, keepdim=True)
            hidden = (damaged >= NAMED_FROM / 10) & (damaged >= found[:, self.prompt])
            found[:, self.prompt] = found[:, self.prompt].masked_fill(hidden, 0.0)
        return found

    def _of_clip(
        self, sure: list[float], severities: list[float], steps: list[list[float]]
    ) -> list[Detection]:
        order = sorted(range(len(sure)), key=lambda number: -sure[number])[:_MAX_DETECTIONS]
        detections = []
        for number in order:
            if not sure[number] >= _MIN_CERTAINTY:  # nor NaN
                break
            start, end = best_stretch(steps[number])
            times: tuple[float, float] | tuple[None, None] = (None, None)
            if end - start < _WHOLE * self.steps:
                times = start / self.steps * TENTHS, end / self.steps * TENTHS
            detections.append(
                Detection(
                    defect=Defect(
                        name=self.names[number],
                        severity=min(5, max(1, round(severities[number]))),
                        start_seconds=times[0],
                        end_seconds=times[1],
                    ),
                    certainty=min(9, int(10 * sure[number])),
                )
            )
        return detections


def certainty(logits: Tensor, excluded: Tensor) -> Tensor:
    """Logits (b, n + 1) of the defects and of none to the defects' certainty (b, n), 0-1.

    Args:
        logits: The last column is none's.
        excluded: (b, n), defects that count for nothing.
    """
    defects, none = logits[:, :-1].masked_fill(excluded, float("-inf")), logits[:, -1:]
    first = defects.amax(1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    return (defects - none).sigmoid() * (defects - first).exp()


def best_stretch(values: Sequence[float]) -> tuple[int, int]:
    """First and last (excluded) of the stretch with the largest sum; one value at least.

    Examples:
        >>> best_stretch([-1.0, 2.0, -0.5, 3.0, -4.0])
        (1, 4)
        >>> best_stretch([-3.0, -1.0, -2.0])
        (1, 2)
    """
    best, found = float("-inf"), (0, 1)
    total, start = 0.0, 0
    for number, value in enumerate(values):
        if total <= 0:
            total, start = 0.0, number
        total += value
        if total > best:
            best, found = total, (start, number + 1)
    return found


def check_names(names: Sequence[str]) -> list[str]:
    """Names of defects for a config.

    Raises:
        ValueError: One is unknown, or there twice.
    """
    unknown = sorted(set(names) - set(DEFECTS))
    if unknown or len(set(names)) != len(names):
        raise ValueError(
            f"detector must name different defects of {', '.join(DEFECTS)}, got {list(names)}"
        )
    return list(names)
