"""What `nvidia-smi -q -x` prints, whole or in pieces: tags are read one by one, so that nothing has to be closed."""

from __future__ import annotations

import re

from ganeum.doctor.smi.gather import Gatherer
from ganeum.doctor.smi.labels import REASON_OF, XML
from ganeum.doctor.smi.sample import Process, Sample
from ganeum.doctor.smi.values import value

TAG = re.compile(r"<(/?)([a-z][a-z0-9_]*)([^<>]*)>([^<]*)")
REASON = re.compile(r"clocks_(?:throttle|event)_reasons?_(counters_)?(.+)")


def has_tags(text: str) -> bool:
    """Whether there is anything of such a page in it."""
    return any(f"<{tag}>" in text for _, tag in XML) or "<nvidia_smi_log>" in text


def read(text: str) -> list[Sample]:
    """The samples in order."""
    found = Gatherer()
    around: list[str] = []
    process: dict[str, str] = {}
    open_: tuple[str, str] | None = None
    for closing, tag, attributes, inside in TAG.findall(text):
        if closing:
            if open_ is not None and open_[0] == tag:
                _leaf(found, around, process, *open_)
            elif tag in around:
                del around[len(around) - 1 - around[::-1].index(tag) :]
            open_ = None
            continue
        if open_ is not None:
            around.append(open_[0])
        open_ = tag, inside.strip()
        if tag == "nvidia_smi_log" or tag == "timestamp":
            found.snapshot()
            around.clear()
        if tag == "gpu" and (address := re.search(r'id="([^"]+)"', attributes)):
            found.gpu(address[1])
            around.clear()
    return found.samples()


def _leaf(found: Gatherer, around: list[str], process: dict[str, str], tag: str, inside: str) -> None:
    if match := REASON.fullmatch(tag):
        if match[2] in REASON_OF:
            kind = "counter" if match[1] else "reason"
            found.put(f"{kind}:{REASON_OF[match[2]]}", value("s" if match[1] else "active", inside))
        return
    parent = around[-1] if around else ""
    if known := XML.get((parent, tag)) or XML.get(("", tag)):
        found.put(known[0], value(known[1], inside))
    elif tag in ("pid", "type", "process_name", "used_memory"):
        process[tag] = inside
        if tag == "used_memory" and process.get("pid", "").isdigit():
            found.process(
                Process(
                    pid=int(process["pid"]),
                    kind=process.get("type", ""),
                    name=process.get("process_name", ""),
                    memory_mib=value("MiB", inside),
                )
            )
            process.clear()
