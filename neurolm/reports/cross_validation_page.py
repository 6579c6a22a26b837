"""A cross-validation for people: the same tables as a page of HTML, as Markdown and in a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from neurolm.evaluation.bootstrap import FEWEST_SUBJECTS
from neurolm.reports import page
from neurolm.reports.paper import beside_paper
from neurolm.reports.peaks import read_peaks
from neurolm.reports.results import results_notes, write_whole


@dataclass(frozen=True)
class Section:
    """A table with its title and what has to be said about it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def write_cross_validation_pages(
    out: Path, results: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]], num_classes: Mapping[str, int]
) -> tuple[Path, Path]:
    """Write ``cross_validation.html`` and ``cross_validation.md``; returns their paths.

    Args:
        out: the cross-validation's folder.
        results: what its ``results.json`` holds.
        seeds: what those of its seeds hold.
        num_classes: of every task, for its chance level.
    """
    found = sections(out, results, seeds, num_classes)
    about = results["cross_validation"]
    facts = {
        "tasks": ", ".join(results["tasks"]),
        "folds": str(about["folds"]),
        "seeds": ", ".join(map(str, results["seeds"])),
        "openings of the test windows so far": str(results["test_openings"]),
    }
    links = "".join(
        f"<li><a href='seed-{seed}/evaluation.html'>seed {seed}: mistakes by class, calibration, every subject</a></li>"
        for seed in results["seeds"]
    )
    shown = {
        "facts": "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items()),
        "sections": "".join(_html(section, place) for place, section in enumerate(found)),
        "links": f"<ul>{links}</ul>",
        "origin": page.origin(results),
    }
    path, text = out / "cross_validation.html", out / "cross_validation.md"
    page.write_page(path, "cross_validation.html", shown)
    write_whole(text, "\n\n".join(["# Cross-validation", *map(_markdown, found)]) + "\n")
    return path, text


def sections(
    out: Path, results: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]], num_classes: Mapping[str, int]
) -> list[Section]:
    """All tables, those without rows left out."""
    about = results["cross_validation"]
    found = [
        _overall(results, num_classes),
        _each_seed(seeds),
        _baselines(results),
        _paper(results),
        _subjects(results),
        _peaks(out, about["runs"]),
        _runs(about["runs"]),
    ]
    return [section for section in found if section.rows]


def _overall(results: Mapping[str, Any], num_classes: Mapping[str, int]) -> Section:
    head = [
        "task", "windows", "subjects", "balanced accuracy", "95 % interval", "chance", "AUROC", "Cohen's kappa",
        "weighted F1",
    ]  # fmt: skip
    rows = [
        [
            name,
            str(task["num_windows"]),
            str(task["num_subjects"]),
            _mean_and_sd(task, "balanced_accuracy"),
            _interval(task["balanced_accuracy_ci95"]),
            _number(1 / num_classes[name]),
            _mean_and_sd(task, "auroc"),
            _mean_and_sd(task, "cohen_kappa"),
            _mean_and_sd(task, "weighted_f1"),
        ]
        for name, task in results["tasks"].items()
    ]
    notes = results_notes(results, num_classes)
    if len(results["seeds"]) > 1:
        notes = [*notes, "± is the sd over seeds (n - 1); intervals are over subjects, of the mean over seeds."]
    return Section("Pooled over folds", head, rows, notes)


def _each_seed(seeds: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        [
            f"{seed['seed']}, {name}",
            _number(task["balanced_accuracy"]),
            _interval(task["balanced_accuracy_ci95"]),
            _number(task["auroc"]),
        ]
        for seed in seeds
        for name, task in seed["tasks"].items()
    ]
    return Section("Every seed", ["seed, task", "balanced accuracy", "95 % interval", "AUROC"], rows)


def _baselines(results: Mapping[str, Any]) -> Section:
    head = ["baseline, task", "balanced accuracy", "95 % interval", "AUROC", "ours - theirs", "95 % interval", "p"]
    rows = []
    for name, baseline in results["cross_validation"]["baselines"].items():
        for task, theirs in baseline["tasks"].items():
            if (compared := baseline["ours_minus_theirs"].get(task)) is not None:
                found = compared["balanced_accuracy"]
                rows.append(
                    [
                        f"{name}, {task}",
                        _mean_and_sd(theirs, "balanced_accuracy"),
                        _interval(theirs["balanced_accuracy_ci95"]),
                        _mean_and_sd(theirs, "auroc"),
                        f"{found['difference']:+.3f}",
                        _interval(found["difference_ci95"], sign="+"),
                        f"{found['p_value']:.4f}",
                    ]
                )
    notes = ["Baselines answered the same windows in the same folds; p exchanges both models' answers by subject."]
    return Section("Baselines in the same folds", head, rows, notes)


def _paper(results: Mapping[str, Any]) -> Section:
    head = ["task, model", "balanced accuracy", "sd", "ours - theirs", "kind", "source"]
    rows: list[list[str]] = []
    notes: list[str] = []
    for name, beside in beside_paper(results).items():
        task = results["tasks"][name]
        sd = task.get("balanced_accuracy_sd")
        ours = [f"{name}, ours", f"{task['balanced_accuracy']:.4f}", "-" if sd is None else f"{sd:.4f}", "-", "-", "-"]
        rows.append(ours)
        rows += [
            [
                f"{name}, {row['model']}",
                f"{row['balanced_accuracy']:.4f}",
                "-" if row["sd"] is None else f"{row['sd']:.4f}",
                f"{row['ours_minus_theirs']:+.4f}",
                row["kind"],
                row["source"],
            ]
            for row in beside["published"]
        ]
        notes += [f"{name}: {note}" for note in beside["notes"]]
    return Section("Beside the paper", head, rows, notes)


def _subjects(results: Mapping[str, Any]) -> Section:
    """Everybody of a task with too few subjects for an interval."""
    rows = [
        [f"{task}, {subject}", _number(found["balanced_accuracy"]), str(found["num_windows"])]
        for task, people in results["cross_validation"]["subjects"].items()
        if len(people) < FEWEST_SUBJECTS
        for subject, found in people.items()
    ]
    notes = ["Each was answered by models that were trained on the others; the mean over seeds."]
    return Section(
        "Subjects of tasks without an interval", ["task, subject", "balanced accuracy", "windows"], rows, notes
    )


def _peaks(out: Path, runs: Sequence[Mapping[str, Any]]) -> Section:
    found = {
        f"{run['fold']}, {run['seed']}": peaks
        for run in runs
        if (peaks := read_peaks(out / run["folder"] / "instruct")) is not None
    }
    tasks = list(dict.fromkeys(task for peaks in found.values() for task in peaks.tasks))
    rows = [
        [
            name,
            f"{peaks.kept_step} of {peaks.last_step}",
            *(
                f"step {peak.step}: {peak.score:.3f}, kept {peak.kept_score:.3f}"
                for task in tasks
                if (peak := peaks.tasks.get(task)) is not None
            ),
        ]
        for name, peaks in found.items()
    ]
    notes = ["By validation subjects: where each task was best, how good, and how good the weights are that were kept."]
    return Section("When tasks peak", ["fold, seed", "kept step", *tasks], rows, notes)


def _runs(runs: Sequence[Mapping[str, Any]]) -> Section:
    tasks = list(dict.fromkeys(name for run in runs for name in run["scores"]))
    head = ["fold, seed", *tasks, "minutes", "opening", "commit", "folder"]
    rows = [
        [
            f"{run['fold']}, {run['seed']}",
            *(_number(run["scores"].get(task, {}).get("balanced_accuracy")) for task in tasks),
            f"{run['seconds'] / 60:.1f}",
            str(run["test_openings"]),
            str(run["git_commit"] or "unknown")[:9],
            run["folder"],
        ]
        for run in runs
    ]
    notes = [
        "Balanced accuracies of single folds, on few subjects each; - where a fold has nobody of a data set to test.",
        "Opening: how often the fold's test windows had been opened by then, whatever the folder.",
    ]
    return Section("Every run", head, rows, notes)


def _html(section: Section, place: int) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    return (
        f"<section aria-labelledby='section-{place}'><h2 id='section-{place}'>{escape(section.title)}</h2>"
        f"{page.table(section.head, section.rows)}<ul>{notes}</ul></section>"
    )


def _markdown(section: Section) -> str:
    lines = [section.head, ["---"] * len(section.head), *section.rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = "\n".join(f"- {note}" for note in section.notes)
    return "\n\n".join(part for part in (f"## {section.title}", table, notes) if part)


def _mean_and_sd(task: Mapping[str, Any], name: str) -> str:
    sd = task.get(f"{name}_sd")
    return _number(task[name]) + ("" if sd is None else f" ± {sd:.3f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float] | None, sign: str = "") -> str:
    return "-" if ends is None else f"{ends[0]:{sign}.3f} to {ends[1]:{sign}.3f}"
