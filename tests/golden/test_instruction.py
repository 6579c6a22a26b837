"""Stage 3 and evaluation: texts, the released text start, losses, decoding, parsing, metrics."""

import pytest
import torch
from torch import Tensor

from neurolm.evaluation.generation import write_answer
from neurolm.evaluation.released import parse_answer, released_metrics
from neurolm.models.masks import eeg_text_mask, eeg_text_positions
from neurolm.models.neurolm import NeuroLM
from neurolm.sequences import WindowGroup, eeg_features
from neurolm.text.bpe import END_OF_TEXT, gpt2_bpe
from neurolm.text.instructions import TASKS, encode_task
from neurolm.training.instruct import InstructLossConfig, InstructStage
from tests.golden.conftest import Parity
from tests.golden.recorded import Golden
from tests.tiny import total_counts

pytestmark = pytest.mark.golden
SET = "08_instruction_forward"


def logits_of(model: NeuroLM, group: WindowGroup, text: Tensor, text_start: int | None) -> Tensor:
    """Logits after each EEG and text token of the only window of a group."""
    embeddings = torch.cat(
        [model.embed_eeg(eeg_features(model, group), group.channel_index), model.embed_text(text[None])], dim=1
    )
    positions = eeg_text_positions(group.time_index, len(text), text_start)
    return model.logits(model.hidden(embeddings, positions[None], eeg_text_mask(group.time_index, len(text)))[0])


def test_texts_and_masks(released: Golden, parity: Parity) -> None:
    arrays, pad_to = released.arrays(f"{SET}.npz"), released.pad_to
    for window, group in enumerate(released.batch(asked=True).groups):
        text = released.tasks[group.task].training_text(int(group.label))
        ids, targets = arrays["X_text"][window], arrays["Y_text"][window]
        padded = [*text.ids, *[END_OF_TEXT] * (len(ids) - len(text.ids))]
        parity.same(SET, "X_text", ids.tolist(), padded)
        ours = [one if is_target else -1 for one, is_target in zip(text.ids, text.is_target, strict=True)][1:]
        parity.same(SET, "Y_text", ours + [-1] * (len(ids) - len(ours)), targets.tolist())
        num_tokens = len(group.time_index)
        kept = torch.cat([torch.arange(num_tokens), torch.arange(pad_to, pad_to + len(ids))])
        mask = arrays["eeg_text_mask"][window, 0]
        parity.same(SET, "eeg_text_mask", eeg_text_mask(group.time_index, len(ids)), mask[kept][:, kept])
        assert not mask[kept, num_tokens:pad_to].any()
        parity.close(SET, "X_eeg", group.signal[0], arrays["X_eeg"][window, :num_tokens])
        parity.same(SET, "input_chans", group.channel_index[0], arrays["input_chans"][window, :num_tokens])
        parity.same(SET, "input_time", group.time_index, arrays["input_time"][window, :num_tokens])
        parity.same(SET, "eeg_mask", int(arrays["eeg_mask"][window].sum()), num_tokens)


@torch.no_grad()
def test_a_batch_with_the_released_text_start(released: Golden, parity: Parity) -> None:
    arrays, pad_to = released.arrays(f"{SET}.npz"), released.pad_to
    batch = released.batch(asked=True)
    for size in released.sizes:
        model, _ = released.neurolm(size, text_start="batch")
        stage = InstructStage(model, released.tasks, InstructLossConfig())
        shares = stage(batch, total_counts([batch]))
        parity.close(SET, f"{size} loss", shares["answer_loss"], arrays[f"{size}_loss"])
        parity.close(SET, f"{size} accuracy", shares["answer_accuracy"], arrays[f"{size}_accuracy"])
        for window, group in enumerate(batch.groups):
            text = arrays["X_text"][window]
            logits = logits_of(model, group, text, batch.text_start("batch"))
            kept = torch.cat([torch.arange(len(group.time_index)), torch.arange(pad_to, pad_to + len(text))])
            columns = arrays[f"{size}_logits_cols"][window][kept]
            parity.close(SET, f"{size} logits_cols", logits[:, arrays["logits_columns"]], columns)
            parity.close(SET, f"{size} lse", logits.logsumexp(-1), arrays[f"{size}_logits_lse"][window][kept])


@torch.no_grad()
def test_windows_alone_have_the_same_start_by_both_rules(released: Golden, parity: Parity) -> None:
    arrays, pad_to = released.arrays(f"{SET}.npz"), released.pad_to
    groups = released.batch(asked=True).groups
    for size in released.sizes:
        model, _ = released.neurolm(size)
        stage = InstructStage(model, released.tasks, InstructLossConfig())
        for window, group in enumerate(groups):
            expected = arrays[f"{size}_loss_{group.task}_alone"]
            for start in (None, group.num_seconds):
                states = stage.answer_states(group, start)
                loss = model.cross_entropy(states.before_targets, states.targets).total / len(states.targets)
                parity.close(SET, f"{size} loss {group.task} alone", loss, expected)
            columns = arrays.get(f"{size}_logits_cols_{group.task}_alone")
            if columns is not None:
                text = arrays["X_text"][window]
                kept = torch.cat([torch.arange(len(group.time_index)), torch.arange(pad_to, pad_to + len(text))])
                logits = logits_of(model, group, text, None)[:, arrays["logits_columns"]]
                parity.close(SET, f"{size} logits {group.task} alone", logits, columns[0][kept])


def test_both_rules_differ_where_windows_differ_in_length(released: Golden) -> None:
    batch = released.batch(asked=True)
    lengths = {group.num_seconds for group in batch.groups}
    assert batch.text_start("window") is None
    assert batch.text_start("batch") == max(lengths)


@pytest.mark.parametrize(("mask", "suffix"), [("released", "reference"), ("boolean", "correct_mask")])
def test_decoding(released: Golden, parity: Parity, mask: str, suffix: str) -> None:
    arrays = released.arrays("09_generate.npz")
    for group in released.batch(asked=True).groups:
        task = released.tasks[group.task]
        parity.same("09_generate", "prompt", list(task.prompt_ids), arrays[f"{group.task}_prompt"][0].tolist())
        for size in released.sizes:
            name = f"{group.task}_{size}"
            expected = arrays[f"{name}_tokens_{suffix}"][0]
            model, _ = released.neurolm(size)
            num_tokens = len(expected) - len(task.prompt_ids)
            written = write_answer(model, group, task.prompt_ids, num_tokens=num_tokens, mask=mask)
            parity.same("09_generate", f"{name} {mask}", written.ids[0], expected[len(task.prompt_ids) :])
            # The stored columns are the first ids, then perhaps classes that text cannot have.
            columns = arrays["logits_columns"]
            is_text = columns < written.logits.shape[-1]
            steps = arrays[f"{name}_step_logits_cols_{suffix}"][:, 0, is_text]
            parity.close("09_generate", f"{name} {mask} logits", written.logits[0][:, columns[is_text]], steps)


def test_instructions_and_how_their_answers_are_read(released: Golden, parity: Parity) -> None:
    found = {name: one for name, one in released.json("instructions.json").items() if not name.startswith("_")}
    assert len(found) == 6
    for name, expected in found.items():
        task = encode_task(TASKS[name.lower()], gpt2_bpe())
        parity.same("instructions", f"{name} prompt", list(task.prompt_ids), expected["prompt_ids"])
        parity.same("instructions", f"{name} text", "[SEP]" + task.task.prompt, expected["prompt_str"])
        parity.same("instructions", f"{name} classes", len(task.labels), len(expected["classes"]))
        for index in range(len(task.labels)):
            text, one = task.training_text(index), expected["classes"][str(index)]
            targets = [number for number, is_target in zip(text.ids, text.is_target, strict=True) if is_target]
            parity.same("instructions", f"{name} {index} ids", list(text.ids), one["ids"])
            parity.same("instructions", f"{name} {index} targets", targets, one["loss_on_ids"])
            first = text.is_target.index(True) - 1  # predicted one place before
            parity.same("instructions", f"{name} {index} place", first, one["first_target_position"])
            parse = parse_answer(text.ids, task, gpt2_bpe())
            parity.same("instructions", f"{name} {index} read", parse, one["reference_parse"])


def test_released_metrics(released: Golden, parity: Parity) -> None:
    arrays = released.arrays("14_metrics.npz")
    for kind in ("binary", "multi"):
        labels, answers = (arrays[f"{kind}_{name}"].numpy() for name in ("target", "pred"))
        ours = released_metrics(labels, answers, int(labels.max()) + 1)
        recorded = {name.removeprefix(f"{kind}_") for name in arrays if name.startswith(kind)} - {"target", "pred"}
        parity.same("14_metrics", kind, ours.keys() == recorded, True)
        for name, value in ours.items():
            parity.close("14_metrics", f"{kind} {name}", value, arrays[f"{kind}_{name}"])
