"""Tables and figures of the simulation of decision rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from results_page import table

REFERENCE = ("reference", "means, 5 steps")
OURS = ("ours", "sequential, at most 16")
COLOURS = {"reference": "#b3541e", "ours": "#1f6f8b"}
USUAL = "base 30%, drift none, spread 1.5"


def index(found: dict[str, Any]) -> dict[tuple, dict]:
    """Cells by world, design, rule and difference."""
    return {(c["world"], c["design"], c["rule"], c["difference"]): c for c in found["cells"]}


def _unique(found: dict, field: str) -> list:
    return list(dict.fromkeys(cell[field] for cell in found["cells"]))


def _mean_regret(cells: list[dict]) -> float:
    return sum(c["regret"][0] for c in cells) / len(cells)


def _line(cells: dict[float, dict], differences: list[float]) -> list[str]:
    """Wrong decisions at the usual differences, steps and regret."""
    shown = [cells[d] for d in differences]
    moderate = [cells[d] for d in differences if 0 < abs(d) < 0.15]

    def share(d: float) -> str:
        accepted = 100 * cells[d]["accepted"][0]
        return f"{accepted if d <= 0 else 100 - accepted:.1f}"

    return [
        *(share(d) for d in (-0.05, -0.02, 0.0)),
        *(share(d) for d in (0.02, 0.05, 0.1, 0.2)),
        f"{cells[0.0]['steps'][0]:.1f}",
        f"{sum(c['steps'][0] for c in shown) / len(shown):.1f}",
        *(f"{cells[d]['regret'][0]:.0f}" for d in (-0.1, -0.05, 0.05, 0.1)),
        f"{_mean_regret(moderate):.0f}",
    ]


HEADS = [
    *("accepts at -5", "at -2", "at 0", "rejects at +2", "at +5", "at +10", "at +20"),
    *("steps at 0", "steps", "regret at -10", "at -5", "at +5", "at +10", "mean regret"),
]


def tables_text(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    cells, differences = index(found), _unique(found, "difference")

    def line(world: str, design: str, rule: str) -> list[str]:
        return _line({d: cells[world, design, rule, d] for d in differences}, differences)

    parts = [
        f"{found['trials']:,} trials per cell, seed {found['seed']}; {found['machine']}; "
        f"{found['seconds']} s. Standard error of a share: at most "
        f"{50 / found['trials'] ** 0.5:.1f} points."
    ]
    worlds = [w for w in _unique(found, "world") if (w, *OURS, 0.0) in cells]
    parts.append("### The reference's rule and ours, side by side\n")
    rows = []
    for world in worlds:
        for who, (design, rule) in (("reference", REFERENCE), ("ours", OURS)):
            rows.append([world, who, *line(world, design, rule)])
        if (world, "ours", "sequential, gain 3", 0.0) in cells and world != USUAL:
            rows.append([world, "ours, gain 3", *line(world, "ours", "sequential, gain 3")])
    parts.append(table(["world", "rule", *HEADS], rows))

    parts.append(f"### Rules, on the same trials ({USUAL})\n")
    rows = [
        [f"{rule} ({design})", *line(USUAL, design, rule)]
        for design in ("reference", "ours")
        for rule in _unique(found, "rule")
        if (USUAL, design, rule, 0.0) in cells and not rule.startswith("retire")
    ]
    parts.append(table(["rule (assignment)", *HEADS], rows))

    parts.append("### Assignment and discount\n")
    rows = []
    for world in [w for w in worlds if "base 30%" in w and "spread 1.5" in w]:
        for design in _unique(found, "design"):
            for rule in (REFERENCE[1], OURS[1]):
                if (world, design, rule, 0.0) in cells:
                    rows.append([world, f"{design}; {rule}", *line(world, design, rule)])
    parts.append(table(["world", "design; rule", *HEADS], rows))

    retire = [r for r in _unique(found, "rule") if r.startswith("retire")]
    if retire and (USUAL, "ours", retire[0], 0.0) in cells:
        parts.append("### Retirement: how often the skill goes\n")
        named = [d for d in differences]
        rows = [
            [rule, *(f"{100 * cells[USUAL, 'ours', rule, d]['accepted'][0]:.1f}" for d in named)]
            + [f"{cells[USUAL, 'ours', rule, 0.0]['steps'][0]:.1f}"]
            for rule in retire
        ]
        heads = [f"skill adds {-100 * d:+.0f}" if d else "adds 0" for d in named]
        parts.append(table(["rule", *heads, "steps at 0"], rows))

    if "sequences" in found:
        parts.append("### Ten proposals in a run\n")
        parts.append(_sequences_table(found["sequences"]))

    parts.append("### Horizons estimated after six trials, in episodes\n")
    rows = [
        [kind, *(f"{x:.0f}" for x in m["adaptive"]), str(m["exact"])]
        for kind, m in found["horizons"].items()
    ]
    parts.append(table(["drift", "10 %", "median", "90 %", "from 160 trials"], rows))
    return "\n\n".join(parts)


def _sequences_table(found: dict[str, Any]) -> str:
    """What runs end with, their proposals' effects drawn from those of stored runs."""
    effects = found["effects"]
    share = 100 * sum(effect < 0 for effect in effects) / len(effects)
    told = (
        f"Effects drawn from {len(effects)} measured proposals of stored runs ({share:.0f} % below "
        f"0, mean {100 * sum(effects) / len(effects):+.1f} points); no retirements."
    )
    rows = [
        [
            f"{row['rule']} ({row['design']}), drift {row['drift']}",
            *(f"{100 * row[name]:.1f}" for name in ("any harmful", "any that costs 2 points")),
            *(f"{row[name]:.2f}" for name in ("helpful", "harmful")),
            f"{100 * row['effect']:+.1f}",
        ]
        for row in found["rows"]
    ]
    heads = ["rule (assignment)", "runs with a harmful skill, %", "with one that costs 2 points, %"]
    heads += ["helpful skills", "harmful skills", "sum of effects, points"]
    return f"{told}\n\n{table(heads, rows)}"


def figures(found: dict[str, Any], folder: Path) -> None:
    """decision_curves.svg, decision_worlds.svg and decision_lengths.svg."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    plt.rcParams |= {"svg.hashsalt": "decision", "savefig.dpi": 110}
    folder.mkdir(parents=True, exist_ok=True)
    cells, differences = index(found), _unique(found, "difference")
    points = [100 * d for d in differences]

    def save(figure, name: str) -> None:
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)

    # What happens at every true difference, by drift.
    drifts = [w for w in _unique(found, "world") if "base 30%" in w and "spread 1.5" in w]
    figure, axes = plt.subplots(3, len(drifts), figsize=(9, 7.4), sharex=True, squeeze=False)
    for column, world in zip(axes.T, drifts):
        for name, (design, rule) in (("reference", REFERENCE), ("ours", OURS)):
            shown = [cells[world, design, rule, d] for d in differences]
            accepted = [100 * c["accepted"][0] for c in shown]
            style = {"color": COLOURS[name], "marker": "o", "ms": 3, "label": name}
            column[0].plot(points, accepted, **style)
            column[1].plot(points, [c["steps"][0] for c in shown], **style)
            column[2].plot(points, [c["regret"][0] for c in shown], **style)
        column[0].set_title("drift: " + world.split("drift ")[1].split(",")[0])
        column[0].axhline(10, color="#999", lw=0.7, ls=":")
        column[0].axvline(0, color="#ccc", lw=0.7)
        column[2].set_xlabel("candidate minus bank in use,\nat the end (points)")
        column[1].set_ylim(0, 10)
        column[2].set_ylim(0, None)
    for axis, label in zip(axes[:, 0], ("accepted, %", "steps used", "regret, successes")):
        axis.set_ylabel(label)
    axes[0, 0].legend(frameon=False)
    figure.align_ylabels()
    figure.tight_layout()
    save(figure, "decision_curves")

    # False accepts and power in every world.
    worlds = [w for w in _unique(found, "world") if (w, *OURS, 0.0) in cells and "cross" not in w]
    figure, axes = plt.subplots(1, 3, figsize=(9, 0.8 + 0.27 * len(worlds)), sharey=True)
    measures: list[tuple[str, Callable]] = [
        ("false accepts at 0, %", lambda c: 100 * c(0.0)["accepted"][0]),
        ("false rejects at +10, %", lambda c: 100 - 100 * c(0.1)["accepted"][0]),
        ("steps at 0", lambda c: c(0.0)["steps"][0]),
    ]
    for axis, (label, measure) in zip(axes, measures):
        for name, (design, rule) in (("reference", REFERENCE), ("ours", OURS)):
            values = [measure(lambda d, w=w, k=(design, rule): cells[w, *k, d]) for w in worlds]
            axis.plot(values, range(len(worlds)), "o", color=COLOURS[name], ms=5, label=name)
        axis.set_xlabel(label)
        axis.set_xlim(0, None)
        axis.grid(axis="y", color="#eee")
    axes[0].set_yticks(range(len(worlds)), worlds)
    axes[0].invert_yaxis()
    axes[0].axvline(10, color="#999", lw=0.7, ls=":")
    axes[0].legend(frameon=False, loc="center")
    figure.tight_layout()
    save(figure, "decision_worlds")

    # What the longest trial allowed changes.
    families = {
        "means (reference's assignment)": ("reference", "means, {} steps"),
        "P pooled": ("ours", "P pooled, at most {}"),
        "P within groups": ("ours", "P within groups, at most {}"),
        "sequential": ("ours", "sequential, at most {}"),
    }
    colours = (COLOURS["reference"], "#8a8a3c", "#7a5195", COLOURS["ours"])
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.1))
    moderate = [d for d in differences if 0 < abs(d) < 0.15]
    for (name, (design, rule)), colour in zip(families.items(), colours):
        lengths = [k for k in (5, 6, 10, 16, 24) if (USUAL, design, rule.format(k), 0.0) in cells]
        rows = [{d: cells[USUAL, design, rule.format(k), d] for d in differences} for k in lengths]
        style = {"color": colour, "marker": "o", "ms": 3, "label": name}
        axes[0].plot(lengths, [100 * r[0.0]["accepted"][0] for r in rows], **style)
        axes[1].plot(lengths, [100 * r[0.05]["accepted"][0] for r in rows], **style)
        axes[2].plot(lengths, [_mean_regret([r[d] for d in moderate]) for r in rows], **style)
    for axis, label in zip(
        axes, ("accepted at 0, %", "accepted at +5 points, %", "mean regret, successes")
    ):
        axis.set_ylabel(label)
        axis.set_xlabel("longest trial, steps")
        axis.set_ylim(0, None)
    axes[0].axhline(10, color="#999", lw=0.7, ls=":")
    axes[1].legend(frameon=False, loc="lower right", fontsize=8)
    figure.tight_layout()
    save(figure, "decision_lengths")
