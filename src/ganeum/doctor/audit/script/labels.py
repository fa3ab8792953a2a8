"""Faults that look like speed: what is masked, shifted, padded or held out wrongly."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ganeum.doctor.audit.script import TRAINERS, Seen
from ganeum.doctor.audit.settings import Said
from ganeum.doctor.audit.trainer import LARGE_RATE, PROMPTS

IGNORED = -100
WIDE, MANY_EPOCHS = 0.2, 17
ROTARY = re.compile(r"llama|mistral|mixtral|qwen|gemma|phi-?[234]|smollm|neox|pythia|gpt-?j", re.IGNORECASE)
LEARNT = re.compile(r"gpt-?2|gpt[_-]?neo\b|\bopt-|OPTFor|bert|bart|biogpt", re.IGNORECASE)


def pad_is_eos(seen: Seen) -> Iterator[Said]:
    """The end of a text is masked with the padding, since they are one token."""
    script = seen.script
    same = [
        one
        for one in script.assignments
        if one.target.endswith(("pad_token", "pad_token_id"))
        and one.written.endswith(("eos_token", "eos_token_id"))
        and "generation_config" not in one.target
    ]
    same_calls = [call for call in script.calls if "eos_token" in call.written.get("pad_token", "")]
    if not same and not same_calls:
        return
    line = same[0].line if same else same_calls[0].line
    collator = next(
        (c for c in script.called("DataCollatorForLanguageModeling") if c.get("mlm", True) is not True), None
    )
    masks = any(_masks(node) for node in ast.walk(script.tree) if isinstance(node, ast.stmt))
    ignores = next((c for c in script.calls if "pad_token_id" in c.written.get("ignore_index", "")), None)
    if collator is not None or masks or ignores is not None:
        how = (
            "DataCollatorForLanguageModeling masks every padding token"
            if collator is not None
            else (
                "labels are masked where the token is the padding's"
                if masks
                else "the loss ignores the padding's token"
            )
        )
        yield seen.found(
            "pad_is_eos",
            "the end of a text is never learnt: padding and end are one token, and it is masked",
            line,
            evidence=(how, "such a model does not stop when it generates"),
            severity="error",
            change="a token of its own for padding (tokenizer.add_special_tokens({'pad_token': '<pad>'})), or "
            "labels masked "
            "by attention_mask",
        )
    else:
        yield seen.found(
            "pad_is_eos",
            "padding and end of text are one token",
            line,
            severity="note",
            change="see that labels are masked by attention_mask, and not by the token",
        )


def _masks(node: ast.stmt) -> bool:
    """`labels[labels == tokenizer.pad_token_id] = -100`, in one statement."""
    if not isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return)):
        return False
    compared = any("pad_token_id" in ast.unparse(at) for at in ast.walk(node) if isinstance(at, ast.Compare))
    return compared and str(IGNORED) in ast.unparse(node)


def side(seen: Seen) -> Iterator[Said]:
    """Padding on the side that the use does not want."""
    script = seen.script
    # Trainers that generate while they train (PPO, GRPO, online DPO, …) want it on the left.
    others = any(call.name.endswith("Trainer") and not call.ends(*TRAINERS) for call in script.calls)
    generates = others or any(call.ends("generate") for call in script.calls)
    places = [(one.line, one.known) for one in script.assignments if one.target.endswith(".padding_side")]
    places += [(call.line, call.get("padding_side")) for call in script.called("from_pretrained")]
    for line, known in places:
        if known == "left" and script.trains and not generates:
            turned = bool(ROTARY.search(script.text)) and not LEARNT.search(script.text)
            yield seen.found(
                "padding_side",
                "padding on the left while training",
                line,
                evidence=(
                    "a model with learnt positions then sees every text at another place"
                    + ("; rotary ones, as here, stand it, with an attention mask" if turned else ""),
                ),
                severity="note" if turned else "warning",
                change='padding_side="right" for training, "left" only for generating in batches',
            )
        elif known == "right" and generates and not script.trains and "Seq2Seq" not in script.text:
            yield seen.found(
                "padding_side",
                "padding on the right while generating in batches",
                line,
                evidence=("a decoder then goes on behind the padding",),
                change='padding_side="left"',
            )


def unmasked(seen: Seen) -> Iterator[Said]:
    """Labels that are the inputs, padding and all."""
    script = seen.script
    padded = any(call.get("padding") in (True, "max_length", "longest") for call in script.calls)
    masked = str(IGNORED) in script.text or "ignore_index" in script.text
    collates = any(call.name.rpartition(".")[2].startswith("DataCollator") for call in script.calls)
    if not padded or masked or (collates and not _default(seen)):
        return
    for one in script.assignments:
        text = ast.unparse(one.node)
        if "labels" in one.target and "input_ids" in text and "[1:]" not in text:
            yield seen.found(
                "labels_on_padding",
                "padding counts in the loss",
                one.line,
                severity="error",
                evidence=("labels are the inputs themselves, and rows are filled up with padding",),
                change="labels[attention_mask == 0] = -100",
            )
            return


def padded_by_hand(seen: Seen) -> Iterator[Said]:
    """Rows that `pad_sequence` filled up, and a loss that ignores no token."""
    script = seen.script
    pads = next(script.called("pad_sequence"), None)
    losses = list(script.called("cross_entropy", "CrossEntropyLoss"))
    if pads is None or not losses or str(IGNORED) in script.text or "attention_mask" in script.text:
        return
    if not any("ignore_index" in call.keywords or "reduction" in call.keywords for call in losses):
        yield seen.found(
            "labels_on_padding",
            "padding counts in the loss",
            losses[0].line,
            severity="error",
            evidence=(f"rows are filled up in line {pads.line}, and no token is ignored",),
            change="padding_value=-100 for the labels, or ignore_index of a token for padding alone",
        )


def wide_start(seen: Seen) -> Iterator[Said]:
    """Weights that start too large."""
    for call in seen.script.called("normal_", "trunc_normal_"):
        std = call.get("std", call.values[2] if len(call.values) > 2 else None)
        about = ast.unparse(call.node.args[0]).lower() if call.node.args else ""
        table = any(sign in about for sign in ("emb", "wte", "wpe"))  # torch's own start at 1, and a norm follows
        if isinstance(std, (int, float)) and std >= WIDE and "init" in call.name and not table:
            yield seen.found(
                "first_loss",
                f"weights start with a deviation of {std:g}",
                call.line,
                evidence=("GPT-2's is 0.02: with a large one the first loss is far above ln(vocabulary)",),
                change="std=0.02",
            )


def rate(seen: Seen) -> Iterator[Said]:
    """A learning rate that the weights of a trained language model do not bear."""
    script = seen.script
    if not any("LM" in call.name and call.ends("from_pretrained") for call in script.calls):
        return
    for call in script.calls:
        given = call.get("lr", call.values[1] if len(call.values) > 1 else None)
        adam = call.name in ("torch.optim.AdamW", "torch.optim.Adam")
        if adam and isinstance(given, (int, float)) and given >= LARGE_RATE and not PROMPTS.search(script.text):
            yield seen.found(
                "learning",
                f"a learning rate of {given:g} for AdamW",
                call.line,
                evidence=("it moves every weight by about so much in every update, and most weights are below 0.1",),
                change="lr=5e-5 for all weights of a trained model, 2e-4 for LoRA",
            )


def repeats(seen: Seen) -> Iterator[Said]:
    """The same text many times."""
    for node in ast.walk(seen.script.tree):
        if (
            isinstance(node, ast.For)
            and "epoch" in ast.unparse(node.target).lower()
            and isinstance(node.iter, ast.Call)
        ):
            last = seen.script.value(node.iter.args[-1]) if node.iter.args else None
            if isinstance(last, int) and last >= MANY_EPOCHS and seen.script.dotted(node.iter.func) == "range":
                yield seen.found(
                    "repeated_text",
                    f"the same text {last} times",
                    node.lineno,
                    severity="note",
                    evidence=("4 times are as good as new text, after 16 little is gained",),
                    change="more text, dropout, or an end when the held-out loss no longer falls",
                )


def _default(seen: Seen) -> bool:
    return any(call.ends("DefaultDataCollator", "default_data_collator") for call in seen.script.calls)


def shifted(seen: Seen) -> Iterator[Said]:
    """Labels that are shifted for a model that shifts them itself, or not at all for a loss that does not."""
    script = seen.script
    theirs = any(call.ends("from_pretrained", "from_config") and "CausalLM" in call.name for call in script.calls)
    theirs = theirs or "LMHeadModel" in script.text
    cut = {one.target: one for one in script.assignments if "1:]" in ast.unparse(one.node)}
    for call in script.calls:
        labels = call.written.get("labels", "")
        if theirs and labels and ("1:]" in labels or labels in cut) and "model" in call.name:
            yield seen.found(
                "shifted_labels",
                "labels are shifted twice: here, and by the model itself",
                call.line,
                severity="error",
                evidence=("models of transformers shift the labels inside",),
                change="labels=input_ids, masked on padding",
            )
    for call in script.called("cross_entropy"):
        if len(call.node.args) < 2:
            continue
        logits, target = (ast.unparse(argument) for argument in call.node.args[:2])
        models = [call.node for call in script.calls if call.name in ("model", "self.model") and call.node.args]
        inputs = {ast.unparse(node.args[0]) for node in models}  # behind it there may be targets
        bare = target.split(".")[0].split("[")[0]
        if bare in inputs and "1:" not in target and "1:" not in logits and ":-1" not in logits:
            yield seen.found(
                "shifted_labels",
                "the model is asked for the token that it is given",
                call.line,
                severity="error",
                evidence=(f"{bare} is what goes into the model, and what comes out is compared with it unshifted",),
                change="logits[:, :-1] against tokens[:, 1:]",
            )


def held_out(seen: Seen) -> Iterator[Said]:
    """Nothing that was never trained on."""
    script = seen.script
    trainers = [call for call in script.calls if call.ends(*TRAINERS)]
    for call in trainers:
        if "eval_dataset" not in call.keywords and not call.spread:
            yield seen.found(
                "no_validation",
                "no rows are held out",
                call.line,
                severity="note",
                change="eval_dataset=…, and eval_strategy",
            )
    said = script.text.lower()
    if script.loop is not None and not any(word in said for word in ("val", "eval", "test", "held")):
        yield seen.found(
            "no_validation",
            "no text is held out: learning by heart looks like learning",
            script.loop.lineno,
            severity="note",
            change="keep a tenth of the text apart and look at its loss every epoch",
        )


# Of these a row, a token or a point has a few logits, and no vocabulary of them.
FEW_LOGITS = re.compile(r"For\w*(Classification|MultipleChoice|QuestionAnswering|Segmentation|Detection)")


def kept_logits(seen: Seen) -> Iterator[Said]:
    """An evaluation that keeps all logits."""
    script = seen.script
    generates = any(call.get("predict_with_generate") is True for call in script.calls)  # ids, and no logits
    if FEW_LOGITS.search(script.text) and "LM" not in " ".join(call.name for call in script.calls):
        return
    for call in script.calls:
        metrics = call.written.get("compute_metrics", "None")
        keeps = metrics != "None" and "predict_with_generate" not in metrics
        if call.ends(*TRAINERS) and keeps and "preprocess_logits_for_metrics" not in call.keywords and not generates:
            yield seen.found(
                "kept_logits",
                "an evaluation keeps the logits of all its rows",
                call.line,
                evidence=(
                    "rows × tokens × vocabulary × 4 bytes: 1,000 rows of 512 tokens and 50,257 words are 96 GiB",
                ),
                change="preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1)",
            )


LOOKS = (pad_is_eos, side, unmasked, padded_by_hand, shifted, wide_start, rate, repeats, held_out, kept_logits)
