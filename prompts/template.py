"""The question: evidence tokens, the user's prompt, and an answer with one slot per score.

The evidence comes in AIGVEval's order - key frames, motion, technical - and before the prompt. Kept
short because every token costs time on a CPU: with SmolLM2's tokenizer the text, chat marks
included, is 62 tokens plus the prompt. What doesn't depend on the clip comes first, in the system's
message, so that it can be computed once.
"""

import re
import sys
import unicodedata
from collections.abc import Mapping

from .rubric import DIMENSIONS, SCORE_LABELS, SCORES, Dimension

# Stands where a level word is due. It's taken out before the text reaches the LLM: the logits of
# the level words are those at the token before it.
SLOT = "<|slot|>"

# The assistant's turn when scoring, one slot per score in the order of SCORES.
ANSWER = "\n".join(f"{SCORE_LABELS[name]}:{SLOT}" for name in SCORES)

# UTF-8 bytes, because a byte-level tokenizer makes at most one token of a byte. The longest
# of the 44,000 prompts in Q-Eval-Video, T2VQA-DB and T2VEval-Bench has 720.
MAX_PROMPT_BYTES = 1000

_SYSTEM = "You rate AI-generated videos as bad, poor, fair, good or excellent."
_EVIDENCE: tuple[tuple[Dimension, str], ...] = (
    ("semantic", "Key frames"),
    ("motion", "Motion"),
    ("technical", "Technical"),
)

# An opening bracket that closes before any white space, as in <|im_end|>, </s>, <image>, [INST].
_SPECIAL = re.compile(r"([<\[])(?=[^\s<>\[\]]+[>\]])")


def build_messages(
    placeholders: Mapping[Dimension, str],
    prompt: str | None = None,
    *,
    score_hint: str | None = None,
) -> list[dict[str, str]]:
    """The chat (system, user) that asks for the scores; `ANSWER` is what follows.

    Args:
        placeholders: Dimension to the placeholder tokens of its encoders, as text. A dimension
            that has no encoder may be absent.
        prompt: What the clip was generated from, in any language, or None where that's unknown.
            It's passed through `clean`; an empty one counts as unknown.
        score_hint: A placeholder token to stand once for each score, after the same label as in
            the answer and in the order of `SCORES`; by default there are none.

    Returns:
        Messages with `role` and `content`, for any tokenizer's `apply_chat_template`.

    Raises:
        ValueError: `placeholders` has a name that is not a dimension.
    """
    unknown = set(placeholders) - set(DIMENSIONS)
    if unknown:
        raise ValueError(f"placeholders must be named {DIMENSIONS}, got {sorted(unknown)}")
    lines = [f"{label}:{placeholders[name]}" for name, label in _EVIDENCE if name in placeholders]
    if score_hint is not None:
        lines += [f"{SCORE_LABELS[name]}:{score_hint}" for name in SCORES]
    prompt = clean(prompt or "")
    if prompt:
        lines.append(f"Prompt: {prompt}")
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": "\n".join(lines)},
    ]


def is_cut(text: str) -> bool:
    """Whether a prompt is longer than what `clean` leaves of it at most."""
    if len(text.encode("utf-8", "ignore")) <= MAX_PROMPT_BYTES:
        return False
    return len(clean(text, max_bytes=sys.maxsize).encode("utf-8")) > MAX_PROMPT_BYTES


def clean(text: str, *, max_bytes: int = MAX_PROMPT_BYTES) -> str:
    """Make foreign text safe to stand inside a chat: `clean(clean(x)) == clean(x)`.

    White space is folded into single spaces, control characters and lone surrogates go, and text
    that a tokenizer could take for a special token or for our own markers is split by a space
    (`<|im_end|>` becomes `< |im_end|>`). Longer text is cut at `max_bytes` of UTF-8, at a space if
    there's one in the last fifth. Of text without a visible character, such as a lone byte order
    mark, nothing is left.
    """
    text = "".join(
        char for char in text if char.isspace() or unicodedata.category(char) not in ("Cc", "Cs")
    )
    text = _SPECIAL.sub(r"\1 ", " ".join(text.split()))
    raw = text.encode("utf-8")
    if len(raw) > max_bytes:
        text = raw[:max_bytes].decode("utf-8", "ignore")
        space = text.rfind(" ", len(text) * 4 // 5)
        text = text[:space] if space > 0 else text
    if all(char == " " or unicodedata.category(char) == "Cf" for char in text):
        return ""
    return text.strip()
