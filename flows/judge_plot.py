"""What a report on judges looks like as a picture: position bias, agreement, reliability."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final  # Any: the values of a report

from tilth.schemas import ConfigError
from tilth.transforms.judging.report import Report
from tilth.transforms.parts import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS: Final = ("png", "svg", "pdf")
_SIDE_INCHES: Final = 4.5
_INK: Final = "#1f4e79"


def check_form(path: str) -> str:
    """The form of a picture by its name's end. Raises `ConfigError` naming the forms that are known."""
    form = path.rpartition(".")[2].lower()
    if form not in FORMS:
        raise ConfigError("a picture of an unknown form", found=form, wanted=", ".join(FORMS))
    return form


def plot_report(found: Report, path: str) -> None:
    """Writes a picture of a report (PNG, SVG or PDF; any fsspec URI). Needs no display."""
    # The classes, not pyplot: no window system is looked for, and no figure is kept in a global list.
    from matplotlib.figure import Figure

    form = check_form(path)
    drawings = _drawings(found)
    figure = Figure(figsize=(_SIDE_INCHES * len(drawings), _SIDE_INCHES), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(drawings), squeeze=False)[0], drawings, strict=True):
        draw(axes, found)
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=150)
    write_bytes(picture.getvalue(), path)


def _drawings(found: Report) -> list[Callable[[Axes, Report], None]]:
    drawings: list[Callable[[Axes, Report], None]] = [
        _position if found["kind"] == "votes" else _against_people
    ]
    if found["agreement"]["pairs"]:
        drawings.append(_matrix)
    if found["kind"] == "votes" and found["panel"]["calibration"]:
        drawings.append(_reliability)
    return drawings


def _position(axes: Axes, found: Report) -> None:
    judges = [(one["judge"], one["position"]["first_preferred"]) for one in found["judges"]]
    known = [(name, share) for name, share in judges if share["value"] is not None]
    axes.axvline(0.5, color="grey", linewidth=1, linestyle=":")
    for at, (_, share) in enumerate(known):
        ends = [[share["value"] - share["low"]], [share["high"] - share["value"]]]
        axes.errorbar(share["value"], at, xerr=ends, fmt="o", color=_INK, capsize=4)
    axes.set_yticks(range(len(known)), [name for name, _ in known])
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of decided votes, 95 % interval")
    axes.set_title("What is shown first is preferred")


def _against_people(axes: Axes, found: Report) -> None:
    names = [one["judge"] for one in found["judges"]]
    for key, marker in (("agreement", "x"), ("kappa", "o"), ("pi", "s")):
        values = [math.nan if one[key] is None else one[key] for one in found["judges"]]
        axes.plot(values, range(len(names)), marker, label=key, fillstyle="none")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.legend()
    axes.set_title("Agreement with people")


def _matrix(axes: Axes, found: Report) -> None:
    pairs = found["agreement"]["pairs"]
    names = sorted({name for one in pairs for name in (one["one"], one["other"])})
    cells: list[list[Any]] = [[math.nan] * len(names) for _ in names]
    for one in pairs:
        row, column = names.index(one["one"]), names.index(one["other"])
        cells[row][column] = cells[column][row] = math.nan if one["kappa"] is None else one["kappa"]
    axes.imshow(cells, vmin=-1, vmax=1, cmap="RdBu")
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            axes.text(column, row, "" if math.isnan(value) else f"{value:.2f}", ha="center", va="center")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Cohen's kappa between judges")


def _reliability(axes: Axes, found: Report) -> None:
    made = found["panel"]["calibration"]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    for name, word, marker in (("before", "votes", "x"), ("after", "calibrated", "o")):
        label = f"{word}, ECE {made[f'ece_{name}']:.3f}"
        said, held = ([one[key] for one in made[name]] for key in ("said", "held"))
        axes.plot(said, held, marker + "-", label=label)
    axes.set_xlabel("said")
    axes.set_ylabel("people agree")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend()
    axes.set_title(f"Reliability on {made['n']:,} gold items")
