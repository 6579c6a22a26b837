from pathlib import Path

import pytest

from neurolm.config import UserError, as_dict
from neurolm.planning.parameters import count
from neurolm.planning.stages import build_planned_stage, load_planned_run
from neurolm.training.assembly import load_neurolm
from neurolm.training.checkpoint import save_model
from tests import tiny
from tests.llama import write_llama

CONFIGS = Path(__file__).parents[2] / "ray_jobs" / "configs"


def parts_of(folder: str, stage: str, *, workers: int = 2) -> tuple[int, int, dict[str, int]]:
    path = CONFIGS / folder / f"{stage}.yaml"
    sizes, parts = count(build_planned_stage(load_planned_run(path, {}, workers), path).stage)
    assert sum(parts.values()) == sizes.trainable + sizes.frozen + sizes.buffers
    return sizes.trainable, sizes.frozen, parts


# The released code's own counts, from its recorded models: blocks and tables of GPT-2 and what NeuroLM adds.
PUBLISHED = {
    "b": {
        "text table": 38_633_472,
        "position table": 786_432,
        "blocks": 85_054_464,
        "final norm": 1_536,
        "vocabulary head": 44_924_928,
        "channel embedding": 196_608,
    },
    "l": {
        "text table": 51_511_296,
        "position table": 1_048_576,
        "blocks": 302_309_376,
        "final norm": 2_048,
        "vocabulary head": 59_899_904,
        "channel embedding": 262_144,
        "projection and its norm": 787_456,
    },
    "xl": {
        "text table": 80_486_400,
        "position table": 1_638_400,
        "blocks": 1_475_558_400,
        "final norm": 3_200,
        "vocabulary head": 93_593_600,
        "channel embedding": 409_600,
        "projection and its norm": 1_230_400,
    },
}
TOTALS = {"b": 255_107_712, "l": 501_331_072, "xl": 1_738_430_272}
ENCODER, LATENT_HEAD = 85_510_272, 689_024


@pytest.mark.parametrize("stage", ["pretrain", "instruct"])
@pytest.mark.parametrize("folder", PUBLISHED)
def test_the_papers_models_have_the_published_counts(folder: str, stage: str) -> None:
    trainable, frozen, parts = parts_of(folder, stage)
    learnt = {name: number for name, number in parts.items() if name in PUBLISHED[folder]}
    assert learnt == PUBLISHED[folder]
    assert trainable == sum(learnt.values())
    assert (parts["encoder"], parts["latent head"]) == (ENCODER, LATENT_HEAD)
    assert frozen == ENCODER + LATENT_HEAD
    assert trainable + ENCODER == TOTALS[folder]  # the released file has no latent head, which only makes codes


@pytest.mark.parametrize("folder", PUBLISHED)
def test_the_papers_tokenizer_has_the_published_counts(folder: str) -> None:
    trainable, frozen, parts = parts_of(folder, "tokenizer")
    assert (trainable, frozen) == (145_136_686, 0)
    assert parts["encoder"] == ENCODER
    assert parts["latent head"] == LATENT_HEAD
    assert parts["decoders"] == 2 * 28_664_064
    assert parts["decoder heads"] == 667_492 + 744_392
    assert parts["domain classifier"] == 197_378
    assert parts["frozen text table"] == 38_597_376


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "instruct"])
@pytest.mark.parametrize("folder", ["demo", "workload"])
def test_small_models_are_counted_without_a_model_of_an_earlier_stage(folder: str, stage: str) -> None:
    trainable, _, parts = parts_of(folder, stage)
    assert 10_000 < trainable < 10_000_000
    assert ("row of [SEP]" in parts, "adapters" in parts) == (False, False)


def test_the_model_of_a_folder_is_counted_as_it_is(tmp_path: Path) -> None:
    model = tiny.tiny_neurolm()
    save_model(tmp_path / "pretrain" / "model", "neurolm", {"model": as_dict(model.config)}, model.state_dict())
    path = CONFIGS / "demo" / "instruct.yaml"
    run = load_planned_run(path, {"out": str(tmp_path)}, 1)
    planned = build_planned_stage(run, path)
    assert planned.notes == []
    loaded, _ = load_neurolm(tmp_path / "pretrain" / "model")
    sizes, _ = count(planned.stage)
    assert sizes.trainable == sum(one.numel() for one in loaded.parameters() if one.requires_grad)
    assert sizes.exported == sum(one.numel() for one in loaded.state_dict().values())


def test_adapters_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = CONFIGS / "demo" / "instruct.yaml"
    run = load_planned_run(path, {"lora": {"rank": 2}}, 1)
    sizes, parts = count(build_planned_stage(run, path).stage)
    layers = 2 * [(64, 192), (64, 64), (64, 256), (256, 64)]
    assert parts["adapters"] == sum(2 * (wide + narrow) for wide, narrow in layers)
    assert parts["row of [SEP]"] == 64
    assert sizes.trainable < parts["adapters"] + parts["vocabulary head"] + parts["channel embedding"] + 65


def test_sizes_that_nobody_knows_are_asked_for(tmp_path: Path) -> None:
    path = CONFIGS / "demo" / "pretrain.yaml"
    run = load_planned_run(path, {"language_model.name_or_path": str(tmp_path / "absent")}, 1)
    with pytest.raises(UserError, match=r"the sizes of .*absent' are not known on this machine; give its folder"):
        build_planned_stage(run, path)
    lonely = tmp_path / "pretrain.yaml"
    lonely.write_text((CONFIGS / "demo" / "pretrain.yaml").read_text().replace("base: data.yaml", f"out: {tmp_path}"))
    with pytest.raises(
        UserError, match=r"tokenizer\.yaml: no such config file, and the model it would train is not in"
    ):
        build_planned_stage(load_planned_run(lonely, {}, 1), lonely)


def test_a_folder_of_another_family_is_counted(tmp_path: Path) -> None:
    write_llama(tmp_path)
    path = CONFIGS / "demo" / "pretrain.yaml"
    run = load_planned_run(path, {"language_model.name_or_path": str(tmp_path)}, 1)
    _, parts = count(build_planned_stage(run, path).stage)
    attention, mlp, norms = 16 * (16 + 8 + 8 + 16), 3 * 16 * 32, 2 * 16
    assert parts["blocks"] == 2 * (attention + mlp + norms)
    assert parts["text table"] == 16 * 320  # room for [SEP] in a multiple of 64
    assert parts["vocabulary head"] == 16 * (320 + 256)
