"""The pipelines: ``split`` makes tokens of the pairs and holds some out, ``train`` learns from them.

Neither hands the other anything but files: ``split`` fills ganeum's cache, whose key is everything that shapes tokens,
and ``train`` finds them there, or makes them anew where a parameter, a file or the tokenizer has changed. There is no
directory to delete by hand. ``train`` goes on with a run that was interrupted.
"""

from typing import Any

from kedro.pipeline import Pipeline, node

import ganeum


def split(parameters: dict[str, Any]) -> dict[str, Any]:
    """How many pairs there are to learn from and held out, how long they are, and how many were cut."""
    return ganeum.split(parameters)


def train(parameters: dict[str, Any]) -> dict[str, Any]:
    """The run's summary, with planned beside measured."""
    return ganeum.train(parameters).summary


def register_pipelines() -> dict[str, Pipeline]:
    """What ``kedro run --pipeline=NAME`` runs, and without a name both, one after the other."""
    pairs = Pipeline([node(split, "params:training", "pairs", name="split")])
    learn = Pipeline([node(train, "params:training", "summary", name="train")])
    return {"split": pairs, "train": learn, "__default__": pairs + learn}
