"""Texts as tokens: the ids that transformers gives, cut as it cuts, with an end that carries loss whatever PAD is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_pairs import config, gpt2, lines, opened, pairs, t5, texts

from ganeum.data.batch import Batch
from ganeum.data.bpe import BPE
from ganeum.data.examples.examples import Examples
from ganeum.data.examples.tokenizer import open_tokenizer
from ganeum.data.tokenizer import Bytes
from ganeum.errors import DataError

END = 256  # of the byte-level tokenizer; its PAD too


def the_batch(examples: Examples, file: str, size: int = 8) -> Batch:
    """The first step's first micro-batch."""
    run = config("unused", file, batch={"batch_size": size})
    return next(examples.batches(run).whole(0).micro_batches(size))


def test_sources_and_targets_are_what_transformers_makes_of_them(tmp_path: Path) -> None:
    """Prefix, cut and </s> as AutoTokenizer with truncation=True and text_target sets them, for every row."""
    from transformers import AutoTokenizer

    model, rows = t5(tmp_path / "t5"), pairs(60)
    examples = opened(
        model, lines(tmp_path / "a.jsonl", rows), prefix="summarize: ", max_length=40, max_target_length=9
    )
    theirs, store = AutoTokenizer.from_pretrained(model), examples.train.store
    for i, row in enumerate(rows):
        source = theirs("summarize: " + row["source"], max_length=40, truncation=True)["input_ids"]
        target = theirs(text_target=row["target"], max_length=9, truncation=True)["input_ids"]
        assert (source, target) == (store.ids("source", i).tolist(), store.ids("target", i).tolist())
        assert source == examples.tokenizer.encode_source(row["source"], prefix="summarize: ", max_length=40)
    cut = [i for i, length in enumerate(store.lengths("target")) if length == 9]
    assert cut  # and each of them ends with </s> all the same
    assert {1} == {int(store.ids("target", i)[-1]) for i in range(len(rows))}


def test_a_batch_of_pairs_is_transformers_batch(tmp_path: Path) -> None:
    """Sources, masks, labels and the decoder's inputs as DataCollatorForSeq2Seq and T5 make them, where loss is."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, T5Config, T5ForConditionalGeneration

    model, rows = t5(tmp_path / "t5"), pairs(30)
    examples = opened(model, lines(tmp_path / "a.jsonl", rows), batching="padded", max_length=40, max_target_length=9)
    whole = examples.batches(config(model, "unused", batch={"batch_size": 8})).whole(0)
    batch = next(whole.micro_batches(8))
    network = T5ForConditionalGeneration(T5Config.from_pretrained(model))
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(model), network)
    part = examples.train
    theirs = collate(
        [
            {"input_ids": part.ids("source", place).tolist(), "labels": part.ids("target", place).tolist()}
            for row in whole.rows
            for place in row
        ]
    )
    assert theirs["input_ids"].tolist() == batch.inputs["source_tokens"].tolist()
    assert theirs["attention_mask"].bool().tolist() == batch.inputs["source_mask"].tolist()
    labels = theirs["labels"].masked_fill(theirs["labels"] == -100, -1)
    assert labels.tolist() == batch.targets.tolist()
    learnt = batch.targets >= 0
    assert theirs["decoder_input_ids"][learnt].tolist() == batch.inputs["target_tokens"][learnt].tolist()
    assert batch.rows is not None
    assert (theirs["labels"].flatten() != -100).nonzero().flatten().tolist() == batch.rows.tolist()


def test_a_pair_of_a_causal_model_is_one_row_and_only_its_target_is_learnt(tmp_path: Path) -> None:
    """Source, target and end are one sequence; −1 stands where the next token is one of the source."""
    rows = [{"source": "ab", "target": "cd"}, {"source": "hello", "target": "x"}]
    file = lines(tmp_path / "a.jsonl", rows)
    examples = opened(gpt2(tmp_path / "m"), file, val=file, batching="padded")
    batch, id = the_batch(examples, file), examples.tokenizer.encode
    assert [[*id("hellox"), END][:6], [*id("abcd"), END, END][:6]] == batch.inputs["tokens"].tolist()
    assert [[-1, -1, -1, -1, *id("x"), END], [-1, *id("cd"), END, -1, -1]] == batch.targets.tolist()
    assert 2 == batch.padding
    assert {"tokens"} == set(batch.inputs)


def test_the_end_carries_loss_though_pad_is_the_same_id(tmp_path: Path) -> None:
    """Each text ends with a learnt EOS, and none of the EOS that fill the places behind it is learnt."""
    words = texts(20, 5)
    file = lines(tmp_path / "a.jsonl", [{"text": text} for text in words])
    examples = opened(gpt2(tmp_path / "m"), file, val=file, batching="padded")
    assert END == examples.tokenizer.pad == examples.tokenizer.end_of_text
    batch = the_batch(examples, file, 20)
    assert 20 == int((batch.targets == END).sum())  # one of each text
    assert sum(len(text.encode()) for text in words) == int(
        (batch.targets >= 0).sum()
    )  # all but the first, and the end
    assert int((batch.inputs["tokens"] == END).sum()) == batch.padding > 20
    shortest = min(words, key=lambda text: len(text.encode())).encode()
    assert [END] + [-1] * (batch.targets.shape[1] - len(shortest)) == batch.targets[-1, len(shortest) - 1 :].tolist()


def test_a_text_that_is_cut_has_no_end(tmp_path: Path) -> None:
    """A causal model is not taught to stop where a text was cut; a target that was cut ends as transformers' do."""
    model, rows = gpt2(tmp_path / "m"), [{"text": "abcdef"}, {"text": "xy"}]
    file = lines(tmp_path / "a.jsonl", rows)
    store = opened(model, file, val=file, max_length=4).train.store
    assert [b"abcd", b"xy"] == [_bytes(store.ids("target", i)) for i in range(2)]
    assert END not in store.ids("target", 0)
    assert END == store.ids("target", 1)[-1]
    file = lines(tmp_path / "b.jsonl", [{"source": "a", "target": "abcdef"}])
    store = opened(model, file, val=file, max_target_length=4).train.store
    assert (4, END) == (len(store.ids("target", 0)), store.ids("target", 0)[-1])


def _bytes(ids: Any) -> bytes:
    """The bytes that ids of the byte-level tokenizer stand for."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return bytes(ord(letters[id]) for id in ids if id != END)  # of ASCII, a letter is its byte


def test_what_stands_around_a_text_is_found_by_looking(tmp_path: Path) -> None:
    """A tokenizer with a token in front (Llama's <s>): in front of a text and of a pair's source, never between."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    model = gpt2(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(tmp_path / "front")
    file = lines(tmp_path / "a.jsonl", [{"source": "ab", "target": "cd"}])
    settings = {"val": file, "tokenizer": str(tmp_path / "front")}
    (tmp_path / "m" / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 300}')
    store = opened(model, file, **settings).train.store
    id = tokenizer.bos_token_id
    assert ([id], b"ab") == ([int(store.ids("source", 0)[0])], _bytes(store.ids("source", 0)[1:]))
    assert (b"cd", END) == (_bytes(store.ids("target", 0)), store.ids("target", 0)[-1])
    store = opened(model, file, kind="texts", text_column="source", **settings).train.store
    assert (id, b"ab", END) == (
        store.ids("target", 0)[0],
        _bytes(store.ids("target", 0)[1:]),
        store.ids("target", 0)[-1],
    )


def test_the_side_that_is_kept_is_the_tokenizers(tmp_path: Path) -> None:
    """truncation_side: left keeps the end of a source, as transformers does."""
    from transformers import AutoTokenizer

    model = t5(tmp_path / "t5")
    theirs = AutoTokenizer.from_pretrained(model, truncation_side="left")
    theirs.save_pretrained(model)
    examples = opened(model, lines(tmp_path / "a.jsonl", rows := pairs(20)), max_length=12)
    for i, row in enumerate(rows):
        expected = theirs(row["source"], max_length=12, truncation=True)["input_ids"]
        assert expected == examples.train.store.ids("source", i).tolist()


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_ganeums_own_tokenizers_serve_too(tmp_path: Path, kind: str) -> None:
    """What `ganeum prepare` wrote, named by the data it lies in; its end of text ends a target, and it comes back."""
    ours = Bytes() if kind == "bytes" else BPE.train(iter(texts(50, 20)), 300)
    ours.save(tmp_path / "data" / "tokenizer")
    model, rows = gpt2(tmp_path / "m"), pairs(20)
    (tmp_path / "m" / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 400}')
    file = lines(tmp_path / "a.jsonl", rows)
    examples = opened(model, file, val=file, tokenizer=str(tmp_path / "data"))
    store = examples.train.store
    for i, row in enumerate(rows):
        assert ours.encode(row["source"]) == store.ids("source", i).tolist()
        assert [*ours.encode(row["target"]), ours.end_of_text] == store.ids("target", i).tolist()
        assert row["target"] == examples.tokenizer.decode(store.ids("target", i))
    examples.tokenizer.save(tmp_path / "saved")
    assert rows[3]["source"] == open_tokenizer(str(tmp_path / "saved"), key="k").decode(store.ids("source", 3))


def test_a_tokenizer_written_in_python_gives_the_same(tmp_path: Path) -> None:
    """A slow tokenizer of transformers' (ByT5's bytes) is read, cut and ended as transformers does."""
    from transformers import ByT5Tokenizer

    model, rows = t5(tmp_path / "t5"), pairs(10)
    theirs = ByT5Tokenizer()
    theirs.save_pretrained(tmp_path / "byt5")
    examples = opened(model, lines(tmp_path / "a.jsonl", rows), tokenizer=str(tmp_path / "byt5"), max_length=30)
    assert not examples.tokenizer.transformers.is_fast
    for i, row in enumerate(rows):
        expected = theirs(row["source"], max_length=30, truncation=True)["input_ids"]
        assert expected == examples.train.store.ids("source", i).tolist()
        assert row["target"] == examples.tokenizer.decode(examples.train.store.ids("target", i))


@pytest.mark.parametrize("make", [t5, gpt2])
def test_a_tokenizer_without_its_files_is_refused(tmp_path: Path, make: Callable[[Path], str]) -> None:
    """transformers makes an empty one of a config.json alone, to which every word is unknown."""
    model, other = make(tmp_path / "m"), make(tmp_path / "other")
    for file in Path(model).glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DataError) as error:
        opened(model, lines(tmp_path / "a.jsonl", pairs(4)))
    assert str(error.value) == (
        f"DataError: the tokenizer {model} knows no words\n  where  model.source\n"
        "  why    its files are not there, and transformers makes an empty one instead\n"
        "  try    data.tokenizer: the name or the directory of the one that belongs to model.source"
    )
    opened(model, lines(tmp_path / "a.jsonl", pairs(4)), tokenizer=other)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    """A model that never learns an end never stops, so there is no going on without one."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast.from_pretrained(gpt2(tmp_path / "m"))
    PreTrainedTokenizerFast(tokenizer_object=fast.backend_tokenizer).save_pretrained(tmp_path / "endless")
    place = str(tmp_path / "endless")
    with pytest.raises(DataError) as raised:
        opened(str(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(3)), tokenizer=place)
    assert str(raised.value) == (
        f"DataError: the tokenizer {place} has no token that ends a text\n  where  data.tokenizer\n"
        "  why    its eos_token is not set, and a model that never learns an end never stops\n"
        "  try    data.tokenizer: a copy of it with eos_token in tokenizer_config.json"
    )
