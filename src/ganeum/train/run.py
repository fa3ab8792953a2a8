"""A run from its config to its summary: autos resolved, the directory made, the loop, and how it ended."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch

from ganeum import hardware, record
from ganeum.config import Config
from ganeum.config.change import change
from ganeum.config.keys import value_of
from ganeum.errors import GaneumError, RunError
from ganeum.hardware import limits
from ganeum.models import adapters
from ganeum.models.kernels import mode_kept
from ganeum.models.network import Network
from ganeum.models.theirs import SHAPE
from ganeum.models.weights import load_file_state, load_initial, to_file_state
from ganeum.plan.page.render import show
from ganeum.plan.trace import exact
from ganeum.record import MetricsLog, RunDirectory, Status, deaths
from ganeum.record.directory import free_name
from ganeum.record.status import State
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train import checkpoint, deepspeed, summary, trouble
from ganeum.train.callbacks import Callback, Callbacks
from ganeum.train.checkpoint import Checkpoint
from ganeum.train.console import Console
from ganeum.train.described import NEW_SHAPE, NEW_TOKENIZER, describe, keep_shape, predict, stored_plan, was_to_choose
from ganeum.train.interrupt import Interrupted, stopped_by, terminable
from ganeum.train.loop import Loop
from ganeum.train.material import Material, material_of
from ganeum.train.meter import Meter
from ganeum.train.progress import Progress
from ganeum.train.resolve import Resolved, lengthened, resolve
from ganeum.train.settled import Settled
from ganeum.train.start import check_source, start
from ganeum.train.trackers import check_trackers, trackers
from ganeum.train.watch import gpu_watch
from ganeum.train.within_memory import CHECKPOINTING, WithinMemory


@terminable()
def train(
    config: Config,
    *,
    overwrite: bool = False,
    force: bool = False,
    stream: TextIO | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains, goes on with, extends, or evaluates (`eval_only`) the run that `config` describes → its summary.

    Args:
        config: as loaded, with a name; every `auto` in it is decided here, once.
        overwrite: throw an existing run of that name away first.
        force: start it although the plan says that it cannot fit into memory; plan.json then says so.
        stream: where the reader looks; default standard output.
        callbacks: a user's own; they hear of a training, not of `eval_only` and not of a run that is finished.

    Raises:
        GaneumError: anything the user can act on; nothing half-written is left.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
    """
    stream = stream or sys.stdout
    if notice := hardware.check_torch(config.device):
        print(notice, file=stream)
    limits.check_threads(torch.get_num_threads())
    stored = None if overwrite else record.existing(_name(config))
    device = hardware.detect(config.device)
    deepspeed.check(stored or config, device)
    material = material_of(config, stored, lambda text: print(text, file=stream))
    held_bytes = psutil.Process().memory_info().rss
    if overwrite and config.train.init_from is not None:
        _not_within(config.train.init_from, _name(config))
    if stored is not None:
        _check_same_data(stored, material)
    decided = (
        _decide(config, material, device, stream, force) if stored is None else lengthened(stored, config, material)
    )
    files = {}
    if stored is None and decided.config.train.eval_only:  # then there is no run, and none begins
        return _evaluate(
            RunDirectory(record.results_dir() / _name(config)), None, decided.config, material, device, stream
        )
    if stored is None:  # what was chosen is on the disk before there is a run
        device = hardware.with_measured_peak(device, decided.config.train.precision)
        files["plan.json"] = predict(decided, material, device, held_bytes)
    run, resolved, outcome = record.create(
        config, decided.config, overwrite=overwrite, files=files, before_longer=_check_extendable
    )
    if outcome == "finished":
        ended = summary.stored(run)
        print(summary.already(run, ended), file=stream)
        return ended
    for key in record.CHANGEABLE:
        if stored is not None and (now := value_of(resolved, key)) != (before := value_of(stored, key)):
            print(f"{key} is {now} from here on, and was {before}", file=stream)
    try:
        return _held(run, replace(decided, config=resolved), material, device, stream, callbacks)
    finally:
        run.release()


def _decide(config: Config, material: Material, device: hardware.Device, stream: TextIO, force: bool) -> Resolved:
    """A new run's config; whatever cannot work is refused here, before there is a directory."""
    if config.train.eval_only and config.train.init_from is None:
        raise RunError(
            f"there is nothing to evaluate: {config.name} is no run yet, and nothing says where to start from",
            suggestion="train.init_from=…, or the config of a run that exists",
        )
    check_trackers(config)
    material.batches(config)
    if config.train.hours is not None:
        print("train.hours: measuring this machine's pace for a few seconds", file=stream, flush=True)
    check_source(config)
    decided = resolve(config, material, device, force=force)
    if config.train.init_from is not None:
        load_initial(config.train.init_from, decided.config.model)
    return decided


def _check_same_data(stored: Config, material: Material) -> None:
    """A run goes on with the tokens that it began with; one that noted none is only asked for its vocabulary."""
    examples = stored.data.train if isinstance(stored.data.train, str) else ", ".join(stored.data.train or ())
    where = stored.data.directory if stored.model.source is None else examples
    run, vocab_size = RunDirectory(record.results_dir() / _name(stored)), stored.model.vocab_size
    noted = ((stored_plan(run) or {}).get("data") or {}).get("identity")
    if noted not in (None, material.identity):
        why = f"the run began with other tokens than {where} holds now"
    elif isinstance(vocab_size, int) and vocab_size < material.vocab_size:
        why = f"its model knows {vocab_size:,} tokens, and the data has {material.vocab_size:,} now"
    else:
        return
    raise RunError(
        f"the data of {run.name} was replaced since it began",
        where=where,
        why=why,
        suggestion=f"put the data back as it was, or name={free_name(run.path)} for a new run",
    )


def _not_within(init_from: str, name: str) -> None:
    """Refuses to throw away the weights that the new run is to start from."""
    target = (record.results_dir() / name).resolve()
    for source in (Path(init_from).resolve(), (record.results_dir() / init_from).resolve()):
        if source == target or target in source.parents:
            raise RunError(
                f"--overwrite would throw away {name}, and train.init_from={init_from} is to be read from it",
                where=str(target),
                suggestion="another name for the new run: name=…",
            )


def _name(config: Config) -> str:
    assert config.name is not None, "load() gives every config a name"
    return config.name


def _held(
    run: RunDirectory,
    decided: Resolved,
    material: Material,
    device: hardware.Device,
    stream: TextIO,
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    """With the run held by this process alone: whatever ends it, status.json says so."""
    config = decided.config
    evaluating = config.train.eval_only  # then how its training stands stays as it is
    try:
        if evaluating:
            saved = checkpoint.load_latest(run, lambda text: print(text, file=stream))
            return _evaluate(run, saved, config, material, device, stream)
        return _train(run, decided, material, device, stream, callbacks)
    except BaseException as error:
        if stopped_by(error) is not None:
            if not evaluating:
                _note(run, "interrupted", _newest(run), None)
            raise
        shown = trouble.explained(error, run, config, device)
        text = str(shown) if isinstance(shown, GaneumError) else f"{type(shown).__name__}: {shown}"
        if not evaluating:
            _note(run, "failed", _newest(run), text)
        if shown is error:
            raise
        raise shown from error


def _check_extendable(run: RunDirectory) -> None:
    """Before anything is changed: there is a checkpoint to extend the run from, if there ever was one."""
    status = run.status()
    if checkpoint.load_latest(run, lambda _: None) is None and status and status.state == "finished" and status.step:
        raise RunError(
            f"the run {run.name} cannot be extended: it ended at step {status.step:,}, and its checkpoints are gone",
            where=str(run.checkpoints_dir),
            why="it would be trained again from step 0",
            suggestion=f"name={free_name(run.path)} for a new run, or --overwrite to replace this one",
        )


def _newest(run: RunDirectory) -> int:
    return max(checkpoint.steps(run), default=0)


def _note(run: RunDirectory, state: State, step: int, error: str | None) -> None:
    with suppress(OSError):  # a full disk: then a process that is gone says enough
        Status.of_this_process(state, step, error).write(run.status_path)


def _tidy(run: RunDirectory) -> None:
    """Removes what a process that died was writing; each directory that a run writes to exists afterwards."""
    checkpoint.tidy(run)
    for torn in (NEW_TOKENIZER, NEW_SHAPE):
        shutil.rmtree(run.path / torn, ignore_errors=True)
    for directory in (run.path, run.logs_dir, run.samples_dir, run.checkpoints_dir):
        directory.mkdir(exist_ok=True)
        for file in directory.glob(".*.tmp"):
            file.unlink(missing_ok=True)


@mode_kept()
def _train(
    run: RunDirectory,
    decided: Resolved,
    material: Material,
    device: hardware.Device,
    stream: TextIO,
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    _tidy(run)
    config = decided.config
    if device.peak(config.train.precision) is None:
        device = hardware.with_measured_peak(device, config.train.precision)
    with ExitStack() as stack:
        console = stack.enter_context(Console(run.console_path, Settled.of(config).max_iters, stream))
        saved = checkpoint.load_latest(run, console.say)
        progress = Progress.of(saved.state["progress"]) if saved else Progress()
        progress.go_to(Settled.of(config).max_iters)
        checkpoint.set_aside(run, progress.step, console.say)
        checkpoint.point(run, progress.best_step)
        if died := deaths.explained(run.status()):
            console.say(f"The last time, {run.name} ended without a word: {died}")
        Status.of_this_process("running", progress.step).write(run.status_path)
        predicted = describe(run, decided, material, device)
        if saved is None:
            console.show(show(predicted))
            console.say(f"{run.name} → {run.path}\n")
        else:
            console.say(summary.going_on(run, config, predicted, progress))
        validation = material.validation(config)
        if validation is None:
            console.say("There is no val.bin: nothing is evaluated, and no checkpoint is the best one.")

        step = _start(run, config, saved)
        keep_shape(run, step)
        watch = gpu_watch(config.device, config.log.system_interval_s, console.say)
        told = Callbacks([*([watch] if watch else []), *trackers(config, console.say), *callbacks])
        loop = Loop(
            config=config,
            directory=run,
            model=step.model,
            step=step,
            batches=material.batches(config),
            validation=validation,
            tokenizer=material.tokenizer,
            references=material.references(config.sample.num_samples),
            metrics=stack.enter_context(MetricsLog(run.metrics_path, progress.step)),
            meter=Meter(step.device, predicted["flops"]["per_token"], device.peak(config.train.precision)),
            console=console,
            callbacks=told,
            progress=progress,
            within=WithinMemory(
                config, step, progress, run, device, console.say, may_recompute=was_to_choose(predicted, CHECKPOINTING)
            ),
        )
        if saved:
            loop.restore(saved)
            del saved
        try:
            ended_by = loop.run(predicted)
        except BaseException as stop:
            if isinstance(stop, Interrupted):
                console.say(f"{run.name} stopped at step {stop.step:,}; the same command goes on from there")
            told.abandon()
            raise
        ended = summary.of(run, config, progress, predicted, ended_by)
        told.end(ended)
        record.write_json(run.summary_path, ended)
        measured = ended["planned_and_measured"]
        exact.ended(
            predicted, *(measured[name].get("measured") for name in ("peak_allocated_gib", "peak_reserved_gib"))
        )
        Status.of_this_process("finished", progress.step).write(run.status_path)
        console.say(summary.closing(run, ended))
        return ended


def _start(run: RunDirectory, config: Config, saved: Checkpoint | None) -> OptimizerStep:
    """With the weights of the checkpoint, or of `init_from`, or those that the model has by itself.

    What a run has adopted it keeps the config of: from its first checkpoint on it needs its source no more.
    """

    def fill(network: Network) -> None:
        if saved is not None:
            load_file_state(network, saved.weights, where=str(saved.path))
        elif (init_from := config.train.init_from) is not None:
            fresh = adapters.of(to_file_state(network))
            load_file_state(network, load_initial(init_from, config.model) | fresh, where=init_from)

    if saved is None or not (kept := run.path / SHAPE).is_dir():
        return start(config, fill=fill)
    return start(change(config, {"model.source": str(kept), "model.fresh": True}), empty=True, fill=fill)


@mode_kept()
def _evaluate(
    run: RunDirectory,
    saved: Checkpoint | None,
    config: Config,
    material: Material,
    device: hardware.Device,
    stream: TextIO,
) -> dict[str, Any]:
    """`eval_only`: the latest checkpoint, or where there is none `init_from`, on the validation set. Writes nothing."""
    validation = material.validation(config)
    if validation is None:
        raise RunError("there is nothing to evaluate on: no val.bin", where=config.data.directory)
    if saved is None and config.train.init_from is None:
        raise RunError(f"{run.name} has no checkpoint to evaluate", where=str(run.checkpoints_dir))
    within = WithinMemory(
        config, _start(run, config, saved), Progress(), run, device, lambda text: print(text, file=stream)
    )
    evaluation = within.evaluate(validation)
    ended = summary.evaluated(run, config, saved.step if saved else None, validation, evaluation)
    print(summary.in_words(ended), file=stream)
    return ended
