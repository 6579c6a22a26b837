"""The pictures of a store: spectra by region of the scalp, and amplitudes beside the limits of their flags."""

import numpy as np
from numpy.typing import NDArray

from neurolm.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, band, chart, line, number, text
from neurolm.reports.store_statistics import BINS_PER_DECADE, SetStatistics

SMALL_WIDTH, SMALL_HEIGHT = 330, 240
FLOOR = 1e-4
"""Power in µV²/Hz that is drawn as the least: what filters leave below would take up most of a chart."""


def spectra(data_set: str, statistics: SetStatistics) -> list[str]:
    """A chart a region: median and percentile bands of the power density over frequency, all on one scale."""
    used = slice(1, None)  # 0 Hz is no rhythm
    frequencies = statistics.frequencies_hz[used]
    decibels = {
        region: 10 * np.log10(np.maximum(power[:, used], FLOOR)) for region, power in statistics.spectra.items()
    }
    x = Scale(0, float(frequencies[-1]), LEFT, SMALL_WIDTH - 16)
    heights = [float(value) for curves in decibels.values() for value in (curves.min(), curves.max())]
    y = Scale.around(heights, SMALL_HEIGHT - BOTTOM, TOP)
    charts = []
    for region, curves in decibels.items():
        low, quarter, median, three_quarters, high = (
            [(x(float(at)), y(float(value))) for at, value in zip(frequencies, curve, strict=True)] for curve in curves
        )
        body = band(low, high, "band outer") + band(quarter, three_quarters, "band inner")
        body += line(median, "curve median") + text(x.end, TOP + 8, region, anchor="end")
        charts.append(
            chart(
                f"{data_set}, {region}",
                _spectrum_told(frequencies, curves),
                x,
                y,
                body,
                x_title="frequency (Hz)",
                y_title="dB re 1 µV²/Hz",
                width=SMALL_WIDTH,
                height=SMALL_HEIGHT,
            )
        )
    return charts


def amplitudes(data_set: str, statistics: SetStatistics, limits_uv: tuple[float, float]) -> str:
    """How often a channel spans so many µV in a window, as shares; dashed lines are the limits of flags."""
    edges, counts = statistics.amplitude_edges_uv, statistics.amplitude_counts
    used = np.flatnonzero(counts)
    first, last = max(int(used[0]) - 1, 0), min(int(used[-1]) + 2, len(counts))
    low, high = min(limits_uv[0] or edges[first], edges[first]), max(limits_uv[1], edges[last])
    x = Scale.around([float(low), float(high)], LEFT, WIDTH - RIGHT, is_log=True, margin=0.02)
    shares = counts / counts.sum()
    y = Scale(0, float(shares.max()) * 1.08, HEIGHT - BOTTOM, TOP)
    bars = []
    for place in used:
        begin, end, top = x(float(edges[place])), x(float(edges[place + 1])), y(float(shares[place]))
        hint = f"{edges[place]:.3g} to {edges[place + 1]:.3g} µV: {shares[place]:.2%}"
        bars.append(
            f'<rect class="bar" x="{begin:.1f}" y="{top:.1f}" width="{max(end - begin - 1, 0.5):.1f}" '
            f'height="{y.start - top:.1f}"><title>{hint}</title></rect>'
        )
    for limit, name in zip(limits_uv, ("too_small", "too_large"), strict=True):
        if limit > 0:
            at = x(limit)
            bars.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start:.1f}" y2="{y.end:.1f}"/>')
            side, anchor = (6, "start") if name == "too_small" else (-6, "end")
            bars.append(text(at + side, TOP + 10, f"{name}: {number(limit)} µV", anchor=anchor))
    middle = edges[int(np.searchsorted(np.cumsum(shares), 0.5))] * 10 ** (0.5 / BINS_PER_DECADE)
    return chart(
        f"{data_set}: amplitude",
        f"share of channels of windows by peak-to-peak amplitude; the middle one spans about {middle:.2g} µV",
        x, y, "".join(bars), x_title="peak to peak in a window (µV)", y_title="share",
    )  # fmt: skip


def _spectrum_told(frequencies: NDArray[np.float64], curves: NDArray[np.float64]) -> str:
    """The median at a few frequencies, for those who cannot see the chart."""
    places = [int(np.abs(frequencies - at).argmin()) for at in (2, 10, 20, 40) if at <= frequencies[-1]]
    median = ", ".join(f"{curves[2, place]:.0f} dB at {frequencies[place]:.0f} Hz" for place in places)
    return f"power density over frequency; median {median}"
