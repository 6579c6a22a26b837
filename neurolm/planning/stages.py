"""Builds a run's stage without a byte of weights: the builders of training, on torch's meta device.

Models that a stage starts from need not exist yet: then the config file beside it says what they will be.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from neurolm.config import ConfigError, UserError, build, override, read
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.sequences import AnswerTexts, WindowGroup
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import EncodedTask, encode_task
from neurolm.text.own_code import own_code
from neurolm.training.instruct import AnswerStates, InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainStage
from neurolm.training.runs import STAGES, InstructRun, PretrainRun, TokenizerRun, load_run
from neurolm.training.stage import Stage
from neurolm.training.tokenizer import TokenizerStage
from neurolm.training.training_run import TrainingRun

PUBLISHED_GPT2 = {
    "gpt2": {"hidden_size": 768, "num_layers": 12, "num_heads": 12},
    "gpt2-medium": {"hidden_size": 1024, "num_layers": 24, "num_heads": 16},
    "gpt2-large": {"hidden_size": 1280, "num_layers": 36, "num_heads": 20},
    "gpt2-xl": {"hidden_size": 1600, "num_layers": 48, "num_heads": 25},
}
"""Sizes of models whose names are known without the hub (paper, section 3.2)."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage on the meta device, and what was assumed in building it."""

    stage: Stage
    tasks: dict[str, EncodedTask]
    notes: list[str] = field(default_factory=list)


def load_planned_run(path: Path, overrides: dict[str, Any], num_workers: int) -> TrainingRun:
    """The run of a stage's file, or of a trial of a sweep's file, on so many workers. Raises ConfigError."""
    values = read(path, overrides | {"workers": num_workers})
    if "steps" in values:
        raise ConfigError(
            f"{path}: is a pipeline; plan its stages one by one, for instance {path.parent}/pretrain.yaml"
        )
    stage = values.get("stage")
    if stage not in STAGES:
        raise ConfigError(f"{path}: stage: found {stage!r}, expected one of {', '.join(STAGES)}")
    values.pop("sweep", None)
    return build(STAGES[stage], values, source=str(path))


def build_planned_stage(run: TrainingRun, path: Path) -> PlannedStage:
    """The stage of a run whose file is ``path``. Raises UserError where a model's size cannot be known."""
    notes: list[str] = []
    if isinstance(run, TokenizerRun):
        with torch.device("meta"):
            table = torch.empty(_text_rows(run), run.model.hidden_size)
            return PlannedStage(TokenizerStage(NeuralTokenizer(run.model), table, run.losses), {})
    settings = _neurolm_config(run, path, notes)
    lora = settings.language_model.lora
    language_model, rows = offline(settings.language_model)
    if rows is not None:
        language_model = replace(language_model, text_vocabulary_size=rows)
    with torch.device("meta"):
        model = NeuroLM(replace(settings, language_model=language_model))
        if isinstance(run, InstructRun) and run.lora is not None:
            lora = run.lora
        if lora is not None:
            model.language_model.adapt(lora)
        if isinstance(run, InstructRun):
            tasks = {task.name: encode_task(task, model.text_code) for task in run.asked_tasks}
            return PlannedStage(_CountedTargets(model, tasks, run.losses), tasks, notes)
        assert isinstance(run, PretrainRun)
        return PlannedStage(PretrainStage(model, run.losses), {}, notes)


def offline(settings: LanguageModelConfig) -> tuple[LanguageModelConfig, int | None]:
    """A config that builds a model of the same sizes without its weights, and the rows of its text table, if known.

    Raises:
        UserError: ``name_or_path`` is neither a folder of this machine nor one of GPT-2's names.
    """
    if settings.name_or_path is None:
        return settings, None
    plain = replace(settings, name_or_path=None, gguf_file=None, lora=None)
    if (known := PUBLISHED_GPT2.get(settings.name_or_path.removeprefix("openai-community/"))) is not None:
        return override(plain, known), None
    found = _transformers_config(settings)
    from neurolm.models.causal_lm import is_plain_gpt2

    code = own_code(settings.name_or_path, settings.gguf_file, found.model_type, found.vocab_size)
    rows = settings.text_vocabulary_size or code.num_rows
    if is_plain_gpt2(found):
        sizes = {"hidden_size": found.n_embd, "num_layers": found.n_layer, "num_heads": found.n_head}
        return override(plain, sizes | {"context": found.n_positions}), rows
    architecture = json.loads(found.to_json_string(use_diff=False))
    return replace(plain, architecture={k: v for k, v in architecture.items() if k != "_name_or_path"}), rows


def _transformers_config(settings: LanguageModelConfig) -> Any:
    from transformers import AutoConfig

    options = {} if settings.gguf_file is None else {"gguf_file": settings.gguf_file}
    try:
        return AutoConfig.from_pretrained(settings.name_or_path, local_files_only=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"language_model.name_or_path: the sizes of {settings.name_or_path!r} are not known on this machine; give "
            f"its folder, or one of {', '.join(PUBLISHED_GPT2)}"
        ) from error


def _text_rows(run: TokenizerRun) -> int:
    """Rows of the table that stands for text in stage 1."""
    if run.text_table is None or run.text_table.removeprefix("openai-community/") in PUBLISHED_GPT2:
        return gpt2_bpe().num_ids
    return int(_transformers_config(LanguageModelConfig(name_or_path=run.text_table)).vocab_size)


def _neurolm_config(run: TrainingRun, path: Path, notes: list[str]) -> NeuroLMConfig:
    """The model of stages 2 and 3: from the model folder they start from, else from the config files beside."""
    if isinstance(run, InstructRun):
        values = _model_values(run.pretrained_folder)
        if values is not None:
            return override(build(NeuroLMConfig, values, source=str(run.pretrained_folder)), run.switches)
        beside = path.parent / "pretrain.yaml"
        notes.append(f"{run.pretrained_folder} is not there yet: the model is that of {beside}")
        pretrain = _run_beside(beside, run)
        assert isinstance(pretrain, PretrainRun)
        return override(_neurolm_config(pretrain, beside, notes), run.switches)
    assert isinstance(run, PretrainRun)
    values = _model_values(run.tokenizer_folder)
    if values is not None:
        return run.model_config(build(NeuralTokenizerConfig, values, source=str(run.tokenizer_folder)))
    beside = path.parent / "tokenizer.yaml"
    notes.append(f"{run.tokenizer_folder} is not there yet: the tokenizer is that of {beside}")
    tokenizer = _run_beside(beside, run)
    assert isinstance(tokenizer, TokenizerRun)
    return run.model_config(tokenizer.model)


def _model_values(folder: Path) -> dict[str, Any] | None:
    """The model's settings in a model folder; None if there is none."""
    path = folder / "config.yaml"
    return dict(yaml.safe_load(path.read_text())["model"]) if path.is_file() else None


def _run_beside(path: Path, run: TrainingRun) -> TrainingRun:
    """The run of an earlier stage, from the file beside this one, with this run's folder of results."""
    if not path.is_file():
        raise UserError(f"{path}: no such config file, and the model it would train is not in {run.out} yet; train it")
    return load_run(path, {"out": str(run.out), "budget": run.budget})


class _CountedTargets(InstructStage):
    """Stage 3 for tensors without values: its tables of texts are made where the step is traced."""

    def __init__(self, model: NeuroLM, tasks: Mapping[str, EncodedTask], losses: InstructLossConfig) -> None:
        super().__init__(model, {}, losses)
        self._tasks = dict(tasks)

    def answer_states(self, group: WindowGroup, text_start: int | None = None) -> AnswerStates:
        """The same shapes as of the stage itself."""
        self._texts = {name: AnswerTexts.of_classes(task) for name, task in self._tasks.items()}
        return super().answer_states(group, text_start)
