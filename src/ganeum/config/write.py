"""A config as YAML that reads back as the same config."""

from __future__ import annotations

import yaml

from ganeum.config.schema import Config


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer; text with a character that is not printed stands in double quotes, where it is escaped.

    Elsewhere YAML takes some of them (U+0085, U+2028) for the end of a line, and a reader folds them into spaces.
    """


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def written(value: object) -> str:
    """One value as it stands behind `key: `; any reader of YAML takes a number so written for a number."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def to_yaml(config: Config) -> str:
    """Every key with its value, in the schema's order; `load_stored` reads it back equal."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
