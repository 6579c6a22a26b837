"""Published files to model folders and back, by the command; tiny files of the layout are made here."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neurolm.cli import main
from neurolm.config import as_dict, override
from neurolm.evaluation.answers import score_answers
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neurolm import NeuroLM
from neurolm.models.official import PREFIX, OfficialError, neurolm_layout, tokenizer_layout
from neurolm.models.official_sizes import neurolm_args, tokenizer_args
from neurolm.training.assembly import load_neurolm, load_tokenizer
from neurolm.training.checkpoint import load_model, save_model
from neurolm.training.official_files import export_official, import_official, read_official
from tests.tiny import MODEL, TOKENIZER, group_of, stored_window, tasks, tiny_tokenizer

Official = dict[str, Any]


def official_tokenizer(prefix: str = PREFIX) -> Official:
    """What the released code would save of a tiny stage 1, with other numbers in each tensor of the dead state."""
    layout = tokenizer_layout(TOKENIZER)
    generator = torch.Generator().manual_seed(3)
    model = {name: torch.randn(shape, generator=generator) for name, shape in layout.shapes.items()}
    model |= layout.to_official(tiny_tokenizer().state_dict())
    state = {"optimizer": {"state": {}, "param_groups": []}, "iter_num": 41, "epoch": 6}
    return {"model": {prefix + name: one for name, one in model.items()}, **tokenizer_args(TOKENIZER), **state}


def official_neurolm() -> Official:
    layout, generator = neurolm_layout(MODEL), torch.Generator().manual_seed(4)
    model = {name: torch.randn(shape, generator=generator) for name, shape in layout.shapes.items()}
    encoder = {f"tokenizer.{name}": one for name, one in tiny_tokenizer().state_dict().items()}
    model |= layout.to_official(encoder)
    return {"model": model, **neurolm_args(MODEL.language_model), "optimizer": {}, "iter_num": 7, "epoch": 2}


def saved(path: Path, checkpoint: Official) -> Path:
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def vq(tmp_path: Path) -> Path:
    return saved(tmp_path / "VQ.pt", official_tokenizer())


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    return saved(tmp_path / "NeuroLM-B.pt", official_neurolm())


def assert_same_file(ours: Path, theirs: Path) -> None:
    """Everything but the optimizer, bit by bit."""
    found, expected = (torch.load(path, weights_only=True) for path in (ours, theirs))
    tensors, others = found.pop("model"), expected.pop("model")
    expected.pop("optimizer", None)
    assert found == expected
    assert tensors.keys() == others.keys()
    for name, one in others.items():
        assert (tensors[name].dtype, tensors[name].shape) == (one.dtype, one.shape), name
        raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (tensors[name], one)]
        assert torch.equal(*raw), name


def command(*arguments: object) -> None:
    main([str(one) for one in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    return said


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_a_tokenizer_comes_back_bit_by_bit(tmp_path: Path, prefix: str) -> None:
    file = official_tokenizer(prefix)
    odd = file["model"][f"{prefix}VQ.encoder.fc_norm.weight"]
    odd[:4] = torch.tensor([float("nan"), float("-inf"), -0.0, 1e-42])
    file["model"][f"{prefix}wte.weight"] = file["model"][f"{prefix}wte.weight"].bfloat16()
    path = saved(tmp_path / "VQ.pt", file)
    command("import-official", path, "--out", tmp_path / "tokenizer" / "model")
    command("export", tmp_path / "tokenizer" / "model", "--official", tmp_path / "out" / "VQ.pt")
    assert_same_file(tmp_path / "out" / "VQ.pt", path)


def test_a_model_comes_back_bit_by_bit_with_and_without_its_codebook(tmp_path: Path, vq: Path, lm: Path) -> None:
    command("import-official", vq, "--out", tmp_path / "vq")
    ways = {"file": ["--tokenizer", vq], "folder": ["--tokenizer", tmp_path / "vq"]}
    for name, way in (ways | {"none": ["--set", "tokenizer.num_heads=2"]}).items():
        command("import-official", lm, "--out", tmp_path / name, *way)
        command("export", tmp_path / name, "--official", tmp_path / f"{name}.pt")
        assert_same_file(tmp_path / f"{name}.pt", lm)
        assert bool(load_neurolm(tmp_path / name)[0].tokenizer.quantizer.initialised) == (name != "none")


def test_imported_folders_have_the_compatible_switches_and_are_ready_to_use(tmp_path: Path, vq: Path, lm: Path) -> None:
    import_official(vq, tmp_path / "vq")
    tokenizer = load_tokenizer(tmp_path / "vq")
    assert (tokenizer.config.compat_pad_to, tokenizer.config.distance_dtype) == (1024, "autocast")
    import_official(lm, tmp_path / "lm", vq)
    model, values = load_neurolm(tmp_path / "lm")
    settings = model.config.tokenizer
    assert (settings.compat_pad_to, settings.distance_dtype, model.config.text_start) == (276, "autocast", "batch")
    assert NeuralTokenizer(TOKENIZER).config.compat_pad_to is None and MODEL.text_start == "window"
    assert values["trained"]["stage"] == "pretrain" and values["official"]["iter_num"] == 7
    group = group_of([stored_window(2, 400)], tasks())
    assert torch.isfinite(score_answers(model, group, tasks()["workload"]).log_likelihoods).all()

    plain = NeuroLM(MODEL).eval()
    missing, _ = plain.load_state_dict(neurolm_layout(MODEL).to_ours(official_neurolm()["model"]), strict=False)
    assert all(name.startswith("tokenizer.") for name in missing)
    text = torch.tensor([[50257, 3, 4]])
    hidden = [one.hidden(one.embed_text(text), torch.arange(3)[None]) for one in (model, plain)]
    torch.testing.assert_close(*hidden)


def test_switches_can_be_set(tmp_path: Path, vq: Path, lm: Path) -> None:
    command("import-official", vq, "--out", tmp_path / "vq", "--set", "compat_pad_to=null", "distance_dtype=fp32")
    assert load_tokenizer(tmp_path / "vq").config == TOKENIZER_AS_READ
    command("import-official", lm, "--tokenizer", vq, "--out", tmp_path / "lm", "--set", "tokenizer.compat_pad_to=1024")
    assert load_neurolm(tmp_path / "lm")[0].config.tokenizer.compat_pad_to == 1024
    stage_3 = {"tokenizer.compat_pad_to": 300, "text_start": "window"}
    model, _ = load_neurolm(tmp_path / "lm", stage_3)
    assert (model.config.tokenizer.compat_pad_to, model.config.text_start) == (300, "window")


TOKENIZER_AS_READ = override(TOKENIZER, {"embedding_init_std": 1.0})
"""How the tokenizer was started is in no published file."""


def test_every_wrong_tensor_is_named(tmp_path: Path, vq: Path, lm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = torch.load(vq, weights_only=True)
    del file["model"][f"{PREFIX}VQ.decoder_raw.fc_norm.bias"], file["model"][f"{PREFIX}domain_classifier.2.bias"]
    file["model"][f"{PREFIX}surplus.weight"] = torch.zeros(2, 3)
    file["model"][f"{PREFIX}VQ.encoder.pos_embed.weight"] = torch.zeros(255, 16)
    said = refused(capsys, "import-official", saved(tmp_path / "bad.pt", file), "--out", tmp_path / "out")
    assert "bad.pt: 4 tensors" in said
    assert "missing VQ.decoder_raw.fc_norm.bias: expected (16,)" in said
    assert "missing domain_classifier.2.bias: expected (2,)" in said
    assert "unknown surplus.weight: found (2, 3)" in said
    assert "misshapen VQ.encoder.pos_embed.weight: found (255, 16), expected (256, 16)" in said
    assert not (tmp_path / "out").exists()

    model = torch.load(lm, weights_only=True)
    model["model"]["GPT2.lm_head.weight"] = model["model"]["GPT2.lm_head.weight"][:-1]
    bad = saved(tmp_path / "bad.pt", model)
    said = refused(capsys, "import-official", bad, "--out", tmp_path / "out", "--tokenizer", vq)
    assert "misshapen GPT2.lm_head.weight: found (50335, 16), expected (50336, 16)" in said


def test_the_tokenizer_must_be_that_of_the_model(tmp_path: Path, lm: Path, vq: Path) -> None:
    file = official_tokenizer()
    file["model"][f"{PREFIX}VQ.encoder.fc_norm.bias"] += 1
    with pytest.raises(OfficialError, match=r"its encoder.norm.bias is not that of .*NeuroLM-B.pt"):
        import_official(lm, tmp_path / "out", saved(tmp_path / "other.pt", file))
    with pytest.raises(OfficialError, match=r"is a NeuroLM; expected a VQ\.pt"):
        import_official(lm, tmp_path / "out", lm)
    with pytest.raises(OfficialError, match="leave --tokenizer out"):
        import_official(vq, tmp_path / "out", vq)


class Malicious:
    """Runs a command where pickles are executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_what_is_no_checkpoint_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "mark"
    bad = {
        "text": b"not a checkpoint",
        "empty": b"",
        "pickle": pickle.dumps(Malicious(mark)),
        "array": np.arange(4).tobytes(),
    }
    for name, contents in bad.items():
        (tmp_path / name).write_bytes(contents)
    saved(tmp_path / "malicious", official_tokenizer() | {"epoch": Malicious(mark)})
    for name in (*bad, "malicious"):
        assert "not a checkpoint" in refused(capsys, "import-official", tmp_path / name, "--out", tmp_path / "out")
    for name, other in {
        "list": [1],
        "tensor": torch.zeros(2),
        "weights": {"a": torch.zeros(2)},
        "half": {"model": {}},
    }.items():
        path = saved(tmp_path / name, other)
        assert "expected the tensors `model`" in refused(capsys, "import-official", path, "--out", tmp_path / "out")
    assert "no such file" in refused(capsys, "import-official", tmp_path / "nowhere", "--out", tmp_path / "out")
    file = official_tokenizer()
    del file["encoder_args"]["n_head"]
    path = saved(tmp_path / "unstated", file)
    assert "does not state 'n_head'" in refused(capsys, "import-official", path, "--out", tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()


def test_the_format_before_zip_files_is_read(tmp_path: Path) -> None:
    torch.save(official_tokenizer(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_official(tmp_path / "old.pt").kind == "tokenizer"


def test_nothing_else_is_overwritten(tmp_path: Path, vq: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = tmp_path / "folder" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    assert "something else than a model folder" in refused(capsys, "import-official", vq, "--out", precious.parent)
    assert "something else than a model folder" in refused(capsys, "import-official", vq, "--out", precious)
    assert precious.read_text() == "mine"
    import_official(vq, tmp_path / "model")
    assert "is there already" in refused(capsys, "export", tmp_path / "model", "--official", precious)
    assert "no model here" in refused(capsys, "export", precious.parent, "--official", tmp_path / "new.pt")


def test_a_tokenizer_trained_here_is_exported_with_stand_ins(tmp_path: Path) -> None:
    trained = tiny_tokenizer()
    save_model(tmp_path / "model", "tokenizer", {"model": as_dict(TOKENIZER)}, trained.state_dict())
    notes = export_official(tmp_path / "model", tmp_path / "VQ.pt")
    assert any("wte.weight" in note for note in notes) and any("released code pads" in note for note in notes)
    file = torch.load(tmp_path / "VQ.pt", weights_only=True)
    assert (file["encoder_args"]["n_layer"], file["decoder_args"]["n_layer"], file["epoch"]) == (2, 1, 0)
    dead = file["model"]["VQ.quantize.embedding.embed_avg"]
    assert torch.equal(dead, trained.quantizer.codebook) and not file["model"]["wte.weight"].any()
    import_official(tmp_path / "VQ.pt", tmp_path / "again")
    again = load_model(tmp_path / "again", "tokenizer").tensors
    expected: dict[str, Tensor] = trained.state_dict()
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], one) for name, one in expected.items() if name != "quantizer.num_updates")


def test_a_model_that_the_layout_cannot_hold_names_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = override(TOKENIZER, {"norm": "token", "latent_norm": "running"})
    save_model(tmp_path / "model", "tokenizer", {"model": as_dict(config)}, NeuralTokenizer(config).state_dict())
    said = refused(capsys, "export", tmp_path / "model", "--official", tmp_path / "VQ.pt")
    assert "norm is 'token', expected 'window'; latent_norm is 'running', expected 'none'" in said
    assert not (tmp_path / "VQ.pt").exists()


@pytest.mark.golden
def test_recorded_checkpoints_come_back_bit_by_bit(golden: Path, tmp_path: Path) -> None:
    for path in sorted(golden.glob("*_tiny.pt")):
        folder = tmp_path / path.stem
        tokenizer = None if path.name.startswith("VQ") else golden / "VQ_tiny.pt"
        import_official(path, folder, tokenizer)
        export_official(folder, tmp_path / path.name)
        assert_same_file(tmp_path / path.name, path)
        assert load_tokenizer(folder) if tokenizer is None else load_neurolm(folder)
