"""A run of somebody else's model from examples: transformers' own losses, kept, gone on with, sampled and exported."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import tiny_pairs
import torch
from safetensors.torch import load_file
from tiny_corpus import go, metrics
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from ganeum.cli import main
from ganeum.config import load
from ganeum.data.batch import IGNORED
from ganeum.errors import CheckpointError, DataError, RunError
from ganeum.models.weights import restore
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.material import open_material
from ganeum.train.run import train

STEPS = 8


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs.write(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture
def t5(here: Path, pairs: Path) -> Path:
    return tiny_pairs.config(pairs, here / "t5.yaml")


@pytest.fixture
def gpt2(here: Path, pairs: Path) -> Path:
    return tiny_pairs.config(pairs, here / "gpt2.yaml", "gpt2")


def weights(name: str, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(f"results/{name}/checkpoints/step-{step:08}/model.safetensors")


def with_a_head_of_its_own(directory: Path, to: Path) -> Path:
    """The same T5 as mT5 is: its output layer is not its embedding, and config.json says so."""
    shutil.copytree(directory, to)
    model = AutoModelForSeq2SeqLM.from_pretrained(to)
    model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone().neg())
    model.all_tied_weights_keys.pop("lm_head.weight")
    model.save_pretrained(to)
    told = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(told | {"tie_word_embeddings": False}))
    return to


def export(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["export", *words])
    assert end.value.code == 0


def test_losses_are_those_of_a_plain_loop_with_transformers(t5: Path, pairs: Path) -> None:
    """Eight steps in fp32, micro-batches of 4 of 8 pairs: every loss within 1e-5 of `model(labels=…).loss`, torch's
    AdamW and clip_grad_norm_ on the same batches, dropout off."""
    overrides = ["model.dropout=0", "train.warmup_iters=2", "train.schedule=constant"]
    go(t5, *overrides)
    config = load(t5, overrides)
    batches = open_material(config, lambda _: None).batches(config)
    model = AutoModelForSeq2SeqLM.from_pretrained(pairs / "t5", dropout_rate=0.0).train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [{"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW([{"params": matrices}, *vectors], lr=1.0, betas=(0.9, 0.95), weight_decay=0.1)
    expected = []
    for n in range(STEPS):
        (batch,) = batches.whole(n).micro_batches(8)
        labels = batch.targets.masked_fill(batch.targets == IGNORED, -100)
        source = batch.inputs["source_tokens"]
        loss = model(input_ids=source, attention_mask=(source != 0).long(), labels=labels).loss
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = 3e-3 * min(1.0, (n + 1) / 3)
        adamw.step()
        expected.append(loss.item())
    assert [line["loss"] for line in metrics("t5")] == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0]


def test_an_output_layer_of_its_own_stays_one(t5: Path, pairs: Path) -> None:
    """mT5's, where transformers writes that it is tied: gone on with bit for bit, and exported as it was trained."""
    source = with_a_head_of_its_own(pairs / "t5", Path("apart").resolve())
    same = ("train.schedule=constant", "train.warmup_iters=1", f"model.source={source}")
    go(t5, "name=straight", *same)
    go(t5, "name=resumed", "train.max_iters=4", *same)
    go(t5, "name=resumed", *same)
    assert "lm_head.weight" in weights("resumed")
    torch.testing.assert_close(weights("resumed"), weights("straight"), rtol=0, atol=0)
    export("resumed", "out", "--checkpoint", "latest")
    theirs = AutoModelForSeq2SeqLM.from_pretrained("out")
    torch.testing.assert_close(theirs.lm_head.weight.detach(), weights("resumed")["lm_head.weight"], rtol=0, atol=0)
    assert json.loads(Path("out/config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("batching", ["auto", "buckets"])
def test_it_goes_on_bit_for_bit(t5: Path, batching: str) -> None:
    """4 steps, and 4 more in another process's stead, are 8: weights, losses and validation, with T5's own dropout."""
    same = ("train.schedule=constant", "train.warmup_iters=1", f"data.batching={batching}")
    go(t5, "name=straight", *same)
    go(t5, "name=resumed", "train.max_iters=4", *same)
    go(t5, "name=resumed", *same)
    torch.testing.assert_close(weights("resumed"), weights("straight"), rtol=0, atol=0)
    assert [line["loss"] for line in metrics("resumed")] == [line["loss"] for line in metrics("straight")]
    assert metrics("resumed")[-1]["val_loss"] == metrics("straight")[-1]["val_loss"]


def test_it_goes_on_without_its_source(here: Path) -> None:
    """A run keeps the shape and the tokenizer of what it adopted: with the source gone it goes on, bit for bit."""
    data = tiny_pairs.write(here / "own")
    config = tiny_pairs.config(data, here / "t5.yaml")
    same = ("train.schedule=constant", "train.warmup_iters=1")
    go(config, "name=straight", *same)
    go(config, "name=resumed", "train.max_iters=4", *same)
    (data / "t5").rename(data / "gone")
    go(config, "name=resumed", *same)
    torch.testing.assert_close(weights("resumed"), weights("straight"), rtol=0, atol=0)


def test_another_config_is_refused_before_anything_becomes_tokens(t5: Path) -> None:
    """A changed length under the same name is a difference of configs, not of data, and no tokens are made for it."""
    go(t5, "train.max_iters=1")
    config, before = load(t5, ["data.max_length=24"]), sorted(Path("cache/examples").iterdir())
    with pytest.raises(RunError) as error:
        train(config)
    assert str(error.value) == (
        "RunError: the run t5 exists with another config\n"
        f"  where  {Path('results/t5/config.yaml').absolute()}\n"
        "  why    data.max_length is 32 there and 24 here\n"
        "  try    name=t5-2 for a new run"
    )
    assert sorted(Path("cache/examples").iterdir()) == before


def test_out_of_memory_halves_the_micro_batch_and_the_batch_stays(t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out at step 3: from there on 2 pairs at once; losses are those of a run that began with less, within
    fp32's rounding."""
    calls, original = 0, OptimizerStep._loss

    def full(self: OptimizerStep, *arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # the second part of the third step
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU")
        return original(self, *arguments)  # type: ignore[arg-type]

    same = ("model.dropout=0", "data.batching=padded")
    go(t5, "name=plain", *same)
    monkeypatch.setattr(OptimizerStep, "_loss", full)
    _, shown = go(t5, "name=lowered", *same)
    assert (
        "Out of memory at step 3 (2.00 MiB more were refused). From here on 2 sequences at once instead of 4, 4 times "
        "a step instead of 2: the batch stays 8, and steps, learning rate and order of the data stay as they were.\n"
    ) in shown
    expected = [line["loss"] for line in metrics("plain")]
    assert [line["loss"] for line in metrics("lowered")] == pytest.approx(expected, abs=1e-5)


def test_samples_show_what_was_held_out_beside_what_is_generated(t5: Path, pairs: Path) -> None:
    """The likeliest text by transformers' own generate for each source, under its reference."""
    go(t5, "sample.interval=8", "sample.num_samples=2")
    config = load(t5)
    model = restore("t5").model  # type: ignore[union-attr]
    tokenizer = AutoTokenizer.from_pretrained(pairs / "t5")
    lines = ["step: 8", "num_beams: 1, max_new_tokens: 8"]
    for number, reference in enumerate(open_material(config, lambda _: None).references(2), start=1):
        found = model.generate(torch.tensor([reference.source_ids]), do_sample=False, max_new_tokens=8)[0]
        text = tokenizer.decode(found, skip_special_tokens=True)
        lines += ["", f"--- {number} ---", f"source: {reference.source}"]
        lines += [f"reference: {reference.target}", f"generated: {text}"]
    assert Path("results/t5/samples/step-00000008.txt").read_text() == "\n".join(lines) + "\n"


@pytest.mark.parametrize("batching", ["buckets", "fixed", "packed"])
def test_every_batching_learns_the_same(t5: Path, batching: str) -> None:
    """Without dropout each of the steps has the loss and the gradient that `padded` has, within fp32's rounding: how
    rows are laid out and cut does not show."""
    same = ("model.dropout=0", "train.learning_rate=1e-2", "data.max_length=96", "data.max_target_length=24")
    same += ("train.batch_size=24", "train.micro_batch_size=12")
    go(t5, *same, f"data.batching={batching}")
    go(t5, *same, "data.batching=padded", "name=padded")
    found, expected = metrics("t5"), metrics("padded")
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in found] == pytest.approx([line[name] for line in expected], rel=1e-4)
    assert found[-1]["val_loss"] == pytest.approx(expected[-1]["val_loss"], rel=1e-4)
    assert [line["padding"] for line in found] != [line["padding"] for line in expected]
    assert expected[-1]["loss"] < expected[0]["loss"] - 0.5


def test_an_export_is_what_transformers_loads(t5: Path, here: Path) -> None:
    """`ganeum export` writes a directory whose logits, by AutoModelForSeq2SeqLM, are the run's own, with its tokenizer
    and generation config."""
    go(t5)
    export("t5", "out")
    theirs = AutoModelForSeq2SeqLM.from_pretrained("out").eval()
    tokens = AutoTokenizer.from_pretrained("out")("cat sees dog", return_tensors="pt").input_ids
    own = restore("t5").model(input_ids=tokens, labels=tokens).logits  # type: ignore[union-attr]
    torch.testing.assert_close(theirs(input_ids=tokens, labels=tokens).logits, own)  # ours are other kernels
    assert theirs.generation_config.decoder_start_token_id == 0
    torch.testing.assert_close(dict(theirs.state_dict())["shared.weight"], weights("t5")["shared.weight"])


def test_an_export_is_asked_as_the_run_is(t5: Path, pairs: Path, here: Path) -> None:
    """Prefix, length, new tokens and beams lie where transformers looks: told nothing, its tokenizer and generate write
    what `ganeum generate` writes with the run, and with the export; here with sources that are cut."""
    loud = AutoModelForSeq2SeqLM.from_pretrained(pairs / "t5")
    with torch.no_grad():
        for weight in loud.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    words_only = [0, 1, 2, *range(110, 128)]
    loud.generation_config = GenerationConfig(suppress_tokens=words_only, **ids)
    loud.save_pretrained("loud")
    AutoTokenizer.from_pretrained(pairs / "t5").save_pretrained("loud")
    go(
        t5,
        "model.source=loud",
        "data.prefix=over: ",
        "data.max_length=6",
        "sample.num_beams=2",
        "sample.max_new_tokens=5",
    )
    export("t5", "out")
    rows = [json.loads(line)["source"] for line in (pairs / "pairs.jsonl").read_text().splitlines()[:12]]
    (here / "in.jsonl").write_text("".join(json.dumps({"source": row}) + "\n" for row in rows))
    texts = []
    for model in ("t5", "out"):
        with pytest.raises(SystemExit) as end:
            main(["generate", model, "--input", "in.jsonl", "--output", f"{model}.jsonl", "--column", "source"])
        assert end.value.code == 0
        texts.append([json.loads(line)["generated"] for line in (here / f"{model}.jsonl").read_text().splitlines()])
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained("out").eval(), AutoTokenizer.from_pretrained("out")
    theirs = []
    for row in rows:  # what text2text-generation did, and text-generation does
        ids = tokenizer(model.config.prefix + row, truncation=True, return_tensors="pt").input_ids
        assert (ids.size(1), tokenizer.decode(ids[0])[:4]) == (6, "over")
        theirs.append(tokenizer.decode(model.generate(ids)[0], skip_special_tokens=True))
    assert all(len(text) > 3 for text in theirs), "words alone are written, since suppress_tokens went along"
    assert texts == [theirs, theirs]


def test_texts_end_where_positions_do(gpt2: Path, pairs: Path) -> None:
    """A GPT-2 of 64 positions that is asked for 128 new tokens writes those that there is room for."""
    more = ("sample.max_new_tokens=128", "max_iters=2", "sample.interval=2")
    go(gpt2, f"data.train={pairs / 'pairs.jsonl'}", *more)
    text = Path("results/gpt2/samples/step-00000002.txt").read_text()
    assert "max_new_tokens: 128" in text
    assert "generated: " in text


def test_adapters_on_a_model_whose_matrices_lie_across(gpt2: Path, here: Path) -> None:
    """GPT-2's weights are (in, out): the merged export computes what the trained adapters do by peft's own layers, and
    every other weight is as it was."""
    from peft import PeftModel

    go(gpt2, "train.lora.rank=2", "train.learning_rate=0.05")
    export("gpt2", "merged")
    export("gpt2", "adapters", "--format", "peft")
    source = load(gpt2).model.source
    assert source is not None
    tokens = torch.arange(2, 12)[None]
    base = AutoModelForCausalLM.from_pretrained(source).eval()
    plain = base(input_ids=tokens).logits
    expected = PeftModel.from_pretrained(base, "adapters").eval()(input_ids=tokens).logits
    found = AutoModelForCausalLM.from_pretrained("merged").eval()(input_ids=tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (plain - expected).abs().max() > 0.01
    before, after = load_file(f"{source}/model.safetensors"), weights("gpt2")
    same = {name for name in after if ".lora_" not in name}
    assert all(torch.equal(after[name], before[name]) for name in same)


def test_a_run_begins_where_another_ended(t5: Path) -> None:
    """`train.init_from` takes the best weights of a run; a step of no size leaves its validation loss."""
    go(t5)
    best = min(line["val_loss"] for line in metrics("t5") if "val_loss" in line)
    nothing = ("train.max_iters=1", "train.learning_rate=1e-30", "train.weight_decay=0")
    go(t5, "name=second", "train.init_from=t5", *nothing)
    assert metrics("second")[-1]["val_loss"] == pytest.approx(best, abs=1e-6)


def test_adapters_go_on_bit_for_bit(t5: Path) -> None:
    """4 steps of adapters on a T5 with dropout, and 4 more, are 8; only they move."""
    lora = ("train.lora.rank=2", "train.lora.targets=attention", "train.schedule=constant", "train.warmup_iters=1")
    go(t5, "name=straight", *lora)
    go(t5, "name=resumed", "train.max_iters=4", *lora)
    go(t5, "name=resumed", *lora)
    torch.testing.assert_close(weights("resumed"), weights("straight"), rtol=0, atol=0)
    moved = {
        name for name, tensor in weights("straight").items() if not torch.equal(tensor, weights("straight", 4)[name])
    }
    assert moved == {name for name in weights("straight") if ".lora_" in name}
    assert {name.split(".")[-3] for name in moved} == {"q", "k", "v", "o"}


def test_a_causal_model_learns_texts(gpt2: Path) -> None:
    """Packed, in 8 steps: the loss begins near ln 128 = 4.85 and falls; plan.json holds what the examples are."""
    go(gpt2, "data.batching=packed")
    losses = [line["loss"] for line in metrics("gpt2")]
    assert losses[0] == pytest.approx(math.log(128), abs=0.3)
    assert losses[-1] < losses[0] - 0.2
    data = json.loads(Path("results/gpt2/plan.json").read_text())["data"]
    assert (data["kind"], data["batching"]) == ("texts", "packed")


def test_a_run_is_no_source(t5: Path) -> None:
    """By its name or its path; the error says how its weights are learnt on."""
    go(t5, "train.max_iters=1")
    for name in ("t5", "results/t5"):
        with pytest.raises(DataError) as error:
            go(t5, "name=other", f"model.source={name}")
        assert str(error.value) == (
            f"DataError: {name} is a run, and no model of Hugging Face's\n  where  model.source: {name}\n"
            f"  try    ganeum export {name} OUT, then model.source=OUT; to go on from its weights alone, "
            f"train.init_from={name} beside the model.source that it began with"
        )
    assert not Path("results/other").exists()


def test_a_model_that_cannot_be_read_leaves_no_run(t5: Path, pairs: Path, here: Path) -> None:
    """It is looked at before there is a directory, so the mended command is a new run's."""
    shutil.copytree(pairs / "t5", here / "half")
    file = here / "half" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:999])
    with pytest.raises(CheckpointError, match="the model cannot be read"):
        go(t5, f"model.source={here / 'half'}")
    assert not Path("results").exists()


def test_other_examples_under_the_same_name_are_refused(t5: Path, pairs: Path, here: Path) -> None:
    """The file that the run began with holds other pairs now: nothing goes on."""
    own, lines = here / "own.jsonl", (pairs / "pairs.jsonl").read_text().splitlines(keepends=True)
    own.write_text("".join(lines))
    go(t5, "train.max_iters=4", f"data.train={own}")
    own.write_text("".join(lines[:60]))
    with pytest.raises(RunError) as error:
        go(t5, f"data.train={own}")
    assert str(error.value) == (
        "RunError: the data of t5 was replaced since it began\n"
        f"  where  {own}\n"
        f"  why    the run began with other tokens than {own} holds now\n"
        "  try    put the data back as it was, or name=t5-2 for a new run"
    )
