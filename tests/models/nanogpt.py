"""nanoGPT's own model, unmodified, and the logits it gives: `python tests/models/nanogpt.py PATH_OF_A_CLONE` writes
nanogpt_logits.json beside this file, from weights that a formula gives, so that no random state is part of it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import torch

FIXTURE = Path(__file__).with_name("nanogpt_logits.json")
CASES = [
    {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 6, "vocab_size": 24, "bias": True},
    {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 6, "vocab_size": 24, "bias": False},
]
TOKENS = [[0, 23, 5, 5, 17, 1], [9, 8, 7, 6, 5, 4]]


def load(clone: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("nanogpt_model", clone / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def names_and_shapes(case: dict) -> dict[str, tuple[int, ...]]:
    """The tensors of nanoGPT's state dict, in its order."""
    C = case["n_embd"]
    linear = {"attn.c_attn": (3 * C, C), "attn.c_proj": (C, C), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
    modules = {"transformer.wte": (case["vocab_size"], C), "transformer.wpe": (case["block_size"], C)}
    for layer in range(case["n_layer"]):
        for module in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            modules[f"transformer.h.{layer}.{module}"] = linear.get(module, (C,))
    modules["transformer.ln_f"] = (C,)
    result = {}
    for module, shape in modules.items():
        result[f"{module}.weight"] = shape
        if case["bias"] and not module.endswith(("wte", "wpe")):
            result[f"{module}.bias"] = shape[:1]
    result["lm_head.weight"] = modules["transformer.wte"]
    return result


def weights(case: dict) -> dict[str, torch.Tensor]:
    """The n-th tensor's i-th element is sin(n + i²) / 2, computed in double precision; the head is the embedding."""
    state = {}
    for n, (name, shape) in enumerate(names_and_shapes(case).items()):
        i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        state[name] = (torch.sin(n + i * i) / 2).reshape(shape).float()
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def logits(module: ModuleType, case: dict) -> torch.Tensor:
    model = module.GPT(module.GPTConfig(**case, dropout=0.0)).eval()
    model.load_state_dict(weights(case))
    tokens = torch.tensor(TOKENS)
    with torch.no_grad():
        return model(tokens, targets=tokens)[0]


if __name__ == "__main__":
    module = load(Path(sys.argv[1]))
    rows = [[[f"{x:.6f}" for x in row] for row in logits(module, case).flatten(0, 1).tolist()] for case in CASES]
    FIXTURE.write_text(json.dumps(rows, separators=(",", ":")).replace('"', "").replace("],[", "],\n[") + "\n")
