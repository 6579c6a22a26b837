"""What a trained stage leaves behind: the model folder that the next stage, `neurolm predict` and the reader need.

A checkpoint holds the same description beside its training state, so that `export_checkpoint` makes a model folder of
it on any machine with a disk: no GPU, no DeepSpeed, no store, no earlier model, one tensor at a time in memory.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from neurolm.config import as_dict, build
from neurolm.eeg.shards import Store
from neurolm.models.lora import LoraConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.code import TextCode
from neurolm.training.checkpoint import ModelFolderError, save_model
from neurolm.training.instruct import InstructStage
from neurolm.training.leakage import allowed_reason
from neurolm.training.pretrain import PretrainStage
from neurolm.training.runs import InstructRun, PretrainRun
from neurolm.training.stage import Stage
from neurolm.training.tensor_file import TensorStream
from neurolm.training.tokenizer import TokenizerStage
from neurolm.training.training_run import TrainingRun, training_digest
from neurolm.training.training_state import TrainingState, TrainingStateError

TEXT_CODE = "text_code.json"
"""File of a model folder that says how its language model writes text; GPT-2's way comes with neurolm."""
DESCRIPTION = "model.json"
"""File of a checkpoint."""


@dataclass(frozen=True)
class ModelDescription:
    """Everything about a model folder but the weights."""

    kind: str
    """tokenizer or neurolm."""
    values: dict[str, Any]
    files: dict[str, str]
    prefix: str
    """What the model's weights are named after in their stage."""
    lora: dict[str, Any] | None
    """The adapters that the weights still have and the model folder will not."""

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint."""
        (checkpoint / DESCRIPTION).write_text(json.dumps(asdict(self), indent=1))


def describe(
    run: TrainingRun, stage: Stage, store: Store, metrics: Mapping[str, float], notes: Mapping[str, Any]
) -> ModelDescription:
    """The model of a stage, with the validation metrics of its weights and what else to say of the training."""
    assert isinstance(stage, TokenizerStage | PretrainStage | InstructStage)
    model = stage.tokenizer if isinstance(stage, TokenizerStage) else stage.model
    values: dict[str, Any] = {
        "model": as_dict(model.standalone_config() if isinstance(model, NeuroLM) else model.config),
        "preprocessing": store.manifest.preprocessing,
        "tasks": list(run.tasks) if isinstance(run, InstructRun) else [],
        "own_tasks": {name: as_dict(run.own_tasks[name]) for name in run.tasks if name in run.own_tasks}
        if isinstance(run, InstructRun)
        else {},
        "layouts": {name: data_set.described for name, data_set in run.data.sets.items()},
        "trained": {
            "stage": run.stage_name,
            "config_digest": training_digest(run),
            "data_digest": store.digest,
            "seed": run.seed,
            "allow_leakage": allowed_reason(run.data.allow_leakage, run.earlier_model),
            "validation": {name: float(value) for name, value in metrics.items()},
            **notes,
        },
    }
    if not isinstance(model, NeuroLM):
        return ModelDescription("tokenizer", values, {}, "tokenizer.", None)
    files = {} if model.text_code is gpt2_bpe() else {TEXT_CODE: model.text_code.as_json()}
    adapters = run.lora if isinstance(run, InstructRun) else None
    adapters = run.language_model.lora if isinstance(run, PretrainRun) else adapters
    return ModelDescription("neurolm", values, files, "model.", None if adapters is None else as_dict(adapters))


def export(folder: Path, model: ModelDescription, weights: TensorStream) -> None:
    """Write the model folder of a stage's weights, adapters merged; these pass through one by one."""
    chosen = weights.under(model.prefix)
    if model.lora is not None:
        chosen = chosen.through(_shell(model).merged)
    save_model(folder, model.kind, model.values, chosen, files=model.files)


def export_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Write the model folder of a checkpoint of any engine and any number of workers.

    Raises:
        ModelFolderError: there is something in ``folder`` already.
        TrainingStateError: there is no whole checkpoint.
    """
    if folder.exists():
        raise ModelFolderError(f"{folder}: is there already; remove it or choose another place")
    state = TrainingState(checkpoint)
    if not (checkpoint / DESCRIPTION).is_file():
        raise TrainingStateError(f"{checkpoint}: does not say which model it is of ({DESCRIPTION} is missing)")
    model = ModelDescription(**json.loads((checkpoint / DESCRIPTION).read_text()))
    export(folder, model, state.weights())


def _shell(description: ModelDescription) -> NeuroLM:
    """A model with adapters and without values, which knows how the adapters are merged."""
    code = TextCode.from_json(description.files[TEXT_CODE]) if TEXT_CODE in description.files else None
    with torch.device("meta"):
        model = NeuroLM(build(NeuroLMConfig, description.values["model"], source=DESCRIPTION), code)
        model.language_model.adapt(build(LoraConfig, description.lora or {}, source=DESCRIPTION))
    return model
