"""All fault scenarios in turn, and the document and the numbers that come of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operators.errors import InputError
from tests.faults import load
from tests.faults.deployment import Deployment
from tests.faults.faults import SCENARIOS, Scale
from tests.faults.full_disk import full_disk
from tests.faults.ledger import Bench, Outcome
from tests.faults.two_hosts import two_hosts

COUNTS = ("accepted", "refused", "finished", "lost", "duplicated", "corrupted", "faults")
OTHERS = {"long_queue": load.long_queue, "flat_memory": load.flat_memory, "overhead": load.overhead}
OWN = {full_disk.__name__: full_disk, two_hosts.__name__: two_hosts}
"""Scenarios with a deployment of their own."""
NAMES = (*(scenario.__name__ for scenario in SCENARIOS), *OTHERS, *OWN)


def scenarios(folder: Path, scale: Scale, only: list[str] | None = None) -> Iterator[Outcome]:
    """Run scenarios in a deployment with two workers, each on what the one before left; those of `OWN` have their own.

    Parameters
    ----------
    folder
        For stores, logs and results; empty.
    scale
        How much of everything.
    only
        Names of scenarios; all when not given.

    Raises
    ------
    InputError
        If a name is none of `NAMES`.
    """
    unknown = set(only or []) - set(NAMES)
    if unknown:
        raise InputError(f"{sorted(unknown)[0]!r} is no scenario", field="only", remedy=f"known: {', '.join(NAMES)}")
    wanted = set(only or NAMES)
    if wanted - set(OWN):
        with Deployment(folder / "store", workers=2) as deployment:
            bench = Bench(deployment, folder, scale.iterations)
            yield bench.learn()
            for shared in SCENARIOS:
                if shared.__name__ in wanted:
                    yield shared(bench, scale)
            if "overhead" in wanted:
                yield load.overhead(bench, scale, folder)
            if "flat_memory" in wanted:
                yield load.flat_memory(bench, scale)
            if "long_queue" in wanted:
                yield load.long_queue(bench, scale)
    for name, scenario in OWN.items():
        if name in wanted:
            place = folder / name
            place.mkdir(parents=True)
            yield scenario(place, scale)


def merged(out: Path, outcomes: list[Outcome], scale: Scale) -> list[Outcome]:
    """These outcomes in the places of the same scenarios in the report that `out` has, if that is of the same scale."""
    path = out / "reliability.json"
    if not path.exists():
        return outcomes
    earlier = json.loads(path.read_text())
    if earlier["scale"] != asdict(scale):
        return outcomes
    known = {"at": earlier["at"], "machine": earlier["machine"]}
    found = {o["name"]: Outcome(**{**known, **o}) for o in earlier["scenarios"]}
    found.update({o.name: o for o in outcomes})
    return list(found.values())


def totals(outcomes: list[Outcome]) -> dict[str, Any]:
    """Sums of the counts, and the two figures that have a target."""
    found: dict[str, Any] = {name: sum(getattr(o, name) for o in outcomes) for name in COUNTS}
    for key in ("submit_p99_ms", "overhead_s"):
        found[key] = next((o.measured[key] for o in outcomes if key in o.measured), None)
    return found


def failures(outcomes: list[Outcome]) -> list[str]:
    """What misses its target, one line each."""
    found = [f"{o.name}: {line}" for o in outcomes for line in o.wrong]
    for name in ("lost", "duplicated", "corrupted"):
        found += [f"{o.name}: {getattr(o, name)} {name}" for o in outcomes if getattr(o, name)]
    p99 = totals(outcomes)["submit_p99_ms"]
    if p99 is not None and p99 > load.SUBMIT_P99_MS:
        found.append(f"submission p99 is {p99:g} ms, the target {load.SUBMIT_P99_MS:g} ms")
    return found


def write(out: Path, outcomes: list[Outcome], scale: Scale) -> None:
    """``reliability.json`` and ``reliability.md`` in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    missed = failures(outcomes)
    value = {
        **totals(outcomes),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machines(outcomes),
        "seconds": round(sum(o.seconds for o in outcomes), 1),
        "scale": asdict(scale),
        "missed": missed,
        "scenarios": [asdict(o) for o in outcomes],
    }
    (out / "reliability.json").write_text(json.dumps(value, indent=2) + "\n")
    (out / "reliability.md").write_text(_document(outcomes, value, missed))


def _machines(outcomes: list[Outcome]) -> str:
    """Machine of all outcomes, or every machine with its scenarios."""
    names: dict[str, list[str]] = {}
    for o in outcomes:
        names.setdefault(o.machine, []).append(o.name)
    most = max(names, key=lambda machine: len(names[machine]))
    others = [f"{', '.join(found)}: {machine}" for machine, found in names.items() if machine != most]
    return "; ".join([most, *others])


def _document(outcomes: list[Outcome], value: dict[str, Any], missed: list[str]) -> str:
    columns = ("scenario", *COUNTS, "seconds", "at")
    lines = [
        "# Reliability",
        "",
        "Written by `python -m tests.faults` (`make test-faults`): a real Redis, real worker processes and real HTTP,"
        " broken on purpose.",
        f"{value['machine']}; {value['seconds']:.0f} s; {value['at']}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    for o in outcomes:
        cells = [o.name, *(str(getattr(o, name)) for name in COUNTS), f"{o.seconds:g}", o.at]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("| **all** | " + " | ".join(str(value[name]) for name in COUNTS) + f" | {value['seconds']:.0f} | |")
    lines += [
        "",
        "*accepted*: answered by a 202. *refused*: answered by an error, as when Redis was away. *finished*: in a final"
        " state. *lost*: not, or unknown to the service. *duplicated*: results published twice. *corrupted*: another"
        " sha256 than in an undisturbed run. *faults*: kills, wipes, copied messages, full disks, silent clients.",
        "",
    ]
    for o in outcomes:
        if o.measured:
            shown = ", ".join(f"{k} {v}" for k, v in o.measured.items())
            lines.append(f"- {o.name}: {shown}")
    lines += ["", "**Missed:** " + "; ".join(missed) + "." if missed else "Every target was met.", ""]
    return "\n".join(lines)
