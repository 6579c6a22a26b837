import pytest

from neurolm.planning.memory import FORMATS, STAGE3_LIVE_PARAMETERS, Division, Sizes, divisions, memory, traffic
from neurolm.planning.trace import Trace

BILLION = 10**9
XL = Sizes(trainable=1_700_000_000, frozen=0, buffers=0, largest=1600 * 58496, saved=0, exported=0)
ACTIVATIONS = 100 * BILLION  # so many that the backward pass is the worst moment


def needed(division: Division, num_gpus: int, states: str = "mixed", sizes: Sizes = XL, passes: int = 4):  # type: ignore[no-untyped-def]
    trace = Trace(activation_bytes=ACTIVATIONS, peak_bytes=ACTIVATIONS, flop=0)
    return memory(
        sizes, division, FORMATS[states], trace, num_gpus=num_gpus, num_micro_batches=passes, bucket=0, overlap=False
    )


@pytest.mark.parametrize("num_gpus", [4, 8, 16])
def test_states_are_those_of_the_zero_paper(num_gpus: int) -> None:
    """In mixed precision: 16 P; 4 P + 12 P / N; 2 P + 14 P / N; and a share of all, with what is gathered."""
    size = XL.trainable
    expected = {
        0: 16 * size,
        1: 4 * size + 12 * size / num_gpus,
        2: 2 * size + 14 * size / num_gpus,
        3: 16 * size / num_gpus + 2 * STAGE3_LIVE_PARAMETERS,
    }
    for stage, states in expected.items():
        found = needed(Division(stage), num_gpus)
        assert found.weights + found.gradients + found.optimizer == pytest.approx(states, rel=1e-6)
        assert found.activations == ACTIVATIONS
        assert found.host == 0


def test_8_gpus_of_80_gb_and_zero_1_take_9_gb_of_states() -> None:
    found = needed(Division(1), 8)
    assert (found.weights + found.gradients + found.optimizer) / BILLION == pytest.approx(9.4, abs=0.1)


def test_fp32_has_a_master_copy_only_under_zero() -> None:
    assert needed(Division(0), 1, "float32").optimizer == 8 * XL.trainable
    assert needed(Division(1), 4, "float32").optimizer == 12 * XL.trainable // 4
    assert needed(Division(1), 4, "bfloat16").optimizer == 6 * XL.trainable // 4


def test_offloading_moves_states_to_the_host() -> None:
    optimizer, everything = needed(Division(2, offload="optimizer"), 8), needed(Division(3, offload="all"), 8)
    assert (optimizer.optimizer, optimizer.gradients) == (0, 0)
    assert optimizer.weights == 2 * XL.trainable
    assert optimizer.host / BILLION == pytest.approx(82, abs=0.5)  # DeepSpeed's estimates
    assert everything.host / BILLION == pytest.approx(46, abs=0.5)
    assert everything.weights == 2 * STAGE3_LIVE_PARAMETERS


def test_frozen_weights_are_there_without_gradient_and_divided_by_zero_3_alone() -> None:
    frozen = Sizes(trainable=0, frozen=8_000, buffers=10, largest=0, saved=0, exported=0)
    assert needed(Division(1), 4, "float32", frozen).weights == 4 * 8_000 + 40
    assert needed(Division(1), 4, "float32", frozen).optimizer == 0
    assert needed(Division(3), 4, "float32", frozen).weights == 4 * 8_000 + 4 * 2_000 + 40  # gathered and its share


def test_one_pass_gives_activations_back_while_gradients_grow() -> None:
    trace = Trace(activation_bytes=1_000, peak_bytes=1_200, flop=0)
    sizes = Sizes(trainable=200, frozen=0, buffers=0, largest=1, saved=0, exported=0)
    settings = {"num_gpus": 1, "bucket": 0, "overlap": False}
    once = memory(sizes, Division(0), FORMATS["float32"], trace, num_micro_batches=1, **settings)  # type: ignore[arg-type]
    twice = memory(sizes, Division(0), FORMATS["float32"], trace, num_micro_batches=2, **settings)  # type: ignore[arg-type]
    assert once.gradients + once.activations + once.buffers == 800 + 800  # the update: gradients and a root of moments
    assert twice.gradients + twice.activations == 1_000 + 800


def test_the_reduce_bucket_is_not_larger_than_the_model() -> None:
    trace = Trace(activation_bytes=ACTIVATIONS, peak_bytes=ACTIVATIONS, flop=0)
    settings = {"num_gpus": 2, "num_micro_batches": 2}
    for bucket, overlap, expected in ((100, False, 400), (100, True, 800), (10**12, False, 4 * XL.trainable)):
        found = memory(XL, Division(1), FORMATS["float32"], trace, bucket=bucket, overlap=overlap, **settings)
        assert found.buffers == expected


def test_traffic_by_rings() -> None:
    """bf16 on 8 GPUs: about 6.0 GB without ZeRO-3 and half as much again with it; ZeRO-1 moves least in many passes."""
    sent = {
        stage: traffic(XL, Division(stage), FORMATS["mixed"], num_gpus=8, num_micro_batches=1) for stage in range(4)
    }
    assert sent[0] == sent[1] == sent[2]
    assert sent[1] / BILLION == pytest.approx(5.95, abs=0.01)
    assert sent[3] == pytest.approx(1.5 * sent[1])
    many = {
        stage: traffic(XL, Division(stage), FORMATS["mixed"], num_gpus=8, num_micro_batches=4) for stage in (1, 2, 3)
    }
    assert many[1] == sent[1]
    assert many[2] == pytest.approx(2.5 * sent[1])
    assert many[3] == 4 * sent[3]
    assert traffic(XL, Division(0), FORMATS["mixed"], num_gpus=1, num_micro_batches=1) == 0


def test_every_division_is_planned_once_and_what_can_be_set_comes_first() -> None:
    several = list(divisions(4))
    assert len(set(several)) == len(several)
    assert {one.zero_stage for one in several} == {1, 2, 3}
    assert several[0] == Division(1)
    assert next(iter(divisions(1))) == Division(0)
    assert str(Division(2, True, "optimizer")) == "ZeRO-2, activation checkpointing, optimizer offloaded"
