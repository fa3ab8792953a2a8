"""A config as YAML that reads back as the same config."""

from __future__ import annotations

import yaml

from ganeum.config.schema import Config


def to_yaml(config: Config) -> str:
    """Every key with its value, in the schema's order; `load_stored` reads it back equal."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=10_000)
