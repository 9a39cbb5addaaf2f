"""Figures of the household study (matplotlib, from the extra `dev` or `notebooks`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .statistics import Estimate

_COLORS = ("#7a7a7a", "#c2410c", "#1d4ed8", "#15803d")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "household_study",  # the same figure, the same file
    "savefig.facecolor": "white",
}
Curve = tuple[Sequence[float], Sequence[Estimate]]


def _axes(columns: int, *, height: float = 2.9, width: float = 3.9, share: bool = True):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(_STYLE)
    figure, axes = plt.subplots(
        1, columns, figsize=(width * columns, height), squeeze=False, sharey=share,
        layout="constrained",
    )  # fmt: skip
    return figure, list(axes[0])


def _save(figure, path: Path) -> str:
    import matplotlib.pyplot as plt

    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path.name


def _band(axis, curve: Curve, *, label: str, color: str, scale: float = 100) -> None:
    steps, estimates = curve
    axis.plot(steps, [scale * e.mean for e in estimates], color=color, label=label, lw=1.8)
    if all(e.runs > 1 for e in estimates):
        low, high = ([scale * getattr(e, side) for e in estimates] for side in ("low", "high"))
        axis.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)


def learning_curves(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> str:
    """Split -> condition -> success over steps, with t intervals as bands."""
    figure, axes = _axes(len(curves))
    for axis, (split, lines) in zip(axes, curves.items(), strict=True):
        for color, (name, curve) in zip(_COLORS, lines.items(), strict=False):
            _band(axis, curve, label=name, color=color)
        axis.set_title(f"{split} tasks", loc="left")
        axis.set_xlabel("training step")
    axes[0].set_ylabel("success, %")
    axes[0].legend(loc="upper left")
    return _save(figure, path)


def forest(differences: Mapping[str, Mapping[str, Estimate]], path: Path) -> str:
    """Row -> panel -> difference to GRPO: points with t intervals."""
    splits = list(next(iter(differences.values())))
    figure, axes = _axes(len(splits), height=0.9 + 0.3 * len(differences), width=3.6)
    at = -np.arange(len(differences))
    for axis, split in zip(axes, splits, strict=True):
        for y, (name, by_split) in zip(at, differences.items(), strict=True):
            one = by_split[split]
            color = _COLORS[1] if name == "ReSkill" else _COLORS[2]
            if one.runs > 1:
                axis.plot([100 * one.low, 100 * one.high], [y, y], color=color, lw=1.6)
            axis.plot(100 * one.mean, y, "o", color=color, ms=5)
        axis.axvline(0, color="#404040", lw=0.9)
        axis.set_title(split, loc="left")
        axis.set_xlabel("success less GRPO's, points")
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(at, list(differences))
    return _save(figure, path)


def conflict(
    curves: Mapping[str, Curve],
    measured: Mapping[str, Sequence[tuple[int, float, str, bool]]],
    path: Path,
) -> str:
    """What a skill is worth the longer it is in use, per condition; every measurement a dot."""
    figure, axes = _axes(len(curves), width=3.4)
    longest = max(max(curve[0]) for curve in curves.values())
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        verdicts = {"helpful": _COLORS[3], "neutral": "#b5b5b5", "harmful": _COLORS[1]}
        for verdict, color in verdicts.items():
            chosen = [one for one in measured[name] if one[2] == verdict]
            axis.plot(
                [one[0] for one in chosen], [100 * one[1] for one in chosen], "o", ms=3,
                color=color, alpha=0.7, label=verdict, mew=0,
            )  # fmt: skip
        axis.plot(curve[0], [100 * e.mean for e in curve[1]], color="#202020", lw=1.8, label="mean")
        axis.axhline(0, color="#404040", lw=0.9)
        harmful = np.mean([one[2] == "harmful" for one in measured[name]])
        below = np.mean([one[1] < 0 for one in measured[name]])
        axis.set_title(f"{name}\n{100 * harmful:.0f} % harmful, {100 * below:.0f} % below 0",
                       loc="left", fontsize=9)  # fmt: skip
        axis.set_xlabel("steps in use")
        axis.set_xlim(-1, longest + 1)
        axis.locator_params(axis="x", integer=True)
    axes[0].set_ylabel("success with the skill less without it, points")
    axes[0].legend(loc="lower left", fontsize=7.5, ncols=2)
    return _save(figure, path)


def frozen(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> str:
    """World -> split -> success over steps of a policy that never changes."""
    figure, axes = _axes(len(curves), width=3.2)
    for axis, (world, by_split) in zip(axes, curves.items(), strict=True):
        for color, (split, curve) in zip(_COLORS[1:], by_split.items(), strict=False):
            _band(axis, curve, label=f"{split} tasks", color=color)
            axis.axhline(100 * curve[1][0].mean, color=color, lw=0.9, ls=":")
        axis.set_title(f"{world} rooms", loc="left")
        axis.set_xlabel("step")
    axes[0].set_ylabel("success, %")
    axes[0].legend(loc="upper left")
    return _save(figure, path)
