"""What a sweep's report says of the fresh seeds."""

from neurolm.reports import sweep_goals
from neurolm.reports.confirmation import Confirmation
from neurolm.reports.sections import Figure, Section, Table, score, signed
from neurolm.reports.sweep import SweepRecord


def confirmation(sweep: SweepRecord, one: Confirmation | None) -> Section | None:
    """Both settings on every seed, what lies between them, and what neither says; None while the sweep runs."""
    if one is None:
        if not sweep.is_finished or sweep.best is None:
            return None
        words = ["The best setting was not trained on other seeds; sweep.confirmation_seeds says on how many."]
        return Section("confirmation", "Confirmed on fresh seeds", words)
    reference = {run.seed: run for run in one.reference_runs}
    tasks = list(dict.fromkeys(name for run in [*one.best_runs, *one.reference_runs] for name in run.tasks))
    arms = [("best setting", one.best_runs, one.best), (one.reference, one.reference_runs, one.paper)]
    means = [
        [name, str(found.number), f"{found.mean:.3f}", "-" if found.sd is None else f"{found.sd:.3f}"]
        + [_mean([run.tasks[task] for run in runs if task in run.tasks]) for task in tasks]
        for name, runs, found in arms
        if found is not None
    ]
    rows = [
        [str(run.seed), score(run.score), score(other.score) if (other := reference.get(run.seed)) else "-",
         signed(run.score, other.score if other else None),
         "; ".join(reason for each in (run, other) if each and (reason := each.reason)) or "-"]
        for run in one.best_runs
    ]  # fmt: skip
    words = [one.verdict]
    if (found := one.difference) is not None:
        interval = (
            "" if found.ci95 is None else f", 95 % interval {found.ci95[0]:+.3f} to {found.ci95[1]:+.3f} (Student's t)"
        )
        sd = "" if found.sd is None else f" (sd {found.sd:.3f})"
        words.append(
            f"Best minus {one.reference}, seed by seed: {found.mean:+.3f}{sd}{interval}; p = {found.p_value:.3g} from "
            f"every exchange of the two, and no p-value of {len(found.differences)} seeds can fall below "
            f"{found.smallest_p_value:.3g}."
        )
    words.append(
        f"In the sweep the best trial reached {one.sweep_score:.3f}; that number was chosen for being the best of "
        "many and is flattering. Fresh seeds take away the luck of one training, not that the setting was chosen on "
        "these validation subjects: only the test split, opened once, says what the model is worth."
    )
    if one.kept_seed is not None:
        words.append(
            f"The model that is kept and tested is the run with seed {one.kept_seed} of "
            f"{'the best setting' if one.kept_arm == 'best' else one.reference}, chosen among the fresh seeds by "
            "validation; best.yaml has its settings and seed."
        )
    if not one.is_complete:
        words.append("Not every run has a score yet; the same command goes on.")
    tables = [
        Table("Mean and sd over seeds", ["setting", "seeds", "mean", "sd", *tasks], means),
        Table("Seed by seed", ["seed", "best setting", one.reference, "difference", "what failed"], rows, words=4),
    ]
    caption = (
        "A disc is one seed; lines join the same seed. The upright is the mean, the dashed line the best trial's value."
    )
    figures = [Figure([picture], caption)] if (picture := sweep_goals.seeds(one)) else []
    return Section("confirmation", "Confirmed on fresh seeds", words, figures=figures, tables=tables)


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "-"
