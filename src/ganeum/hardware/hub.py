"""Whether Hugging Face's hub answers, found out once and quickly: its library alone tries for up to a minute."""

from __future__ import annotations

from functools import cache
from pathlib import Path

TIMEOUT_S = 5.0


def looking_for(name: str | Path) -> dict[str, bool]:
    """Keyword arguments of ``from_pretrained``: where the hub is silent, what was fetched before serves."""
    return {"local_files_only": not Path(name).exists() and _silent()}


def why_not(name: str | Path, error: BaseException) -> str:
    """Why ``name`` could not be had, in a line: transformers' own words, without its advice on the network."""
    from huggingface_hub import constants

    text = " ".join(str(error).split())
    if not Path(name).exists():
        if _silent():
            how = "is not asked (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "does not answer"
            return f"{constants.ENDPOINT} {how}, and nothing of that name was fetched before"
        if "not a valid model identifier" in text:
            return f"{constants.ENDPOINT} has nothing of that name, or shows it only to who logs in (hf auth login)"
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:300] + '…'}"


def _silent() -> bool:
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
