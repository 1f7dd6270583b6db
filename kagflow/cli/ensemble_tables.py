"""How an ensemble is shown on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kagflow.naming import Fold
from kagflow.output import Output


def show(out: Output, value: Mapping[str, Any]) -> None:
    """Print the headline, the candidates, the members and the rules."""
    out.table(f"ensemble {value['name']}", ("", ""), headline(value))
    if value["candidates"]:
        out.table(
            "candidates (from a sample of pixels)",
            ("candidate", "mean of", "tuned here", "cross-fitted", "default", "gain", ""),
            [_candidate(one, value) for one in value["candidates"]],
        )
    out.table(
        "members, the last segmenter goes first",
        ("member", "predicts", "folds", "weight", "worth", "s an image"),
        _members(value),
    )
    out.table("rules", ("class", "kind", "rule"), _rules(value))
    if value["gates"]:
        columns = ("class", "calibration", "ECE", "ECE raw", "AUC")
        rows = [
            (
                one["class"],
                one["calibration"],
                *(_figure(one[k]) for k in ("ece", "ece_raw", "auc")),
            )
            for one in value["gates"]
        ]
        out.table("gate", columns, rows)


def headline(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what an ensemble is worth and costs, as rows."""
    cv, cost = value["cv"], value["cost"]
    rows = [
        ("choice", value["kind"]),
        ("images", f"{cv['images']} of {cv['of']}"),
        ("CV", _figure(cv["crossfitted"]) + _interval(cv["interval"])),
        ("what it is", cv["label"]),
        ("tuned on the same images", f"{cv['naive']:.4f}{_optimism(cv)}"),
        ("default thresholds", f"{cv['default']:.4f}"),
        ("all-empty floor", f"{cv['floor']:.4f}"),
    ]
    rows += [
        (f"gain of {name}", f"{one['gain']:+.4f}{_interval(one['interval'], '+')}")
        for name, one in value["gains"].items()
    ]
    rows += [("folds missing", f"{run}: {_list(gone)}") for run, gone in cv["missing"].items()]
    if cost["minutes"] is not None:
        where = ", ".join(cost["measured_on"])
        rows.append(("costs", f"{cost['minutes']:.1f} min for {cost['images']} images on {where}"))
    return rows


def _candidate(one: Mapping[str, Any], value: Mapping[str, Any]) -> tuple[str, ...]:
    kind = f"{one['kind']}, {one['mean']}" if one["mean"] != "probabilities" else one["kind"]
    weights = ", ".join(f"{run} {weight:.2g}" for run, weight in one["weights"].items())
    first = one is value["candidates"][0]
    gain = "" if first else f"{one['gain']:+.4f} (SE {one['error']:.4f})"
    scores = (_figure(one[key]) for key in ("naive", "crossfitted", "default"))
    return (kind, weights, *scores, gain, "taken" if one["taken"] else "")


def _members(value: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            one["run"],
            one["predicts"],
            _list(one["folds"]),
            f"{one['weight']:.3g}",
            "" if one["worth"] is None else f"{one['worth']:+.4f}",
            f"{one['seconds_per_image']:.3g}",
        )
        for one in value["members"]
    ]


def _rules(value: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = zip(value["task"]["classes"], value["kinds"], value["rules"], strict=True)
    return [(name, kind, _rule(rule)) for name, kind, rule in rows]


def _rule(rule: Mapping[str, Any]) -> str:
    if rule["empty"]:
        return "never predicted"
    said = [f"p >= {rule['threshold']:.3g}"]
    if rule["min_component"]:
        said.append(f"pieces of {rule['min_component']} px or more")
    if rule["min_area"]:
        above = f" above {rule['seed']:.3g}" if rule["seed"] else ""
        grown = f", times {rule['soft']:g} where the gate says no" if rule["soft"] > 1 else ""
        said.append(f"{rule['min_area']} px or more{above}{grown}")
    if rule["gate"]:
        said.append(f"gate >= {rule['gate']:.3g}")
    return "; ".join(said)


def _optimism(cv: Mapping[str, Any]) -> str:
    if cv["crossfitted"] is None:
        return ""
    return f" ({cv['naive'] - cv['crossfitted']:+.4f} of that is optimism)"


def _interval(found: list[float] | None, sign: str = "") -> str:
    if found is None:
        return ""
    return f" (95 %: {found[0]:{sign}.4f} to {found[1]:{sign}.4f})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _list(folds: list[Fold]) -> str:
    return ",".join(map(str, folds))
