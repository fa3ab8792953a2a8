"""Models of Hugging Face's as writers: batches change no text, and each text is transformers' own."""

import pytest
import torch
from made import ENCODED
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from ganeum.errors import ConfigError
from ganeum.hardware.machine import cpu
from ganeum.inference.decoding import Decoding
from ganeum.inference.opening import open_writer
from ganeum.inference.theirs import Theirs

FAMILIES = ("t5", "bart", "gpt2", "llama", "qwen3")
TEXTS = ["the quick brown fox", "a", "jumps over the lazy dog and on", "abc abc abc"]


def writer(directory, decoding: Decoding, **more) -> Theirs:
    return open_writer(str(directory), cpu(), decoding, **more)


def written(directory, decoding: Decoding, texts, rows=None) -> list[list[int]]:
    model = writer(directory, decoding)
    noise = decoding.noise(rows or range(len(texts))) if decoding.temperature else None
    return model.write(model.encode(texts), noise, decoding)


def alone(directory, text: str, **settings) -> list[int]:
    """What transformers writes for one text, without padding: its new tokens up to </s>."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    kind = AutoModelForSeq2SeqLM if directory.name in ENCODED else AutoModelForCausalLM
    model = kind.from_pretrained(directory).eval()
    tokens = tokenizer(text, return_tensors="pt")
    out = model.generate(**tokens, do_sample=False, pad_token_id=0, eos_token_id=1, **settings)[0].tolist()
    new = out[1:] if directory.name in ENCODED else out[tokens["input_ids"].size(1) :]
    return new[: new.index(1)] if 1 in new else new


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_writes_what_transformers_writes_alone(directories, family, beams):
    """Four texts of 1 to 30 tokens, padded into one batch, become what each becomes alone under transformers."""
    texts = written(directories[family], Decoding(max_new_tokens=10, num_beams=beams), TEXTS)
    assert [alone(directories[family], text, max_new_tokens=10, num_beams=beams) for text in TEXTS] == texts
    assert len(set(map(tuple, texts))) > 2


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_drawn_text_hangs_on_its_row_alone(directories, family):
    """Row 2's text is the same among four rows, alone, and behind another row; another row or seed draws another."""
    decoding = Decoding(max_new_tokens=12, temperature=5.0, top_k=20, top_p=0.95)
    among = written(directories[family], decoding, TEXTS)
    assert [among[2]] == written(directories[family], decoding, [TEXTS[2]], rows=[2])
    assert [among[3], among[2]] == written(directories[family], decoding, [TEXTS[3], TEXTS[2]], rows=[3, 2])
    assert among[2] != written(directories[family], decoding, [TEXTS[2]], rows=[5])[0]


def test_what_is_drawn_has_the_models_probabilities(directories):
    """Of 3,000 first tokens each comes as often as transformers' own logits say, within four deviations."""
    decoding = Decoding(max_new_tokens=1, temperature=1.5)
    first = [tokens[0] if tokens else 1 for tokens in written(directories["gpt2"], decoding, ["fox"] * 3000)]
    model = AutoModelForCausalLM.from_pretrained(directories["gpt2"])
    tokens = AutoTokenizer.from_pretrained(directories["gpt2"])("fox", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = (model(tokens).logits[0, -1] / 1.5).softmax(dim=-1)
    seen = torch.bincount(torch.tensor(first), minlength=len(expected)) / 3000
    assert (seen - expected).abs().max() < 4 * 0.5 / 3000**0.5
    assert expected.max() < 0.9


def test_long_texts_are_cut_where_it_matters_least(directories):
    """An encoder's text loses its end but for </s>, a causal model's its beginning; both are counted."""
    long = "abcdefghij"
    reading = writer(directories["t5"], Decoding(), longest=4)
    going_on = writer(directories["llama"], Decoding(max_new_tokens=60))
    a = 3  # the first letter, behind <pad>, </s>, <unk>
    assert [[a, a + 1, a + 2, 1], [a, 1]] == reading.encode([long, "a"])
    assert [[a + 6, a + 7, a + 8, a + 9]] == going_on.encode([long])  # 64 positions less 60 that are written
    assert (1, 1) == (reading.cut, going_on.cut)


def test_an_empty_prompt_is_a_beginning(directories):
    """A causal model goes on from </s> where nothing is given; an encoder reads </s>."""
    assert [[1]] == writer(directories["llama"], Decoding(max_new_tokens=4)).encode([""])
    assert [[1]] == writer(directories["t5"], Decoding()).encode([""])


def test_new_tokens_leave_room_for_a_prompt(directories):
    """A causal model with 64 positions is not asked for 64 new tokens."""
    with pytest.raises(ConfigError) as error:
        writer(directories["gpt2"], Decoding(max_new_tokens=64))
    assert f"""\
ConfigError: 64 new tokens leave no room for a prompt
  where  {directories["gpt2"]}
  why    the model knows 64 positions, prompt and text together
  try    --max-new-tokens 32""" == str(error.value)


def test_the_plan_knows_what_it_takes(directories):
    """A batch of twice the rows takes more, and beams take as much as rows."""
    decoding, beams = Decoding(max_new_tokens=8), Decoding(max_new_tokens=8, num_beams=4)
    model = writer(directories["t5"], decoding)
    one, two, searched = (model.needed(*ask).total for ask in ((8, 30, decoding), (16, 30, decoding), (8, 30, beams)))
    assert one < two
    assert one < searched
