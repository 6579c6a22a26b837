"""The pictures of an evaluation: calibration, ROC curves, and how each subject fared."""

import numpy as np
from sklearn.metrics import roc_curve

from neurolm.evaluation.calibration import Calibration
from neurolm.evaluation.details import accuracy_by_subject
from neurolm.evaluation.predictions import Predictions
from neurolm.reports.charts import BOTTOM, LEFT, TOP, WIDTH, Scale, chart, line, mark, number, picture, text

SIDE, HEIGHT, ID_WIDTH, RIGHT = 430, 380, 150, 24
NUM_STYLES = 6
"""Line styles of classes in the style sheet."""
LABELLED_ROW = 20
"""Height of a subject's row while all have their ids beside them."""
TALLEST = 900
"""With more subjects than fit at that height rows are thinner and only the worst is named."""


def reliability(found: Calibration) -> str:
    """Share of right answers against the probability that was given, a disc a bin, larger with more windows."""
    x, y = _unit_square()
    total = sum(one.num_windows for one in found.bins)
    parts = [line([(x(0), y(0)), (x(1), y(1))], "curve even")]
    parts.append(line([(x(one.confidence), y(one.accuracy)) for one in found.bins], "curve so-far"))
    for one in found.bins:
        hint = f"{one.num_windows} windows: probability {one.confidence:.3f}, right {one.accuracy:.3f}"
        size = 3 + 9 * (one.num_windows / total) ** 0.5
        parts.append(mark(x(one.confidence), y(one.accuracy), "complete", hint, round(size, 1)))
    said = "; ".join(f"{one.confidence:.2f}: {one.accuracy:.2f} of {one.num_windows}" for one in found.bins)
    return chart(
        "Reliability", f"Probability of the predicted class: share of right answers, by bin: {said}", x, y,
        "".join(parts), x_title="probability of the predicted class", y_title="share of right answers",
        width=SIDE, height=HEIGHT,
    )  # fmt: skip


def roc(predictions: Predictions) -> str:
    """ROC curves: of the positive class, or of each class against the rest."""
    x, y = _unit_square()
    parts = [line([(x(0), y(0)), (x(1), y(1))], "curve even")]
    drawn = []
    for place, (name, (is_positive, score)) in enumerate(
        zip(ranked_classes(predictions), predictions.rankings, strict=True)
    ):
        if is_positive.all() or not is_positive.any():
            continue
        false_rate, true_rate, _ = roc_curve(is_positive, score)
        points = [(x(at), y(height)) for at, height in zip(false_rate.tolist(), true_rate.tolist(), strict=True)]
        parts.append(line(points, f"curve class-{place % NUM_STYLES}"))
        drawn.append(name)
    if not drawn:
        return "<p>Only one class occurs, so there is no ROC curve.</p>"
    return chart(
        "ROC", f"True positive rate against false positive rate for {', '.join(drawn)}", x, y, "".join(parts),
        x_title="false positive rate", y_title="true positive rate", width=SIDE, height=HEIGHT,
    )  # fmt: skip


def ranked_classes(predictions: Predictions) -> list[str]:
    """The class that each of the task's rankings is about."""
    if len(predictions.labels) > 2:
        return list(predictions.labels)
    return [predictions.labels[1 if predictions.positive_class is None else predictions.positive_class]]


def subjects(predictions: Predictions) -> str:
    """Balanced accuracy of each subject, the best on top; chance and the median are lines."""
    names, accuracy, each = accuracy_by_subject(predictions)
    row = min(LABELLED_ROW, TALLEST / len(names))
    bottom = TOP + row * (len(names) + 1)
    x = Scale(0, 1, ID_WIDTH, WIDTH - RIGHT)
    parts = []
    for value in x.ticks():
        at = x(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        parts.append(text(at, bottom + 18, number(value), anchor="middle", kind="tick"))
    middle, chance = float(np.median(accuracy)), 1 / len(predictions.labels)
    for at, kind, word in ((chance, "even", "chance"), (middle, "so-far", "median")):
        parts.append(line([(x(at), TOP), (x(at), bottom)], f"curve {kind}"))
        parts.append(text(x(at), TOP - 4, word, anchor="middle", kind="tick"))
    for place, index in enumerate(np.argsort(-accuracy, kind="stable").tolist(), start=1):
        height = TOP + row * place
        hint = f"{names[index]}: {accuracy[index]:.3f}, {int(each[index].sum())} windows"
        parts.append(mark(x(float(accuracy[index])), height, "complete", hint, min(4.5, row / 2)))
        if row == LABELLED_ROW or place == len(names):
            parts.append(text(ID_WIDTH - 10, height + 4, names[index], anchor="end", kind="code"))
    parts.append(text((x.start + x.end) / 2, bottom + 38, "balanced accuracy", anchor="middle", kind="name"))
    said = (
        f"Balanced accuracy of {len(names)} subjects, {accuracy.min():.3f} to {accuracy.max():.3f}, median {middle:.3f}"
    )
    return picture("Subjects", said, WIDTH, bottom + BOTTOM, "".join(parts))


def _unit_square() -> tuple[Scale, Scale]:
    return Scale(0, 1, LEFT, SIDE - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
