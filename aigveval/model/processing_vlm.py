"""The processor of `VlmModel`: (video, prompt) to tokens and pixels.

The question is that of `AIGVEvalProcessor`, with pictures and a video where that one has the
encoders' placeholders, and the time in seconds before each picture. All frames come before the
prompt, so the tokens up to there belong to the clip and are made once for any prompt.

Axis legend: b batch, s sequence, t frames, h w pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin
from transformers.video_utils import VideoMetadata

from encoders.sampling import uniform
from encoders.video import FrameRequest, Frames, VideoError, read_frames
from prompts import build_messages

from .backbones import load_vlm_processor
from .checkpoint import open_checkpoint
from .modeling_vlm import VlmConfig
from .processing import PROMPT_MARK, QuestionProcessor, level_token_ids, plain_template

# Stand in the question for the frames, and for where they end; chat templates keep them.
_SLOW, _FAST, _END = "zqSLOWFRAMESqz", "zqFASTFRAMESqz", "zqFRAMESENDqz"


class VlmProcessor(QuestionProcessor):
    """A vision-language model's processor, asked our question.

    Make one with `from_config` or `from_pretrained`.

    Args:
        tokenizer: That of the processor.
        inner: The processor. Where it knows no videos, the fast frames are pictures too.
        frames: Counts and sizes, as `VlmConfig.frames`.

    Raises:
        ValueError: There's no chat template.
    """

    def __init__(self, tokenizer: Any, inner: ProcessorMixin, frames: Mapping[str, int]) -> None:
        template = plain_template(inner) or plain_template(tokenizer)
        if template is None:
            raise ValueError(f"the processor {type(inner).__name__} has no chat template")
        super().__init__(tokenizer, chat_template=template)
        self.inner, self.frame_options = inner, dict(frames)
        self.has_videos = getattr(inner, "video_processor", None) is not None
        if self.has_videos and hasattr(inner.video_processor, "cap_pixels_per_frame"):
            inner.video_processor.cap_pixels_per_frame = False  # frames have their size already
        self._set_frames()

    @classmethod
    def from_config(
        cls, config: VlmConfig, *, inner: ProcessorMixin | None = None
    ) -> "VlmProcessor":
        """The processor for a config, in which the token ids are filled in.

        Args:
            config: Its `level_token_ids` are set, or compared if they are.
            inner: Instead of the one of `config.vlm`.

        Raises:
            ValueError: The tokenizer has no distinct level words, or isn't the config's.
        """
        inner = load_vlm_processor(config.vlm) if inner is None else inner
        processor = cls(inner.tokenizer, inner, config.frames)
        processor._fill_in(config, {"level_token_ids": level_token_ids(inner.tokenizer)})
        return processor

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> "VlmProcessor":
        """From a folder or Hub id of a model; its own processor files aren't needed.

        Options are `revision`, `token` and `cache_dir`.
        """
        folder = open_checkpoint(pretrained_model_name_or_path, **kwargs).folder
        config = VlmConfig.from_pretrained(folder)
        source = folder if (folder / "processor_config.json").is_file() else None
        return cls.from_config(config, inner=load_vlm_processor(str(source or config.vlm)))

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **kwargs: Any
    ) -> Any:
        """Write the vision-language model's processor, as it does itself."""
        return self.inner.save_pretrained(save_directory, **kwargs)

    @property
    def requests(self) -> dict[str, FrameRequest]:
        """The slow and the fast frames, for `read_frames`."""
        slow, fast = self.frame_options["num_slow"], self.frame_options["num_fast"]
        return {
            "slow": FrameRequest(indices=lambda n, fps: uniform(n, slow), stream="slow"),
            "fast": FrameRequest(indices=lambda n, fps: uniform(n, fast), stream="fast"),
        }

    @property
    def sizes(self) -> dict[str, Any]:
        """Their sizes, as options of `read_frames`."""
        return {
            "slow_max_side_px": self.frame_options["slow_side_px"],
            "fast_short_side_px": self.frame_options["fast_side_px"],
        }

    def encode_video(self, path: str | Path, *, seed: int = 0) -> dict[str, Tensor]:
        """A video as the model takes it, see `encode_frames`; decoded once, in one pass.

        Nothing is random here, whatever the seed.

        Raises:
            encoders.VideoError: The file cannot be read, or the model takes no such shape.
        """
        _, frames = read_frames(path, self.requests, **self.sizes)
        return self.encode_frames(frames, name=str(path))

    def encode_frames(
        self, frames: Mapping[str, Frames], *, name: str = "frames", start_seconds: float = 0.0
    ) -> dict[str, Tensor]:
        """Slow and fast frames as the model takes them.

        Args:
            frames: Under the names of `requests`.
            name: Of the video, for messages.
            start_seconds: When the part of the video starts that is to be judged.

        Returns:
            `input_ids` (s,), the tokens of the question up to the last frame, and pixels and their
            grids as the model's processor gives them: its rows for this clip's frames.

        Raises:
            encoders.VideoError: The frames have a shape that the model does not take.
        """
        slow, fast = frames["slow"], frames["fast"]
        # The first may be on the screen from before the start.
        times = {
            key: np.maximum(0.0, f.timestamps_seconds - start_seconds) for key, f in frames.items()
        }
        pictures, moving = list(slow.pixels), fast.pixels
        options: dict[str, Any] = {}
        if self.has_videos:
            if len(moving) == 1:  # time is seen in twos
                moving, times["fast"] = moving.repeat(2, 1, 1, 1), times["fast"].repeat(2)
            # As numbers of frames in milliseconds, so that any times can be given.
            numbers = [round(1000 * float(time)) for time in times["fast"]]
            options = {
                "videos": [moving],
                "do_sample_frames": False,
                "video_metadata": [
                    VideoMetadata(
                        total_num_frames=numbers[-1] + 1,
                        fps=1000.0,
                        frames_indices=numbers,
                        duration=numbers[-1] / 1000,
                    )
                ],
            }
        else:
            pictures += list(moving)
        text = self._render(times["slow"].tolist(), times["fast"].tolist()).partition(_END)[0]
        begin = self.tokenizer.bos_token
        try:
            found = self.inner(
                text=[text],
                images=[pictures],
                return_tensors="pt",
                add_special_tokens=not (begin and text.startswith(begin)),
                **options,
            )
        except ValueError as error:
            raise VideoError(name, " ".join(str(error).split())) from error
        own = {"attention_mask", "token_type_ids", "mm_token_type_ids"}  # follow from the tokens
        return {
            key: value[0] if key == "input_ids" else value
            for key, value in found.items()
            if isinstance(value, Tensor) and key not in own
        }

    def blank(self) -> dict[str, Tensor]:
        """A black clip as the model takes it, in place of one that cannot be read."""
        black = Frames(
            pixels=torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
            indices=np.arange(2),
            timestamps_seconds=np.arange(2.0),
        )
        return self.encode_frames({"slow": black, "fast": black})

    def encode_prompts(  # the same name as of the other processor, but a clip has tokens of its own
        self, prompts: Sequence[str | None], clips: Sequence[Mapping[str, Tensor]]
    ) -> BatchFeature:
        """All that the model takes for b clips and their prompts, padded on the right.

        Args:
            prompts: b prompts. One that is None or empty is unknown, and its semantic slot masked.
            clips: As of `encode_video`.

        Returns:
            input_ids and attention_mask (b, s), slot_positions (b, 4) int64, slot_mask (b, 4)
            bool, the four in the order of `prompts.SCORES`, and visuals, what the b clips look
            like.
        """
        if len(prompts) != len(clips):
            raise ValueError(f"there are {len(prompts)} prompts for {len(clips)} videos")
        batch = self._encode(prompts, [clip["input_ids"].tolist() for clip in clips], [])
        batch["visuals"] = [
            {name: value for name, value in clip.items() if name != "input_ids"} for clip in clips
        ]
        return batch

    def __call__(
        self,
        *,
        videos: Sequence[str | Path],
        prompts: Sequence[str | None] | None = None,
        seed: int = 0,
    ) -> BatchFeature:
        """A batch for the model, see `encode_prompts`.

        Args:
            videos: b video files.
            prompts: b prompts; by default they're unknown.
            seed: See `encode_video`.
        """
        clips = [self.encode_video(path, seed=seed) for path in videos]
        return self.encode_prompts([None] * len(clips) if prompts is None else prompts, clips)

    def _frame(self, *, with_prompt: bool) -> tuple[list[int], list[int]]:
        """Tokens between the frames and the user's prompt, and after it."""
        text = self._render([], [], PROMPT_MARK if with_prompt else None).partition(_END)[2]
        before, _, after = text.partition(PROMPT_MARK)
        # The space before the prompt is tokenized with it, as tokenizers do with words.
        return self._own(before.rstrip(" ") if with_prompt else before), self._own(after)

    def _render(
        self, slow: Sequence[float], fast: Sequence[float], prompt: str | None = None
    ) -> str:
        """The chat as text, for slow and fast frames at these seconds."""
        system, user = build_messages({"semantic": _SLOW, "motion": _FAST}, prompt)
        first, _, rest = user["content"].partition(_SLOW)
        second, _, rest = rest.partition(_FAST)
        moving = _pictures(fast) if not self.has_videos else [{"type": "video"}] * bool(len(fast))
        content = [_text(first), *_pictures(slow), _text(second), *moving, _text(_END + rest)]
        given = _text(system["content"])
        try:
            return self._apply(
                [
                    {"role": "system", "content": [given]},
                    {"role": "user", "content": content},
                ]
            )
        except TemplateError:  # as where a template knows no system role
            given["text"] += "\n"
            return self._apply([{"role": "user", "content": [given, *content]}])

    def _placeholder_ids(self) -> Sequence[int]:
        ids = (getattr(self.inner, f"{kind}_token_id", None) for kind in ("image", "video"))
        return [token for token in ids if token is not None]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _pictures(times: Sequence[float]) -> list[dict[str, str]]:
    return [part for time in times for part in (_text(f"<{time:.1f} seconds>"), {"type": "image"})]
