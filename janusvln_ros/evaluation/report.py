"""
The report of a run as one HTML file without anything to fetch: the table, success by group, and
failures drawn on their maps.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.files import atomic_write

PICTURES = 24
"""How many failures are drawn, and a quarter as many successes; evenly chosen from all."""

MARGIN_M = 1.0
"""How much of the map is shown around a path, metres."""

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:left;border-bottom:1px
solid #ddd}td.n{text-align:right;font-variant-numeric:tabular-nums}
.cards{display:flex;flex-wrap:wrap;gap:1em}
.card{width:250px;border:1px solid #ddd;border-radius:6px;padding:.6em;font-size:13px}
.card svg{width:100%;height:auto;background:#eee}
.ok{color:#06752b}.bad{color:#b00020;font-weight:600}small{color:#666}
"""

_ROWS = (
    ("success_rate", "success rate, {success:g} m", True),
    ("success_rate_1m", "success rate, {near:g} m", True),
    ("spl", "SPL", True),
    ("oracle_success_rate", "oracle success rate", True),
    ("navigation_error", "navigation error, m", False),
    ("ndtw", "nDTW", True),
    ("path_length", "path length, m", False),
    ("steps", "steps", False),
    ("collisions", "collisions", False),
)


Points = Sequence[Sequence[float]]
"""A way as points x, y, z in metres."""

Shown = tuple[Mapping[str, Any], Points, Points, TopDownMap | None]
"""A drive to draw: its result line, its way, the reference path, and the map of the floor."""


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    paths: Sequence[Points],
    references: Sequence[Points],
    maps: Sequence[TopDownMap | None],
) -> None:
    """
    Write the report.

    ``summary`` is that of `summarize` with what was run: agent, instructions, checkpoint, dataset,
    split, thresholds. ``paths``, ``references`` (points x, y, z in metres) and ``maps`` belong to
    the ``results`` at the same place.
    """
    drives = list(zip(results, paths, references, maps))
    # Where the success distance is nearly free, what misses the second one is worth looking at.
    missed = [d for d in drives if d[0]["success"] and not d[0]["success_1m"]]
    title = (
        f"{summary['agent']}: {summary['episodes']} episodes of {summary['dataset']} "
        f"{summary['split']}"
    )
    near = f"{summary['thresholds']['success']:g} m", f"{summary['thresholds']['near']:g} m"
    parts = [
        "<!doctype html><html lang=en><meta "
        f"charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p><small>instructions: {html.escape(str(summary.get('instructions')))}; "
        f"checkpoint: {html.escape(str(summary.get('checkpoint')))}; "
        "intervals are 95 % (Wilson for rates, bootstrap for means); manifest.json "
        "beside this file says what was run</small></p>",
        _table(summary),
        _checks(summary),
        "<h2>Success by distance to the goal</h2>",
        _bars(summary["by_distance"], near),
        "<h2>Success by length of the reference drive</h2>",
        _bars(summary["by_reference_steps"], near),
        "<h2>Success by rooms crossed</h2>" + _bars(summary["by_rooms_crossed"], near)
        if summary["by_rooms_crossed"]
        else "",
        "<h2>Success by tag</h2>" + _bars(summary["by_tag"], near) if summary["by_tag"] else "",
        _section("Failures", [d for d in drives if not d[0]["success"]], PICTURES),
        _section(
            "Nearer than the success distance, but not than the second one",
            missed,
            PICTURES // 4,
        ),
        _section("Successes", [d for d in drives if d[0]["success_1m"]], PICTURES // 4),
        "<p><small>green: reference path, blue: driven path, circle: start, cross: "
        "goal</small></p></html>",
    ]
    atomic_write(path, "\n".join(parts))


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if percent else f"{value:.2f}"


def _table(summary: Mapping[str, Any]) -> str:
    rows = []
    for key, name, percent in _ROWS:
        interval = summary.get(f"{key}_ci95")
        span = (
            ""
            if interval is None
            else f"{_number(interval[0], percent)} to {_number(interval[1], percent)}"
        )
        rows.append(
            f"<tr><td>{name.format(**summary['thresholds'])}"
            f"<td class=n>{_number(summary[key], percent)}<td class=n>{span}"
            f"<td class=n>{summary[f'{key}_count']}"
        )
    rows += [
        f"<tr><td>{name}<td class=n>{summary[name]}<td>"
        for name in (
            *("episodes", "rejected", "errors", "unreachable", "not_understood"),
            *("doubtful", "noise"),
        )
        if summary[name] is not None
    ]
    ended = ", ".join(f"{name}: {count}" for name, count in summary["ended"].items())
    return (
        f"<table><tr><th>metric<th>value<th>95 % interval<th>drives{''.join(rows)}</table>"
        f"<p>Drives ended by {html.escape(ended)}.</p>"
    )


def _checks(summary: Mapping[str, Any]) -> str:
    items = "".join(
        f"<li class={'ok' if good else 'bad'}>{name.replace('_', ' ')}: {'yes' if good else 'no'}"
        for name, good in summary["checks"].items()
    )
    detail = ", ".join(
        f"{name.replace('_', ' ')}: {value:.3g}"
        for name, value in summary["checks_detail"].items()
    )
    return f"<h2>Was it a real run?</h2><ul>{items}</ul><small>{html.escape(detail)}</small>"


def _bars(groups: Mapping[str, Mapping[str, Any]], distances: tuple[str, str]) -> str:
    """Two bars for each group, success at both ``distances``, with their intervals as lines."""
    if not groups:
        return "<p>no reference drives are known</p>"
    row, left, scale = 46, 190, 6.0
    parts = [f"<svg viewBox='0 0 960 {row * len(groups) + 24}' width=960 role=img>"]
    for percent in range(0, 101, 25):
        x = left + scale * percent
        parts += [
            f"<line x1={x} x2={x} y1=0 y2={row * len(groups)} stroke=#ddd />",
            f"<text x={x} y={row * len(groups) + 16} font-size=12 "
            f"text-anchor=middle>{percent} %</text>",
        ]
    for i, (name, group) in enumerate(groups.items()):
        y = i * row + 6
        parts.append(
            f"<text x={left - 8} y={y + 20} font-size=13 "
            f"text-anchor=end>{html.escape(name)} ({group['episodes']})</text>"
        )
        for offset, key, near, colour in (
            (0, "success_rate", distances[0], "#9cc3e6"),
            (17, "success_rate_1m", distances[1], "#2b6ca3"),
        ):
            value, (low, high) = 100 * group[key], [100 * v for v in group[f"{key}_ci95"]]
            middle = y + offset + 7
            parts += [
                f"<rect x={left} y={y + offset} width={scale * value:.1f} height=14 "
                f"fill={colour} />",
                f"<line x1={left + scale * low:.1f} x2={left + scale * high:.1f} "
                f"y1={middle} y2={middle} stroke=#222 />",
                f"<text x={left + scale * 100 + 8} y={middle + 4} "
                f"font-size=12>{value:.0f} % within {near}</text>",
            ]
    return "".join(parts) + "</svg>"


def _section(title: str, drives: Sequence[Shown], most: int) -> str:
    if not drives:
        return f"<h2>{title}: none</h2>"
    chosen = (
        [drives[round(k * (len(drives) - 1) / max(most - 1, 1))] for k in range(most)]
        if len(drives) > most
        else drives
    )
    shown = f", {len(chosen)} shown" if len(chosen) < len(drives) else ""
    return (
        f"<h2>{title}: {len(drives)}{shown}</h2><div "
        f"class=cards>{''.join(_card(*drive) for drive in chosen)}</div>"
    )


def _card(
    result: Mapping[str, Any], path: Points, reference: Points, floor: TopDownMap | None
) -> str:
    where = html.escape(f"{result['scene_id']}, episode {result['episode_id']}")
    error = f"<br>{html.escape(str(result['error']))}" if "error" in result else ""
    end = (
        "no path to the goal"
        if result["ne"] is None
        else f"ended {result['ne']:.2f} m from the goal"
    )
    text = html.escape(result["episode_instruction"])
    if (told := html.escape(result["instruction_given"])) != text:
        text += f"<br><i>told: {told or '(nothing)'}</i>"
    return (
        "<div "
        f"class=card>{_picture(path, reference, floor)}<b>{where}</b><br>{text}<br>"
        f"<small>{result['status']}, {end}, {result['steps']} steps{error}</small></div>"
    )


def _picture(path: Points, reference: Points, floor: TopDownMap | None) -> str:
    """
    Both paths seen from above (x to the right, z down), on the map where there is one, cut to the
    part around them.
    """
    points = np.array([(p[0], p[2]) for p in [*path, *reference]])
    if not len(points):
        return ""
    (x0, z0), (x1, z1) = points.min(axis=0) - MARGIN_M, points.max(axis=0) + MARGIN_M
    image = ""
    if floor is not None:
        rows, columns = floor.cells((x0, z0), (x1, z1))
        height, width = floor.navigable.shape
        rows = max(rows[0], 0), min(rows[1], height)
        columns = max(columns[0], 0), min(columns[1], width)
        if rows[0] < rows[1] and columns[0] < columns[1]:
            image = _map_image(floor.part(rows, columns))
    start, goal = reference[0] if reference else path[0], reference[-1] if reference else path[-1]
    return (
        f"<svg viewBox='{x0:.2f} {z0:.2f} {x1 - x0:.2f} {z1 - z0:.2f}' fill=none "
        f"stroke-width=.08>{image}{_line(reference, '#2a9d3f')}{_line(path, '#1f5fbf')}"
        f"<circle cx={start[0]:.2f} cy={start[2]:.2f} r=.18 fill=#222 stroke=none />"
        f"<path d='M{goal[0] - 0.2:.2f} {goal[2] - 0.2:.2f}l.4 .4m0 -.4l-.4 .4' "
        "stroke=#b00020 /></svg>"
    )


def _map_image(floor: TopDownMap) -> str:
    """The map as a picture inside the drawing, at its place."""
    _, png = cv2.imencode(".png", np.where(floor.navigable, 255, 175).astype(np.uint8))
    rows, columns = floor.navigable.shape
    return (
        f"<image x='{floor.origin[0]:.3f}' y='{floor.origin[1]:.3f}' "
        f"width='{columns * floor.resolution:.3f}' height='{rows * floor.resolution:.3f}' "
        "preserveAspectRatio='none' "
        f"href='data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}'/>"
    )


def _line(points: Points, colour: str) -> str:
    return (
        f"<polyline stroke='{colour}' "
        f"points='{' '.join(f'{p[0]:.2f},{p[2]:.2f}' for p in points)}'/>"
        if points
        else ""
    )
