"""Stage 2: codes, hidden states, logits and losses, text alone, three optimizer steps, schedules."""

import re

import pytest
import torch

from neurolm.models.losses import next_second_codes
from neurolm.models.masks import stair_step_mask
from neurolm.sequences import eeg_tokens
from neurolm.text.bpe import gpt2_bpe
from neurolm.training.optimizer import OptimizerConfig, build_optimizer, learning_rate
from tests.golden.conftest import GRADIENTS, Parity
from tests.golden.recorded import Golden
from tests.tiny import total_counts

pytestmark = pytest.mark.golden


def text_crops(released: Golden) -> torch.Tensor:
    """The recorded text with the id that its last one predicts."""
    texts = released.arrays("06_text_forward.npz")
    assert torch.equal(texts["x_text"][:, 1:], texts["y_text"][:, :-1])
    return torch.cat([texts["x_text"], texts["y_text"][:, -1:]], dim=1)


@torch.no_grad()
def test_forward(released: Golden, parity: Parity) -> None:
    arrays = released.arrays("05_pretrain_forward.npz")
    for size in released.sizes:
        model, _ = released.neurolm(size)
        for window, group in enumerate(released.batch().groups):
            kept = slice(len(group.time_index))
            tokens = eeg_tokens(model, group)
            projected = model.projection(tokens.features)
            embeddings = model.embed_eeg(tokens.features, group.channel_index)
            hidden = model.hidden(embeddings, group.time_indices, stair_step_mask(group.time_index))
            logits = model.logits(hidden)[0]
            for name, ours in {
                "after_transform": projected[0],
                "gpt_input_eeg": embeddings[0],
                "hidden_ln_f": hidden[0],
                "logits_cols": logits[:, arrays["logits_columns"]],
                "logits_lse": logits.logsumexp(-1),
            }.items():
                parity.close("05_pretrain_forward", f"{size} {name}", ours, arrays[f"{size}_{name}"][window, kept])
            argmax = arrays[f"{size}_logits_argmax"][window, kept]
            parity.same("05_pretrain_forward", f"{size} argmax", logits.argmax(-1), argmax)
            targets = next_second_codes(tokens.codes, group.num_channels)[0]
            expected = arrays["Y_eeg"][window]
            parity.same("05_pretrain_forward", "Y_eeg", targets, expected[: len(targets)])
            assert (expected[len(targets) :] + gpt2_bpe().num_rows == -1).all(), "targets that we do not have"


@torch.no_grad()
def test_losses_from_microvolt(released: Golden, parity: Parity) -> None:
    arrays, texts = released.arrays("05_pretrain_forward.npz"), released.arrays("06_text_forward.npz")
    batch = released.batch(text_crops(released))
    for size in released.sizes:
        stage, _ = released.pretrain_stage(size)
        shares = stage(batch, total_counts([batch]))
        parity.close("05_pretrain_forward", f"{size} loss", shares["eeg_loss"], arrays[f"{size}_loss"])
        parity.close("05_pretrain_forward", f"{size} accuracy", shares["eeg_accuracy"], arrays[f"{size}_accuracy"])
        if f"{size}_loss" in texts:
            parity.close("06_text_forward", f"{size} loss", shares["text_loss"], texts[f"{size}_loss"])


@torch.no_grad()
def test_text_alone(released: Golden, parity: Parity) -> None:
    arrays = released.arrays("06_text_forward.npz")
    for size in (size for size in released.sizes if f"{size}_loss" in arrays):
        model, _ = released.neurolm(size)
        ids = arrays["x_text"]
        logits = model.logits(model.hidden(model.embed_text(ids), torch.arange(ids.shape[1])[None]))
        columns = logits[..., arrays["logits_columns"]]
        parity.close("06_text_forward", f"{size} logits_cols", columns, arrays[f"{size}_logits_cols"])
        parity.close("06_text_forward", f"{size} logits_lse", logits.logsumexp(-1), arrays[f"{size}_logits_lse"])
        accuracy = (logits.argmax(-1) == arrays["y_text"]).double().mean()
        parity.close("06_text_forward", f"{size} accuracy", accuracy, arrays[f"{size}_accuracy"])


def test_three_optimizer_steps(released: Golden, parity: Parity) -> None:
    arrays = released.arrays("07_pretrain_steps.npz")
    stage, layout = released.pretrain_stage("B")
    beta1, beta2 = arrays["betas"].tolist()
    settings = OptimizerConfig(
        learning_rate=float(arrays["lr"]), weight_decay=float(arrays["weight_decay"]), beta1=beta1, beta2=beta2
    )
    optimizer, batch = build_optimizer(stage.train(), settings), released.batch(text_crops(released))
    for step, row in enumerate(arrays["steps"]):
        expected = {str(name): float(value) for name, value in zip(arrays["columns"], row, strict=True)}
        shares = stage(batch, total_counts([batch]))
        for ours, theirs in {"eeg_loss": "eeg_loss", "eeg_accuracy": "eeg_acc", "text_loss": "text_loss"}.items():
            parity.close("07_pretrain_steps", f"{theirs} of step {step}", shares[ours], expected[theirs], GRADIENTS)
        shares["loss"].backward()
        if step == 0:
            found = {name: one.grad for name, one in stage.model.named_parameters() if one.grad is not None}
            found = layout.to_official(found)
            names = [str(name) for name in arrays["step0_grad_names"]]
            parity.same("07_pretrain_steps", "names", found.keys() == set(names), True)
            for name, norm in zip(names, arrays["step0_grad_l2"], strict=True):
                parity.close("07_pretrain_steps", f"norm of {name}", found[name].norm(), norm, GRADIENTS)
            for name, gradient in arrays.items():
                if name.startswith("step0_grad/"):
                    ours = found[name.removeprefix("step0_grad/")][: len(gradient)]
                    parity.close("07_pretrain_steps", name, ours, gradient, GRADIENTS)
        trained = [one for one in stage.parameters() if one.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, float(arrays["clip"]))
        before = expected["grad_norm_before_clip"]
        parity.close("07_pretrain_steps", f"gradient norm of step {step}", norm, before, GRADIENTS)
        optimizer.step()
        optimizer.zero_grad()
    final = layout.to_official(stage.model.state_dict())
    for name, rows in {
        "final_c_attn": final["GPT2.transformer.h.0.attn.c_attn.weight"],
        "final_pos_embed_rows_0_8": final["pos_embed.weight"],
        "final_wpe_rows_0_8": final["GPT2.transformer.wpe.weight"],
        "final_lm_head_eeg_rows": final["GPT2.lm_head.weight"][gpt2_bpe().num_rows :],
    }.items():
        parity.close("07_pretrain_steps", name, rows[: len(arrays[name])], arrays[name], GRADIENTS)


def test_learning_rate_schedules(released: Golden, parity: Parity) -> None:
    """Names say peak, minimum, epochs, steps in an epoch, and warm-up in epochs or in steps."""
    pattern = re.compile(r"lr_(\d)e(\d)_(\d)e(\d)_ep(\d+)_it(\d+)_warm(steps)?(\d+)")
    for name, recorded in released.arrays("11_schedules.npz").items():
        if (found := pattern.fullmatch(name)) is None:
            continue
        peak, minimum = (float(f"{found[i]}e-{found[i + 1]}") for i in (1, 3))
        total, warmup = int(found[5]) * int(found[6]), int(found[8]) * (1 if found[7] else int(found[6]))
        config = OptimizerConfig(learning_rate=peak, min_learning_rate=minimum, warmup_ratio=warmup / total)
        ours = [learning_rate(step, total, config) for step in range(total)]
        parity.close("11_schedules", name, ours, recorded)
