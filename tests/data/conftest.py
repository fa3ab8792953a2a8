"""What ganeum learns of this machine goes to a directory of the test, not to the user's; no test is timed."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("data", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("data")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANEUM_CACHE", str(directory))
    return directory
