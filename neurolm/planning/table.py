"""A plan for people and, as plain values, for programs."""

import math
from typing import Any

from neurolm.planning.plan import Plan
from neurolm.planning.search import Option


def as_dict(plan: Plan) -> dict[str, Any]:
    """Plain values; bytes, FLOP and hours as numbers, unknown ones null."""
    return {
        "config": plan.config,
        "stage": plan.run.stage_name,
        "gpus": plan.num_gpus,
        "gpu_memory_gb": plan.gpu_memory_gb,
        "states": plan.states,
        "parameters": {
            "trainable": plan.sizes.trainable,
            "frozen": plan.sizes.frozen,
            "total": plan.sizes.trainable + plan.sizes.frozen,
            "buffers": plan.sizes.buffers,
            "parts": plan.parts,
        },
        "windows": {
            "source": plan.windows.source,
            "num_windows": plan.windows.num_windows,
            "hours_of_eeg": plan.windows.hours,
            "shapes": [
                {"channels": one.num_channels, "seconds": one.num_seconds, "task": one.task, "share": share}
                for one, share in plan.windows.shares.items()
            ],
        },
        "batch": {"size": plan.run.batch.size, "text_size": plan.run.batch.num_crops},
        "options": [_option(option) for option in plan.options],
        "recommended": _option(plan.recommended),
        "configured": _option(plan.configured),
        "flop_per_step": plan.flop_per_step,
        "peak_flop_per_second": plan.peak_flops,
        "mfu": plan.mfu,
        "seconds_per_step": plan.seconds_per_step,
        "steps": plan.num_steps,
        "hours": plan.hours,
        "gpu_hours": None if plan.hours is None else plan.hours * plan.num_gpus,
        "cost": plan.cost,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "model_folder_bytes": plan.model_folder_bytes,
        "notes": plan.notes,
    }


def _option(option: Option) -> dict[str, Any]:
    memory = option.memory
    return {
        "zero_stage": option.division.zero_stage,
        "activation_checkpointing": option.division.checkpointing,
        "offload": option.division.offload,
        "micro_size": option.micro_size,
        "micro_batches": option.num_micro_batches,
        "fits": option.fits,
        "bytes": vars(memory) | {"total": memory.total},
        "traffic_bytes_per_step": option.traffic_bytes,
        "flop_per_step": option.flop_per_step,
    }


def table(plan: Plan) -> str:
    """The plan as text; ``sent`` is what each GPU sends in a step, ``host`` what the node's memory must hold."""
    run, best, batch = plan.run, plan.recommended, plan.run.batch
    total = plan.sizes.trainable + plan.sizes.frozen
    lines = [
        f"{plan.config}: stage {run.stage_name} on {plan.num_gpus} GPUs of {plan.gpu_memory_gb:g} GB",
        f"parameters   {total:,} ({plan.sizes.trainable:,} trainable, {plan.sizes.frozen:,} frozen)",
        *(f"             {number:>13,}  {part}" for part, number in plan.parts.items()),
        f"windows      {'; '.join(map(str, plan.windows.shares))} ({plan.windows.source})",
        f"batch        {batch.size} windows, {batch.num_crops} text crops of {batch.text_length}",
        "",
        "GB on each GPU at the worst moment of a step, with the largest micro-batch that fits:",
        _row(*_COLUMNS),
        *(_option_row(option, option is best) for option in plan.options),
        "",
        f"configured   {_line(plan.configured)}",
        f"recommended  {best.division}: {_settings(plan)}",
        f"operations   {plan.flop_per_step / 1e12:,.4g} TFLOP a step, {best.flop_per_step / 1e12:,.4g} as recommended",
        f"time         {plan.seconds_per_step:.3g} s a step at {plan.mfu:.0%} of {plan.peak_flops / 1e12:g} TFLOP/s",
    ]
    if plan.hours is not None:
        cost = "" if plan.cost is None else f", cost {plan.cost:,.2f}"
        eeg = f"{plan.windows.num_windows:,} windows ({plan.windows.hours:,.1f} h of EEG)"
        hours = f"{plan.hours:,.3g} h, {plan.hours * plan.num_gpus:,.3g} GPU-hours{cost}"
        lines.append(f"run          {eeg}, {run.epochs} epochs: {plan.num_steps:,} steps, {hours}")
    checkpoint, folder = _gigabytes(plan.checkpoint_bytes), _gigabytes(plan.model_folder_bytes)
    lines.append(f"disk         {checkpoint} GB a checkpoint, {folder} GB the model folder")
    return "\n".join([*lines, *(f"note         {note}" for note in plan.notes)])


def _settings(plan: Plan) -> str:
    """The overrides that set what is recommended."""
    best = plan.recommended
    division = best.division
    found = [f"workers={plan.num_gpus}", f"batch.micro_size={best.micro_size}"]
    if division.checkpointing:
        found.append("activation_checkpointing=true")
    if not division.zero_stage:
        return " ".join([*found, "engine.kind=torch"])
    found += ["engine.kind=deepspeed", f"engine.zero_stage={division.zero_stage}"]
    if division.offload != "none":
        found.append("engine.offload_optimizer=cpu")
    if division.offload == "all":
        found.append("engine.offload_parameters=cpu")
    return " ".join(found)


def _line(option: Option) -> str:
    fits = "fits" if option.fits else "does not fit"
    passes = f"{option.micro_size} windows at a time in {option.num_micro_batches} passes"
    return f"{option.division}, {passes}: {_gigabytes(option.memory.total)} GB, {fits}"


def _option_row(option: Option, is_best: bool) -> str:
    division, memory = option.division, option.memory
    numbers = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.buffers, memory.total)
    return _row(
        str(division.zero_stage or "-"),
        "yes" if division.checkpointing else "-",
        "-" if division.offload == "none" else division.offload,
        str(option.micro_size),
        str(option.num_micro_batches),
        *(_gigabytes(number) for number in (*numbers, option.traffic_bytes, memory.host)),
        "<- recommended" if is_best else ("" if option.fits else "does not fit"),
    )


_COLUMNS = (
    "ZeRO", "checkp.", "offload", "micro", "passes", "weights", "grads", "optim.", "activ.", "buffers", "total", "sent",
    "host", "",
)  # fmt: skip


def _gigabytes(number: int) -> str:
    size = number / 1e9
    if size < 0.0005:
        return "-"
    return f"{size:.{max(0, 2 - int(math.log10(size)))}f}" if size >= 1 else f"{size:.3f}"


def _row(*cells: str) -> str:
    *columns, mark = cells
    widths = (4, 8, 10, 6, 7, *[8] * 8)
    return ("".join(f"{cell:>{width}}" for cell, width in zip(columns, widths, strict=True)) + f"  {mark}").rstrip()
