"""What a run is: every key of a config with its unit, its default and what it does.

``configs/base.yaml`` and ``docs/config.md`` are written from this file; a test holds them together.
``auto`` is resolved once, when the run directory is made, and the resolved value is kept from then on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=0)]
Between = Annotated[float, Field(gt=0.0, lt=1.0)]  # a share of all steps, where else steps are counted
Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A part of the config: unknown keys are refused, numbers are never read from text, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())


class Model(Section):
    """The network."""

    source: str | None = Field(
        None,
        description="somebody else's model in place of the GPT of the other keys: a directory, a config.json, or a "
        "name on the Hugging Face hub",
    )
    fresh: bool = Field(False, description="of `source` only its config; the weights are drawn from the seed")
    style: Literal["gpt2", "modern"] = Field(
        "gpt2",
        description="gpt2: learned positions, LayerNorm, GELU; "
        "modern: rotary positions, RMSNorm, SwiGLU, normed queries and keys (Qwen3's layout)",
    )
    n_layer: PositiveInt = Field(6, description="blocks")
    n_head: PositiveInt = Field(6, description="attention heads")
    n_kv_head: PositiveInt | None = Field(
        None, description="heads of keys and values, each shared by n_head / n_kv_head queries (modern); null: n_head"
    )
    head_dim: PositiveInt | None = Field(None, description="width of a head (modern); null: n_embd / n_head")
    n_embd: PositiveInt = Field(384, description="width of the residual stream")
    intermediate_size: PositiveInt | None = Field(
        None,
        description="width inside the MLP; null: 4 n_embd (gpt2), 8/3 n_embd up to the next multiple of 64 (modern)",
    )
    block_size: PositiveInt = Field(256, description="context length, tokens")
    dropout: BelowOne | None = Field(
        None, description="share of activations dropped while training; null: 0, or what the config of `source` says"
    )
    bias: bool = Field(False, description="biases in linear layers and LayerNorms (gpt2; GPT-2 has them)")
    qkv_bias: bool | None = Field(
        None, description="biases in the query, key and value projection (gpt2); null: as `bias`"
    )
    activation: Literal["gelu_tanh", "gelu"] = Field(
        "gelu_tanh", description="gelu_tanh: GPT-2's approximation; gelu: the exact one, nanoGPT's (gpt2)"
    )
    rope_theta: PositiveFloat = Field(10_000.0, description="base of the rotary positions' wavelengths (modern)")
    norm_eps: PositiveFloat | None = Field(
        None, description="added to the variance in every norm; null: 1e-5 (gpt2), 1e-6 (modern)"
    )
    tie_embeddings: bool = Field(True, description="the output layer shares the token embedding's weights")
    vocab_size: PositiveInt | Auto = Field("auto", description="tokens there are; auto: from the data's meta.json")


Files = str | Annotated[tuple[str, ...], Field(min_length=1)]


class Data(Section):
    """The tokens of a GPT, or the examples (pairs or single texts) that a model of `model.source` learns from."""

    directory: str = Field("data/tinystories", description="holds train.bin, val.bin and meta.json")
    order: Literal["random", "epochs"] = Field(
        "random", description="random: windows at random offsets; epochs: every window once an epoch, shuffled"
    )
    stride: PositiveInt | Auto = Field(
        "auto", description="tokens between the starts of neighbouring windows (order: epochs); auto: block_size"
    )
    train: Files | None = Field(
        None, description="files of examples, directories of them, or a data set's name: jsonl, json, csv, tsv, parquet"
    )
    val: Files | None = Field(None, description="held-out examples; null: val_share of those to train with")
    val_share: Between = Field(0.02, description="of the examples, where there is no val; drawn by split_seed")
    split_seed: int = Field(0, ge=0, le=2**32 - 1, description="of that split: the same examples at every start")
    max_examples: PositiveInt | None = Field(
        None, description="at most so many to train with, the first in their files; null: all of them"
    )
    kind: Literal["pairs", "texts"] | Auto = Field(
        "auto", description="what an example is; auto: pairs where it has the two columns, else a text"
    )
    source_column: str = Field("source", description="what a pair begins with, or is asked with")
    target_column: str = Field("target", description="what is learnt from it")
    text_column: str = Field("text", description="of single texts")
    prefix: str = Field("", description="in front of every source, as T5's `summarize: `")
    max_length: PositiveInt = Field(512, description="tokens of a source or a text; longer ones are cut, and counted")
    max_target_length: PositiveInt = Field(128, description="tokens of a target; longer ones are cut, and counted")
    batching: Literal["buckets", "padded", "fixed", "packed"] | Auto = Field(
        "auto",
        description="packed: several in one row that do not see each other; buckets: those of a step that are alike at "
        "once, padded to one of a few lengths; padded: to the longest of those at once; fixed: all to max_length; "
        "auto: packed where the model allows it and rows are not long for its width, else buckets",
    )
    tokenizer: str | None = Field(None, description="a directory or a hub name; null: the one of `model.source`")


class Lora(Section):
    """Low-rank adapters: only they are trained, the weights under them stay as they are."""

    rank: PositiveInt | None = Field(None, description="rank of the adapters; null: every weight is trained")
    alpha: PositiveFloat = Field(16.0, description="the adapters' outputs are multiplied by alpha / rank")
    dropout: BelowOne = Field(0.0, description="share of the adapters' inputs dropped while training")
    targets: Literal["all", "attention"] = Field(
        "all", description="linear layers that get one: all in the blocks, or those of attention"
    )


class Zero(Section):
    """DeepSpeed's ZeRO, by its own engine (extra `deepspeed`)."""

    stage: int = Field(
        0,
        ge=0,
        le=3,
        description="2: DeepSpeed's engine takes the steps; 3: and gathers weights when their layer computes; 0 and 1: "
        "ganeum's own step, since one device has nothing to share out",
    )
    weights_offload: bool = Field(False, description="the weights lie in the CPU's memory between uses (stage 3)")
    options: str | None = Field(
        None, description="what else a ds_config.json says below zero_optimization and fp16, as JSON"
    )


class Train(Section):
    """The training."""

    batch_size: PositiveInt = Field(64, description="sequences per optimizer step: the batch the model learns with")
    batch_tokens: PositiveInt | None = Field(
        None, description="tokens per optimizer step, padding not counted, in place of batch_size (examples only)"
    )
    micro_batch_size: PositiveInt | Auto = Field(
        "auto", description="sequences at once; batch_size must be a multiple of it"
    )
    max_iters: PositiveInt | None = Field(None, description="length in optimizer steps; of four lengths, set one")
    epochs: PositiveFloat | None = Field(None, description="length in passes over the windows")
    tokens: PositiveFloat | None = Field(None, description="length in tokens seen")
    hours: PositiveFloat | None = Field(
        None, description="length in hours; turned into steps once, by a short measurement at the start"
    )
    optimizer: Literal["adamw", "muon", "adamw8bit", "adafactor", "sgd"] = Field(
        "adamw",
        description="adamw: fused where torch has it; muon: for the blocks' matrices, AdamW for the rest; "
        "adamw8bit: its state in 8 bits",
    )
    learning_rate: PositiveFloat = Field(
        1e-3,
        description="the peak learning rate; of a config that says none and starts from trained weights of "
        "`source` 1e-4, and 1e-3 with Adafactor",
    )
    parametrization: Literal["standard", "mup"] = Field(
        "standard",
        description="standard: learning_rate for every weight; mup: it is that of a model 256 wide and 4 deep with "
        "16,384 tokens in a batch, and is scaled, with the initialisation, weight by weight to this width, depth and "
        "batch",
    )
    min_learning_rate: NotNegative | Auto = Field("auto", description="where the schedule ends; auto: a tenth of it")
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        "cosine", description="shape after the warm-up; wsd: constant, then linear decay over decay_share"
    )
    warmup_iters: Count | Between | Auto = Field(
        "auto",
        description="steps of linear warm-up, or below 1 their share of all; auto: 2 % of all, at least 10 and at most "
        "2,000",
    )
    decay_share: Share = Field(0.2, description="share of all steps in which wsd decays")
    weight_decay: float = Field(0.1, ge=0.0, description="on matrices and embeddings; never on biases and norms")
    beta1: BelowOne = Field(0.9, description="AdamW's decay of the gradient's mean")
    beta2: BelowOne = Field(0.95, description="AdamW's decay of the gradient's square")
    momentum: BelowOne = Field(0.95, description="Muon's and SGD's decay of the gradient's mean")
    grad_clip: float = Field(1.0, ge=0.0, description="largest norm of the gradient; 0: never clipped")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device computes it, else fp16 on a GPU, else fp32"
    )
    compile: bool | Auto = Field("auto", description="torch.compile; auto decides from the length of the run")
    loss_chunk: PositiveInt | Auto = Field(
        "auto", description="rows (tokens) whose logits exist at one time; auto picks by the device"
    )
    activation_checkpointing: Literal["none", "selective", "whole"] | Auto = Field(
        "auto",
        description="what the backward pass computes again: nothing; selective: the MLPs, half of the memory for a "
        "third of the work; whole: the blocks; auto: the fastest that fits",
    )
    weights: Literal["fp32", "bf16"] = Field(
        "fp32", description="what weights and gradients are kept in; bf16: half the memory, rounded stochastically"
    )
    optimizer_offload: bool = Field(False, description="the optimizer's state lies in the CPU's memory")
    expandable_segments: bool | Auto = Field(
        "auto", description="CUDA's allocator grows its blocks, so that fewer holes are left; auto: on Linux"
    )
    trace_memory: bool = Field(
        True, description="on a GPU the step is traced before the start, and plan.json has its exact memory"
    )
    eval_interval: PositiveInt | Between | Auto = Field(
        "auto", description="steps between evaluations, or below 1 a share of all; auto: a tenth of all"
    )
    eval_tokens: PositiveInt | Literal["all"] = Field(65_536, description="size of the fixed validation set, tokens")
    eval_batch_size: PositiveInt | Auto = Field(
        "auto", description="sequences at once in evaluation; auto: what fits without a backward pass"
    )
    eval_only: bool = Field(False, description="evaluate once and stop; nothing is trained")
    patience: PositiveInt | None = Field(
        None, description="early stopping: evaluations without a better validation loss; null: never"
    )
    checkpoint_interval: PositiveInt | Between | Auto = Field(
        "auto", description="steps between checkpoints, or below 1 a share of all; auto: with every evaluation"
    )
    keep_last: PositiveInt = Field(2, description="checkpoints kept; the best one is kept besides")
    init_from: str | None = Field(
        None, description="weights to start from: a run, a checkpoint, an exported directory or a nanoGPT ckpt.pt"
    )
    lora: Lora = Field(default_factory=Lora, description="low-rank adapters in place of all weights")
    zero: Zero = Field(default_factory=Zero, description="DeepSpeed's engine in place of ganeum's own step")


class Sample(Section):
    """Text generated while training, and the defaults of `ganeum sample` and `ganeum generate`."""

    interval: Count | Auto = Field("auto", description="steps between samples; auto: with every evaluation; 0: never")
    prompt: str = Field("", description="what the text starts with; empty: the end-of-text token")
    num_samples: PositiveInt = Field(1, description="texts")
    max_new_tokens: PositiveInt = Field(128, description="length of each, tokens")
    at_once: PositiveInt | Auto = Field("auto", description="sequences at once in `ganeum generate`; auto: what fits")
    num_beams: PositiveInt = Field(1, description="hypotheses of a sequence, the likeliest of which is kept")
    temperature: float = Field(0.8, ge=0.0, description="0: always the likeliest token")
    top_k: PositiveInt | None = Field(200, description="only among the k likeliest; null: all")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="only among the likeliest that hold this probability together; null: all"
    )


class Wandb(Section):
    """Weights & Biases; the key comes from WANDB_API_KEY in the environment or `.env`."""

    project: str | None = Field(None, description="the project; null: W&B is not used")
    entity: str | None = Field(None, description="the team or user")
    mode: Literal["online", "offline"] = Field("online", description="offline: written to disk, `wandb sync` sends it")


class Mlflow(Section):
    """MLflow; its server's password comes from the environment, as MLflow reads it."""

    experiment: str | None = Field(None, description="the experiment; null: MLflow is not used")
    tracking_uri: str | None = Field(None, description="the server or directory; null: as MLFLOW_TRACKING_URI says")


class Trackio(Section):
    """trackio, a local tracker with Hugging Face's names."""

    project: str | None = Field(None, description="the project; null: trackio is not used")


class Log(Section):
    """What is written down while training."""

    interval: PositiveInt | Between | Auto = Field(
        "auto", description="steps between logged steps, or below 1 a share of all; auto: 10, fewer in short runs"
    )
    system_interval_s: NotNegative = Field(
        1.0, description="seconds between two looks at the GPU for logs/system.jsonl; 0: never"
    )
    tensorboard: bool = Field(True, description="TensorBoard's files under logs/")
    wandb: Wandb = Field(default_factory=Wandb, description="Weights & Biases")
    mlflow: Mlflow = Field(default_factory=Mlflow, description="MLflow")
    trackio: Trackio = Field(default_factory=Trackio, description="trackio")


class Config(Section):
    """One run."""

    name: str | None = Field(None, description="the run's directory under results/; null: the file's stem")
    seed: int = Field(1337, ge=0, le=2**32 - 1, description="of weights, order of the data, dropout and samples")
    device: str = Field("auto", description="auto: a GPU where there is one, else the CPU; cpu, cuda, cuda:1, mps")
    model: Model = Field(default_factory=Model, description="the network")
    data: Data = Field(default_factory=Data, description="the tokens")
    train: Train = Field(default_factory=Train, description="the training")
    sample: Sample = Field(default_factory=Sample, description="text generated while training")
    log: Log = Field(default_factory=Log, description="what is written down")
