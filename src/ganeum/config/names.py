"""What to say about a key that is not ours: the nearest one, or what another project's name is called here."""

from __future__ import annotations

import difflib

from ganeum.config.keys import keys, matching, sections

# Names of nanoGPT, of Hugging Face's TrainingArguments and GPT2Config, and of textbooks → our key, or a sentence.
ELSEWHERE = {
    # the model
    "activation_function": "model.activation",
    "attn_pdrop": "model.dropout",
    "context_length": "model.block_size",
    "context_size": "model.block_size",
    "d_model": "model.n_embd",
    "drop_rate": "model.dropout",
    "dropout_rate": "model.dropout",
    "emb_dim": "model.n_embd",
    "embd_pdrop": "model.dropout",
    "hidden_size": "model.n_embd",
    "max_length": "model.block_size",
    "max_position_embeddings": "model.block_size",
    "max_seq_len": "model.block_size",
    "max_seq_length": "model.block_size",
    "model_type": "model.style",
    "n_ctx": "model.block_size",
    "n_heads": "model.n_head",
    "n_layers": "model.n_layer",
    "n_positions": "model.block_size",
    "num_attention_heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_hidden_layers": "model.n_layer",
    "num_layers": "model.n_layer",
    "resid_pdrop": "model.dropout",
    "seq_len": "model.block_size",
    "seq_length": "model.block_size",
    "sequence_length": "model.block_size",
    "tie_word_embeddings": "model.tie_embeddings",
    "weight_tying": "model.tie_embeddings",
    # the data
    "data_dir": "data.directory",
    "dataset": "data.directory",
    "dataset_name": "data.directory",
    # the training
    "accumulation_steps": "accumulation follows from train.batch_size and train.micro_batch_size, and is never set",
    "adam_beta1": "train.beta1",
    "adam_beta2": "train.beta2",
    "always_save_checkpoint": "train.checkpoint_interval",
    "amp": "train.precision",
    "bf16": "train.precision: bf16",
    "decay_lr": "train.schedule: constant, for a learning rate that does not decay",
    "dtype": "train.precision",
    "early_stopping_patience": "train.patience",
    "eval_iters": "train.eval_tokens, which counts tokens: eval_iters × batch_size × block_size",
    "eval_steps": "train.eval_interval",
    "fp16": "train.precision: fp16",
    "gradient_accumulation_steps": "accumulation follows from train.batch_size and train.micro_batch_size, "
    "and is never set",
    "gradient_clip_val": "train.grad_clip",
    "iterations": "train.max_iters",
    "iters": "train.max_iters",
    "logging_steps": "log.interval",
    "log_interval": "log.interval",
    "lr": "train.learning_rate",
    "lr_decay_iters": "the schedule always ends with the training; leave it out",
    "lr_scheduler_type": "train.schedule",
    "max_epochs": "train.epochs",
    "max_grad_norm": "train.grad_clip",
    "max_lr": "train.learning_rate",
    "max_steps": "train.max_iters",
    "max_tokens": "train.tokens",
    "min_lr": "train.min_learning_rate",
    "n_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "num_steps": "train.max_iters",
    "num_train_epochs": "train.epochs",
    "optim": "train.optimizer",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "save_steps": "train.checkpoint_interval",
    "save_total_limit": "train.keep_last",
    "steps": "train.max_iters",
    "torch_compile": "train.compile",
    "total_steps": "train.max_iters",
    "warmup_ratio": "train.warmup_iters, which counts steps",
    "warmup_steps": "train.warmup_iters",
    # the rest
    "backend": "one device needs none; leave it out",
    "exp_name": "name",
    "experiment_name": "name",
    "out_dir": "name, the run's directory under results/",
    "output_dir": "name, the run's directory under results/",
    "report_to": "log.tensorboard and log.wandb.project",
    "run_name": "name",
    "wandb_log": "log.wandb.project",
    "wandb_project": "log.wandb.project",
    "wandb_run_name": "name",
}


def instead_of(name: str) -> str | None:
    """What a user who wrote `name` will have meant: `train.batch_size`, or a sentence; None if nothing is near."""
    section, _, bare = name.rpartition(".")
    bare = bare.replace("-", "_")
    same = matching(bare)
    if same:
        return " or ".join(same)
    if bare in ELSEWHERE:
        return ELSEWHERE[bare]
    # The key's own section first: `train.lerning_rate`, then every section: `lerning_rate`, `model.lerning_rate`.
    siblings = {key.rpartition(".")[2]: key for key in [*keys(), *sections()] if key.rpartition(".")[0] == section}
    anywhere = {key.rpartition(".")[2]: key for key in [*keys(), *sections()]}
    for candidates in (siblings, anywhere):
        near = difflib.get_close_matches(bare, candidates, n=1, cutoff=0.65)
        if near:
            return candidates[near[0]]
    near = difflib.get_close_matches(bare, ELSEWHERE, n=1, cutoff=0.8)
    return ELSEWHERE[near[0]] if near else None
