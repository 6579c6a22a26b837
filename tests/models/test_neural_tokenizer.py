from typing import Any

import pytest
import torch

from neurolm.models.alignment import DomainClassifier
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig

NUM_CHANNELS, NUM_SECONDS = 3, 4
TOKENS = NUM_CHANNELS * NUM_SECONDS
COVARIANCE = {"patch_input": "covariance", "reconstruct": "covariance"}


def tiny(**settings: Any) -> NeuralTokenizer:
    sizes = {
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_layers": 1,
        "codebook_size": 32,
        "codebook_dim": 8,
    }
    return NeuralTokenizer(NeuralTokenizerConfig(**(sizes | settings)))


def windows(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    channel_index = torch.tensor([5, 0, 9]).repeat(NUM_SECONDS)
    time_index = torch.arange(NUM_SECONDS).repeat_interleave(NUM_CHANNELS)
    return torch.randn(batch, TOKENS, 200), channel_index.expand(batch, -1), time_index.expand(batch, -1)


@pytest.mark.parametrize(
    ("reconstruct", "names"),
    [
        ("both", {"commitment", "frequency", "raw"}),
        ("raw", {"commitment", "raw"}),
        ("frequency", {"commitment", "frequency"}),
        ("covariance", {"commitment", "covariance"}),
    ],
)
def test_sums_and_counts_of_what_is_reconstructed(reconstruct: str, names: set[str]) -> None:
    model, (signal, channel_index, time_index) = tiny(reconstruct=reconstruct), windows()
    output = model(signal, channel_index, time_index)
    sizes = {"commitment": 8, "frequency": 100, "raw": 200, "covariance": 8 * (1 + NUM_CHANNELS)}
    assert output.counts == {name: 2 * TOKENS * sizes[name] for name in names}
    reconstructed = model.reconstruct(model.quantizer(output.latents).latents, channel_index, time_index)
    for name, values in reconstructed.items():
        expected = (values - model.target(name, signal, NUM_CHANNELS)).square().sum()
        torch.testing.assert_close(output.squared_errors[name], expected)
    torch.testing.assert_close(output.latents.norm(dim=-1), torch.ones(2, TOKENS))
    assert torch.equal(output.codes, model.codes(output.features))


@pytest.mark.parametrize("settings", [{}, COVARIANCE])
def test_a_window_alone_and_in_a_batch_gives_the_same(settings: dict[str, str]) -> None:
    model, batch = tiny(**settings), windows(3)
    together = model(*batch)
    parts = [model(*(tensor[i : i + 1] for tensor in batch)) for i in range(3)]
    torch.testing.assert_close(together.features, torch.cat([part.features for part in parts]), atol=1e-5, rtol=1e-4)
    assert torch.equal(together.codes, torch.cat([part.codes for part in parts]))
    for name, total in together.squared_errors.items():
        torch.testing.assert_close(total, sum(part.squared_errors[name] for part in parts))


@pytest.mark.parametrize("settings", [{}, COVARIANCE])
def test_permuting_channels_permutes_features(settings: dict[str, str]) -> None:
    model, (signal, channel_index, time_index) = tiny(**settings), windows()
    order = torch.arange(TOKENS).view(NUM_SECONDS, NUM_CHANNELS)[:, [2, 0, 1]].flatten()
    features = model.encode(signal, channel_index, time_index)
    permuted = model.encode(signal[:, order], channel_index[:, order], time_index[:, order])
    torch.testing.assert_close(permuted, features[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, COVARIANCE])
def test_every_trained_parameter_gets_a_gradient(settings: dict[str, str]) -> None:
    model = tiny(**settings)
    output = model(*windows())
    sum(output.squared_errors.values()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_the_released_initialisation() -> None:
    model = tiny(hidden_size=128, embedding_init_std=0.5)
    assert float(model.encoder.place.channel.weight.detach().std()) == pytest.approx(0.5, rel=0.02)
    assert float(model.decoders["raw"].place.time.weight.detach().std()) == pytest.approx(0.5, rel=0.03)
    assert float(model.latent_head[0].weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    assert NeuralTokenizerConfig().embedding_init_std == 1


def test_latents_stay_in_fp32_under_autocast() -> None:
    model, batch = tiny(), windows()
    features = model.encode(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.latents(features)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, model.latents(features))


def test_a_model_without_decoders_loads_a_whole_tokenizer_and_refuses_others() -> None:
    whole = tiny()
    frozen = NeuralTokenizer(whole.config, with_decoders=False)
    weights = whole.state_dict()
    frozen.load_state_dict(weights)
    assert any(name.startswith("decoders.") for name in weights), "the caller's weights were changed"
    batch = windows()
    torch.testing.assert_close(frozen.encode(*batch), whole.encode(*batch))
    with pytest.raises(RuntimeError, match="surplus"):
        frozen.load_state_dict(weights | {"surplus": torch.zeros(1)})


def test_windows_longer_than_the_padding_are_refused() -> None:
    with pytest.raises(ValueError, match="12 tokens is longer than compat_pad_to = 8"):
        tiny(compat_pad_to=8).encode(*windows())


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("depth", "decoder", "trainable"), [(4, 28_664_064, 145_136_686), (3, 21_584_640, 130_977_838)]
)
def test_full_size_counts_equal_the_released_ones(depth: int, decoder: int, trainable: int) -> None:
    """With the released decoders of four blocks, and with the paper's of three."""
    with torch.device("meta"):
        model = NeuralTokenizer(NeuralTokenizerConfig(decoder_layers=depth))
        classifier, text_table = DomainClassifier(768), torch.empty(50257, 768)
    encoder = model.encoder
    embedding = encoder.patch_embedding
    assert count(embedding) == 309_888
    assert (count(encoder.place.channel), count(encoder.place.time)) == (196_608, 49_152)
    assert (count(encoder.transformer), count(encoder.norm)) == (84_953_088, 1_536)
    assert count(encoder) == 85_510_272
    assert count(model.latent_head) == 689_024
    heads = {name: count(decoder.head) for name, decoder in model.decoders.items()}
    assert heads == {"frequency": 667_492, "raw": 744_392}
    assert [count(one) - heads[name] for name, one in model.decoders.items()] == [decoder] * 2
    assert count(classifier) == 197_378
    assert count(model) + count(classifier) == trainable
    # The released count has the codebook, its dead copies and the frozen text table too.
    codebook = model.quantizer.codebook.numel()
    quantizer = 2 * codebook + 8192
    assert trainable + quantizer + text_table.numel() == 185_839_406 - 2 * (4 - depth) * (28_664_064 - 21_584_640)


def test_each_window_has_its_own_channels_and_as_many_as_it_likes() -> None:
    """Coupling belongs to channels by name: other channels of the same number give other features and other targets."""
    model, (signal, channel_index, time_index) = tiny(**COVARIANCE), windows()
    others = channel_index.clone()
    others[1] = torch.tensor([5, 0, 30]).repeat(NUM_SECONDS)
    mixed = model(signal, others, time_index)
    for row, channels in enumerate((channel_index, others)):
        alone = model(signal[row : row + 1], channels[row : row + 1], time_index[:1])
        torch.testing.assert_close(mixed.features[row : row + 1], alone.features, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mixed.by_window["covariance"][row : row + 1], alone.by_window["covariance"])
    assert not torch.allclose(mixed.features[1], model(signal, channel_index, time_index).features[1], atol=1e-3)
    two = torch.arange(2).repeat(NUM_SECONDS).expand(1, -1)
    output = model(signal[:1, : 2 * NUM_SECONDS], two, torch.arange(NUM_SECONDS).repeat_interleave(2)[None])
    assert output.counts["covariance"] == 2 * NUM_SECONDS * 8 * (1 + 2)


def test_channels_of_a_second_are_counted_where_they_are_not_given() -> None:
    model, batch = tiny(**COVARIANCE), windows()
    assert torch.equal(model.encode(*batch), model.encode(*batch, NUM_CHANNELS))


def test_decoders_start_from_what_all_windows_have_in_common() -> None:
    model, (signal, _, _) = tiny(**COVARIANCE, decoder_start="mean"), windows()
    model.start_decoders([(signal, NUM_CHANNELS), (signal[:, :8], 2)])
    targets = [model.target("covariance", *group)[..., :8] for group in ((signal, NUM_CHANNELS), (signal[:, :8], 2))]
    bias = model.decoders.get_parameter("covariance.head.2.bias")
    torch.testing.assert_close(bias[:8], torch.cat([one.flatten(0, 1) for one in targets]).mean(0))
    assert not bias[8:].any()


@pytest.mark.parametrize("settings", [{"compat_pad_to": 276}, {"norm": "token"}])
def test_covariance_has_no_settings_of_the_convolution(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="patch_input"):
        tiny(patch_input="covariance", **settings)


def test_published_models_reconstruct_no_covariance() -> None:
    with pytest.raises(ValueError, match="compat_pad_to"):
        tiny(reconstruct="covariance", compat_pad_to=276)
