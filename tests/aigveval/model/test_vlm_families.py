"""Another family of vision-language models, whose processor knows no videos: LLaVA."""

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from aigveval.model.generation import AnswerWriter
from aigveval.model.library_internals import cache_of
from aigveval.model.modeling_vlm import VlmConfig, VlmModel
from aigveval.model.processing_vlm import VlmProcessor

from tests.aigveval.tiny_llm import make_tokenizer
from tests.media import write_video

# As LLaVA's own: no system role, and a picture is one token.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}USER: {% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{part['text']}}{% else %}<image>{% endif %}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)


@pytest.fixture(scope="module")
def llava():
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    inner = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
    }
    vlm = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=32, patch_size=16, **sizes),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer), max_position_embeddings=1024, **sizes
            ),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_select_strategy="default",
            vision_feature_layer=-1,
        )
    ).eval()
    config = VlmConfig(vlm="llava", num_slow=2, num_fast=3)
    processor = VlmProcessor.from_config(config, inner=inner)
    return VlmModel(config, vlm=vlm).eval(), processor


def test_it_scores_and_writes_with_fast_frames_as_pictures(llava, tmp_path):
    model, processor = llava
    clips = [
        write_video(tmp_path / f"{n}.mp4", num_frames=12, width=96, height=64, seed=n)
        for n in range(2)
    ]
    assert not processor.has_videos
    batch = processor(videos=clips, prompts=["a dog", None])
    assert len(batch["visuals"][0]["pixel_values"]) == 2 + 3
    assert processor.tokenizer.decode(batch["input_ids"][0]).startswith(
        "USER: You rate AI-generated videos as bad, poor, fair, good or excellent.\n"
        "Key frames:<0.1 seconds><image><image>"
    )
    output = model.score(**batch, use_cache=True)
    assert output.scores[0].isfinite().all() and output.scores[1].isnan().sum() == 1
    alone = model.score(**processor(videos=clips[1:], prompts=[None]))
    torch.testing.assert_close(output.level_logits[1], alone.level_logits[0], atol=1e-4, rtol=1e-4)
    heads = ["Overall quality: fair\n"] * 2
    texts = {}
    for use_cache in (True, False):
        cache = cache_of(model.score(**batch, use_cache=True))
        writer = AnswerWriter(model, processor.tokenizer, batch=batch, cache=cache, heads=heads)
        writer._cache = writer._cache if use_cache else None
        texts[use_cache] = [one.text for one in writer.write([0, 1], max_new_tokens=6)]
    assert texts[True] == texts[False]
