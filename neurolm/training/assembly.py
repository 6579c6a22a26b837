"""Builds what a run needs from its config: stage, windows, order, validation and the model folder at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurolm.config import UserError, build, override
from neurolm.eeg.order import GlobalOrder
from neurolm.eeg.reading import ReadingPlan, WindowSource, windows_of
from neurolm.eeg.shards import Store
from neurolm.eeg.token_store import TokenStore
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.sequences import collate, no_windows
from neurolm.text.asked import labels_left_out
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.code import TextCode
from neurolm.text.corpus import TextCorpus
from neurolm.text.instructions import EncodedTask, encode_task
from neurolm.text.own_code import own_code
from neurolm.training.batches import Batcher
from neurolm.training.checkpoint import ModelFolder, load_model, load_weights
from neurolm.training.context import RunContext
from neurolm.training.encoding import refuse_other_tokens
from neurolm.training.instruct import InstructStage
from neurolm.training.language import LanguageCheck
from neurolm.training.loop import Schedule, Validate
from neurolm.training.model_export import TEXT_CODE, ModelDescription, describe
from neurolm.training.pretrain import PretrainStage
from neurolm.training.runs import InstructRun, PretrainRun, TokenizerRun
from neurolm.training.stage import Stage
from neurolm.training.tasks import refuse_unanswerable, warn_of_shared_words
from neurolm.training.tokenizer import TokenizerStage
from neurolm.training.training_run import TrainingRun, UnlabelledRun
from neurolm.training.validation import data_sets_of, validate_answers, validate_losses, validate_tokenizer
from neurolm.training.validation_sample import validation_sample


@dataclass(frozen=True)
class Assembly:
    """A run, ready to train."""

    stage: Stage
    store: Store
    windows: WindowSource
    """What windows are read from: the store, or its EEG tokens."""
    order: GlobalOrder
    readings: dict[str, str]
    """By data set how often the run reads its windows, in words; empty where each comes once an epoch."""
    batcher: Batcher
    schedule: Schedule
    validate: Validate
    language: LanguageCheck
    """How well the language model knows its language now; part of every validation of stages 2 and 3."""
    describe: Callable[[Mapping[str, float], Mapping[str, Any]], ModelDescription]
    """The model that is trained, with the validation metrics of its weights and what else to say of the training."""


def assemble(run: TrainingRun, context: RunContext) -> Assembly:
    """Build a run for this worker. Raises UserError where data, tasks or models are missing or do not fit."""
    torch.manual_seed(run.seed)
    store = Store.open(run.training_store)
    plan = reading_plan(run)
    windows, order = plan.source(store), plan.order(store)
    with context.building():
        stage, tasks, code = _build_stage(run)
        if isinstance(windows, TokenStore):
            assert isinstance(stage, PretrainStage | InstructStage) and run.data.tokens != "none"
            refuse_other_tokens(windows, stage.model.tokenizer, store.digest, run.data.tokens)
        if isinstance(stage, TokenizerStage):
            # Before any engine takes the parameters over; every worker reads the same first batch.
            first = collate(store.read(order.batch(0)), np.arange(len(order.batch(0))), text=None, tasks=None)
            stage.tokenizer.start_decoders((group.signal, group.num_channels) for group in first.groups)
    if isinstance(windows, TokenStore):
        assert isinstance(stage, PretrainStage | InstructStage)
        stage.no_windows = no_windows(stage.no_windows.task, stage.model.tokenizer.config.hidden_size)
    if not run.batch.num_crops:
        stage.without_text()
    stage.precision = run.precision
    stage.passes_with = context if run.engine.partitions_weights else None
    _accelerate(run, stage, context)
    validation = plan.windows(store, "val")
    if isinstance(stage, InstructStage):
        for split in ("train", "val"):
            refuse_unanswerable(windows_of(store, split, plan.data_sets), tasks, stage.model.context, split)
        if stage.losses.pooled_weight and context.rank == 0:
            warn_of_shared_words(tasks)
    model = stage.model if isinstance(stage, PretrainStage | InstructStage) else None
    num_held_out = run.held_out_crops if model is not None else 0
    corpus = TextCorpus(run.corpus, code) if run.batch.num_crops or num_held_out else None
    language = LanguageCheck(model, corpus, num_held_out, run.batch.text_length)
    batcher = Batcher(
        run.batch,
        corpus=corpus,
        tasks=tasks or None,
        seed=run.seed,
        strata=tuple(tasks) or data_sets_of(plan.windows(store, "train")),
        rank=context.rank,
        world_size=context.world_size,
    )
    validations = {
        TokenizerRun: validate_tokenizer,
        PretrainRun: validate_losses,
        InstructRun: validate_answers,
    }
    validate_on = next(function for kind, function in validations.items() if isinstance(run, kind))
    sample = validation
    if run.validation_windows is not None:
        sample = validation_sample(validation, run.validation_windows, run.seed)

    def validate(is_last: bool) -> dict[str, float]:
        metrics = validate_on(run, stage, windows, sample, tasks, context)
        if len(sample) < len(validation):
            metrics["windows"] = float(len(sample))
        if len(sample) < len(validation) and is_last:
            whole = validate_on(run, stage, windows, validation, tasks, context)
            metrics |= {f"all/{name}": value for name, value in whole.items()}
            metrics["all/windows"] = float(len(validation))
        metrics |= language()
        stage.settle()
        return metrics

    return Assembly(
        stage=stage,
        store=store,
        windows=windows,
        order=order,
        readings={} if plan.reads_all_alike else {name: str(one) for name, one in plan.readings(store).items()},
        batcher=batcher,
        schedule=_schedule(run, plan.total_steps(order)),
        validate=validate,
        language=language,
        describe=lambda metrics, notes: describe(run, stage, store, metrics, notes),
    )


def reading_plan(run: TrainingRun) -> ReadingPlan:
    """Which windows a run trains on and in which order."""
    data_sets: tuple[str, ...] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    mixture = run.mixture
    if isinstance(run, InstructRun):
        data_sets = tuple(sorted({task.data_set for task in run.asked_tasks}))
        left_out = labels_left_out(run.asked_tasks)
        mixture = mixture.by_data_set({task.name: task.data_set for task in run.asked_tasks})
    least, most = (run.min_steps, run.max_steps) if isinstance(run, UnlabelledRun) else (0, None)
    return ReadingPlan(
        run.training_store, data_sets, run.batch.size, run.epochs, run.seed, mixture, run.training_tokens, left_out,
        min_steps=least, max_steps=most,
    )  # fmt: skip


def _schedule(run: TrainingRun, total: int) -> Schedule:
    """Validations, evenly spread over all steps, and checkpoints."""
    return Schedule(
        total,
        run.validations,
        run.checkpoints.every_steps,
        run.checkpoints.every_minutes,
        log_every=max(1, total // 200),
        seed=run.seed,
    )


def load_tokenizer(folder: Path) -> NeuralTokenizer:
    """The neural tokenizer of a model folder, in evaluation mode. Raises ModelFolderError."""
    saved = load_model(folder, "tokenizer")
    tokenizer = NeuralTokenizer(_tokenizer_config(saved, folder))
    load_weights(tokenizer, saved.tensors)
    return tokenizer.eval()


def _tokenizer_config(saved: ModelFolder, folder: Path) -> NeuralTokenizerConfig:
    return build(NeuralTokenizerConfig, saved.values["model"], source=str(folder / "config.yaml"))


def load_neurolm(folder: Path, settings: Mapping[str, Any] | None = None) -> tuple[NeuroLM, dict[str, Any]]:
    """The NeuroLM of a model folder, in evaluation mode, and what the folder says about it.

    ``settings`` are dotted settings of its config to replace. Raises ModelFolderError.
    """
    saved = load_model(folder, "neurolm")
    config = build(NeuroLMConfig, saved.values["model"], source=str(folder / "config.yaml"))
    code = TextCode.from_json(saved.files[TEXT_CODE]) if TEXT_CODE in saved.files else None
    model = NeuroLM(override(config, settings or {}), code)
    load_weights(model, saved.tensors)
    return model.eval(), saved.values


def _build_stage(run: TrainingRun) -> tuple[Stage, dict[str, EncodedTask], TextCode]:
    """The stage, the tasks that it asks, and how its text is written."""
    if isinstance(run, TokenizerRun):
        tokenizer = NeuralTokenizer(run.model)
        table, code = _text_table(run)
        return TokenizerStage(tokenizer, table, run.losses), {}, code
    if isinstance(run, PretrainRun):
        saved = load_model(run.tokenizer_folder, "tokenizer")
        model = NeuroLM(run.model_config(_tokenizer_config(saved, run.tokenizer_folder)))
        load_weights(model.tokenizer, saved.tensors, leave_out="decoders.")
        return PretrainStage(model, run.losses), {}, model.text_code
    assert isinstance(run, InstructRun)
    asked = run.asked_tasks  # before a large model is read
    model, _ = load_neurolm(run.pretrained_folder, run.switches)
    if run.lora is not None:
        model.language_model.adapt(run.lora)
    tasks = {task.name: encode_task(task, model.text_code) for task in asked}
    return InstructStage(model, tasks, run.losses), tasks, model.text_code


def _accelerate(run: TrainingRun, stage: Stage, context: RunContext) -> None:
    """Apply the settings that change how, and not what, a stage computes. Raises UserError."""
    if run.activation_checkpointing:
        stage.checkpoint_blocks()
    if isinstance(run, PretrainRun | InstructRun) and run.attention == "flex":
        assert isinstance(stage, PretrainStage | InstructStage)
        if context.device.type == "cpu":
            raise UserError("attention: flex cannot train on a CPU, torch has no backward pass for it; use sdpa")
        stage.model.language_model.use_flex_attention()
    if run.compile:
        stage.compile_blocks()


def _text_table(run: TokenizerRun) -> tuple[Tensor, TextCode]:
    """Rows that stand for text in the alignment [vocabulary hidden] and their ids; released: GPT-2's embeddings."""
    if run.text_table is None:
        generator = torch.Generator().manual_seed(run.seed)
        code = gpt2_bpe()
        return torch.randn(code.num_ids, run.model.hidden_size, generator=generator), code
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(run.text_table)
    except OSError as error:
        raise UserError(
            f"text_table: cannot load {run.text_table!r} ({str(error).splitlines()[0]}); give a folder that "
            "save_pretrained wrote, or null for a random table"
        ) from error
    table: Tensor = model.get_input_embeddings().weight.detach()
    if table.shape[1] != run.model.hidden_size:
        raise UserError(
            f"text_table: {run.text_table} is {table.shape[1]} wide, model.hidden_size is {run.model.hidden_size}"
        )
    return table, own_code(run.text_table, None, model.config.model_type, len(table))
