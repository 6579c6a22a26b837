"""What is known of a device: its peak by its name, and whether it computes in bfloat16 itself."""

import logging

import pytest
import torch

from neurolm.training import devices
from neurolm.training.devices import peak_flops, warn_of_emulated_products

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "bfloat16", "float32"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA A10", 125e12, 31.2e12),
        ("NVIDIA A10G", 70e12, 35e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA L4", 121e12, 30.3e12),
        ("NVIDIA L40S", 362e12, 91.6e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None, None),
        ("Tesla V100-SXM2-16GB", None, 15.7e12),
        ("cpu", None, None),
    ],
)
def test_a_devices_peak_is_known_by_its_name(name: str, bfloat16: float | None, float32: float | None) -> None:
    assert (peak_flops(name, "bfloat16"), peak_flops(name, "float32")) == (bfloat16, float32)


@pytest.mark.parametrize(("low", "full", "is_warned"), [(8.0, 2.0, True), (1.0, 2.0, False), (2.2, 2.0, False)])
def test_bfloat16_that_is_slower_than_float32_is_warned_of(
    low: float, full: float, is_warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = {torch.bfloat16: low, torch.float32: full}
    monkeypatch.setattr(devices, "_seconds_of_product", lambda device, dtype: seconds[dtype])
    warn_of_emulated_products(CPU, "float32")
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        warn_of_emulated_products(CPU, "bfloat16")
    assert bool(caplog.messages) == is_warned
    if is_warned:
        assert "4.0 times as long as in float32 on this cpu" in caplog.text


def test_measuring_a_device_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    warn_of_emulated_products(CPU, "bfloat16")
    assert torch.equal(torch.get_rng_state(), before)
