"""SIGTERM and Ctrl-C end a run in this process after its step, with a checkpoint, and the same command goes on."""

import os
import signal
import threading
from pathlib import Path

import pytest

from neurolm.cli import main
from neurolm.tracking import read_curves
from neurolm.training import worker
from neurolm.training.engine import TorchEngine
from neurolm.training.stopping import EXIT_CODE, stop_signals
from tests.tiny import write_tiny_store, write_tiny_tokenizer_config


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    asked: list[int] = []
    with stop_signals(lambda: asked.append(1)):
        os.kill(os.getpid(), number)
        assert asked == [1]
        assert f"{number.name}: stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert asked == [1]
    assert signal.getsignal(number) is before


def test_only_the_main_thread_hears() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    def listen() -> None:
        with stop_signals(lambda: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before]


class SignalledEngine(TorchEngine):
    """The process gets SIGTERM in the middle of its third step."""

    def step(self) -> dict[str, float]:
        if self.step_count == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step()


def test_neurolm_train_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = write_tiny_store(tmp_path / "store", num_windows=21)
    models = {}
    for name in ("whole", "stopped"):
        config = write_tiny_tokenizer_config(tmp_path / name, store)
        if name == "stopped":
            with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
                patch.setattr(worker, "TorchEngine", SignalledEngine)
                main(["train", str(config)])
            assert caught.value.code == EXIT_CODE == 75
            said = capfd.readouterr().err
            assert "SIGTERM: stopping after this step" in said
            assert "stopped on request after step 4 of 6" in said  # it was the update of step 3 that the signal met
            folder = tmp_path / name / "tokenizer"
            kept = max((tmp_path / name / "checkpoints" / "tokenizer").glob("step-*"))
            assert kept.name.startswith("step-00000004-")
            assert '"status": "KILLED"' in (folder / "tracking.jsonl").read_text().splitlines()[-1]
        main(["train", str(config)])
        models[name] = (tmp_path / name / "tokenizer" / "model" / "model.safetensors").read_bytes()
    assert models["whole"] == models["stopped"]
    whole, stopped = (read_curves(tmp_path / name / "tokenizer" / "tracking.jsonl") for name in models)
    assert whole["loss"] == stopped["loss"] and whole["window_digest"] == stopped["window_digest"]
