"""Stage 1: inputs, every stage of the forward pass, gradients, three steps, k-means, padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurolm.models.alignment import reversal_strength
from neurolm.models.losses import frequency_target, raw_target
from neurolm.models.masks import stair_step_mask
from neurolm.models.place_embedding import PAD_CHANNEL
from neurolm.models.quantizer import cosine_kmeans
from neurolm.training.context import LocalContext
from neurolm.training.optimizer import OptimizerConfig, build_optimizer
from neurolm.training.tokenizer import TokenizerStage
from tests.golden.conftest import GRADIENTS, Parity
from tests.golden.recorded import Golden, one_more, valid
from tests.tiny import total_counts

pytestmark = pytest.mark.golden
LOSSES = {"commitment": "quant", "frequency": "rec_freq", "raw": "rec_raw"}
DOMAINS = {"domain_eeg": "domain_loss_eeg", "domain_text": "domain_loss_text"}


def gradients(stage: TokenizerStage, layout) -> dict[str, Tensor]:
    """Gradients of the whole stage 1 under the released names."""
    found = {name: one.grad for name, one in stage.tokenizer.named_parameters() if one.grad is not None}
    assert stage.classifier is not None
    classifier = {f"domain_classifier.{name}": one.grad for name, one in stage.classifier.layers.named_parameters()}
    return layout.to_official(found) | classifier


def test_inputs(released: Golden, parity: Parity) -> None:
    inputs = released.inputs
    for window, group in enumerate(released.batch().groups):
        num_tokens, num_channels = int(inputs["num_tokens"][window]), int(inputs["num_chans"][window])
        kept = slice(num_tokens)
        parity.same("01_dataset", "sizes", (group.num_channels, len(group.time_index)), (num_channels, num_tokens))
        parity.close("01_dataset", "X", group.signal[0], inputs["X"][window, kept])
        parity.close("01_dataset", "Y_raw", raw_target(group.signal)[0], inputs["Y_raw"][window, kept])
        parity.close("01_dataset", "Y_freq", frequency_target(group.signal)[0], inputs["Y_freq"][window, kept])
        parity.same("01_dataset", "input_chans", group.channel_index[0], inputs["input_chans"][window, kept])
        parity.same("01_dataset", "input_time", group.time_index, inputs["input_time"][window, kept])
        mask = inputs["gpt_mask"][window, 0]
        parity.same("01_dataset", "gpt_mask", stair_step_mask(group.time_index), mask[kept, kept])
        # What stands behind the last token is what virtual padding takes it to be.
        assert not mask[kept, num_tokens:].any() and not inputs["input_mask"][window, num_tokens:].any()
        assert inputs["input_mask"][window, kept].all() and not inputs["X"][window, num_tokens:].any()
        assert (inputs["input_chans"][window, num_tokens:] == PAD_CHANNEL).all()
        assert not inputs["input_time"][window, num_tokens:].any()


@torch.no_grad()
def test_every_stage_of_the_forward_pass(released: Golden, parity: Parity) -> None:
    arrays, (model, _) = released.arrays("02_vq_forward.npz"), released.tokenizer()
    hooked: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: hooked.update({name: output[0]}))

    encoder = model.encoder
    keep("patch_out", encoder.patch_embedding)
    for index, block in enumerate(encoder.transformer.blocks):
        keep(f"block{index}_attn", block.attention)
        keep(f"block{index}", block)
    keep("encoder_features", encoder.norm)
    keep("to_quantizer", model.latent_head)
    decoders = {"freq": model.decoders["frequency"], "raw": model.decoders["raw"]}
    for name, decoder in decoders.items():
        keep(f"decoder_{name}_features", decoder.norm)
        keep(f"rec_{name}", decoder.head)
    for window, group in enumerate(released.batch().groups):
        kept = slice(len(group.time_index))
        output = model(group.signal, group.channel_index, group.time_indices)
        for name, value in hooked.items():
            parity.close("02_vq_forward", name, value[kept], arrays[name][window, kept])
        parity.close("02_vq_forward", "z", output.latents[0], arrays["z"][window, kept])
        parity.same("02_vq_forward", "codebook_indices", output.codes[0], arrays["codebook_indices"][window, kept])
        rows = model.quantizer(output.latents).latents[0]
        parity.close("02_vq_forward", "z_q", rows, arrays["z_q"][window, kept])

        embedding, weights = encoder.patch_embedding, model.token_weights(group.signal)
        x = F.pad(group.signal, (0, 0, 0, 0 if weights is None else 1))[:, None]
        for index, (convolution, norm) in enumerate(zip(embedding.convolutions, embedding.norms, strict=True), 1):
            x = convolution(x)
            parity.close("02_vq_forward", "patch_conv", x[0, :, kept], arrays[f"patch_conv{index}"][window, :, kept])
            x = embedding._normalise(x, norm, weights)
            parity.close("02_vq_forward", "patch_norm", x[0, :, kept], arrays[f"patch_norm{index}"][window, :, kept])
            x = F.gelu(x)
            parity.close("02_vq_forward", "patch_gelu", x[0, :, kept], arrays[f"patch_gelu{index}"][window, :, kept])


@torch.no_grad()
def test_losses_from_microvolt(released: Golden, parity: Parity) -> None:
    arrays, (stage, _) = released.arrays("02_vq_forward.npz"), released.tokenizer_stage()
    stage.eval()
    batch = released.batch(one_more(arrays["text_tokens"]))
    shares = stage(batch, total_counts([batch]))
    for ours, theirs in (LOSSES | DOMAINS).items():
        name = theirs if ours in DOMAINS else f"{theirs}_loss"
        parity.close("02_vq_forward", name, shares[ours], arrays[name])
    parity.close("02_vq_forward", "total_loss", sum(shares[name] for name in LOSSES), arrays["total_loss"])
    assert stage.classifier is not None and stage.text_table is not None
    parity.close(
        "02_vq_forward",
        "domain_logits_text",
        stage.classifier(stage.text_table[arrays["text_tokens"]]),
        arrays["domain_logits_text"],
    )
    eeg = valid(arrays["domain_logits_eeg"], released.inputs["num_tokens"])
    features = valid(arrays["encoder_features"], released.inputs["num_tokens"])
    parity.close("02_vq_forward", "domain_logits_eeg", stage.classifier(features), eeg)

    # The released statistic moves in eval mode too; ours moves by the same amount, but in training alone.
    quantizer = stage.tokenizer.quantizer
    assert torch.equal(quantizer.cluster_size, arrays["cluster_size_before"])
    stage.train()(batch, total_counts([batch]))
    quantizer.update()
    parity.close("02_vq_forward", "cluster_size", quantizer.cluster_size, arrays["cluster_size_after_eval"])


def test_gradients_and_one_update_of_the_codebook(released: Golden, parity: Parity) -> None:
    arrays, (stage, layout) = released.arrays("03_vq_train_grads.npz"), released.tokenizer_stage()
    stage.train().alpha = float(arrays["alpha"])
    batch = released.batch(one_more(released.arrays("02_vq_forward.npz")["text_tokens"]))
    shares = stage(batch, total_counts([batch]))
    for ours, theirs in (LOSSES | DOMAINS).items():
        name = theirs if ours in DOMAINS else f"{theirs}_loss"
        parity.close("03_vq_train_grads", name, shares[ours], arrays[name])
    shares["loss"].backward()
    found = gradients(stage, layout)
    names = [str(name) for name in arrays["names"]]
    parity.same("03_vq_train_grads", "names", found.keys() == set(names), True)
    norms = torch.stack([found[name].norm() for name in names])
    for name, ours, theirs in zip(names, norms, arrays["grad_l2"], strict=True):
        parity.close("03_vq_train_grads", f"norm of {name}", ours, theirs, GRADIENTS)
    for name, expected in arrays.items():
        if name.startswith("grad/"):
            parity.close("03_vq_train_grads", name, found[name.removeprefix("grad/")], expected, GRADIENTS)
    without = {str(name) for name in arrays["names_without_grad"]}
    parity.same("03_vq_train_grads", "names without", without & found.keys(), set())
    assert (
        without
        | found.keys()
        | {
            "VQ.quantize.cluster_size",
            "VQ.quantize.embedding.initted",
        }
        >= layout.shapes.keys()
    )
    stage.after_step(LocalContext())
    quantizer = stage.tokenizer.quantizer
    parity.close("03_vq_train_grads", "codebook_after", quantizer.codebook, arrays["codebook_after"])
    parity.close("03_vq_train_grads", "cluster_size_after", quantizer.cluster_size, arrays["cluster_size_after"])


def test_three_training_steps(released: Golden, parity: Parity) -> None:
    arrays, (stage, layout) = released.arrays("04_vq_train_steps.npz"), released.tokenizer_stage()
    batch = released.batch(one_more(released.arrays("02_vq_forward.npz")["text_tokens"]))
    settings = OptimizerConfig(learning_rate=1e-3, beta1=0.9, beta2=0.999, weight_decay=1e-4, clip_norm=None)
    optimizer, total = build_optimizer(stage.train(), settings), int(arrays["T_total"])
    columns = [str(name) for name in arrays["columns"]]
    for step, row in enumerate(arrays["steps"]):
        expected = dict(zip(columns, row, strict=True))
        stage.before_step(step, total)
        parity.close("04_vq_train_steps", "alpha", stage.alpha, expected["alpha"], GRADIENTS)
        shares = stage(batch, total_counts([batch]))
        for ours, theirs in (LOSSES | {name: name for name in DOMAINS}).items():
            parity.close("04_vq_train_steps", f"{theirs} of step {step}", shares[ours], expected[theirs], GRADIENTS)
        shares["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        stage.after_step(LocalContext())
    final = layout.to_official(stage.tokenizer.state_dict())
    for ours, theirs in {
        "VQ.quantize.embedding.weight": "final_codebook",
        "VQ.quantize.cluster_size": "final_cluster_size",
        "VQ.encoder.blocks.0.attn.c_attn.weight": "final_c_attn",
        "VQ.encoder.patch_embed.conv1.weight": "final_conv1",
    }.items():
        parity.close("04_vq_train_steps", theirs, final[ours], arrays[theirs], GRADIENTS)


def test_kmeans(released: Golden, parity: Parity) -> None:
    arrays = released.arrays("10_kmeans.npz")
    first = arrays["samples"][arrays["initial_indices"]]
    means, counts = cosine_kmeans(arrays["samples"], first, int(arrays["num_iters"]))
    parity.close("10_kmeans", "means", means, arrays["means"])
    parity.same("10_kmeans", "bins", counts, arrays["bins"])


def test_reversal_schedule(released: Golden, parity: Parity) -> None:
    arrays = released.arrays("11_schedules.npz")
    ours = [reversal_strength(step, int(arrays["alpha_T"])) for step in arrays["alpha_iters"].tolist()]
    parity.close("11_schedules", "alpha", ours, arrays["alpha"])


@torch.no_grad()
def test_any_padding_is_emulated(released: Golden, parity: Parity) -> None:
    arrays, group = released.arrays("12_padding_effect.npz"), released.batch().groups[0]
    for name in arrays:
        if not name.startswith("features_pad"):
            continue
        pad_to = int(name.removeprefix("features_pad"))
        model, _ = released.tokenizer(pad_to)
        features = model.encode(group.signal, group.channel_index, group.time_indices)
        parity.close("12_padding_effect", name, features, arrays[name])
        parity.same("12_padding_effect", f"indices_pad{pad_to}", model.codes(features), arrays[f"indices_pad{pad_to}"])
        weights = model.token_weights(group.signal)
        signal = group.signal if weights is None else F.pad(group.signal, (0, 0, 0, 1))
        patches = model.encoder.patch_embedding(signal, weights)[:, : group.signal.shape[1]]
        parity.close("12_padding_effect", f"patch_out_pad{pad_to}", patches, arrays[f"patch_out_pad{pad_to}"])
