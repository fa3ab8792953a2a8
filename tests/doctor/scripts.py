"""Pieces of training scripts: a loop and a Trainer without a fault, and each fault alone."""

from __future__ import annotations

LOOP = """
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

def main():
    model = torch.compile(build().to("cuda"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=32)
    for epoch in range(3):
        for step, (x, y) in enumerate(train_loader):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % 100 == 0:
                print(step, loss.item())

main()
"""

TRAINER = """
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling
from transformers import Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("gpt2")
tokenizer.add_special_tokens({"pad_token": "<pad>"})
model = AutoModelForCausalLM.from_pretrained("gpt2")
rows = raw.map(lambda row: tokenizer(row["text"], truncation=True, max_length=512))
arguments = TrainingArguments(
    output_dir="out",
    bf16=True,
    per_device_train_batch_size=16,
    dataloader_num_workers=4,
    dataloader_persistent_workers=True,
    eval_strategy="steps",
    eval_steps=500,
    save_steps=500,
)
trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=held_out,
                  data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))
trainer.train()
"""


def loop(*changes: tuple[str, str]) -> str:
    """The loop with pieces replaced; a piece that is not there is a mistake of the test's."""
    return _changed(LOOP, changes)


def trainer(*changes: tuple[str, str]) -> str:
    """The Trainer's script with pieces replaced."""
    return _changed(TRAINER, changes)


def _changed(text: str, changes: tuple[tuple[str, str], ...]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


CAST = '            with torch.autocast("cuda", dtype=torch.bfloat16):\n                loss ='
PLAIN = "            loss ="
BACK = "            loss.backward()\n"
COLLATOR = "data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)"

# Cause → a script that has it, and one that looks like it and does not.
FAULTS = {
    "fp32": (loop((CAST, PLAIN)), loop((CAST, "            with torch.autocast('cuda'):\n                loss ="))),
    "fp32 of the Trainer": (trainer(("bf16=True", "bf16=False")), trainer(("bf16=True", "bf16=USE_BF16"))),
    "tf32_off": (
        loop((CAST, PLAIN)),
        loop((CAST, PLAIN), ("def main", "torch.set_float32_matmul_precision('high')\ndef main")),
    ),
    "fp16": (
        loop(("bfloat16", "float16")),
        loop(("bfloat16", "float16"), ("def main", "scaler = torch.amp.GradScaler()\ndef main")),
    ),
    "fp16 of T5": (
        trainer(("bf16=True", "fp16=True"), ('"gpt2"', '"t5-base"')),
        trainer(("bf16=True", "fp16=True")),
    ),
    "pure_half": (loop(('build().to("cuda")', "build().cuda().half()")), loop(("build()", "build(half=True)"))),
    "eager_attention": (
        loop(
            (
                "def main",
                "def attend(q, k, v):\n    scores = q @ k.transpose(-2, -1)\n"
                "    return F.softmax(scores / 8, dim=-1) @ v\n\ndef main",
            )
        ),
        loop(
            (
                "def main",
                "def attend(q, k, v):\n    return F.scaled_dot_product_attention(q, k, v, is_causal=True)\n\n"
                "def choose(x):\n    return F.softmax(x @ weights, dim=-1)\n\ndef main",
            )
        ),
    ),
    "eager_attention by name": (
        trainer(('from_pretrained("gpt2")\nrows', 'from_pretrained("gpt2", attn_implementation="eager")\nrows')),
        trainer(('from_pretrained("gpt2")\nrows', 'from_pretrained("gpt2", attn_implementation="sdpa")\nrows')),
    ),
    "attention_mask": (
        loop(
            (
                "def main",
                "def attend(q, k, v, m):\n    return F.scaled_dot_product_attention(q, k, v, attn_mask=m)\n\ndef main",
            )
        ),
        loop(
            (
                "def main",
                "def attend(q, k, v):\n    return F.scaled_dot_product_attention(q, k, v, attn_mask=None)\n\ndef main",
            )
        ),
    ),
    "checkpointing_for_nothing": (
        trainer(("bf16=True", "bf16=True, gradient_checkpointing=True")),
        trainer(("bf16=True", "bf16=True, gradient_checkpointing=False")),
    ),
    "not_compiled": (loop(('torch.compile(build().to("cuda"))', 'build().to("cuda")')), loop()),
    "odd_vocabulary": (loop(("build()", "build(vocab_size=50257)")), loop(("build()", "build(vocab_size=50304)"))),
    "odd_widths": (loop(("build()", "build(n_embd=770)")), loop(("build()", "build(n_embd=768)"))),
    "small_micro_batch": (
        trainer(("per_device_train_batch_size=16", "per_device_train_batch_size=1, gradient_accumulation_steps=32")),
        trainer(("per_device_train_batch_size=16", "per_device_train_batch_size=32, gradient_accumulation_steps=1")),
    ),
    "short_context": (loop(("build()", "build(block_size=32)")), loop(("build()", "build(block_size=1024)"))),
    "overlapping_windows": (
        loop(("train_set,", "windows(ids, max_length=32, stride=4),")),
        loop(("train_set,", "windows(ids, max_length=32, stride=32),")),
    ),
    "overlapping_windows of a tokenizer": tuple(
        trainer(
            ("truncation=True, max_length=512", said + ", max_length=384, stride=128, return_overflowing_tokens=True")
        )
        for said in ("truncation=True", 'truncation="only_second"')
    ),
    "overlapping_windows of a range": (
        loop(
            (
                "def main",
                "L, S = 0, 0\nlength = 256\nstride = 64\nrows = [ids[i : i + length] for i in "
                "range(0, len(ids) - length, stride)]\n\ndef main",
            )
        ),
        loop(
            (
                "def main",
                "length = 256\nrows = [ids[i : i + length] for i in range(0, len(ids) - length, length)]\n\ndef main",
            )
        ),
    ),
    "kept_graph": (
        loop((BACK, BACK + "            total_loss += loss\n")),
        loop((BACK, BACK + "            total_loss += loss.item() if step % 100 == 0 else 0\n")),
    ),
    "kept_graph in a list": (
        loop((BACK, BACK + "            losses.append(loss)\n")),
        loop((BACK, BACK + "            losses.append(loss.detach())\n")),
    ),
    "kept_graph until the update": (
        loop((BACK, BACK + "            if step == 0:\n                logged = 0\n            total_loss += loss\n")),
        loop(
            (
                BACK,
                BACK
                + "            if step % 4 == 0:\n                total_loss = 0\n            total_loss += loss\n",
            )
        ),
    ),
    "kept_logits of words": (
        trainer((COLLATOR, COLLATOR + ", compute_metrics=accuracy")),
        "from transformers import AutoModelForSequenceClassification\n"
        + trainer((COLLATOR, COLLATOR + ", compute_metrics=accuracy")).replace("AutoModelForCausalLM", "AutoModel"),
    ),
    "kept_graph by asking": (
        loop(("loss.backward()", "loss.backward(retain_graph=True)")),
        loop(("loss.backward()", "loss.backward(retain_graph=False)")),
    ),
    "kept_logits": (
        trainer((COLLATOR, COLLATOR + ", compute_metrics=accuracy")),
        trainer((COLLATOR, COLLATOR + ", compute_metrics=accuracy, preprocess_logits_for_metrics=best")),
    ),
    "zero_grad": (loop(("set_to_none=True", "set_to_none=False")), loop()),
    "memory_emptied": (
        loop((BACK, BACK + "            torch.cuda.empty_cache()\n")),
        loop(("    for epoch in range(3):\n", "    for epoch in range(3):\n        torch.cuda.empty_cache()\n")),
    ),
    "sync": (
        loop((BACK, BACK + "            print(loss.item())\n")),
        loop((BACK, BACK + "            if step % 50 == 0:\n                print(loss.item())\n")),
    ),
    "slow_optimizer": (loop((", fused=True", "")), loop()),
    "slow_optimizer of the Trainer": (
        trainer(("bf16=True", 'bf16=True, optim="adamw_torch"')),
        trainer(("bf16=True", 'bf16=True, optim="adamw_torch_fused"')),
    ),
    "debug_mode": (
        loop(("def main", "import os\nos.environ['CUDA_LAUNCH_BLOCKING'] = '1'\n\ndef main")),
        loop(("def main", "import os\nos.environ['CUDA_LAUNCH_BLOCKING'] = '0'\n\ndef main")),
    ),
    "debug_mode of anomalies": (
        loop(("def main", "torch.autograd.set_detect_anomaly(True)\n\ndef main")),
        loop(("def main", "torch.autograd.set_detect_anomaly(False)\n\ndef main")),
    ),
    "loader": (
        loop(
            (
                "def main",
                "class Rows:\n    def __getitem__(self, at):\n        return tokenizer(self.texts[at])\n\ndef main",
            )
        ),
        loop(
            ("def main", "class Rows:\n    def __init__(self, texts):\n        self.ids = tokenizer(texts)\n\ndef main")
        ),
    ),
    "loader in the loop": (
        loop((BACK, "            ids = tokenizer(texts)\n" + BACK)),
        loop((BACK, "            sizes = [len(text.encode('utf-8')) for text in texts]\n" + BACK)),
    ),
    "loader that sleeps": (
        loop((BACK, BACK + "            time.sleep(0.1)\n"), ("import torch\n", "import time\nimport torch\n")),
        loop(("    for epoch", "    time.sleep(1)\n    for epoch"), ("import torch\n", "import time\nimport torch\n")),
    ),
    "small_micro_batch of a loader": (
        loop(("train_set, batch_size=32", "train_set, batch_size=1")),
        loop(("val_set, batch_size=32", "val_set, batch_size=1")),
    ),
    "eager_attention by its kernel": (
        loop(("            with torch.autocast", "            with sdpa_kernel(SDPBackend.MATH), torch.autocast")),
        loop(
            (
                "            with torch.autocast",
                "            with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]), torch.autocast",
            )
        ),
    ),
    "checkpointing_for_nothing by hand": (
        loop(("def main", "from torch.utils.checkpoint import checkpoint\n\nx = checkpoint(block, x)\n\ndef main")),
        loop(("def main", "def checkpoint(x):\n    return x\n\nx = checkpoint(x)\n\ndef main")),
    ),
    "oversubscription of threads": (
        loop(("def main", "import os\nos.environ['OMP_NUM_THREADS'] = '64'\n\ndef main")),
        loop(("def main", "import os\nos.environ['OMP_NUM_THREADS'] = '8'\n\ndef main")),
    ),
    "labels_on_padding by hand": (
        loop(("def main", "rows = pad_sequence(rows, batch_first=True)\n\ndef main")),
        loop(
            ("def main", "rows = pad_sequence(rows, batch_first=True)\n\ndef main"),
            ("y.flatten())", "y.flatten(), ignore_index=0)"),
        ),
    ),
    "first_loss": (
        loop(("def main", "torch.nn.init.normal_(weight, mean=0.0, std=1.0)\n\ndef main")),
        loop(("def main", "torch.nn.init.normal_(self.wte.weight, mean=0.0, std=0.8)\n\ndef main")),
    ),
    "repeated_text": (loop(("range(3)", "range(40)")), loop(("range(3)", "range(4)"))),
    "repeated_text of the Trainer": (
        trainer(("bf16=True", "bf16=True, num_train_epochs=40")),
        trainer(("bf16=True", "bf16=True, num_train_epochs=3")),
    ),
    "worker_start": (
        loop(("shuffle=True", "shuffle=True, num_workers=4")),
        loop(("shuffle=True", "shuffle=True, num_workers=4, persistent_workers=True")),
    ),
    "oversubscription": (
        loop(("shuffle=True", "shuffle=True, num_workers=64, persistent_workers=True")),
        loop(("shuffle=True", "shuffle=True, num_workers=4, persistent_workers=True")),
    ),
    "loader_copies": (
        loop(
            (
                "def main",
                "class TextDataset:\n    def __init__(self, n):\n        self.rows = [make(i) for i in range(n)]\n\n"
                "def main",
            ),
            ("shuffle=True", "shuffle=True, num_workers=4, persistent_workers=True"),
        ),
        loop(
            (
                "def main",
                "class TextDataset:\n    def __init__(self, n):\n        self.rows = [make(i) for i in range(n)]\n\n"
                "def main",
            )
        ),
    ),
    "slow_disk": (
        loop(("def main", "text = open('/mnt/c/Users/me/book.txt').read()\n\ndef main")),
        loop(("def main", "text = open('/home/me/book.txt').read()\n\ndef main")),
    ),
    "too_often": (
        loop((BACK, BACK + "            torch.save(model.state_dict(), 'model.pt')\n")),
        loop(
            (BACK, BACK + "            if step % 500 == 0:\n                torch.save(model.state_dict(), 'm.pt')\n")
        ),
    ),
    "too_often of the Trainer": (
        trainer(("save_steps=500", "save_steps=10")),
        trainer(("save_steps=500", "save_steps=1000")),
    ),
    "on_cpu": (
        loop(('build().to("cuda")', "build()"), ('"cuda", ', '"cpu", ')),
        loop(('build().to("cuda")', "build().to(device)")),
    ),
    "on_cpu by name": (
        trainer(("bf16=True", "bf16=True, use_cpu=True")),
        trainer(("bf16=True", "bf16=True, use_cpu=False")),
    ),
    "padding": (
        trainer(("truncation=True", "truncation=True, padding='max_length'")),
        trainer(("truncation=True", "truncation=True, padding=False")),
    ),
    "sorted_data": (loop(("shuffle=True", "shuffle=False")), loop(("shuffle=True", "sampler=drawn"))),
    "pad_is_eos": (
        trainer(('tokenizer.add_special_tokens({"pad_token": "<pad>"})', "tokenizer.pad_token = tokenizer.eos_token")),
        trainer(('tokenizer.add_special_tokens({"pad_token": "<pad>"})', "tokenizer.pad_token = tokenizer.unk_token")),
    ),
    "pad_is_eos by hand": (
        loop(
            ("def main", "tokenizer.pad_token = tokenizer.eos_token\n\ndef main"),
            (BACK, BACK + "            labels[labels == tokenizer.pad_token_id] = -100\n"),
        ),
        loop((BACK, BACK + "            labels[labels == tokenizer.pad_token_id] = -100\n")),
    ),
    "padding_side": (
        trainer(("rows =", 'tokenizer.padding_side = "left"\nrows =')),
        trainer(("rows =", 'tokenizer.padding_side = "right"\nrows =')),
    ),
    "labels_on_padding": (
        trainer(
            (COLLATOR, "data_collator=default_data_collator"),
            ("truncation=True", "truncation=True, padding='max_length'"),
            ("arguments =", "rows['labels'] = rows['input_ids'].clone()\narguments ="),
        ),
        trainer(
            (COLLATOR, "data_collator=default_data_collator"),
            ("truncation=True", "truncation=True, padding='max_length'"),
            ("arguments =", "rows['labels'] = rows['input_ids'].where(rows['attention_mask'] == 1, -100)\narguments ="),
        ),
    ),
    "shifted_labels": (
        loop(
            ("build()", "AutoModelForCausalLM.from_pretrained('gpt2')"),
            ("F.cross_entropy(model(x).flatten(0, 1), y.flatten())", "model(ids[:, :-1], labels=ids[:, 1:]).loss"),
        ),
        loop(
            ("build()", "AutoModelForCausalLM.from_pretrained('gpt2')"),
            ("F.cross_entropy(model(x).flatten(0, 1), y.flatten())", "model(ids, labels=ids).loss"),
        ),
    ),
    "shifted_labels not at all": (
        loop(("y.flatten()", "x.flatten()")),
        loop(("model(x).flatten(0, 1), y", "model(x)[:, :-1].flatten(0, 1), x[:, 1:]")),
    ),
    "accumulation": (
        loop(
            (
                "            optimizer.step()\n            optimizer.zero_grad(set_to_none=True)\n",
                "            if (step + 1) % 8 == 0:\n                optimizer.step()\n"
                "                optimizer.zero_grad(set_to_none=True)\n",
            )
        ),
        loop(
            (
                "            loss.backward()\n            optimizer.step()\n            "
                "optimizer.zero_grad(set_to_none=True)\n",
                "            (loss / 8).backward()\n            if (step + 1) % 8 == 0:\n                "
                "optimizer.step()\n"
                "                optimizer.zero_grad(set_to_none=True)\n",
            )
        ),
    ),
    "gradients_kept": (loop(("            optimizer.zero_grad(set_to_none=True)\n", "")), loop()),
    "no_validation": (trainer(("eval_dataset=held_out,", "")), trainer()),
    "micro_batch_halved": (
        trainer(("bf16=True", "bf16=True, auto_find_batch_size=True")),
        trainer(("bf16=True", "bf16=True, auto_find_batch_size=False")),
    ),
    "schedule": (
        trainer(("bf16=True", "bf16=True, warmup_steps=5000, max_steps=1000")),
        trainer(("bf16=True", "bf16=True, warmup_steps=50, max_steps=1000")),
    ),
    "data_parallel": (
        loop(('build().to("cuda")', 'torch.nn.DataParallel(build().to("cuda"))')),
        loop(("build()", "Parallel(build())")),
    ),
    "recompiles": (
        loop(("def main", "def collate(rows):\n    return pad(rows, padding='longest')\n\ndef main")),
        loop(("def main", "def collate(rows):\n    return pad(rows, padding='max_length')\n\ndef main")),
    ),
}
