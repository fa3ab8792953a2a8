"""nvidia-smi's output as people paste it, of any driver and any form, made into samples of a GPU."""

from __future__ import annotations

import html
import re

from ganeum.doctor.smi import columns, panel, prose, query, tags
from ganeum.doctor.smi.sample import Process, Reading, Sample, merged

__all__ = ["Process", "Reading", "Sample", "merged", "read"]

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
QUOTE = re.compile(r"^\s*(?:>\s?)+")
PAGE = re.compile(r"</?(?:pre|code|p|div|span|br|td|tr|table|b|i|li|ul)\b[^<>]*/?>", re.IGNORECASE)
# What nvidia-smi, or NVML, says instead of figures.
FAILURES = (
    "couldn't communicate with the NVIDIA driver",
    "Driver/library version mismatch",
    "Unable to determine the device handle",
    "GPU is lost",
    "No devices were found",
    "GPU has fallen off the bus",
    "Failed to initialize NVML",
)


def read(text: str) -> Reading:
    """All that the text says of GPUs.

    Taken as they come: `-q` (also `-d`), CSV with its heading and without, `-l`, XML, the table, `dmon`; several GPUs;
    pieces of any of them; remarks in between; HTML's signs, quotation marks of mail, lost indentation, decimal commas,
    line ends of Windows, `[N/A]`. A figure that cannot be read is left out and never guessed.
    """
    text = plain(text)
    failures = tuple(line.strip()[:300] for line in text.splitlines() if any(said in line for said in FAILURES))
    samples: list[Sample] = []
    if tags.has_tags(text):
        samples += tags.read(text)
        text = tags.TAG.sub("\n", text)
    drawn, rest = panel.read(text.splitlines())
    listed, rest = columns.read(rest)
    samples += query.read(rest) + drawn + listed
    return Reading(tuple(samples or prose.read(text)), failures)


def plain(text: str) -> str:
    """Without what pages, mails and terminals put around it."""
    for _ in range(2):  # escaped once by the page and once by who pasted it
        text = html.unescape(text)
    text = ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ").replace("：", ":")
    text = PAGE.sub("\n", text)
    return "\n".join(QUOTE.sub("", line) for line in text.split("\n"))
