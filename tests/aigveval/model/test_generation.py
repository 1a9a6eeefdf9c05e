"""Writing from the KV cache: the same text as without it, whatever the batch."""

import inspect

import pytest
import torch

from aigveval.model.config import AIGVEvalConfig
from aigveval.model.generation import AnswerWriter, answer_heads
from aigveval.model.library_internals import cache_of
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from prompts import SCORES, render_levels
from prompts.facts import Fact, render_facts

from ..tiny_llm import make_batch, make_config, make_llm, make_model, make_tokenizer

PROMPTS = ["a cat on a roof", None, "dog", "two boats, one sun", "x" * 90, "sea", "", "a"]
LEVELS = [
    {"technical": 1.2, "motion": 4.4, "semantic": 5.0, "overall": 3.0},
    {"technical": 3.0, "motion": 2.0, "overall": 2.6},  # no prompt
    {"technical": 5.0, "motion": 4.9, "semantic": 1.0, "overall": 4.1},
]
NEW = 12  # tokens


@pytest.fixture(scope="module")
def made():
    return make_model()


@pytest.fixture(scope="module")
def model(made):
    return made[0]


@pytest.fixture(scope="module")
def batch(made):
    return make_batch(made[1], made[0].config, PROMPTS)


def heads(prompts=PROMPTS):
    known = [dict(LEVELS[number % 3]) for number in range(len(prompts))]
    for prompt, scores in zip(prompts, known):
        if not prompt:
            scores.pop("semantic", None)
    return [render_levels(scores) + "\n" for scores in known]


def slow_greedy(model, ids, features, count, ends=()):
    """Greedy decoding of one row, all of it computed anew for every token."""
    new = []
    while len(new) < count and not set(new) & set(ends):
        row = torch.tensor([ids + new])
        logits = model(input_ids=row, features=features[None]).logits
        assert logits.shape == (1, row.shape[1], model.lm_head.weight.shape[0])
        new.append(int(logits[0, -1].argmax()))
    return new


def make_writer(made, batch, given=None):
    model, processor = made
    output = model.score(**batch, use_cache=True)
    return AnswerWriter(
        model,
        processor.tokenizer,
        batch=batch,
        cache=cache_of(output),
        heads=heads() if given is None else given,
    )


# ---- forward and generate ----


def test_a_cache_does_not_change_the_scores(model, batch):
    plain, cached = model.score(**batch), model.score(**batch, use_cache=True)
    assert cache_of(plain) is None and plain.logits is None
    assert torch.equal(plain.level_logits, cached.level_logits)
    assert cache_of(cached).get_seq_length() == batch["input_ids"].shape[1]


def test_logits_are_those_of_the_slots_and_as_many_as_wanted(model, batch):
    output = model.score(**batch, logits_to_keep=0)
    rows = torch.arange(len(PROMPTS))[:, None]
    found = output.logits[rows, batch["slot_positions"]][..., model.config.level_token_ids]
    torch.testing.assert_close(found, output.level_logits)
    last = model.score(**batch, logits_to_keep=2).logits
    torch.testing.assert_close(last, output.logits[:, -2:])
    for name, value in (("logit_scale", 0.5), ("final_logit_softcapping", 2.0)):
        setattr(model.config.text_config, name, value)
        try:
            changed = model.score(**batch, logits_to_keep=2).logits
        finally:
            delattr(model.config.text_config, name)
        plain = output.logits[:, -2:]
        expected = plain * 0.5 if name == "logit_scale" else 2 * torch.tanh(plain / 2)
        torch.testing.assert_close(changed, expected)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", ["features", "pixel_values"])
def test_generate_gives_what_a_plain_loop_gives(model, batch, use_cache, name):
    ids = batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()
    features = batch["features"][:1]
    found = model.generate(
        torch.tensor([ids]),
        max_new_tokens=NEW,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
        pad_token_id=0,
        **{name: features},
    )
    assert found[0, len(ids) :].tolist() == slow_greedy(model, ids, features[0], NEW)


def test_generate_with_padding_on_the_left(model, batch):
    """As TRL calls it."""
    lengths = batch["attention_mask"].sum(1).tolist()
    width = max(lengths)
    rolled = {
        name: torch.stack([row.roll(width - n) for row, n in zip(batch[name], lengths)])
        for name in ("input_ids", "attention_mask")
    }
    found = model.generate(
        **rolled,
        pixel_values=batch["features"],
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    for row, length in enumerate(lengths[:4]):
        ids = batch["input_ids"][row, :length].tolist()
        expected = slow_greedy(model, ids, batch["features"][row], NEW)
        assert found[row, width:].tolist() == expected


def test_features_go_in_once(model, batch, monkeypatch):
    calls = []
    real = AIGVEvalModel.forward

    def forward(self, *args, **kwargs):
        calls.append((kwargs["input_ids"].shape[1], kwargs.get("features") is not None))
        return real(self, *args, **kwargs)

    forward.__signature__ = inspect.signature(real)
    monkeypatch.setattr(AIGVEvalModel, "forward", forward)
    model.generate(
        batch["input_ids"][:1],
        features=batch["features"][:1],
        max_new_tokens=4,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert calls == [(batch["input_ids"].shape[1], True)] + [(1, False)] * 3


def test_what_trl_asks_of_a_model(model, batch):
    """See its `add_fused_lm_head`: backbone and head are called apart."""
    prepare = inspect.signature(model.prepare_inputs_for_generation).parameters
    assert list(prepare)[-1] == "kwargs" and model.can_generate()
    assert model.base_model is model.model and model.get_output_embeddings() is model.lm_head
    assert model.config.image_token_id == model.config.feature_token_id
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    found = model.base_model(**text, pixel_values=batch["features"], use_cache=False)
    whole = model.score(**batch, output_last_hidden_state=True).last_hidden_state
    assert torch.equal(found.last_hidden_state, whole)


def test_neither_features_nor_cache(model, batch):
    with pytest.raises(ValueError, match="^forward needs features, or the cache of a pass that "):
        model(input_ids=batch["input_ids"])


def test_a_cache_without_mask_and_positions(model, batch):
    row = {name: value[4:5] for name, value in batch.items()}  # the longest: no padding
    assert row["attention_mask"].all()
    whole = model.score(**row, logits_to_keep=3).logits
    first = model(
        input_ids=row["input_ids"][:, :-3],
        features=row["features"],
        use_cache=True,
        logits_to_keep=1,
    )
    rest = model(input_ids=row["input_ids"][:, -3:], past_key_values=cache_of(first))
    torch.testing.assert_close(rest.logits, whole, atol=1e-4, rtol=1e-4)
    assert cache_of(rest) is None  # it wasn't asked for


def test_the_llms_end_is_taken_over_but_not_its_sampling(tmp_path):
    llm = make_llm()
    llm.generation_config.update(do_sample=True, temperature=0.3, eos_token_id=[2, 7])
    model, _ = make_model(llm=llm)
    assert model.generation_config.eos_token_id == [2, 7]
    assert not model.generation_config.do_sample and model.generation_config.temperature != 0.3
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


# ---- answers ----


def full_rows(made, batch, given):
    """Each row's ids as if there were no cache: question, then the beginning of the answer."""
    model, processor = made
    first = len(processor.tokenizer("Technical quality:", add_special_tokens=False).input_ids)
    for row, head in enumerate(given):
        question = batch["input_ids"][row, : batch["slot_positions"][row, 0] + 1 - first].tolist()
        yield question + processor.tokenizer(head, add_special_tokens=False).input_ids


def test_an_answer_from_the_cache_is_what_a_plain_loop_writes(made, batch):
    model, processor = made
    given = heads()
    assert len({len(processor.tokenizer(head).input_ids) for head in given}) > 1
    written = make_writer(made, batch).write(range(len(PROMPTS)), max_new_tokens=NEW)
    for row, ids in enumerate(full_rows(made, batch, given)):
        new = slow_greedy(model, ids, batch["features"][row], NEW, ends=[2])
        assert written[row].num_tokens == len(new)
        assert written[row].finished == (new[-1] == 2)
        text = processor.tokenizer.decode(new, skip_special_tokens=True)
        assert written[row].text == given[row] + text


def test_the_question_is_not_read_again(made, batch, monkeypatch):
    """The first step reads the levels alone, from the first slot on; later ones a token each."""
    lengths, given = [], heads()
    own = [len(made[1].tokenizer(head, add_special_tokens=False).input_ids) for head in given]
    first = len(made[1].tokenizer("Technical quality:", add_special_tokens=False).input_ids)
    writer = make_writer(made, batch)
    real = made[0].model.language_model.forward

    def forward(*args, **kwargs):
        lengths.append(kwargs["inputs_embeds"].shape[1])
        return real(*args, **kwargs)

    monkeypatch.setattr(made[0].model.language_model, "forward", forward)
    writer.write(range(len(PROMPTS)), max_new_tokens=5)
    assert lengths == [max(own) - first] + [1] * (len(lengths) - 1) and len(lengths) <= 5


def test_alone_as_in_a_batch_and_again(made, batch):
    together = make_writer(made, batch).write(range(len(PROMPTS)), max_new_tokens=NEW)
    writer = make_writer(made, batch)
    assert writer.write([5, 2], max_new_tokens=NEW) == [together[5], together[2]]
    assert writer.write(range(8), max_new_tokens=NEW) == together  # the cache is as it was
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        writer = make_writer(made, alone, heads()[row : row + 1])
        assert writer.write([0], max_new_tokens=NEW) == [together[row]]
    assert writer.write([]) == [] and writer.write([], seed=1) == []


def test_without_a_cache_that_can_be_cut(made, batch, monkeypatch):
    from transformers import DynamicCache

    expected = make_writer(made, batch).write(range(8), max_new_tokens=NEW)

    def crop(self, count):
        raise RuntimeError("no past is kept")

    monkeypatch.setattr(DynamicCache, "crop", crop)
    assert make_writer(made, batch).write(range(8), max_new_tokens=NEW) == expected


def test_sampling_by_seed(made, batch):
    writer = make_writer(made, batch)
    greedy = writer.write(range(8), max_new_tokens=NEW)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = writer.write(range(8), max_new_tokens=NEW, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    assert writer.write([3, 1], max_new_tokens=NEW, seed=1) == [first[3], first[1]]
    assert first != greedy and writer.write(range(8), max_new_tokens=NEW, seed=2) != first


def test_end_and_limit(made, batch):
    model, processor = made
    plain = make_writer(made, batch).write([0], max_new_tokens=NEW)[0]
    assert (plain.finished, plain.num_tokens) == (False, NEW)
    ids = next(full_rows(made, batch, heads()))
    new = slow_greedy(model, ids, batch["features"][0], NEW)
    count = next(n for n, token in enumerate(new) if n and token not in new[:n])
    model.generation_config.eos_token_id = [new[count], 2]
    try:
        ended = make_writer(made, batch).write([0], max_new_tokens=NEW)[0]
    finally:
        model.generation_config.eos_token_id = 2
    assert (ended.finished, ended.num_tokens) == (True, count + 1)
    assert ended.text == heads()[0] + processor.tokenizer.decode(new[:count])


def test_the_placeholder_is_never_written(batch):
    """An LLM whose vocabulary has room for it, and that likes it best."""
    llm = make_llm(tied=False, vocab_size=400)
    model, processor = make_model(llm=llm)
    token = model.config.feature_token_id
    assert token < 400
    llm.lm_head.bias = torch.nn.Parameter(torch.zeros(400))
    llm.lm_head.bias.data[token] = 1e4
    writer = make_writer((model, processor), make_batch(processor, model.config, PROMPTS))
    assert all("<|feature|>" not in one.text for one in writer.write(range(8), max_new_tokens=3))


def test_no_encoder_for_the_first_dimension():
    """Then not even the first slot is shared with the scoring pass."""
    entries = [entry for entry in make_config().encoders if entry["dimension"] != "technical"]
    config = AIGVEvalConfig(llm="tiny", encoders=entries)
    processor = AIGVEvalProcessor.from_config(config, tokenizer=make_tokenizer())
    made = AIGVEvalModel(config, llm=make_llm()).eval(), processor
    batch = make_batch(processor, config, PROMPTS[:3])
    assert not batch["slot_mask"][:, SCORES.index("technical")].any()
    given = ["Motion quality: good\nOverall quality: good\n"] * 3
    written = make_writer(made, batch, given).write(range(3), max_new_tokens=NEW)
    for row, ids in enumerate(full_rows(made, batch, given)):
        new = slow_greedy(made[0], ids, batch["features"][row], NEW, ends=[2])
        text = processor.tokenizer.decode(new, skip_special_tokens=True)
        assert written[row].text == given[row] + text


def test_config_fields():
    config = make_config(explains=True, answer_times="seconds")
    again = AIGVEvalConfig.from_dict(config.to_dict())
    assert (again.explains, again.answer_times) == (True, "seconds")
    assert (make_config().explains, make_config().answer_times) == (False, "tenths")
    with pytest.raises(ValueError, match="^answer_times must be 'tenths' or 'seconds', got 'ms'$"):
        make_config(answer_times="ms")


def test_answers_are_sampled_as_often_as_wanted(made, batch):
    writer = make_writer(made, batch)
    options = {"max_new_tokens": NEW, "temperature": 1.0, "top_p": 1.0}
    rows = [1, 1, 1, 4, 0, 0]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = writer.sample(rows, seed=3, **options)
    assert first == writer.sample(rows, seed=3, **options)
    assert first != writer.sample(rows, seed=4, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({one.token_ids for one in first[:3]}) > 1
    tokenizer = made[1].tokenizer
    for row, one in zip(rows, first):
        assert one.text.startswith(heads()[row]) and len(one.token_ids) == one.num_tokens
        question = batch["input_ids"][row][: batch["slot_positions"][row, 0] + 1].tolist()
        assert writer.prompt_ids[row][: len(question)] == question
        assert tokenizer.decode(writer.prompt_ids[row]).endswith(heads()[row])
    # next to no temperature is greedy decoding
    cold = writer.sample([2], seed=0, max_new_tokens=NEW, temperature=1e-4, top_p=1.0)
    assert cold == writer.write([2], max_new_tokens=NEW)


def test_facts_stand_behind_the_levels_of_a_model_that_reads_them(tmp_path):
    scores, facts = LEVELS[:2], [[Fact(kind="speed", value=0.1, percentile=60)], []]
    plain, processor = make_model()
    levels = [render_levels(known) + "\n" for known in scores]
    batch = make_batch(processor, plain.config, PROMPTS[:2])
    assert answer_heads(plain, batch, scores, facts) == levels
    reading, processor = make_model(reads_facts=True)
    assert answer_heads(reading, batch, scores, facts) == [
        f"{levels[0]}Facts: speed, more than 60 % of clips\n",
        f"{levels[1]}Facts: none\n",
    ]
    assert answer_heads(reading, batch, scores)[0] == f"{levels[0]}{render_facts([])}\n"
    reading.save_pretrained(tmp_path)
    assert AIGVEvalConfig.from_pretrained(tmp_path).reads_facts
    assert not AIGVEvalConfig().reads_facts
