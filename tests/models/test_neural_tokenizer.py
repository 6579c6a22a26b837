from typing import Any

import pytest
import torch

from neurolm.models.alignment import EEG_DOMAIN, TEXT_DOMAIN, DomainClassifier, gradient_reversal, reversal_strength
from neurolm.models.neural_tokenizer import NeuralTokenizer, NeuralTokenizerConfig
from neurolm.models.official import classifier_weights

NUM_CHANNELS, NUM_SECONDS = 3, 4
TOKENS = NUM_CHANNELS * NUM_SECONDS


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
    ],
)
def test_sums_and_counts_of_what_is_reconstructed(reconstruct: str, names: set[str]) -> None:
    model, (signal, channel_index, time_index) = tiny(reconstruct=reconstruct), windows()
    output = model(signal, channel_index, time_index)
    sizes = {"commitment": 8, "frequency": 100, "raw": 200}
    assert output.counts == {name: 2 * TOKENS * sizes[name] for name in names}
    reconstructed = model.reconstruct(model.quantizer(output.latents).latents, channel_index, time_index)
    for name, values in reconstructed.items():
        expected = (values - model.target(name, signal)).square().sum()
        torch.testing.assert_close(output.squared_errors[name], expected)
    torch.testing.assert_close(output.latents.norm(dim=-1), torch.ones(2, TOKENS))
    assert torch.equal(output.codes, model.codes(output.features))


def test_a_window_alone_and_in_a_batch_gives_the_same() -> None:
    model, batch = tiny(), windows(3)
    together = model(*batch)
    parts = [model(*(tensor[i : i + 1] for tensor in batch)) for i in range(3)]
    torch.testing.assert_close(together.features, torch.cat([part.features for part in parts]), atol=1e-5, rtol=1e-4)
    assert torch.equal(together.codes, torch.cat([part.codes for part in parts]))
    for name, total in together.squared_errors.items():
        torch.testing.assert_close(total, sum(part.squared_errors[name] for part in parts))


def test_permuting_channels_permutes_features() -> None:
    model, (signal, channel_index, time_index) = tiny(), windows()
    order = torch.arange(TOKENS).view(NUM_SECONDS, NUM_CHANNELS)[:, [2, 0, 1]].flatten()
    features = model.encode(signal, channel_index, time_index)
    permuted = model.encode(signal[:, order], channel_index[:, order], time_index[:, order])
    torch.testing.assert_close(permuted, features[:, order], atol=1e-5, rtol=1e-4)


def test_every_trained_parameter_gets_a_gradient() -> None:
    model = tiny()
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


def test_full_size_counts_equal_the_released_ones() -> None:
    with torch.device("meta"):
        model = NeuralTokenizer(NeuralTokenizerConfig())

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(model.encoder) == 85_510_272
    assert count(model.latent_head) == 689_024
    heads = {name: count(decoder.head) for name, decoder in model.decoders.items()}
    assert heads == {"frequency": 667_492, "raw": 744_392}
    assert [count(decoder) - heads[name] for name, decoder in model.decoders.items()] == [28_664_064] * 2
    assert count(model) + count(DomainClassifier(768)) == 145_136_686


@pytest.mark.golden
@pytest.mark.parametrize("pad_to", [20, 32, 276, 1024])
def test_features_and_codes_equal_the_released_ones_at_any_padding(recorded, released_tokenizer, pad_to: int) -> None:
    arrays, inputs = recorded("12_padding_effect.npz"), recorded("01_dataset.npz")
    model = released_tokenizer(pad_to)
    signal, channel_index, time_index = (inputs[name][:1, :20] for name in ("X", "input_chans", "input_time"))
    features = model.encode(signal, channel_index, time_index)
    torch.testing.assert_close(features, arrays[f"features_pad{pad_to}"], atol=1e-5, rtol=1e-4)
    assert torch.equal(model.codes(features), arrays[f"indices_pad{pad_to}"])


def released_step(model: NeuralTokenizer, inputs: Any) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Both recorded windows, which differ in shape; losses as the released code divides them."""
    outputs = []
    for window, num_tokens in enumerate(inputs["num_tokens"].tolist()):
        arguments = (inputs[name][window : window + 1, :num_tokens] for name in ("X", "input_chans", "input_time"))
        outputs.append(model(*arguments))
    losses = {
        name: sum(output.squared_errors[name] for output in outputs) / sum(output.counts[name] for output in outputs)
        for name in outputs[0].counts
    }
    return outputs, losses


@pytest.mark.golden
def test_losses_equal_the_released_ones(recorded, released_tokenizer) -> None:
    arrays, inputs = recorded("02_vq_forward.npz"), recorded("01_dataset.npz")
    outputs, losses = released_step(released_tokenizer(32), inputs)
    for window, output in enumerate(outputs):
        num_tokens = output.codes.shape[1]
        assert torch.equal(output.codes[0], arrays["codebook_indices"][window, :num_tokens])
        torch.testing.assert_close(output.latents[0], arrays["z"][window, :num_tokens], atol=1e-5, rtol=1e-4)
        expected = arrays["encoder_features"][window, :num_tokens]
        torch.testing.assert_close(output.features[0], expected, atol=1e-5, rtol=1e-4)
    for name, theirs in {"commitment": "quant_loss", "frequency": "rec_freq_loss", "raw": "rec_raw_loss"}.items():
        torch.testing.assert_close(losses[name], arrays[theirs], atol=0, rtol=1e-5)


@pytest.mark.golden
def test_three_training_steps_equal_the_released_ones(recorded, released_tokenizer, published) -> None:
    """Losses, alignment, gradients, AdamW and moving averages together."""
    forward, arrays, inputs = (recorded(f"{name}.npz") for name in ("02_vq_forward", "04_vq_train_steps", "01_dataset"))
    grads = recorded("03_vq_train_grads.npz")
    model, official = released_tokenizer(32).train(), published("VQ_tiny.pt")
    classifier = DomainClassifier(16)
    classifier.load_state_dict(classifier_weights(official))
    text = official["_orig_mod.wte.weight"][forward["text_tokens"]]
    parameters = [*model.parameters(), *classifier.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 1e-4},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)

    def losses(alpha: float) -> torch.Tensor:
        outputs, errors = released_step(model, inputs)
        num_tokens = sum(output.features.shape[1] for output in outputs)
        eeg = sum(classifier.loss_sum(gradient_reversal(output.features, alpha), EEG_DOMAIN) for output in outputs)
        return sum(errors.values()) + eeg / num_tokens + classifier.loss_sum(text, TEXT_DOMAIN) / text[..., 0].numel()

    losses(float(grads["alpha"])).backward()
    for ours, theirs in {
        "encoder.patch_embedding.convolutions.0.weight": "VQ.encoder.patch_embed.conv1.weight",
        "encoder.place.channel.weight": "VQ.encoder.pos_embed.weight",
        "encoder.transformer.blocks.0.attention.qkv.weight": "VQ.encoder.blocks.0.attn.c_attn.weight",
        "latent_head.2.weight": "VQ.encode_task_layer.2.weight",
        "decoders.raw.linear.weight": "VQ.decoder_raw.patch_embed.weight",
    }.items():
        gradient, expected = model.get_parameter(ours).grad, grads[f"grad/{theirs}"]
        assert float((gradient - expected).norm() / expected.norm()) < 1e-4, ours
    optimizer.zero_grad()
    model.quantizer.counts.zero_()
    model.quantizer.sums.zero_()

    columns = ["alpha", "total", "rec_freq", "rec_raw", "quant", "domain_eeg", "domain_text"]
    for step, row in enumerate(arrays["steps"]):
        loss = losses(reversal_strength(step, int(arrays["T_total"])))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.quantizer.update()
        total, domain_eeg, domain_text = (
            float(row[columns.index(name)]) for name in ("total", "domain_eeg", "domain_text")
        )
        assert float(loss.detach()) == pytest.approx(total + domain_eeg + domain_text, rel=1e-5)
    for ours, theirs in {
        "quantizer.codebook": "final_codebook",
        "quantizer.cluster_size": "final_cluster_size",
        "encoder.transformer.blocks.0.attention.qkv.weight": "final_c_attn",
        "encoder.patch_embedding.convolutions.0.weight": "final_conv1",
    }.items():
        value, expected = model.state_dict()[ours], arrays[theirs]
        assert float((value - expected).norm() / expected.norm()) < 1e-4, ours
