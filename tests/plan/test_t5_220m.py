"""examples/t5_220m: a guide's file whose section is taken as it is, and a model as large as its name."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from ganeum.config import load
from ganeum.config.arguments import split_arguments
from ganeum.plan import architecture, parameters

ROOT = Path(__file__).parents[2]


def test_the_section_means_what_it_says(monkeypatch):
    """Batches of 4 twice, 4 in an evaluation, 8 in generation, 10 steps; as many parameters as transformers has."""
    monkeypatch.chdir(ROOT)
    words = ["--max_steps", "10", "--save_steps", "1000"]
    config = load("examples/t5_220m/config.yaml", split_arguments(words)[1], section="eenzeenee")
    train = config.train
    assert (8, 4, 4, 8) == (train.batch_size, train.micro_batch_size, train.eval_batch_size, config.sample.at_once)
    assert (10, 1000) == (train.max_iters, train.checkpoint_interval)
    with torch.device("meta"):
        theirs = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(config.model.source))
    assert 222_903_552 == theirs.num_parameters() == parameters.of(architecture.of(config)).total
