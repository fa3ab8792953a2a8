"""Kedro's settings: where parameters are merged, conf/local goes into conf/base key by key."""

CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local", "merge_strategy": {"parameters": "soft"}}
