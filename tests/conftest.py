"""Signals as a terminal would have them, however the tests were started; and a driver with two GPUs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("hardware") / "nvml_stub.c"


def pytest_configure() -> None:
    """Under `nohup` hangups are ignored, and in the background Ctrl-C: by every process that a test starts, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the stub in it, for LD_LIBRARY_PATH."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("the stub of NVML needs gcc, and Linux")
    directory = tmp_path_factory.mktemp("driver")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", directory / "libnvidia-ml.so.1", STUB], check=True)
    return directory
