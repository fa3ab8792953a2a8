"""Faults in what a script sets, for the Trainer or by hand: each with a twin that only looks like it."""

from __future__ import annotations

from scripts import loop, trainer

LM = ("build()", "AutoModelForCausalLM.from_pretrained('gpt2')")
COMPILED = ("bf16=True", "bf16=True, torch_compile=True")
STEP = "            optimizer.step()\n"
NORMS = "            for p in model.parameters():\n                total += p.grad.norm()\n"


def arguments(text: str) -> str:
    return trainer(("bf16=True", f"bf16=True, {text}"))


# Cause, and which → with it, without it.
FAULTS: dict[str, tuple[str, str]] = {
    "schedule as a share": (arguments("warmup_ratio=1.0"), arguments("warmup_ratio=0.1")),
    "never_updated by its rate": (arguments("learning_rate=0.0"), arguments("learning_rate=5e-5")),
    "learning too fast": (arguments("learning_rate=0.05"), arguments("learning_rate=2e-4")),
    "learning too fast, prompts": (
        arguments("learning_rate=3e-2"),
        "from peft import PromptTuningConfig\n" + arguments("learning_rate=3e-2"),
    ),
    "learning too fast by default": (
        arguments("optim='adamw_torch_fused', learning_rate=0.05"),
        arguments("optim='adafactor', learning_rate=0.05"),
    ),
    "learning too slowly": (
        arguments("optim='sgd', learning_rate=5e-5"),
        arguments("optim='sgd', learning_rate=5e-5, max_grad_norm=0.0"),
    ),
    "learning too fast by hand": (loop(LM, ("lr=3e-4", "lr=0.1")), loop(("lr=3e-4", "lr=0.1"))),
    "learning too fast, other adapters": (
        "from peft import LoraConfig\n" + loop(LM, ("lr=3e-4", "lr=0.1")),
        "from peft import LNTuningConfig\n" + loop(LM, ("lr=3e-4", "lr=0.1")),
    ),
    "frequent_update": (
        trainer(("batch_size=16", "batch_size=2")),
        trainer(("batch_size=16", "batch_size=2, gradient_accumulation_steps=8")),
    ),
    "cache_in_training": (
        trainer(("rows =", "model.gradient_checkpointing_enable()\nmodel(row, use_cache=True)\nrows =")),
        trainer(("rows =", "model.gradient_checkpointing_enable()\nmodel(row, use_cache=False)\nrows =")),
    ),
    "too_often by its logging": (
        trainer(("eval_steps=500", "logging_steps=10")),
        trainer(("eval_steps=500", "eval_steps=500, logging_steps=10")),
    ),
    "too_often where nothing is evaluated": (
        trainer(("eval_steps=500", "eval_steps=5")),
        trainer(("eval_steps=500", "eval_steps=5"), ('eval_strategy="steps"', 'eval_strategy="epoch"')),
    ),
    "too_often in one step": (
        trainer(("save_steps=500", "save_steps=1")),
        trainer(("save_steps=500", "save_steps=1, save_strategy='no'")),
    ),
    "too_often by generating": (
        loop((STEP, STEP + "            texts = model.generate(x)\n")),
        loop((STEP, STEP + "            if step % 500 == 0:\n                texts = model.generate(x)\n")),
    ),
    "kept_logits where none are generated": (
        trainer(("eval_dataset=held_out", "eval_dataset=held_out, compute_metrics=rouge if False else None")),
        trainer(
            (
                "eval_dataset=held_out",
                "eval_dataset=held_out, compute_metrics=rouge if given.predict_with_generate else None",
            )
        ),
    ),
    "data_parallel for nobody": (arguments("fsdp='full_shard'"), arguments("fsdp='full_shard offload'")),
    "compile_start in a trial": (
        arguments("torch_compile=True, max_steps=50"),
        arguments("torch_compile=True, max_steps=50_000"),
    ),
    "recompiles of the Trainer": (
        trainer(COMPILED),
        trainer(COMPILED, ("mlm=False", "mlm=False, pad_to_multiple_of=64")),
    ),
    "graph_breaks": (
        loop(("def main", "class M:\n    def forward(self, x):\n        print(x.mean())\n\ndef main")),
        loop(("def main", "class M:\n    def loss(self, x):\n        print(x.mean())\n\ndef main")),
    ),
    "wide_heads": (
        loop(("build()", "build(n_embd=1024, n_head=2)")),
        loop(("build()", "build(n_embd=1024, n_head=8)")),
    ),
    "python_loop": (
        loop((STEP, NORMS + STEP)),
        loop((STEP, "            for p in model.parameters():\n                p.grad = None\n" + STEP)),
    ),
    "on_cpu without a card": (
        "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = ''\n" + loop(),
        "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\n" + loop(),
    ),
}
