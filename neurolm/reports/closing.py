"""The last words of a run: the sweep's page, and where everything is."""

import json
from pathlib import Path

from neurolm.reports.sweep import SweepRecord, write_report


def write_sweep_report(out: Path) -> Path | None:
    """Write ``report.html`` from what lies in ``out``; None where there was no sweep."""
    record, best = out / "tune" / "sweep.json", out / "best.yaml"
    if not record.is_file() or not best.is_file():
        return None
    results = out / "results.json"
    path = out / "report.html"
    write_report(
        path,
        SweepRecord.load(record),
        json.loads(results.read_text()) if results.is_file() else None,
        best.read_text(),
    )
    return path


def closing_words(out: Path, report: Path | None, seconds: float) -> str:
    """Where the results are and the one command each to look further."""
    lines = [f"finished in {seconds / 60:.1f} minutes"]
    places = {
        "results": out / "results.json",
        "sweep report": report,
        "best config": out / "best.yaml" if report else None,
        "final model": out / "instruct" / "model",
        "MLflow store": out / "mlflow.db",
    }
    lines += [f"  {name:<14}{place}" for name, place in places.items() if place is not None and place.exists()]
    lines.append(
        f"  open MLflow   mlflow ui --backend-store-uri sqlite:///{(out / 'mlflow.db').resolve()} --host 127.0.0.1"
    )
    lines.append(f"  predict       neurolm predict {out / 'instruct' / 'model'} RECORDING.edf")
    return "\n".join(lines)
