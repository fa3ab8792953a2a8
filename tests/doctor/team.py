# A team's fine-tuning script after its remedies for a run that had become 12 times slower.
import os

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.backends.cuda.matmul.allow_tf32 = True
if hasattr(torch.backends.cuda, "enable_flash_sdp"):
    torch.backends.cuda.enable_flash_sdp(True)

tokenizer = AutoTokenizer.from_pretrained("skt/kogpt2-base-v2")
tokenizer.padding_side = "right"
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained("skt/kogpt2-base-v2")

rows = load_dataset("json", data_files="train.jsonl")["train"]


def tokenize(rows):
    return tokenizer(rows["text"], truncation=True, max_length=320, padding=False, add_special_tokens=True)


arguments = TrainingArguments(
    output_dir="out",
    per_device_train_batch_size=16,
    dataloader_num_workers=8,
    dataloader_pin_memory=True,
    dataloader_prefetch_factor=2,
    dataloader_persistent_workers=True,
)
collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
Trainer(model, arguments, collator, train_dataset=rows.map(tokenize, batched=True)).train()
