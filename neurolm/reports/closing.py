"""The last words of a run: the sweep's page, and where everything is."""

import json
import sys
from pathlib import Path

import yaml

from neurolm.reports.confirmation import FILE_NAME as CONFIRMATION
from neurolm.reports.confirmation import Confirmation
from neurolm.reports.sweep import SweepRecord
from neurolm.reports.sweep_report import write_report
from neurolm.reports.sweep_sections import Material
from neurolm.text.instructions import chosen_tasks
from neurolm.training.tasks import own_tasks_of_model

RECORD = "sweep.json"
"""The sweep's record in its folder ``tune``."""


def write_sweep_report(out: Path, sweep: SweepRecord | None = None) -> Path | None:
    """Write ``report.html``, ``.md`` and ``.json`` from what lies in ``out`` now; None where there is no sweep.

    Args:
        out: folder of results.
        sweep: one that has not ended; None: read the record that a sweep leaves at its end.
    """
    record = out / "tune" / RECORD
    if sweep is None and not record.is_file():
        return None
    best, results, confirmation = out / "best.yaml", out / "results.json", out / "tune" / CONFIRMATION
    sweep = sweep or SweepRecord.load(record)
    given = Material(
        sweep,
        command=sweep.command or f"python ray_jobs/train.py {best} run_id=again",
        best_config=best.read_text() if best.is_file() and sweep.is_finished else None,
        confirmation=Confirmation.load(confirmation) if confirmation.is_file() else None,
        results=json.loads(results.read_text()) if results.is_file() else None,
        num_classes=classes_of(out),
    )
    path = out / "report.html"
    write_report(path, given)
    return path


def has_finished_sweep(out: Path) -> bool:
    """Whether the sweep of a folder of results has left its record."""
    return (out / "tune" / RECORD).is_file()


def classes_of(out: Path) -> dict[str, int]:
    """How many classes each evaluated task has, for its chance level."""
    results = out / "results.json"
    names = json.loads(results.read_text())["tasks"] if results.is_file() else []
    model = out / "instruct" / "model" / "config.yaml"
    own_tasks = own_tasks_of_model(yaml.safe_load(model.read_text())) if model.is_file() else {}
    return {task.name: len(task.answers) for task in chosen_tasks(names, own_tasks)}


def closing_words(out: Path, report: Path | None, seconds: float) -> str:
    """Where the results are and the one command each to look further."""
    lines = [f"finished in {seconds / 60:.1f} minutes"]
    places = {
        "results": out / "results.json",
        "evaluation": out / "evaluation.html",
        "sweep report": report,
        "best config": out / "best.yaml" if report else None,
        "final model": out / "instruct" / "model",
        "MLflow store": out / "mlflow.db",
    }
    lines += [f"  {name:<14}{place}" for name, place in places.items() if place is not None and place.exists()]
    programs = Path(sys.executable).parent
    database = (out / "mlflow.db").resolve()
    lines += [
        f"  open MLflow   {_shown(programs / 'mlflow')} ui --backend-store-uri sqlite:///{database} --host 127.0.0.1",
        f"  predict       {_shown(programs / 'neurolm')} predict {out / 'instruct' / 'model'} {_example(out)}",
    ]
    return "\n".join(lines)


def _example(out: Path) -> str:
    """Arguments that ask the final model about a recording; a task has to be named where there are several."""
    config = out / "instruct" / "model" / "config.yaml"
    tasks = yaml.safe_load(config.read_text())["tasks"] if config.is_file() else []
    return "RECORDING" + (f" --task {tasks[0]}" if len(tasks) > 1 else "")


def _shown(program: Path) -> str:
    """A program's path as short as it can be written here."""
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)
