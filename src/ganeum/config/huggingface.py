"""Hugging Face's names, each once: what it is called here, what is not needed here and why, what is refused and why.

Every field of `TrainingArguments` and `Seq2SeqTrainingArguments` (transformers 5.23, with the names that older versions
had), of GPT2Config and Qwen3Config below `model:`, and the arguments of the scripts that fine-tune
(:mod:`ganeum.config.huggingface_examples`). A test compares with the installed transformers, and docs/huggingface.md
is written from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ganeum.config import huggingface_examples as examples
from ganeum.config import huggingface_rules as rules
from ganeum.config import huggingface_shape as shape
from ganeum.config.deepspeed import deepspeed
from ganeum.config.huggingface_rules import Rule
from ganeum.config.huggingface_schedule import schedule
from ganeum.config.keys import keys
from ganeum.config.source import THEIRS, Value


@dataclass(frozen=True)
class Name:
    """One name. `rule` or `key` turns it; without either it is not needed (`neutral` None) or refused.

    `ours` and `note` are what the page says; `note` of a name that is not turned is the reason.
    """

    ours: str = ""
    note: str = ""
    key: str | None = None
    rule: Rule | None = None
    neutral: tuple[object, ...] | None = None  # the values with which it says what is so here anyway


# Another name for the same thing.
RENAMED = {
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "adam_beta1": "train.beta1",
    "adam_beta2": "train.beta2",
    "max_grad_norm": "train.grad_clip",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "torch_compile": "train.compile",
    "model.hidden_size": "model.n_embd",
    "model.num_hidden_layers": "model.n_layer",
    "model.num_attention_heads": "model.n_head",
    "model.num_key_value_heads": "model.n_kv_head",
    "model.tie_word_embeddings": "model.tie_embeddings",
    "model.n_inner": "model.intermediate_size",
    "inference.max_new_tokens": "sample.max_new_tokens",
    "inference.temperature": "sample.temperature",
    "inference.top_k": "sample.top_k",
    "inference.top_p": "sample.top_p",
}

# What takes a rule: the names that meet in it, each with what it is here.
SHARE = "; below 1 a share of all steps"
EPOCH = "; `epoch` becomes its share of all steps, and needs `num_train_epochs`"
TURNED: dict[Rule, dict[str, str]] = {
    rules.batch: {
        "per_device_train_batch_size": "train.micro_batch_size; times gradient_accumulation_steps, train.batch_size",
        "per_gpu_train_batch_size": "as per_device_train_batch_size",
        "gradient_accumulation_steps": "train.batch_size; is per_device_train_batch_size times this",
        "auto_find_batch_size": "train.micro_batch_size; true: auto, and train.batch_size stays the product",
    },
    rules.length: {
        "max_steps": "train.max_iters; above 0 it overrides num_train_epochs",
        "num_train_epochs": "train.epochs; and data.order: epochs, since the Trainer shuffles epochs",
    },
    rules.warmup: {
        "warmup_steps": f"train.warmup_iters{SHARE}; ours ends at the peak after it as theirs does, and begins above 0",
        "warmup_ratio": "train.warmup_iters; a share of all steps",
    },
    rules.precision: {
        "bf16": "train.precision; bf16 where true; where neither bf16 nor fp16 is, fp32",
        "fp16": "train.precision; fp16 where true",
        "tf32": "train.precision; tf32 where neither bf16 nor fp16 is true",
    },
    rules.checkpointing: {
        "activation_checkpointing": "train.activation_checkpointing; true: whole",
        "gradient_checkpointing": "train.activation_checkpointing; true: whole",
    },
    rules.optimizer: {"optim": "train.optimizer; AdamW, 8-bit AdamW, Adafactor, SGD, Muon; paged ones are not paged"},
    schedule: {
        "lr_scheduler_type": "train.schedule; linear: wsd with decay_share 1; linear and cosine end at 0 as theirs do",
        "lr_scheduler_kwargs": "train.min_learning_rate, train.decay_share; min_lr, min_lr_rate, num_decay_steps",
    },
    rules.logging: {
        "logging_steps": f"log.interval{SHARE}",
        "logging_strategy": f"log.interval{EPOCH}",
    },
    rules.evaluation: {
        "eval_steps": f"train.eval_interval{SHARE}",
        "eval_strategy": f"train.eval_interval{EPOCH}; `no`: it is evaluated all the same",
        "evaluation_strategy": "as eval_strategy",
    },
    rules.saving: {
        "save_steps": f"train.checkpoint_interval{SHARE}",
        "save_strategy": f"train.checkpoint_interval{EPOCH}; `no`: the last one is kept all the same",
    },
    rules.kept: {"save_total_limit": "train.keep_last; the best one is kept besides"},
    rules.naming: {
        "run_name": "name; the run's directory",
        "output_dir": "name; its last part, unless run_name is set",
    },
    rules.seeds: {"seed": "seed", "data_seed": "seed; must be the same"},
    rules.place: {"use_cpu": "device; true: cpu", "no_cuda": "device; true: cpu"},
    rules.tracking: {
        "report_to": "log.tensorboard, log.wandb.project, log.mlflow.experiment, log.trackio.project",
        "project": "log.wandb.project, log.mlflow.experiment, log.trackio.project; for the trackers in report_to",
    },
    deepspeed: {
        "deepspeed": "train.zero.stage, train.optimizer_offload, train.precision, train.grad_clip, train.optimizer, "
        "train.schedule; with their numbers; stages 0 and 1 share nothing out on one device"
    },
    shape.style: {"model.model_type": "model.style; gpt2, or qwen3: modern", "model.architectures": "model.style"},
    shape.length: {
        "model.max_position_embeddings": "model.block_size",
        "model.n_positions": "model.block_size",
        "model.n_ctx": "model.block_size",
    },
    shape.norm: {
        "model.rms_norm_eps": "model.norm_eps",
        "model.layer_norm_epsilon": "model.norm_eps",
        "model.layer_norm_eps": "model.norm_eps",
    },
    shape.activation: {
        "model.activation_function": "model.activation; gelu_new and gelu_pytorch_tanh: gelu_tanh; gelu"
    },
    shape.dropout: {
        "model.resid_pdrop": "model.dropout; the three must be the same",
        "model.embd_pdrop": "model.dropout",
        "model.attn_pdrop": "model.dropout",
    },
    shape.rotary: {
        "model.rope_parameters": "model.rope_theta; rope_type must be default",
        "model.rope_scaling": "model.rope_theta; as rope_parameters",
    },
}

# Taken with any value, since nothing would be different: why, and the names.
NEEDLESS = {
    "no workers are needed: a batch is read from memory-mapped files": (
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
        "dataloader_in_order",
    ),
    "every batch is whole, and lengths are counted when the data is made": (
        "dataloader_drop_last",
        "length_column_name",
    ),
    "data.batching says which sequences come together": ("sortish_sampler",),
    "of the columns those that are named are read": ("remove_unused_columns", "label_names"),
    "one device has nobody to talk to": (
        "accelerator_config",
        "average_tokens_across_devices",
        "ddp_backend",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "ddp_timeout",
        "dispatch_batches",
        "fsdp_config",
        "local_rank",
        "log_on_each_node",
        "save_on_each_node",
        "split_batches",
    ),
    "an evaluation is one loss and keeps no logits": (
        "batch_eval_metrics",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "include_for_metrics",
        "include_inputs_for_metrics",
        "prediction_loss_only",
    ),
    "an evaluation computes as training does: train.precision": ("bf16_full_eval", "fp16_full_eval"),
    "the best checkpoint is kept, and sample and export take it; the run itself goes on from the last": (
        "load_best_model_at_end",
    ),
    "the first step is always logged": ("logging_first_step",),
    "a loss that is no number is shown as it is": ("logging_nan_inf_filter",),
    "every logged step has tokens_seen, tokens_per_second and the memory": (
        "include_num_input_tokens_seen",
        "include_tokens_per_second",
        "skip_memory_metrics",
    ),
    "the screen shows a live line, and logs/console.log keeps what it showed": (
        "disable_tqdm",
        "log_level",
        "log_level_replica",
    ),
    "logs lie in the run's own directory": ("logging_dir",),
    "a run stopped by SIGTERM always leaves a checkpoint": ("enable_jit_checkpoint",),
    "a run always goes on with everything it had": ("restore_callback_states_from_checkpoint",),
    "a run ends with the same weights each time on the same device, precision and torch": ("full_determinism",),
    "recomputation needs no options": ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
    "training keeps no keys and values, and sampling always does": ("use_cache", "model.use_cache"),
    "train.compile fuses kernels, and train.loss_chunk keeps the logits small": (
        "use_liger_kernel",
        "liger_kernel_config",
    ),
    "train.expandable_segments keeps the allocator from running into holes": ("torch_empty_cache_steps",),
    "training, evaluation and a run's end are one command": ("do_train", "do_eval"),
    "only push_to_hub reads it, which is refused here": (
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "push_to_hub_model_id",
        "push_to_hub_organization",
        "push_to_hub_token",
    ),
    "torch.autocast is the one way to compute in less than fp32": (
        "fp16_backend",
        "fp16_opt_level",
        "half_precision_backend",
    ),
    "device: auto takes it": ("use_mps_device",),
    "generation has no part in training, and `ganeum generate` goes by the model's generation_config.json": (
        "generation_config",
        "inference.early_stopping",
        "inference.length_penalty",
        "inference.no_repeat_ngram_size",
        "inference.repetition_penalty",
    ),
    "it comes with the tokenizer": ("model.bos_token_id", "model.eos_token_id", "model.pad_token_id"),
    "weights are written in fp32 and computed with in train.precision": ("model.dtype", "model.torch_dtype"),
    "it says who wrote the config": ("model.transformers_version", "model._name_or_path"),
    "only GPT-2's classification heads read it": (
        "model.summary_activation",
        "model.summary_first_dropout",
        "model.summary_proj_to_labels",
        "model.summary_type",
        "model.summary_use_proj",
    ),
    "it is about what a program gets back": (
        "model.id2label",
        "model.label2id",
        "model.output_attentions",
        "model.output_hidden_states",
        "model.problem_type",
        "model.return_dict",
    ),
    "only use_sliding_window reads it, which is refused here": ("model.max_window_layers", "model.sliding_window"),
}

# Refused with any value but those that say what is so here anyway: those values, and why.
OFF = (None, False, "", 0, 0.0)
LOSS = (None, "loss", "eval_loss")
REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "adam_epsilon": ((None, 1e-8), "Adam's epsilon is 1e-8 here"),
    "optim_args": (OFF, "the optimizers have no further arguments: train.beta1, train.beta2, train.momentum"),
    "optim_target_modules": (
        OFF,
        "GaLore and APOLLO are not here; train.lora trains few weights, adamw8bit saves state",
    ),
    "label_smoothing_factor": (OFF, "the loss is the plain cross-entropy, which val_loss and val_bpb need"),
    "neftune_noise_alpha": (OFF, "no noise is added to embeddings; model.dropout is what there is against overfitting"),
    "torch_compile_backend": ((None, "inductor"), "torch.compile runs with its own backend"),
    "torch_compile_mode": ((None, "default"), "torch.compile runs in its own mode"),
    "torchdynamo": (OFF, "train.compile is what there is"),
    "jit_mode_eval": (OFF, "train.compile is what there is"),
    "use_ipex": (OFF, "torch itself computes on CPUs here"),
    "eval_on_start": (OFF, "an evaluation before the first step is `ganeum train … eval_only=true` with init_from"),
    "eval_delay": (OFF, "evaluations begin with the first interval"),
    "metric_for_best_model": (LOSS, "the best checkpoint is the one with the lowest validation loss"),
    "greater_is_better": ((None, False), "a lower validation loss is better"),
    "save_only_model": (
        OFF,
        "a checkpoint without the optimizer could not be gone on from; `ganeum export` writes one",
    ),
    "save_safetensors": ((None, True), "weights are always written as safetensors"),
    "overwrite_output_dir": (OFF, "nothing is overwritten by a config: `--overwrite` on the command line does it"),
    "resume_from_checkpoint": (
        (None, True),
        "the same command always goes on with its run; train.init_from starts from a checkpoint's weights, "
        "--overwrite anew",
    ),
    "ignore_data_skip": (OFF, "a run always goes on in the data where it was"),
    "train_sampling_strategy": ((None, "random", "group_by_length"), "windows are always shuffled: data.order"),
    "do_predict": (OFF, "`ganeum generate RUN --input FILE` writes what a model makes of a file"),
    "push_to_hub": (OFF, "nothing is sent anywhere; `ganeum export RUN` writes a directory that can be uploaded"),
    "trackio_space_id": ((None, "trackio"), "trackio writes on this machine"),
    "trackio_bucket_id": (OFF, "trackio writes on this machine"),
    "trackio_static_space_id": (OFF, "trackio writes on this machine"),
    "fsdp": ((*OFF, []), "one device has nothing to share out; train.optimizer_offload and train.weights save memory"),
    "fsdp_min_num_params": (OFF, "one device has nothing to share out"),
    "fsdp_transformer_layer_cls_to_wrap": (OFF, "one device has nothing to share out"),
    "parallelism_config": (OFF, "one device has nothing to share out"),
    "mp_parameters": (OFF, "one device has nothing to share out"),
    "sharded_ddp": (OFF, "one device has nothing to share out"),
    "tpu_num_cores": (OFF, "TPUs are not here"),
    "tpu_metrics_debug": (OFF, "TPUs are not here"),
    "past_index": ((None, -1), "models here carry nothing from one batch to the next"),
    "ray_scope": ((None, "last"), "there is no search over Ray"),
    "debug": ((*OFF, []), "a loss that is no number stops the run by itself and says at which step"),
    "model.hidden_act": ((None, "silu"), "the modern style's MLP is SwiGLU"),
    "model.attention_bias": ((None, False), "the modern style has no biases"),
    "model.attention_dropout": (OFF, "the modern style drops nothing inside attention; model.dropout"),
    "model.use_sliding_window": ((None, False), "attention reaches over the whole block"),
    "model.layer_types": ((None, "full_attention"), "attention reaches over the whole block in every layer"),
    "model.initializer_range": ((None, 0.02), "weights begin with GPT-2's 0.02, or with train.parametrization: mup"),
    "model.scale_attn_weights": ((None, True), "attention is always scaled by the root of its width"),
    "model.scale_attn_by_inverse_layer_idx": ((None, False), "attention is scaled by the root of its width alone"),
    "model.reorder_and_upcast_attn": ((None, False), "attention computes in train.precision"),
    "model.chunk_size_feed_forward": (OFF, "train.loss_chunk and a smaller train.micro_batch_size save that memory"),
    "model.add_cross_attention": ((None, False), "there is no encoder to attend to"),
    "model.is_encoder_decoder": (
        (None, False),
        "what is described here is a decoder; model.source takes any other",
    ),
}

# What may stand alone on a command line, for true: `--fp16`, `--gradient_checkpointing`.
SWITCHES = examples.SWITCHES | frozenset(
    """activation_checkpointing auto_find_batch_size average_tokens_across_devices batch_eval_metrics bf16
    bf16_full_eval dataloader_drop_last dataloader_in_order dataloader_persistent_workers dataloader_pin_memory
    ddp_broadcast_buffers ddp_find_unused_parameters ddp_static_graph disable_tqdm do_eval do_predict do_train
    enable_jit_checkpoint eval_do_concat_batches eval_on_start eval_use_gather_object fp16 fp16_full_eval
    full_determinism gradient_checkpointing greater_is_better group_by_length hub_always_push hub_private_repo
    ignore_data_skip include_inputs_for_metrics include_tokens_per_second load_best_model_at_end log_on_each_node
    logging_first_step logging_nan_inf_filter no_cuda overwrite_output_dir predict_with_generate prediction_loss_only
    push_to_hub remove_unused_columns restore_callback_states_from_checkpoint save_on_each_node save_only_model
    save_safetensors skip_memory_metrics tf32 torch_compile use_cache use_cpu use_ipex use_liger_kernel
    use_mps_device""".split()  # noqa: SIM905 (a word a line would be sixty lines)
)

# What takes several words on a command line: `--report_to tensorboard wandb`.
SEVERAL = frozenset({"report_to", "label_names", "include_for_metrics"})


def _table() -> dict[str, Name]:
    table = {name: Name(key, key=key) for name, key in (RENAMED | examples.RENAMED).items()}
    for rule, names in (TURNED | examples.TURNED).items():
        for name, text in names.items():
            ours, _, note = text.partition("; ")
            table[name] = Name(ours, note, rule=rule)
    table |= {name: Name(note=why) for why, names in (NEEDLESS | examples.NEEDLESS).items() for name in names}
    table |= {name: Name(note=why, neutral=values) for name, (values, why) in (REFUSED | examples.REFUSED).items()}
    return table


TABLE: Mapping[str, Name] = _table()


def known(name: str, value: Value) -> str | None:
    """Which of Hugging Face's names this key of a config is, as TABLE has it; None if it is ours or nobody's.

    They stand at the top of a file, below `training:` or `train:`; those of a model's config below `model:`, and those
    of them that say something here at the top too. The one name that is ours as well, activation_checkpointing, is
    theirs where it is true or false.
    """
    section, _, bare = name.rpartition(".")
    if name in keys() and not (isinstance(value.value, bool) and "boolean" not in keys()[name].takes):
        return None
    if section in ("", "train", "training") and bare in TABLE:
        return bare
    if name.startswith("training.") and (within := name.removeprefix("training.")) in TABLE:
        return within  # training.tokenization.max_length
    shape = TABLE.get(f"model.{bare}")
    if shape and (section == "model" or (section == "" and (shape.key or shape.rule))):
        return f"model.{bare}"
    return name if section in THEIRS and name in TABLE else None
