"""Whether Hugging Face's hub answers, found out once and quickly: its library alone tries for up to a minute."""

from __future__ import annotations

from functools import cache
from pathlib import Path

TIMEOUT_S = 5.0


def looking_for(name: str | Path) -> dict[str, bool]:
    """Keyword arguments of ``from_pretrained``: where the hub is silent, what was fetched before serves."""
    return {"local_files_only": not Path(name).exists() and silent()}


def why_not(name: str | Path, error: BaseException) -> str:
    """Why ``name`` could not be had, in a line: transformers' own words, without its advice on the network."""
    from huggingface_hub import constants

    text = " ".join(str(error).split())
    if not Path(name).exists():
        if silent():
            how = "is not asked (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "does not answer"
            return f"{constants.ENDPOINT} {how}, and nothing of that name was fetched before"
        if "not a valid model identifier" in text:
            return f"{constants.ENDPOINT} has nothing of that name, or shows it only to who logs in (hf auth login)"
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:300] + '…'}"


def has(name: str) -> bool:
    """Whether the hub has a model of that name, or had it when it was fetched before."""
    try:
        from huggingface_hub import hf_hub_download

        hf_hub_download(name, "config.json", local_files_only=looking_for(name)["local_files_only"])
    except Exception:  # the library's own errors, the network's; or there is no library
        return False
    return True


def silent() -> bool:
    """Whether it is not to be asked, or does not answer."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or not _answers(constants.ENDPOINT)


@cache
def _answers(endpoint: str) -> bool:
    """Through the library's own session, so with its proxies and certificates; whatever is answered is an answer."""
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=TIMEOUT_S)
    except Exception:  # of whichever HTTP library it uses
        return False
    return True
