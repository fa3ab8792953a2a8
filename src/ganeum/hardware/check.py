"""Whether this torch, this driver and this GPU go together, said before a kernel fails.

The rules, for torch 2.11 to 2.14 (docs/install.md has them as a table):

- A build of torch holds machine code for some compute capabilities only. Code for 8.0 runs on 8.0, 8.6 and 8.9, but on
  no other major number (CUDA C++ Programming Guide, binary compatibility); PTX of 9.0 also runs on all later ones.
- CUDA 13 builds, which PyPI has, hold 7.5 to 12.0; CUDA 12.6 builds, on pytorch.org, hold 5.0 to 9.0
  (pytorch/pytorch RELEASE.md, CUDA support matrix).
- A CUDA 13 build needs a driver of the 580 series, a CUDA 12 build one of the 525 series
  (NVIDIA, CUDA Compatibility, minor version compatibility).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ganeum.errors import DeviceError
from ganeum.hardware import nvml
from ganeum.hardware.machine import parse

TORCH = "2.13.0"  # the version that constraints.txt pins
LAST_CUDA_12_8 = "2.11.0"  # the last torch with CUDA 12.8 builds, which run on Blackwell under drivers before 580
INDEX = "https://download.pytorch.org/whl"
LOWEST_DRIVER = {11: 450, 12: 525, 13: 580}  # CUDA's major number → the driver's
LOWEST_DRIVER_BLACKWELL = 570
DOCUMENT = "docs/install.md has the table of GPUs, drivers and builds"


@dataclass(frozen=True)
class Installed:
    """What is installed, in plain values.

    Attributes:
        torch: torch's version, ``2.13.0+cu130``.
        cuda: the CUDA that torch was built with, ``13.0``; None for a build without.
        architectures: what it holds machine code for, ``("sm_75", "compute_120")``.
        driver: NVIDIA's driver, ``576.88``; None where there is none.
        gpus: (name, compute capability) of each visible GPU.
    """

    torch: str
    cuda: str | None
    architectures: tuple[str, ...]
    driver: str | None
    gpus: tuple[tuple[str, tuple[int, int]], ...]


def pip_line(capability: tuple[int, int], driver: str) -> str:
    """The command that installs a torch for a GPU of this capability under this driver, or what must come first."""
    major = _major(driver)
    if capability < (5, 0):
        return "none: no torch that ganeum runs on has code for this GPU; device: cpu works"
    if major < LOWEST_DRIVER[12]:
        return f"a newer driver first ({LOWEST_DRIVER[13]} or later, {LOWEST_DRIVER[12]} at least)"
    if capability < (7, 5):
        return f"pip install torch=={TORCH} --index-url {INDEX}/cu126"
    if major >= LOWEST_DRIVER[13]:
        return f"pip install torch=={TORCH} --index-url {INDEX}/cu130"
    if capability < (10, 0):
        return f"pip install torch=={TORCH} --index-url {INDEX}/cu126"
    if major >= LOWEST_DRIVER_BLACKWELL:
        return f"pip install torch=={LAST_CUDA_12_8} --index-url {INDEX}/cu128 (or a driver of 580 or later)"
    return f"a driver of {LOWEST_DRIVER[13]} or later first"


def has_code(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether a build with these architectures runs on a GPU of this capability."""
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if match is None:
            continue
        kind, built, special = match[1], (int(match[2]), int(match[3])), match[4]
        if special:  # sm_90a: for that very GPU
            runs = built == capability
        else:
            runs = built <= capability and (kind == "compute" or built[0] == capability[0])
        if runs:
            return True
    return False


def mismatch(installed: Installed, device: str = "auto") -> DeviceError | str | None:
    """What is wrong with what is installed, for a run with ``device:``.

    Returns:
        None when all goes together; an error when the device that the run would take cannot work; a sentence to show
        when the run works, but on the CPU beside a GPU that it could have.
    """
    kind, index = parse(device)
    if kind in ("cpu", "mps") or not installed.gpus or installed.driver is None:
        return None
    name, capability = installed.gpus[index if index < len(installed.gpus) else 0]
    gpu, line = f"{name} (compute capability {capability[0]}.{capability[1]})", pip_line(capability, installed.driver)
    if installed.cuda is None:
        what = f"torch {installed.torch} was built without CUDA and cannot use the {name} in this machine"
        if kind == "cuda":
            return DeviceError(what, where=f"device: {device}", why=DOCUMENT, suggestion=line)
        return f"{what}; training on the CPU. To use it: {line}"
    lowest = LOWEST_DRIVER.get(_major(installed.cuda), 0)
    if _major(installed.driver) < lowest:
        return DeviceError(
            f"torch {installed.torch} needs an NVIDIA driver of {lowest} or later, and this one is {installed.driver}",
            where=gpu,
            why=f"it was built with CUDA {installed.cuda}; {DOCUMENT}",
            suggestion=line,
        )
    if not has_code(installed.architectures, capability):
        return DeviceError(
            f"torch {installed.torch} has no code for {gpu}",
            where=f"device: {device}",
            why=f"it was built for {' '.join(installed.architectures)}; {DOCUMENT}",
            suggestion=line,
        )
    return None


def installed() -> Installed:
    """What is installed here: torch's own word and the driver's."""
    import torch

    found = nvml.read()
    return Installed(
        torch=torch.__version__,
        cuda=torch.version.cuda,
        # torch gives its list only where it sees a GPU; the flags of the build are there always.
        architectures=tuple((torch._C._cuda_getArchFlags() or "").split()) if torch.version.cuda else (),
        driver=found.driver if found else None,
        gpus=tuple((gpu.name, gpu.capability) for gpu in nvml.visible(found.gpus)) if found else (),
    )


def check_torch(device: str = "auto") -> str | None:
    """Look at torch, driver and GPU before training starts.

    Returns:
        None, or a sentence to show: the run works, but on the CPU beside a GPU that another torch could use.

    Raises:
        DeviceError: the device that the run would take cannot work with this torch; the suggestion is the pip line.
    """
    found = mismatch(installed(), device)
    if isinstance(found, DeviceError):
        raise found
    return found


def _major(version: str) -> int:
    return int(version.partition(".")[0])
