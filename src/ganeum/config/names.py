"""What to say about a key that is not ours: the nearest one, or what another project's name is called here."""

from __future__ import annotations

import difflib

from ganeum.config.huggingface import TABLE
from ganeum.config.keys import keys, matching, sections

# Names of nanoGPT, of other trainers and of textbooks → our key, or a sentence. Hugging Face's are turned, not refused.
ELSEWHERE = {
    # the model
    "context_length": "model.block_size",
    "context_size": "model.block_size",
    "d_model": "model.n_embd",
    "drop_rate": "model.dropout",
    "dropout_rate": "model.dropout",
    "emb_dim": "model.n_embd",
    "max_seq_len": "model.block_size",
    "n_heads": "model.n_head",
    "n_layers": "model.n_layer",
    "num_heads": "model.n_head",
    "num_layers": "model.n_layer",
    "seq_len": "model.block_size",
    "seq_length": "model.block_size",
    "sequence_length": "model.block_size",
    "weight_tying": "model.tie_embeddings",
    # the data
    "data_dir": "data.directory",
    "dataset": "data.directory, or data.train for a model of model.source",
    "input_column": "data.source_column",
    "output_column": "data.target_column",
    "target_text_column": "data.target_column",
    "test_size": "data.val_share",
    "val_file": "data.val",
    "val_size": "data.val_share",
    # the training
    "accumulation_steps": "accumulation follows from train.batch_size and train.micro_batch_size, and is never set",
    "always_save_checkpoint": "train.checkpoint_interval",
    "amp": "train.precision",
    "decay_lr": "train.schedule: constant, for a learning rate that does not decay",
    "early_stopping_patience": "train.patience",
    "dtype": "train.precision",
    "eval_iters": "train.eval_tokens, which counts tokens: eval_iters × batch_size × block_size",
    "gradient_clip_val": "train.grad_clip",
    "iterations": "train.max_iters",
    "iters": "train.max_iters",
    "log_interval": "log.interval",
    "lr": "train.learning_rate",
    "lr_decay_iters": "the schedule always ends with the training; leave it out",
    "max_epochs": "train.epochs",
    "max_lr": "train.learning_rate",
    "max_tokens": "train.tokens",
    "min_lr": "train.min_learning_rate",
    "n_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "num_steps": "train.max_iters",
    "steps": "train.max_iters",
    "total_steps": "train.max_iters",
    # the rest
    "backend": "one device needs none; leave it out",
    "exp_name": "name",
    "experiment_name": "name",
    "out_dir": "name, the run's directory under results/",
    "wandb_log": "log.wandb.project",
    "wandb_project": "log.wandb.project",
    "wandb_run_name": "name",
}


def instead_of(name: str) -> str | None:
    """What a user who wrote `name` will have meant: `train.batch_size`, or a sentence; None if nothing is near."""
    section, _, bare = name.rpartition(".")
    bare = bare.replace("-", "_")
    same = matching(name.replace("-", "_")) or matching(bare)
    if same:
        return " or ".join(same)
    if bare in ELSEWHERE:
        return ELSEWHERE[bare]
    # The key's own section first: `train.lerning_rate`, then every section: `lerning_rate`, `model.lerning_rate`.
    every = {key.rpartition(".")[2]: key for key in [*keys(), *sections()]}
    siblings = {
        key.rpartition(".")[2]: key
        for key in [*keys(), *sections()]
        if f".{key.rpartition('.')[0]}".endswith(f".{section}")
    }
    theirs = ELSEWHERE | {name.rpartition(".")[2]: entry.key or name for name, entry in TABLE.items()}
    for cutoff, candidates in ((0.9, siblings), (0.9, every), (0.9, theirs), (0.65, siblings), (0.65, every)):
        near = difflib.get_close_matches(bare, candidates, n=1, cutoff=cutoff)
        if near:
            return candidates[near[0]]
    return None
