"""Every file in ray_jobs/configs is read into the class that its job reads it into."""

from pathlib import Path

import pytest
import torch

from neurolm.baselines.settings import BASELINES, BaselineRun
from neurolm.config import ConfigError, as_dict, load, override, read
from neurolm.datasets import LAYOUTS
from neurolm.datasets.ingest import Step, layout_of
from neurolm.distributed.pipeline import STEPS, read_pipeline
from neurolm.distributed.sweep_config import TuneRun, check_space
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.reports.evaluate import EvaluateRun
from neurolm.text.instructions import TASKS
from neurolm.training.deepspeed_config import DeepSpeedEngineConfig
from neurolm.training.runs import InstructRun, PretrainRun, TokenizerRun, load_run
from neurolm.training.token_job import TokenizeRun
from neurolm.training.training_run import TrainingRun

CONFIGS = Path(__file__).parents[1] / "ray_jobs" / "configs"
FOLDERS = {
    "demo": {"data", "evaluate", "instruct", "pipeline", "preprocess", "pretrain", "tokenize", "tokenizer", "tune"},
    "workload": {"data", "evaluate", "instruct", "pipeline", "preprocess", "pretrain", "tokenize", "tokenizer", "tune"},
} | {
    size: {"data", "instruct", "instruct-4x24gb", "pretrain", "pretrain-4x24gb", "tokenizer", "tune"}
    for size in ("b", "l", "xl")
}
CROSS_VALIDATED = ("workload", "multitask")


for _folder in ("workload", "b"):
    FOLDERS[_folder].add("baselines")


def test_the_files_are_those_that_are_checked_here() -> None:
    found = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.*")}
    large = {f"xl-cpu/{name}.yaml" for name in ("data", "large", "pipeline", "tokenizer", "pretrain", "instruct")}
    of_eegmmidb = (name + end for name in ("eegmmidb", "eyes", "fist_imagery") for end in ("", "_ten_twenty"))
    declarations = {f"datasets/{name}.yaml" for name in ("eegmat", *of_eegmmidb)}  # test_folder.py
    pipelines = {f"{folder}/cross_validate.yaml" for folder in CROSS_VALIDATED}
    checked = {f"{folder}/{name}.yaml" for folder, names in FOLDERS.items() for name in names}
    assert found == checked | declarations | pipelines | large


@pytest.mark.parametrize("budget", ["full", "quick"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_stages_and_sweeps_load(folder: str, budget: str) -> None:
    stages: dict[str, type[TrainingRun]] = {
        "tokenizer": TokenizerRun,
        "pretrain": PretrainRun,
        "instruct": InstructRun,
    }
    for name, kind in stages.items():
        run = load_run(CONFIGS / folder / f"{name}.yaml", {"budget": budget})
        assert type(run) is kind
        assert (run.name, run.engine.kind) == (name, "deepspeed")
    sweep = load(TuneRun, CONFIGS / folder / "tune.yaml", {"budget": budget})
    check_space(sweep)
    placed = {"budget": budget, "workers": sweep.sweep.workers_per_trial, "engine": as_dict(sweep)["engine"]}
    # But for where it runs, the sweep varies what instruct.yaml trains.
    assert sweep.instruct_run() == load_run(CONFIGS / folder / "instruct.yaml", placed)
    assert sweep.sweep.num_trials >= 4
    for task in sweep.tasks:
        assert LAYOUTS[sweep.data.sets[TASKS[task].data_set].layout].labels == tuple(TASKS[task].answers)


def test_xl_on_a_cpu_is_xl() -> None:
    on_gpus = load_run(CONFIGS / "xl" / "pretrain.yaml", {"language_model.name_or_path": None})
    pretrain = load_run(CONFIGS / "xl-cpu" / "pretrain.yaml", {})
    assert isinstance(on_gpus, PretrainRun) and isinstance(pretrain, PretrainRun)
    assert pretrain.language_model == on_gpus.language_model
    tokenizer = load_run(CONFIGS / "xl-cpu" / "tokenizer.yaml", {})
    assert isinstance(tokenizer, TokenizerRun) and tokenizer.model == NeuralTokenizerConfig()
    instruct = load_run(CONFIGS / "xl-cpu" / "instruct.yaml", {})
    assert instruct.engine == pretrain.engine and instruct.activation_checkpointing


@pytest.mark.parametrize("folder", ["b", "l", "xl"])
@pytest.mark.parametrize("stage", ["pretrain", "instruct"])
def test_on_small_gpus_the_same_is_trained(folder: str, stage: str) -> None:
    """But for where it runs and how numbers are kept."""
    large, small = (load_run(CONFIGS / folder / f"{stage}{variant}.yaml") for variant in ("", "-4x24gb"))
    assert (small.workers, small.activation_checkpointing, small.resources.gpus_per_worker) == (4, True, 1)
    assert isinstance(small.engine, DeepSpeedEngineConfig)
    assert small.engine.zero_stage == 2
    placed = {
        "workers": large.workers,
        "activation_checkpointing": large.activation_checkpointing,
        "precision": large.precision,
        "batch.micro_size": large.batch.micro_size,
        "engine": as_dict(large)["engine"],
    }
    assert override(small, placed) == large


@pytest.mark.parametrize("folder", ["demo", "workload"])
def test_a_pipeline_gives_every_step_its_settings(folder: str) -> None:
    overrides = {
        "data.root": "/recordings",
        "out": "/results",
        "seed": 5,
        "budget": "quick",
        "data.split.counts": [4, 1, 1],
        "data.tokens": "bfloat16",
        "tracking.experiment": "mine",
        "tokenizer.epochs": 9,
        "tune.sweep.num_trials": 5,
    }
    pipeline, settings = read_pipeline(CONFIGS / folder / "pipeline.yaml", overrides)
    assert pipeline.out == Path("/results")
    assert list(settings) == [step for step in STEPS if step in settings]
    loaded = {
        "preprocess": load(Step, *settings["preprocess"]),
        "tokenizer": load_run(*settings["tokenizer"]),
        "tokenize": load(TokenizeRun, *settings["tokenize"]),
        "pretrain": load_run(*settings["pretrain"]),
        "tune": load(TuneRun, *settings["tune"]),
        "evaluate": load(EvaluateRun, *settings["evaluate"]),
    }
    assert loaded.keys() == settings.keys()
    for step in loaded.values():
        assert (step.out, step.data.root, step.seed) == (Path("/results"), Path("/recordings"), 5)
        assert step.data.split.counts == (4, 1, 1)
        assert (step.store, step.token_store) == (Path("/results/store"), Path("/results/token_store"))
        assert step.data.tokens == "bfloat16"
        assert step.budget == "quick"
    tokenizer, tune = loaded["tokenizer"], loaded["tune"]
    assert isinstance(tokenizer, TokenizerRun)
    assert isinstance(tune, TuneRun)
    assert tokenizer.tracking.experiment == tune.tracking.experiment == "mine"
    assert (tokenizer.epochs, tune.sweep.num_trials) == (9, 5)  # a step's own setting wins over quick


@pytest.mark.parametrize("folder", CROSS_VALIDATED)
def test_a_cross_validation_gives_every_step_its_settings(folder: str) -> None:
    path = CONFIGS / folder / "cross_validate.yaml"
    pipeline, settings = read_pipeline(path, {"data.root": "/recordings", "cross_validation.seeds": [4, 5]})
    about = pipeline.cross_validation
    assert (about.folds, about.seeds, about.within) == (5, (4, 5), "all")
    step = load(Step, *settings["preprocess"])
    instruct, evaluate = load_run(*settings["instruct"]), load(EvaluateRun, *settings["evaluate"])
    assert isinstance(instruct, InstructRun)
    assert not evaluate.released_protocol
    for name in instruct.tasks:
        task = (TASKS | instruct.own_tasks)[name]
        data_set = step.data.sets[task.data_set]
        assert layout_of(data_set).labels == tuple(task.answers), "classes in the order that the declaration has"
        assert instruct.data.sets[task.data_set] == data_set
    words = [answer for name in instruct.tasks for answer in (TASKS | instruct.own_tasks)[name].answers.values()]
    assert len(set(words)) == len(words), "the pooled loss does not know which task is asked"
    with pytest.raises(ConfigError, match="a seed comes twice"):
        read_pipeline(path, {"cross_validation.seeds": [0, 0]})


def test_nulls_of_a_declaration_reach_every_step() -> None:
    _, settings = read_pipeline(CONFIGS / "multitask" / "cross_validate.yaml", {})
    fists = load(Step, *settings["preprocess"]).data.sets["fists"].declaration
    assert fists is not None
    assert fists.labels == {"T1": "left fist", "T2": "right fist", "T0": None}


@pytest.mark.parametrize("folder", ["workload", "b"])
def test_baselines_load(folder: str) -> None:
    run = load(BaselineRun, CONFIGS / folder / "baselines.yaml")
    assert run.baselines == BASELINES
    instruct = load_run(CONFIGS / folder / "instruct.yaml")
    assert isinstance(instruct, InstructRun)
    untrained = run.training_for("random_neurolm")
    assert (untrained.epochs, untrained.optimizer, run.losses) == (instruct.epochs, instruct.optimizer, instruct.losses)
    assert (untrained.batch_size, untrained.micro_size) == (instruct.batch.size, instruct.batch.micro_size)
    assert run.training_for("labram").optimizer.learning_rate == 5e-4
    assert run.training_for("eegnet") == run.training
    quick = load(BaselineRun, CONFIGS / folder / "baselines.yaml", {"budget": "quick"})
    assert all(quick.training_for(name).epochs <= run.training_for(name).epochs for name in BASELINES)


def test_a_quick_budget_is_smaller() -> None:
    for name in ("tokenizer", "pretrain", "instruct"):
        quick, full = (load_run(CONFIGS / "workload" / f"{name}.yaml", {"budget": b}) for b in ("quick", "full"))
        assert quick.epochs < full.epochs


@pytest.mark.parametrize(
    ("folder", "published", "trainable", "total"),
    [
        ("b", "gpt2", 169_597_440, 255_107_712),
        ("l", "gpt2-medium", 415_820_800, 501_331_072),
        ("xl", "gpt2-xl", 1_652_920_000, 1_738_430_272),
    ],
)
def test_presets_have_the_published_sizes(folder: str, published: str, trainable: int, total: int) -> None:
    pretrain = load_run(CONFIGS / folder / "pretrain.yaml")
    tokenizer = load_run(CONFIGS / folder / "tokenizer.yaml")
    assert isinstance(pretrain, PretrainRun)
    assert isinstance(tokenizer, TokenizerRun)
    assert pretrain.language_model.name_or_path == published
    with torch.device("meta"):
        model = NeuroLM(
            NeuroLMConfig(
                tokenizer=tokenizer.model, language_model=override(pretrain.language_model, {"name_or_path": None})
            )
        )
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    assert sum(sizes) == trainable
    assert trainable + sum(parameter.numel() for parameter in model.tokenizer.encoder.parameters()) == total


def test_sizes_share_one_tokenizer() -> None:
    base = read(CONFIGS / "b" / "tokenizer.yaml")
    for folder in ("l", "xl"):
        assert read(CONFIGS / folder / "tokenizer.yaml") == base | {"out": f"runs/{folder}"}


def test_presets_have_the_tables_of_the_paper() -> None:
    tables = {
        "tokenizer": {"epochs": 50, "beta2": 0.999, "weight_decay": 1e-4, "clip_norm": None},
        "pretrain": {"epochs": 20, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0},
        "instruct": {"epochs": 5, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0},
    }
    rates = {
        "b": {"tokenizer": (5e-5, 1e-5), "pretrain": (6e-4, 6e-5), "instruct": (5e-4, 5e-5)},
        "l": {"tokenizer": (5e-5, 1e-5), "pretrain": (6e-4, 6e-5), "instruct": (5e-5, 5e-6)},
        "xl": {"tokenizer": (5e-5, 1e-5), "pretrain": (6e-4, 6e-5), "instruct": (2e-5, 2e-6)},
    }
    for folder, peaks in rates.items():
        for name, table in tables.items():
            run = load_run(CONFIGS / folder / f"{name}.yaml")
            found = {"epochs": run.epochs} | as_dict(run.optimizer)
            peak, minimum = peaks[name]
            expected = table | {"learning_rate": peak, "min_learning_rate": minimum, "warmup_ratio": 0.1, "beta1": 0.9}
            assert {key: found[key] for key in expected} == expected
