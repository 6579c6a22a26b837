"""Peak floating-point operations of accelerators, by what a model's products are computed in.

Dense peaks of NVIDIA's and AMD's data sheets in 10^12 operations a second, with sums in float32; torch does not use
TF32 unless it is told. None: the device has no units for that number format.
"""

import logging
import re
import statistics
import time
from typing import NamedTuple

import torch

from neurolm.training.stage import Precision

logger = logging.getLogger(__name__)


class Peak(NamedTuple):
    """10^12 floating-point operations a second."""

    bfloat16: float | None
    float32: float


PEAK_TFLOPS = {
    "a100": Peak(312.0, 19.5),
    "h100": Peak(989.0, 67.0),
    "h100 pcie": Peak(756.0, 51.0),
    "h100 nvl": Peak(835.0, 60.0),
    "h200": Peak(989.0, 67.0),
    "gh200": Peak(989.0, 67.0),
    "b200": Peak(2250.0, 75.0),
    "l40s": Peak(362.0, 91.6),
    "l40": Peak(181.0, 90.5),
    "l4": Peak(121.0, 30.3),
    "a40": Peak(149.7, 37.4),
    "a30": Peak(165.0, 10.3),
    "a10": Peak(125.0, 31.2),
    "a10g": Peak(70.0, 35.0),
    "rtx a6000": Peak(154.8, 38.7),
    "rtx 6000 ada": Peak(364.0, 91.1),
    "rtx 5090": Peak(209.5, 104.8),
    "rtx 4090": Peak(165.2, 82.6),
    "rtx 4080": Peak(97.5, 48.7),
    "rtx 3090": Peak(71.0, 35.6),
    "v100": Peak(None, 15.7),
    "t4": Peak(None, 8.1),
    "mi300x": Peak(1307.4, 163.4),
    "mi250x": Peak(383.0, 47.9),
}
"""By the words that tell a device in its driver's name; the SXM version where several are sold."""

_OTHER_CHIPS = re.compile(r"\b(laptop|mobile|max-q|mig|super|4090 d|3090 ti)\b")
"""Names that contain a known one and mean less, or another chip."""


def device_name(device: torch.device) -> str:
    """What the driver calls the device; ``cpu`` for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_flops(name: str, precision: Precision) -> float | None:
    """Floating-point operations a second that a device could do at most; None for a device that is not known."""
    words = name.lower().replace("-", " ")
    if _OTHER_CHIPS.search(name.lower()):
        return None
    known = [one for one in PEAK_TFLOPS if re.search(rf"\b{one}\b", words)]
    if not known:
        return None
    found: float | None = getattr(PEAK_TFLOPS[max(known, key=len)], precision)
    return None if found is None else 1e12 * found


def warn_of_emulated_products(device: torch.device, precision: Precision) -> None:
    """Say that bfloat16 is asked of a device which computes slower in it than in float32, having no units for it."""
    if precision == "bfloat16":
        ratio = _seconds_of_product(device, torch.bfloat16) / _seconds_of_product(device, torch.float32)
        if ratio > 1.5:
            logger.warning(
                "precision: bfloat16, but products in it take %.1f times as long as in float32 on this %s, which seems "
                "to have no units for it; set precision=float32 unless memory is what matters",
                ratio,
                device_name(device),
            )


def _seconds_of_product(device: torch.device, dtype: torch.dtype) -> float:
    """Of two matrices of 512 x 512: the median of five, after a first one that is not timed."""
    matrix = torch.ones(512, 512, dtype=dtype, device=device)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for a device that computes on its own
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
