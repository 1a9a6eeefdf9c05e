"""Signs of defects: what linear maps find in the encoders' tokens, and the LLM is told.

A small LLM can't learn from a few thousand clips to see in projected tokens which of a score of
defects a clip has, and when. So linear maps look for them (`SignFinder`), and what these find
stands, as a line of text with how sure it is, between the levels and the answer that the LLM
writes. The LLM judges it beside the scores: it names, leaves out, and puts into words.

Axis legend: b batch, k tokens of one encoder, d its width, e widths of all encoders together,
n defects, t time steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prompts import SCORES, Defect, Sign
from prompts.answer import TENTHS
from prompts.rubric import DEFECTS

MIDDLE_SEVERITY = 3.0
NAMED_FROM = 5  # certainty from which on a sign is a defect
OF_PROMPT = frozenset({"prompt_mismatch", "wrong_object", "missing_object", "wrong_count"})
_SURE = 0.2  # from this certainty on a sign is told
_MOST = 3  # signs of a clip
_WHOLE = 0.9  # share of the clip from which on a defect lasts all of it


class SignFinder(nn.Module):
    """Standardised tokens of each encoder to the signs of defects.

    A clip's tokens, averaged over time, tell by a softmax how likely each defect of the picture
    is, and none: as in the data that it's fitted to, one defect stands out. Another softmax tells
    the same of the defects that only a prompt makes, of which the likeliest alone counts. A sign is
    as certain as the defect is against none, less where another one is likelier. Where the picture
    has a likely defect, one of the prompt counts only if it's more certain, as nobody knows how
    well the prompt would fit without the damage. The averages also tell how severe a defect is, and
    the tokens of a time step whether the step has it. `train.signs` fits the weights.

    Args:
        entries: Encoders as in `AIGVEvalConfig.encoders`.
        names: Of the defects, each of `prompts.rubric.DEFECTS`.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.dims = [entry["dim"] for entry in entries]
        # Tokens that are no time steps tell of the clip as a whole.
        self.timed = [entry["time_steps"] == entry["num_tokens"] for entry in entries]
        times = [entry["time_steps"] for entry, timed in zip(entries, self.timed) if timed]
        self.steps = max(times, default=1)
        width, count = sum(self.dims), len(self.names)
        self.picture = [n for n, name in enumerate(self.names) if name not in OF_PROMPT]
        self.prompt = [n for n, name in enumerate(self.names) if name in OF_PROMPT]
        self.whether = nn.Linear(width, count + 2)  # the last two: none of each kind
        self.degree = nn.Linear(width, count)
        self.when = nn.Linear(width, count)
        for linear in (self.whether, self.degree, self.when):
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
    def signs(self, tokens: Sequence[Tensor], scored: Tensor) -> list[list[Sign]]:
        """The likeliest defects of each clip, the likeliest first; times are in tenths of it.

        Args:
            tokens: (b, k, d) of each encoder, standardised.
            scored: (b, 4) which scores there are; a dimension without has no signs.
        """
        clips = self.averaged(tokens)
        blind = ~scored.to(clips.device)[:, [self._score(name) for name in self.names]]
        rows = zip(
            self.certainties(clips, blind).tolist(),
            (MIDDLE_SEVERITY + self.degree(clips)).tolist(),
            self.when(self.stepwise(tokens)).transpose(1, 2).tolist(),
        )
        return [self._of_clip(*row) for row in rows]

    def certainties(self, clips: Tensor, blind: Tensor) -> Tensor:
        """Averaged tokens (b, e) to the certainty of each defect (b, n), 0-1.

        Args:
            clips: Of `averaged`.
            blind: (b, n), defects that count for nothing.
        """
        logits, count = self.whether(clips), len(self.names)
        found = logits.new_zeros(len(logits), count)
        for none, group in enumerate((self.picture, self.prompt)):
            if group:
                found[:, group] = certainty(logits[:, [*group, count + none]], blind[:, group])
        if self.prompt:
            likeliest = found[:, self.prompt].amax(1, keepdim=True)
            found[:, self.prompt] *= found[:, self.prompt] == likeliest
        if self.picture and self.prompt:
            damaged = found[:, self.picture].amax(1, keepdim=True)
            hidden = (damaged >= NAMED_FROM / 10) & (damaged >= found[:, self.prompt])
            found[:, self.prompt] = found[:, self.prompt].masked_fill(hidden, 0.0)
        return found

    def _of_clip(
        self, sure: list[float], degrees: list[float], steps: list[list[float]]
    ) -> list[Sign]:
        order = sorted(range(len(sure)), key=lambda number: -sure[number])[:_MOST]
        signs = []
        for number in order:
            if not sure[number] >= _SURE:  # nor NaN
                break
            start, end = best_stretch(steps[number])
            times: tuple[float, float] | tuple[None, None] = (None, None)
            if end - start < _WHOLE * self.steps:
                times = start / self.steps * TENTHS, end / self.steps * TENTHS
            signs.append(Sign(
                defect=Defect(
                    name=self.names[number], severity=min(5, max(1, round(degrees[number]))),
                    start_seconds=times[0], end_seconds=times[1],
                ),
                certainty=min(9, int(10 * sure[number])),
            ))
        return signs

    @staticmethod
    def _score(name: str) -> int:
        return SCORES.index(DEFECTS[name].dimension)


def certainty(logits: Tensor, blind: Tensor) -> Tensor:
    """Logits (b, n + 1) of the defects and of none to the defects' certainty (b, n), 0-1.

    Args:
        logits: The last column is none's.
        blind: (b, n), defects that count for nothing.
    """
    defects, none = logits[:, :-1].masked_fill(blind, float("-inf")), logits[:, -1:]
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
            f"signs must be different defects of {', '.join(DEFECTS)}, got {list(names)}"
        )
    return list(names)
