"""How lines, marks and shades of a sweep's pictures are to be read."""

from html import escape

from neurolm.reports.charts import line, mark, number
from neurolm.reports.sweep import WORDS, SweepRecord
from neurolm.reports.sweep_planes import LEVELS, contour_levels


def states(sweep: SweepRecord) -> str:
    """What line and mark each state has that trials are in."""
    names = {"complete best": "best"} if sweep.best else {}
    names |= {state: word for state, word in WORDS.items() if sweep.count(state)}
    return _key("How lines and marks are to be read", [
        (f"{line([(2, 6), (38, 6)], f'curve {kind}')}{mark(40, 6, kind)}", word) for kind, word in names.items()
    ])  # fmt: skip


def fifths() -> str:
    """What line the trials of each fifth have in parallel coordinates."""
    words = ["worst fifth", "", "middle", "", "best fifth"]
    drawn = [(line([(2, 6), (46, 6)], f"thread step-{step}"), words[step]) for step in range(LEVELS)]
    best = line([(2, 6), (46, 6)], f"thread step-{LEVELS - 1} complete best")
    pruned = line([(2, 6), (46, 6)], f"thread step-{LEVELS // 2} pruned")
    return _key("How lines are to be read", [*drawn, (best, "best trial"), (pruned, "dashed: pruned")])


def shades(sweep: SweepRecord) -> str:
    """Which values each shade stands for."""
    return _key("Which values shades stand for", [
        (f'<rect class="shade-{place}" x="2" y="0" width="44" height="12"/>', f"{number(low)} to {number(high)}")
        for place, (low, high) in enumerate(contour_levels(sweep))
    ])  # fmt: skip


def _key(label: str, items: list[tuple[str, str]]) -> str:
    shown = "".join(
        f"<li><svg aria-hidden='true' viewBox='0 0 48 12'>{drawn}</svg> {escape(word)}</li>" for drawn, word in items
    )
    return f"<ul class='key' aria-label='{escape(label)}'>{shown}</ul>"
