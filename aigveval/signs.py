"""Signs of defects: what a small head finds in the encoders' tokens, and the LLM is told.

A small LLM can't learn from a few thousand clips to see in projected tokens which of a score of
defects a clip has, and when. So a head looks for them (`SignFinder`), and what it finds stands, as
a line of text with how sure it is, between the levels and the answer that the LLM writes. The LLM
judges it beside the scores: it names, leaves out, and puts into words.

Axis legend: b batch, k tokens of one encoder, d its width, K tokens of all encoders, D the widest,
n defects, t time steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prompts import SCORES, Defect, Sign
from prompts.rubric import DEFECTS

_TENTHS = 10.0  # length of any clip in the unit of a sign's times
_SURE = 0.15  # from this probability on a sign is told
_MOST = 4  # signs of a clip
_WHOLE = 0.9  # share of the clip from which on a defect lasts all of it


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a `SignFinder` gives.

    Attributes:
        logits: (b, n), of the probability that the clip has the defect.
        severity: (b, n), unbounded, 1-5 if it has.
        steps: (b, t, n), log-odds of each step of the clip being damaged, if it has.
    """

    logits: Tensor
    severity: Tensor
    steps: Tensor


class SignFinder(nn.Module):
    """Standardised tokens of each encoder to the signs of defects.

    Args:
        entries: Encoders as in `AIGVEvalConfig.encoders`.
        names: Of the defects, each of `prompts.rubric.DEFECTS`.
        hidden: Width per encoder.
        dropout: In training, of hidden values.
    """

    def __init__(
        self, entries: Sequence[Mapping[str, Any]], names: Sequence[str], *, hidden: int,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.names = list(names)
        times = [entry["time_steps"] for entry in entries]
        # Tokens that are no time steps tell of the clip as a whole.
        self.timed = [t == entry["num_tokens"] for t, entry in zip(times, entries)]
        self.steps = max((t for t, timed in zip(times, self.timed) if timed), default=1)
        self.up = nn.ModuleList(nn.Linear(entry["dim"], hidden) for entry in entries)
        self.drop = nn.Dropout(dropout)
        self.clip = nn.Linear(3 * hidden * len(entries), 2 * hidden)
        self.head = nn.Linear(2 * hidden, 2 * len(names))
        self.when = nn.Linear(hidden * len(entries), len(names))

    def forward(self, tokens: Sequence[Tensor]) -> Found:
        """Tokens (b, k, d) of each encoder, standardised."""
        whole, steps = [], []
        for up, timed, x in zip(self.up, self.timed, tokens, strict=True):
            hidden = nn.functional.gelu(up(x))
            mean = hidden.mean(1)
            whole += [mean, hidden.amax(1), hidden.std(1, correction=0)]
            at = torch.arange(self.steps, device=x.device) * x.shape[1] // self.steps
            steps.append(
                hidden[:, at] if timed else mean.unsqueeze(1).expand(-1, self.steps, -1)
            )
        clip = nn.functional.gelu(self.clip(self.drop(torch.cat(whole, dim=1))))
        logits, severity = self.head(self.drop(clip)).chunk(2, dim=1)
        when = self.when(self.drop(torch.cat(steps, dim=2)))
        return Found(logits=logits, severity=3 + severity, steps=when)

    @torch.no_grad()
    def signs(self, tokens: Sequence[Tensor], scored: Tensor) -> list[list[Sign]]:
        """The likeliest defects of each clip, the likeliest first; times are in tenths of it.

        Args:
            tokens: As of `forward`.
            scored: (b, 4) which scores there are; a dimension without has no signs.
        """
        found = self(tokens)
        rows = zip(
            found.logits.sigmoid().cpu(), found.severity.cpu(), found.steps.cpu(), scored.tolist()
        )
        return [self._of_clip(*row) for row in rows]

    def _of_clip(
        self, likely: Tensor, severity: Tensor, steps: Tensor, scored: Sequence[bool]
    ) -> list[Sign]:
        known = dict(zip(SCORES, scored))
        signs = []
        for number in likely.argsort(descending=True, stable=True).tolist():
            name, sure = self.names[number], float(likely[number])
            if len(signs) == _MOST or not sure >= _SURE:
                break
            if not known[DEFECTS[name].dimension]:
                continue
            start, end = best_stretch(steps[:, number].tolist())
            times = None, None
            if end - start < _WHOLE * self.steps:
                times = start / self.steps * _TENTHS, end / self.steps * _TENTHS
            defect = Defect(
                name=name, severity=min(5, max(1, round(float(severity[number])))),
                start_seconds=times[0], end_seconds=times[1],
            )
            signs.append(Sign(defect=defect, certainty=min(9, int(10 * sure))))
        return signs


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


def ordered(names: Sequence[str]) -> list[str]:
    """Names in the order of the rubric."""
    return [name for name in DEFECTS if name in names]
