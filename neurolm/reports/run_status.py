"""How runs are doing, read from what they write: their records, whoever trains them and wherever."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from neurolm.config import UserError
from neurolm.tracking.delivery import read_delivered
from neurolm.tracking.journal import FILE_NAME, read_pieces
from neurolm.tracking.mlflow_run import run_page

State = Literal["running", "stalled", "finished", "failed", "stopped"]

STALLED_AFTER_S = 120.0
"""A run that writes nothing for so long, and for longer than it ever was silent before, is stalled."""
SILENCE_FACTOR = 5.0
RECENT = 20
"""Records from which the speed is taken."""


@dataclass(frozen=True)
class RunStatus:
    """What a run's record says; None where it says nothing."""

    run: str
    """The run's folder."""
    state: State
    step: int | None
    total_steps: int | None
    loss: float | None
    validation: dict[str, float]
    """The latest score or loss on the validation split, and the step of it."""
    eta_s: float | None
    """Seconds until the end, at the speed of the last records."""
    throughput: dict[str, float]
    checkpoint_step: int | None
    checkpoint_age_s: float | None
    restarts: int
    silent_s: float
    """Seconds since the last line of the record."""
    mlflow: str | None
    """The run's page, or how to open it."""
    unsent_bytes: int
    """Of the record, what MLflow has not got."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def run_folders(place: Path) -> list[Path]:
    """The folders of runs at and below a run's, a sweep's or a whole pipeline's folder. Raises UserError."""
    found = [path.parent for pattern in ("", "*/", "*/*/") for path in sorted(place.glob(pattern + FILE_NAME))]
    if not found:
        raise UserError(f"{place}: no run here, nor in a folder below; give the folder of a run or its out")
    return found


def run_status(folder: Path, now: float | None = None) -> RunStatus:
    """The status of the run of a folder at a time, by default now."""
    now = time.time() if now is None else now
    latest: dict[str, tuple[int, float]] = {}
    progress: list[tuple[float, int, float]] = []
    checkpoint: tuple[int, float] | None = None
    attempts, last_time, longest_s, ended = 0, 0.0, 0.0, None
    for piece in read_pieces(folder / FILE_NAME):
        for entry in piece.entries:
            event, at = entry["event"], entry["time"]
            if event == "start":
                ended, longest_s, progress = None, 0.0, []
            else:
                longest_s = max(longest_s, at - last_time)
            last_time = at
            if event == "params":  # once by every process that trains
                attempts += 1
            elif event == "close":
                ended = entry["status"]
            elif event == "metrics":
                values = entry["values"]
                latest |= {name: (entry["step"], float(value)) for name, value in values.items()}
                if "progress" in values:
                    progress = [*progress[-RECENT:], (at, entry["step"], float(values["progress"]))]
                if "checkpoint" in values:
                    checkpoint = entry["step"], at
    steps = [step for name, (step, _) in latest.items() if name == "progress"]
    silent_s = max(0.0, now - last_time)
    page, unsent = _mlflow(folder)
    return RunStatus(
        run=str(folder),
        state=_state(folder, ended, silent_s, max(STALLED_AFTER_S, SILENCE_FACTOR * longest_s)),
        step=steps[0] if steps else None,
        total_steps=round(steps[0] / latest["progress"][1]) if steps else None,
        loss=latest["loss"][1] if "loss" in latest else None,
        validation=_validation(latest),
        eta_s=_eta(progress) if ended is None else None,
        throughput={
            name.removeprefix("throughput/"): value
            for name, (_, value) in latest.items()
            if name.startswith("throughput/")
        },
        checkpoint_step=checkpoint[0] if checkpoint else None,
        checkpoint_age_s=max(0.0, now - checkpoint[1]) if checkpoint else None,
        restarts=max(0, attempts - 1),
        silent_s=silent_s,
        mlflow=page,
        unsent_bytes=unsent,
    )


def status_lines(status: RunStatus) -> list[str]:
    """A run's status for people."""
    share = f" ({status.step / status.total_steps:.0%})" if status.step and status.total_steps else ""
    lines = [f"{status.run}: {status.state}, step {_text(status.step)} of {_text(status.total_steps)}{share}"]
    numbers = [] if status.loss is None else [f"loss {status.loss:.4g}"]
    numbers += [f"validation {name} {value:.4g}" for name, value in status.validation.items() if name != "step"]
    if status.validation:
        numbers.append(f"(of step {status.validation['step']:.0f})")
    rates = status.throughput
    if rates:
        numbers += [f"{rates['windows_per_second']:.3g} windows/s", f"{rates['tokens_per_second']:.3g} tokens/s"]
    if "flop_per_second" in rates:
        numbers.append(f"{rates['flop_per_second'] / 1e12:.3g} TFLOP/s")
    if "mfu" in rates:
        numbers.append(f"MFU {rates['mfu']:.1%}")
    if numbers:
        lines.append("  " + ", ".join(numbers).replace(", (", " ("))
    times = [] if status.eta_s is None else [f"{_duration(status.eta_s)} to go"]
    if status.checkpoint_step is not None and status.checkpoint_age_s is not None:
        times.append(f"checkpoint of step {status.checkpoint_step}, {_duration(status.checkpoint_age_s)} ago")
    if status.restarts:
        times.append(f"{status.restarts} restarts")
    if status.state in ("running", "stalled"):
        times.append(f"last word {_duration(status.silent_s)} ago")
    if times:
        lines.append("  " + ", ".join(times))
    if status.mlflow is not None:
        lines.append(f"  MLflow: {status.mlflow}")
    if status.unsent_bytes and status.state != "running":
        lines.append(f"  MLflow has not got {status.unsent_bytes} bytes of its record: neurolm track {status.run}")
    return lines


def _state(folder: Path, ended: str | None, silent_s: float, limit_s: float) -> State:
    if (folder / "finished.json").is_file() or ended == "FINISHED":
        return "finished"
    if ended is not None:
        return "failed" if ended == "FAILED" else "stopped"
    return "stalled" if silent_s > limit_s else "running"


def _validation(latest: dict[str, tuple[int, float]]) -> dict[str, float]:
    found = {name: latest[f"validation/{name}"] for name in ("score", "loss") if f"validation/{name}" in latest}
    values = {name: value for name, (_, value) in found.items()}
    return values | {"step": float(max(step for step, _ in found.values()))} if found else {}


def _eta(progress: list[tuple[float, int, float]]) -> float | None:
    if len(progress) < 2:
        return None
    (first_time, _, first), (last_time, _, last) = progress[0], progress[-1]
    return (last_time - first_time) / (last - first) * (1 - last) if last > first else None


def _mlflow(folder: Path) -> tuple[str | None, int]:
    delivered = read_delivered(folder)
    if delivered is None:
        return None, 0
    page = run_page(delivered.uri, delivered.experiment_id, delivered.run_id)
    return page, max(0, (folder / FILE_NAME).stat().st_size - delivered.offset)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _text(number: int | None) -> str:
    return "?" if number is None else str(number)


def as_json(statuses: list[RunStatus]) -> str:
    """All runs as one JSON object; numbers that are none are null."""
    plain: dict[str, Any] = json.loads(
        json.dumps({"runs": [status.as_dict() for status in statuses]}), parse_constant=lambda _: None
    )
    return json.dumps(plain)
