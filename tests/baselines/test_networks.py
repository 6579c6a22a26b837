"""Every network: shapes, size, the scale of its input, and that it learns what is easy to learn."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from neurolm.baselines.braindecode_models import BraindecodeMissing, braindecode_models
from neurolm.baselines.networks import NETWORKS, Shape
from neurolm.baselines.prediction import predict_baseline
from neurolm.baselines.settings import BaselineName
from neurolm.config import UserError
from neurolm.evaluation.predictions import score
from tests.baselines.toy import ELECTRODES, TASK, indices, toy_run, toy_store

EEGMAT = (
    "FP1",
    "FP2",
    "F3",
    "F4",
    "F7",
    "F8",
    "T3",
    "T4",
    "C3",
    "C4",
    "T5",
    "T6",
    "P3",
    "P4",
    "O1",
    "O2",
    "FZ",
    "CZ",
    "PZ",
)
TUH = (*EEGMAT, "A1", "A2", "T1", "T2")


def build(name: str, shape: Shape) -> torch.nn.Module:
    torch.manual_seed(0)
    try:
        return NETWORKS[name].build(shape)
    except BraindecodeMissing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "shape",
    [Shape(EEGMAT, 800, 2), Shape(("F4", "C4", "O2", "C3"), 6000, 5)],
    ids=["eegmat", "hmc"],
)
def test_windows_become_logits(name: str, shape: Shape) -> None:
    network = build(name, shape).eval()
    signal = torch.randn(2, len(shape.channels), shape.num_times)
    with torch.no_grad():
        together = network(signal)
        alone = network(signal[:1])
    assert together.shape == (2, shape.num_classes) and torch.isfinite(together).all()
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)  # no window depends on its neighbours


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.published_parameters])
def test_sizes_are_near_those_that_were_published(name: str) -> None:
    """As in the BIOT comparison: 16 channels and 10 s."""
    network = build(name, Shape(TUH[:16], 2000, 6))
    published = float((NETWORKS[name].published_parameters or "").removesuffix(" M"))
    ours = sum(one.numel() for one in network.parameters()) / 1e6
    if name == "sparcnet":  # braindecode's has a dense block for every halving of the window, eight here
        assert ours == pytest.approx(1.142, abs=0.001)
        return
    assert ours == pytest.approx(published, abs=0.15)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rhythm_is_learnt(name: BaselineName, tmp_path: Path) -> None:
    build(name, Shape(ELECTRODES, 400, 2))
    store = toy_store(tmp_path)
    train, val = indices(store)
    run = toy_run(tmp_path)
    found = predict_baseline(run, name, TASK, store, train, val, val, split="val")
    assert score(found).balanced_accuracy >= 0.9
    if name in ("eegnet", "cnn_transformer"):  # the seed decides all that is drawn
        again = predict_baseline(run, name, TASK, store, train, val, val, split="val")
        assert (again.log_likelihoods == found.log_likelihoods).all()


def test_labram_knows_channels_by_name(tmp_path: Path) -> None:
    network = build("labram", Shape(ELECTRODES, 400, 2)).eval()
    signal = torch.randn(2, 4, 400)
    turned = build("labram", Shape(ELECTRODES[::-1], 400, 2)).eval()
    turned.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(signal), turned(signal.flip(1)), rtol=1e-4, atol=1e-6)
        torch.nn.init.normal_(network.network.position_embedding)
        torch.nn.init.normal_(network.network.final_layer.weight)
        assert not torch.allclose(network(signal), network(signal.flip(1)), rtol=1e-2)
    with pytest.raises(UserError, match="labram has no position for I1"):
        build("labram", Shape(("FP1", "I1"), 400, 2))


def test_torchaudio_is_neither_needed_nor_left_behind() -> None:
    build("eegnet", Shape(ELECTRODES, 400, 2))
    if importlib.util.find_spec("torchaudio") is not None:
        pytest.skip("torchaudio is installed here")
    assert not [name for name in sys.modules if name.split(".")[0] == "torchaudio"]
    with pytest.raises(RuntimeError, match="Spectrogram needs torchaudio"):
        braindecode_models().meta_neuromotor.ta_transforms.Spectrogram(n_fft=64)


def test_without_braindecode_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    with pytest.raises(BraindecodeMissing, match=r"pip install 'neurolm\[baselines\]'"):
        braindecode_models()
    assert build("ffcl", Shape(ELECTRODES, 400, 2)) is not None
