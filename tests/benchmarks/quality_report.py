"""What the quality benchmark writes: rows as JSON, a table a task as Markdown, a picture a task."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from operators.errors import InputError
from recon.bench.solving import label
from recon.measurement.measurement import Measurement
from tests.benchmarks import pictures
from tests.benchmarks.quality import IDEAL, STACK, Row, Task, Volume

BASELINES = ("l1-wavelet", "tv", "interpolation")
"""Which method a picture shows beside ours: the first of these that was run."""
OURS = ("boundary", "red-diff")
DEFAULTS = ("red-diff", "diffpir", "dds", "diffusion-mbir", "boundary")
"""Ours, with a user's defaults. Their published presets are neither ours nor rivals; all else is a rival."""
CLASSICAL = ("fbp", "tv", "qggmrf")
"""Rivals in the comparison of ideal and realistic simulation."""
MARKS = "*" * 8
"""Marks of seconds that another machine took than most: one for the second machine, two for the third."""
AIMS = {
    "CT, 60 views": 5.0, "CT, 23 views": 4.5, "CT, 8 views": 2.0, "CT, 90 of 180 degrees": 2.0,
    "CT, 60 views, 1e5 photons": 3.0, "CT, 23 views, 1e5 photons": 3.0, "CT, 8 views, 1e5 photons": 1.5,
    **{f"{contrast}, {sampling}": 3.0 for contrast in ("T1", "T2")
       for sampling in ("equispaced x4", "equispaced x8", "poisson x8")},
}  # fmt: skip
"""Decibels over the best rival that this project set out for."""
LEAD = ("tv", "red-diff")
"""Whose difference is the lead, in the comparison of ideal and realistic simulation."""


class Report:
    """The files of one folder, kept up to date task by task, so that an interrupted run goes on.

    Parameters
    ----------
    folder
        Where the files are.
    machine
        Of the rows that are added, in a few words.
    slices
        Of each volume.
    """

    def __init__(self, folder: Path, machine: str, slices: int) -> None:
        self.folder, self.machine, self.slices = folder, machine, slices
        folder.mkdir(parents=True, exist_ok=True)
        self._json = folder / "quality.json"
        self.rows = self._known()
        self._shown: dict[str, Volume] = {}
        self._measurement: Measurement | None = None

    def _known(self) -> list[Row]:
        """Rows of an earlier run, if it was made like this one."""
        if not self._json.exists():
            return []
        found = json.loads(self._json.read_text())
        if found["slices"] != self.slices:
            raise InputError(
                f"{self._json} was made with {found['slices']} slices, this run has {self.slices}",
                field="out",
                remedy="choose another folder, or remove the file",
            )
        return [Row(**{"psnr_inside": None, **row}) for row in found["rows"]]

    def missing(self, task: Task) -> Task:
        """The task with those methods only that have no row yet."""
        known = {row.method for row in self.rows if row.task == task.name and not _outdated(row)}
        return replace(task, methods=[given for given in task.methods if label(given) not in known])

    def add(self, row: Row, volume: Volume, measurement: Measurement) -> None:
        """Take and write a row, and keep its volume if the picture shows it."""
        others = [r for r in self.rows if (r.task, r.method) != (row.task, row.method)]
        self.rows = [*others, replace(row, machine=self.machine)]
        self._measurement = measurement
        name = row.method.split(" ")[0]
        if name in BASELINES + OURS:
            self._shown.setdefault(name, volume)

        content = {"slices": self.slices, "rows": [asdict(row) for row in self.rows]}
        self._json.write_text(json.dumps(content, indent=1) + "\n")

    def finish(self, task: Task) -> None:
        """Draw the picture and write the tables, once a task's methods are through."""
        pick = [next((n for n in names if n in self._shown), None) for names in (BASELINES, OURS)]
        shown = {name: self._shown[name] for name in pick if name is not None}
        # A run that only added a method to a known task leaves the picture as it is.
        if (
            self._measurement is not None
            and shown
            and not task.name.endswith(IDEAL)
            and (len(shown) == 2 or not (self.folder / picture(task.name)).exists())
        ):
            scan, truth = self._measurement, self._measurement.truth
            path, unit = self.folder / picture(task.name), "1/mm" if truth is None else "HU"
            unit = "a.u." if scan.acquisition.MODALITY == "mri" else unit
            # Without an affine the result lies in the scanner's frame: rows run down.
            affine = np.diag([1.0, -1.0, 1.0, 1.0]) if scan.affine is None else scan.affine
            placed = scan.affine is not None and scan.in_patient
            if truth is not None:
                pictures.comparison(path, truth, shown, unit, affine, in_patient=placed)
            else:
                pictures.side_by_side(path, shown, unit, affine, in_patient=placed)
        self._shown, self._measurement = {}, None
        (self.folder / "quality.md").write_text(self._markdown())

    def _markdown(self) -> str:
        machines = [name for name, _ in Counter(row.machine for row in self.rows).most_common()]
        marks = {name: MARKS[:index] for index, name in enumerate(machines)}
        others = [f"`{marks[name]}` in the last column: {name}." for name in machines[1:]]
        lines = [
            "# Quality on the test volumes",
            "",
            "How every method does on volumes that nothing was trained or tuned on, with the settings that a user gets",
            "without naming any. Printed by",
            f"`python -m tests.benchmarks quality --data DATA --out docs/benchmarks --slices {self.slices}`, with",
            f"`--slow --peers` for the slowest methods and other people's; {machines[0]}.",
            *others,
            "",
            "- **PSNR** is in dB by the volume's range, nothing rescaled: of whole slices, and of the inside of the",
            "  body (*inside*, `recon/quality/body.py`). *Axial*, *coronal*, *sagittal*: mean over the planes of whole",
            "  slices.",
            "- **Misfit** is the relative misfit to the data. Measured data have no known truth: *unseen* is the",
            "  relative misfit, noise included, at samples that no method was given.",
            "- **nfe** is the number of network evaluations per slice; *network s* are their seconds, *s* all.",
            "- **Simulation.** Tasks that are not measured are simulated as a scanner measures. Those that end in",
            f"  `{IDEAL.strip(', ')}` are measured with the operator that reconstructs (MRI with smooth random phases",
            "  as the priors were trained on; coil maps are estimated by ESPIRiT), which flatters every method:",
            "  measured data will give less. They come last, without pictures.",
            f"- Stacks of thick slices are made of {max(self.slices, STACK)} thin ones.",
            "- An empty cell belongs to a row that is older than the column.",
        ]
        lines += self._summary() + self._side_by_side()
        for task in self._tasks():
            rows = [row for row in self.rows if row.task == task]
            lines += ["", f"## {task}", ""]
            if not task.endswith(IDEAL):
                lines += [f"![{task}]({picture(task)})", ""]
            columns = ["method", "PSNR", "inside", "SSIM", "NRMSE", "axial", "coronal", "sagittal"]
            columns += ["misfit", "unseen", "nfe", "network s", "s"]
            lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
            for r in rows:
                planes = [_shown(v, 2) for v in (r.psnr_axial, r.psnr_coronal, r.psnr_sagittal)]
                whole = [_shown(r.psnr, 2), _shown(r.psnr_inside, 2), _shown(r.ssim, 4), _shown(r.nrmse, 4)]
                misfit = [_shown(r.data_misfit, 5), _shown(r.withheld_misfit, 5)]
                cost = [f"{r.nfe:.0f}", f"{r.network_seconds:.1f}", f"{r.seconds:.1f}{marks[r.machine]}"]
                lines.append(f"| {' | '.join([r.method, *whole, *planes, *misfit, *cost])} |")
        return "\n".join(lines) + "\n"

    def _tasks(self) -> list[str]:
        """Tasks in the order of their rows; those that flatter last."""
        return sorted(dict.fromkeys(row.task for row in self.rows), key=lambda task: task.endswith(IDEAL))

    def _summary(self) -> list[str]:
        """Ours against the best rival: in PSNR, on measured data in the misfit of what no method was given."""
        lines = [
            "",
            "## Against the best rival",
            "",
            "Ours are the methods with a diffusion prior; rivals are all others: classical methods and, where there",
            "are rows of them, other people's. In dB: difference of PSNR; for measured data, of the misfit at unseen",
            "samples (positive: ours is smaller). *Aim*: the lead of RED-Diff that was set as a target beforehand.",
            "",
            "| task | best rival | RED-Diff over it | best of ours | over it | aim |",
            "|---|---|---|---|---|---|",
        ]
        for task in self._tasks():
            rows = [row for row in self.rows if row.task == task]
            ours = {row.method: _score(row) for row in rows if row.method in DEFAULTS}
            rivals = {row.method: _score(row) for row in rows if row.method.split(" ")[0] not in DEFAULTS}
            if not ours or not rivals:
                continue
            rival, best = (max(of, key=lambda name: of[name]) for of in (rivals, ours))
            gain = {name: score - rivals[rival] for name, score in ours.items()}
            red_diff = f"{gain['red-diff']:+.2f}" if "red-diff" in gain else ""
            aim = f"{AIMS[task]:+g}" if task in AIMS else ""
            lines.append(f"| {task} | {rival} | {red_diff} | {best} | {gain[best]:+.2f} | {aim} |")
        return lines

    def _side_by_side(self) -> list[str]:
        """Ideal and realistic simulation beside each other, and what remains of RED-Diff's lead over TV."""
        found = {(row.task, row.method): row for row in self.rows if row.psnr is not None}
        lines = [
            "",
            "## Ideal and realistic simulation",
            "",
            "How much an ideal simulation flatters: the same scan with the operator that reconstructs (ideal), and as",
            "a scanner measures it (realistic). PSNR in dB of the whole slices and of the inside of the body; in the",
            "last row of each task the lead of RED-Diff over TV.",
            "[What is simulated](../explanation/simulated-scans.md).",
            "",
            "| task | method | ideal, whole | inside | realistic, whole | inside |",
            "|---|---|---|---|---|---|",
        ]
        tasks = [task for task in dict.fromkeys(row.task for row in self.rows) if not task.endswith(IDEAL)]
        for task in tasks:
            methods = [m for t, m in found if t == task and (task + IDEAL, m) in found and m in (*CLASSICAL, *DEFAULTS)]
            pairs = {m: _numbers(found[task + IDEAL, m]) + _numbers(found[task, m]) for m in methods}
            lines += [f"| {task} | {m} | {' | '.join(_shown(v, 2) for v in pairs[m])} |" for m in methods]
            if set(LEAD) <= pairs.keys():
                low, high = (pairs[name] for name in LEAD)
                gains = [None if a is None or b is None else b - a for a, b in zip(low, high, strict=True)]
                told = ["" if gain is None else f"{gain:+.2f}" for gain in gains]
                lines.append(f"| | **lead** | {' | '.join(told)} |")
        return lines if len(lines) > 7 else []


def _numbers(row: Row) -> list[float | None]:
    return [row.psnr, row.psnr_inside]


def _outdated(row: Row) -> bool:
    """Whether a row was made before the inside of the object was judged."""
    return row.psnr is not None and row.psnr_inside is None


def _score(row: Row) -> float:
    if row.psnr is not None:
        return row.psnr
    assert row.withheld_misfit is not None
    return -20 * math.log10(max(row.withheld_misfit, 1e-12))


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def picture(task: str) -> str:
    """File name of a task's picture."""
    return re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-") + ".png"
