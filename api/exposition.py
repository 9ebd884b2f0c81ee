"""The Prometheus text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.durations import BOUNDS_S, Tally

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> str:
    """A gauge or counter with its samples."""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    return "\n".join(lines + [_sample(name, labels, value) for labels, value in samples]) + "\n"


def histogram(name: str, text: str, groups: Iterable[tuple[Labels, Tally]]) -> str:
    """Values of each group, counted into buckets up to each bound."""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
    for labels, tally in groups:
        for bound, below in zip(BOUNDS_S, tally.below, strict=True):
            lines.append(_sample(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, below))
        lines.append(_sample(f"{name}_bucket", {**labels, "le": "+Inf"}, tally.count))
        lines.append(_sample(f"{name}_sum", labels, tally.total))
        lines.append(_sample(f"{name}_count", labels, tally.count))
    return "\n".join(lines) + "\n"


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
