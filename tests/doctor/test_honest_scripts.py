"""What the examples of public projects do for good reason is no alarm; the fault beside it still is."""

from __future__ import annotations

import pytest
from scripts import BACK, CAST, COLLATOR, PLAIN, loop, trainer

from ganeum.doctor import audit

PADDED = ("truncation=True, max_length=512", 'padding="max_length", max_length=512')
MODEL = 'from_pretrained("gpt2")\nrows'
LEFT = ("rows =", 'tokenizer.padding_side = "left"\nrows =')
SMALL = ("per_device_train_batch_size=16", "per_device_train_batch_size=1, gradient_accumulation_steps=16")
PACKED = "arguments = SFTConfig("
CAPTIONS = "import diffusers\n"
EVALUATED = (
    "            if step % 100 == 0:",
    "        for x, y in val_loader:\n            with torch.no_grad():\n                loss = model(x, y)\n"
    "            losses.append(loss)\n        for x, y in train_loader:\n            if step % 100 == 0:",
)
TARGETS = ("F.cross_entropy(model(x).flatten(0, 1), y.flatten())", "F.cross_entropy(model(x, y), y)")

# Cause: why it is none → a script with the fault, and one that only looks like it.
PAIRS = {
    "fp32: the model is loaded in bf16": (
        trainer(("    bf16=True,\n", "")),
        trainer(("    bf16=True,\n", ""), (MODEL, 'from_pretrained("gpt2", dtype="bfloat16")\nrows')),
    ),
    "fp32: the weights are in 4 bits": (
        trainer(("    bf16=True,\n", "")),
        trainer(("    bf16=True,\n", ""), (MODEL, 'from_pretrained("gpt2", quantization_config=bits)\nrows')),
    ),
    "fp32: TRL has a default of its own": (
        trainer(("    bf16=True,\n", "")),
        trainer(("    bf16=True,\n", ""), ("arguments = TrainingArguments(", PACKED)),
    ),
    "fp32: another file decides, by what is said here": (
        loop((CAST, PLAIN)),
        loop((CAST, PLAIN), ("def main", "scale = FORMAT == torch.float16\n\ndef main")),
    ),
    "fp32: gradients are looked at, and nothing is updated": (
        loop((CAST, PLAIN)),
        loop((CAST, PLAIN), ("            optimizer.step()\n            optimizer.zero_grad(set_to_none=True)\n", ""),
             ("enumerate(train_loader)", "train_loader"), ("for step, (x, y)", "for x, y"),
             ("            if step % 100 == 0:\n                print(step, loss.item())\n", ""),
             ("    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)\n", "")),
    ),
    "kept_graph: held-out losses, where nothing goes backward": (
        loop((BACK, BACK + "            losses.append(loss)\n")),
        loop(EVALUATED),
    ),
    "shifted_labels: targets are handed to the model, too": (
        loop(("F.cross_entropy(model(x).flatten(0, 1), y.flatten())", "F.cross_entropy(model(x), x)")),
        loop(TARGETS),
    ),
    "pad_is_eos: for generating": (
        trainer(("rows =", "tokenizer.pad_token_id = tokenizer.eos_token_id\nrows =")),
        trainer(("rows =", "model.generation_config.pad_token_id = model.generation_config.eos_token_id\nrows =")),
    ),
    "padding: labels of three tokens": (
        trainer(PADDED),
        trainer(("truncation=True, max_length=512", 'padding="max_length", max_length=3')),
    ),
    "padding: captions of pictures": (trainer(PADDED), CAPTIONS + trainer(PADDED)),
    "padding: as long as the longest of the batch": (
        trainer(PADDED),
        trainer(("rows =", "longest = max(len(row) for row in raw)\nrows ="),
                ("truncation=True, max_length=512", 'padding="max_length", max_length=longest')),
    ),
    "padding: nothing is trained": (trainer(PADDED), trainer(PADDED).split("arguments =")[0]),
    "memory_emptied: every few hundred steps": (
        trainer(("bf16=True", "bf16=True, torch_empty_cache_steps=1")),
        trainer(("bf16=True", "bf16=True, torch_empty_cache_steps=500")),
    ),
    "debug_mode: memory metrics are skipped": (
        trainer(("bf16=True", "bf16=True, skip_memory_metrics=False")),
        trainer(("bf16=True", "bf16=True, skip_memory_metrics=True")),
    ),
    "kept_logits: of a class for each pixel": (
        trainer(("eval_dataset=held_out,", "eval_dataset=held_out, compute_metrics=score,")),
        trainer(("eval_dataset=held_out,", "eval_dataset=held_out, compute_metrics=score,"),
                ("AutoModelForCausalLM", "AutoModelForSemanticSegmentation"), (COLLATOR, "data_collator=stack")),
    ),
}  # fmt: skip

# As above, where only the gravity differs.
NOTES = {
    "padding_side: rotary positions": (
        trainer(LEFT), trainer(LEFT, ('"gpt2"', '"meta-llama/Llama-3.2-1B"'))
    ),
    "small_micro_batch: 4 bits": (
        trainer(SMALL), trainer(SMALL, (MODEL, 'from_pretrained("gpt2", load_in_4bit=True)\nrows'))
    ),
    "small_micro_batch: activations are computed twice": (
        loop(("batch_size=32, shuffle", "batch_size=1, shuffle")),
        loop(("batch_size=32, shuffle", "batch_size=1, shuffle"),
             ('.to("cuda")', '.gradient_checkpointing_enable().to("cuda")')),
    ),
}  # fmt: skip


def alarms(text: str) -> list[str]:
    return [one.cause for one in audit.of_script(text, "train.py").findings if one.is_alarm]


@pytest.mark.parametrize("name", [*PAIRS, *NOTES])
def test_the_fault_is_an_alarm_and_what_looks_like_it_is_none(name: str) -> None:
    """Of each pair the first script only."""
    cause = name.partition(":")[0]
    faulty, honest = {**PAIRS, **NOTES}[name]
    assert cause in alarms(faulty)
    assert cause not in alarms(honest)


@pytest.mark.parametrize("name", NOTES)
def test_what_may_be_needed_is_still_told(name: str) -> None:
    """As a note."""
    found = audit.of_script(NOTES[name][1], "train.py").findings
    assert ["note"] == [one.severity for one in found if one.cause == name.partition(":")[0]]


def test_padding_is_told_once_with_the_longest_rows() -> None:
    """Inputs of 512 tokens, and labels of 64 beside them."""
    both = trainer(
        PADDED, ("arguments =", 'labels = tokenizer(answers, padding="max_length", max_length=64)\narguments =')
    )
    found = [one.title for one in audit.of_script(both, "train.py").findings if one.cause == "padding"]
    assert ["every row is filled up to 512 tokens"] == found
