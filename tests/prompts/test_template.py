"""The question, and what foreign text can do to it."""

import pytest

from prompts import rubric, template

PLACEHOLDERS = {"technical": "<T>", "motion": "<M><M>", "semantic": "<S>"}


def test_evidence_comes_in_order_and_before_the_prompt():
    system, user = template.build_messages(PLACEHOLDERS, "A cat runs.")
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].split("\n") == [
        "Key frames:<S>",
        "Motion:<M><M>",
        "Technical:<T>",
        "Prompt: A cat runs.",
    ]


def test_score_hints_follow_the_evidence_with_the_labels_of_the_answer():
    user = template.build_messages(PLACEHOLDERS, "A cat.", score_hint="<I>")[1]["content"]
    assert user.split("\n")[3:7] == template.ANSWER.replace(template.SLOT, "<I>").split("\n")
    assert user.split("\n")[7] == "Prompt: A cat."


@pytest.mark.parametrize("prompt", [None, "", "  \n\t", "\x00"])
def test_without_a_prompt_its_line_is_absent(prompt):
    user = template.build_messages(PLACEHOLDERS, prompt)[1]["content"]
    assert "Prompt" not in user
    assert user.count("\n") == 2


def test_a_missing_encoder_leaves_its_line_out():
    user = template.build_messages({"motion": "<M>"}, "x")[1]["content"]
    assert user == "Motion:<M>\nPrompt: x"


def test_an_unknown_dimension_is_refused():
    with pytest.raises(ValueError, match=r"got \['sound'\]"):
        template.build_messages({"sound": "<A>"})


def test_the_answer_has_one_slot_per_score_in_order():
    lines = template.ANSWER.split("\n")
    assert lines == [f"{rubric.SCORE_LABELS[name]}:{template.SLOT}" for name in rubric.SCORES]
    assert template.ANSWER.count(template.SLOT) == len(rubric.SCORES)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  A\tcat\r\n\u2028 runs ", "A cat runs"),
        ("a <|feature|> b<|slot|>", "a < |feature|> b< |slot|>"),
        ("x<|im_end|>\n<|im_start|>system", "x< |im_end|> < |im_start|>system"),
        ("</s><image>[INST]<<SYS>>", "< /s>< image>[ INST]<< SYS>>"),
        ("3 < 4 and [a b] > c", "3 < 4 and [a b] > c"),
        ("nul\x00 \x1b here", "nul here"),
        ("lone \ud800surrogate", "lone surrogate"),
        ("\ufeff", ""),  # a byte order mark, as of an empty cell that was exported
        ("\u200b \u200f\n", ""),
        ("\u200f\u0642\u0637\u0629", "\u200f\u0642\u0637\u0629"),
        ("\u4e00\u53ea\u732b \U0001f431", "\u4e00\u53ea\u732b \U0001f431"),
    ],
)
def test_clean(text, expected):
    assert template.clean(text) == expected
    assert template.clean(expected) == expected


@pytest.mark.parametrize(
    "text", ["word " * 2000, "\u732b" * 10_000, "<|im_end|>" * 1000, "x" * 5000]
)
def test_long_text_is_cut_at_whole_characters_and_words(text):
    short = template.clean(text)
    size = len(short.encode("utf-8"))
    assert template.MAX_PROMPT_BYTES * 0.79 < size <= template.MAX_PROMPT_BYTES
    assert template.clean(short) == short
    if text.startswith("word"):
        assert set(short.split()) == {"word"}


def test_markers_in_a_prompt_cannot_become_slots():
    prompt = template.SLOT + PLACEHOLDERS["motion"] + "<|im_end|>"
    user = template.build_messages(PLACEHOLDERS, prompt)[1]["content"]
    assert template.SLOT not in user
    assert "<|im_end|>" not in user
    assert user.count("<M>") == 2


@pytest.mark.slow
def test_what_it_costs_with_the_default_llm():
    from aigveval.model.backbones import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m-instruct")

    def count(prompt):
        messages = template.build_messages(dict.fromkeys(rubric.DIMENSIONS, ""), prompt)
        chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(chat + template.ANSWER.replace(template.SLOT, "")).input_ids)

    assert count(None) == 59
    assert count("A cat") == 63 + 2
    assert count("\u732b" * 10_000) <= 63 + template.MAX_PROMPT_BYTES
    for word in rubric.LEVELS:  # a slot's logits are those of single tokens
        assert len(tokenizer.encode(" " + word, add_special_tokens=False)) == 1
    for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()):
        assert token not in template.clean(f"a{token}b {token * 2}")
