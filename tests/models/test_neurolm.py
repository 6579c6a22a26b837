from collections.abc import Callable
from typing import Any

import pytest
import torch

from neurolm.models.language_model import LanguageModelConfig
from neurolm.models.losses import next_second_codes
from neurolm.models.masks import (
    answer_tree_mask,
    answer_tree_positions,
    eeg_text_mask,
    eeg_text_positions,
    stair_step_mask,
)
from neurolm.models.neural_tokenizer import NeuralTokenizer, NeuralTokenizerConfig
from neurolm.models.neurolm import NeuroLM, NeuroLMConfig
from neurolm.models.official import neurolm_weights, tokenizer_weights

NUM_CHANNELS, NUM_SECONDS = 3, 4
TIME = torch.arange(NUM_SECONDS).repeat_interleave(NUM_CHANNELS)
FIRST_CODE = 50304


def tiny(width: int = 16, text_ids: int = 40) -> NeuroLM:
    tokenizer = NeuralTokenizerConfig(
        hidden_size=16, num_layers=2, num_heads=2, decoder_layers=1, codebook_size=32, codebook_dim=8
    )
    language_model = LanguageModelConfig(hidden_size=width, num_layers=2, num_heads=2, text_vocabulary_size=text_ids)
    return NeuroLM(NeuroLMConfig(tokenizer=tokenizer, language_model=language_model)).eval()


def windows(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    channel_index = torch.tensor([5, 0, 9]).repeat(NUM_SECONDS)
    return torch.randn(batch, len(TIME), 200), channel_index.expand(batch, -1), TIME.expand(batch, -1)


def eeg_hidden(model: NeuroLM, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    features = model.features(*batch)
    embeddings = model.embed_eeg(features, batch[1])
    return model.hidden(embeddings, batch[2], stair_step_mask(batch[2][0]))


def test_the_tokenizer_stays_frozen() -> None:
    model = tiny().train()
    assert model.training and model.language_model.training and not model.tokenizer.training
    assert not any(parameter.requires_grad for parameter in model.tokenizer.parameters())
    before = {name: buffer.clone() for name, buffer in model.tokenizer.named_buffers()}
    features = model.features(*windows())
    codes = model.codes(features)
    assert not features.requires_grad and codes.shape == (2, 12)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.tokenizer.named_buffers())


def test_every_trained_parameter_gets_a_gradient() -> None:
    model, batch = tiny(width=24).train(), windows()
    eeg_hidden(model, batch).square().sum().backward()
    model.logits(model.embed_text(torch.tensor([[1]]))).sum().backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


@pytest.mark.parametrize("width", [16, 24])
def test_projection_only_where_the_widths_differ(width: int) -> None:
    model = tiny(width)
    assert len(list(model.projection.parameters())) == (0 if width == 16 else 2)
    assert eeg_hidden(model, windows()).shape == (2, 12, width)


def test_a_window_alone_and_in_a_batch_gives_the_same() -> None:
    model, batch = tiny(), windows(3)
    together = eeg_hidden(model, batch)
    alone = torch.cat([eeg_hidden(model, tuple(tensor[i : i + 1] for tensor in batch)) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_permuting_channels_leaves_the_loss_as_it_is() -> None:
    model, (signal, channel_index, time_index) = tiny(), windows()
    order = torch.arange(len(TIME)).view(NUM_SECONDS, NUM_CHANNELS)[:, [2, 0, 1]].flatten()

    def loss(order: torch.Tensor) -> float:
        batch = (signal[:, order], channel_index[:, order], time_index[:, order])
        codes = model.codes(model.features(*batch))
        targets = 40 + next_second_codes(codes, NUM_CHANNELS)
        with torch.no_grad():
            return float(model.cross_entropy(eeg_hidden(model, batch)[:, :-NUM_CHANNELS], targets).total)

    assert loss(order) == pytest.approx(loss(torch.arange(len(TIME))), rel=1e-5)


def test_later_seconds_change_no_earlier_hidden_state_of_the_language_model() -> None:
    """Given the features, that is: the encoder itself sees the whole window."""
    model, (signal, channel_index, time_index) = tiny(), windows(1)
    features = model.features(signal, channel_index, time_index)
    changed = features.clone()
    changed[:, -NUM_CHANNELS:] += torch.randn(NUM_CHANNELS, 16)
    states = [
        model.hidden(model.embed_eeg(x, channel_index), time_index, stair_step_mask(TIME)) for x in (features, changed)
    ]
    notices = (states[0] - states[1]).abs().amax(-1)[0] > 1e-5
    assert notices.tolist() == [False] * 9 + [True] * 3


def test_answers_of_one_forward_read_as_if_each_stood_alone() -> None:
    model, batch = tiny(), windows(2)
    prompt, answers = [1, 2, 3], [[4, 5], [6], [4, 7, 8]]
    features = model.features(*batch)
    eeg = model.embed_eeg(features, batch[1])

    def hidden(ids: list[int], positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        embeddings = torch.cat([eeg, model.embed_text(torch.tensor([ids] * 2))], dim=1)
        return model.hidden(embeddings, positions[None].expand(2, -1), mask)

    lengths = [len(answer) for answer in answers]
    tree = hidden(sum(answers, prompt), answer_tree_positions(TIME, 3, lengths), answer_tree_mask(TIME, 3, lengths))
    start = len(TIME) + len(prompt)
    for answer in answers:
        ids = prompt + answer
        alone = hidden(ids, eeg_text_positions(TIME, len(ids)), eeg_text_mask(TIME, len(ids)))
        torch.testing.assert_close(tree[:, start : start + len(answer)], alone[:, -len(answer) :], atol=1e-5, rtol=1e-4)
        start += len(answer)


def test_takes_over_a_stage_1_tokenizer() -> None:
    model = tiny()
    trained = NeuralTokenizer(model.config.tokenizer)
    model.load_tokenizer(trained.state_dict())
    batch = windows()
    features = model.features(*batch)
    codes = model.codes(features)
    torch.testing.assert_close(features, trained.eval().encode(*batch))
    assert torch.equal(codes, trained.codes(features))


@pytest.mark.parametrize(
    ("width", "layers", "heads", "trainable"),
    [(768, 12, 12, 169_597_440), (1024, 24, 16, 415_820_800), (1600, 48, 25, 1_652_920_000)],
    ids=["B", "L", "XL"],
)
def test_full_size_counts_equal_the_released_ones(width: int, layers: int, heads: int, trainable: int) -> None:
    with torch.device("meta"):
        model = NeuroLM(
            NeuroLMConfig(language_model=LanguageModelConfig(hidden_size=width, num_layers=layers, num_heads=heads))
        )
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == trainable
    assert sum(parameter.numel() for parameter in model.tokenizer.encoder.parameters()) == 85_510_272
    assert model.num_classes == 58_496


@pytest.fixture
def released(published: Callable[[str], Any]) -> Callable[[str, int | None], NeuroLM]:
    """The released code's tiny NeuroLM-B or -L."""

    def build(size: str, pad_to: int | None) -> NeuroLM:
        tokenizer = NeuralTokenizerConfig(
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            decoder_layers=2,
            codebook_size=64,
            codebook_dim=16,
            compat_pad_to=pad_to,
        )
        width = {"B": 16, "L": 8}[size]
        language_model = LanguageModelConfig(hidden_size=width, num_layers=2, num_heads=2)
        model = NeuroLM(NeuroLMConfig(tokenizer=tokenizer, language_model=language_model)).eval()
        codebook = {f"tokenizer.{name}": tensor for name, tensor in tokenizer_weights(published("VQ_tiny.pt")).items()}
        weights = codebook | neurolm_weights(published(f"NeuroLM-{size}_tiny.pt"))
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("tokenizer.decoders.")}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert (missing, unexpected) == (["tokenizer.quantizer.num_updates"], [])
        return model

    return build


def assert_logits(
    model: NeuroLM, hidden: torch.Tensor, arrays: dict[str, torch.Tensor], columns: torch.Tensor, lse: torch.Tensor
) -> None:
    logits = model.logits(hidden)
    ours = logits[:, arrays["logits_columns"]]
    assert float((ours - columns).norm() / columns.norm()) < 1e-5
    torch.testing.assert_close(logits.logsumexp(-1), lse, atol=0, rtol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("size", ["B", "L"])
@torch.no_grad()
def test_pretraining_equals_the_released_code(recorded, released, size: str) -> None:
    arrays, inputs, model = recorded("05_pretrain_forward.npz"), recorded("01_dataset.npz"), released(size, 32)
    loss, num_correct, num_targets = 0.0, 0, 0
    for window, (num_tokens, num_channels) in enumerate(
        zip(inputs["num_tokens"].tolist(), inputs["num_chans"].tolist(), strict=True)
    ):
        batch = [inputs[name][window : window + 1, :num_tokens] for name in ("X", "input_chans", "input_time")]
        features = model.features(*batch)
        codes = model.codes(features)
        embeddings = model.embed_eeg(features, batch[1])
        torch.testing.assert_close(
            embeddings[0], arrays[f"{size}_gpt_input_eeg"][window, :num_tokens], atol=1e-5, rtol=1e-4
        )
        hidden = model.hidden(embeddings, batch[2], stair_step_mask(batch[2][0]))[0]
        torch.testing.assert_close(hidden, arrays[f"{size}_hidden_ln_f"][window, :num_tokens], atol=1e-5, rtol=1e-4)
        columns, lse = (arrays[f"{size}_logits_{name}"][window, :num_tokens] for name in ("cols", "lse"))
        assert_logits(model, hidden, arrays, columns, lse)

        targets = next_second_codes(codes, num_channels)
        assert torch.equal(targets[0], arrays["Y_eeg"][window, : num_tokens - num_channels])
        found = model.cross_entropy(hidden[:-num_channels], FIRST_CODE + targets[0])
        loss += float(found.total)
        num_correct += int(found.num_correct)
        num_targets += targets.numel()
    assert loss / num_targets == pytest.approx(float(arrays[f"{size}_loss"]), rel=1e-5)
    assert num_correct / num_targets == pytest.approx(float(arrays[f"{size}_accuracy"]))


@pytest.mark.golden
@torch.no_grad()
def test_text_alone_equals_the_released_code(recorded, released) -> None:
    arrays, model = recorded("06_text_forward.npz"), released("B", 32)
    ids, targets = arrays["x_text"], arrays["y_text"]
    hidden = model.hidden(model.embed_text(ids), torch.arange(ids.shape[1])[None])
    for window in range(2):
        assert_logits(model, hidden[window], arrays, arrays["B_logits_cols"][window], arrays["B_logits_lse"][window])
    loss = model.cross_entropy(hidden, targets).total / targets.numel()
    assert float(loss) == pytest.approx(float(arrays["B_loss"]), rel=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("size", ["B", "L"])
@torch.no_grad()
def test_instruction_equals_the_released_code_for_a_window_alone(recorded, released, size: str) -> None:
    """Each window without the other in its batch: text starts after its own last second."""
    arrays, model = recorded("08_instruction_forward.npz"), released(size, 32)
    for window, name in enumerate(("workload", "hmc")):
        num_tokens = int(arrays["eeg_mask"][window].sum())
        signal, channel_index, time_index = (
            arrays[part][window : window + 1, :num_tokens] for part in ("X_eeg", "input_chans", "input_time")
        )
        text, targets = arrays["X_text"][window : window + 1], arrays["Y_text"][window]
        features = model.features(signal, channel_index, time_index)
        embeddings = torch.cat([model.embed_eeg(features, channel_index), model.embed_text(text)], dim=1)
        positions = eeg_text_positions(time_index[0], text.shape[1])
        hidden = model.hidden(embeddings, positions[None], eeg_text_mask(time_index[0], text.shape[1]))[0]
        is_target = targets >= 0
        loss = model.cross_entropy(hidden[num_tokens:][is_target], targets[is_target]).total / is_target.sum()
        assert float(loss) == pytest.approx(float(arrays[f"{size}_loss_{name}_alone"]), rel=1e-5)
        if name == "workload":
            kept = torch.cat([torch.arange(num_tokens), torch.arange(32, 112)])
            columns = arrays[f"{size}_logits_cols_workload_alone"][0][kept]
            ours = model.logits(hidden)[:, arrays["logits_columns"]]
            assert float((ours - columns).norm() / columns.norm()) < 1e-5
