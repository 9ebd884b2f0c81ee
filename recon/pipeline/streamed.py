"""A measurement that is read slab by slab: what a job holds of it is the slab that it works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from operators.errors import GeometryError, InputError
from recon.formats import reader
from recon.measurement.header import Header
from recon.measurement.measurement import Measurement
from recon.measurement.noise_estimate import NEIGHBOURS
from recon.pipeline.chunk_cache import digest, digest_of
from recon.problem import inverse_problem as problems
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem
from recon.spec.job import JobSpec

LARGER = (
    "the object is larger in some slices than in those that were looked at first: it is solved on a grid that is too"
    " small for it there; give acquisition.object_mm"
)


@dataclass(frozen=True)
class Streamed:
    """Problem of a volume whose slices are read when a part of it is asked for; a `recon.pipeline.chunks.Stack`.

    What is one for all slices (geometry, position, and whatever a reader finds out from the data) is what `sample`
    says: evenly spaced slices of what is asked for.

    Parameters
    ----------
    spec
        The job.
    files
        Local path of each of ``spec.files()``.
    slices
        Number of slices.
    sample
        Measurement of some slices, the first among them.
    stamps
        Sizes of the files and times of their last change, by name, when the sample was read.
    """

    spec: JobSpec
    files: Mapping[str, Path]
    slices: int
    sample: Measurement
    stamps: dict[str, list[list[int]]]

    @classmethod
    def of(cls, spec: JobSpec, files: Mapping[str, Path], header: Header) -> Streamed:
        """Read the sample of a measurement whose slices can be read apart."""
        stamps = _stamps(files)
        sample = reader.read_sample(spec, files, header)
        if sample.preparation is not None and len(sample.data) < header.shape[0]:
            where = f" ({len(sample.data)} of {header.shape[0]} slices were looked at first)"
            steps = [step.model_copy(update={"text": step.text + where}) for step in sample.preparation.steps]
            sample = replace(sample, preparation=replace(sample.preparation, steps=steps))
        return cls(spec, files, header.shape[0], sample, stamps)

    def measurement(self, first: int, last: int) -> Measurement:
        """Read slices ``[first, last)``, counted from the first that is asked for, with the sample's acquisition.

        Raises
        ------
        ReconError
            If they cannot be read, were measured otherwise than the sample, or the files have changed since.
        """
        if _stamps(self.files) != self.stamps:
            raise InputError(
                "the file has changed while its slices were read one after another",
                field="input",
                remedy="run the job again when no program writes to it",
            )
        found, wanted = self._read(first, last), self.sample.acquisition
        told = {name: getattr(wanted, name) for name in wanted.FROM_DATA}
        if found.acquisition.model_copy(update=told) != wanted or found.data.shape[1:] != self.sample.data.shape[1:]:
            raise GeometryError(
                f"slices {first} to {last - 1} of those that are asked for have another geometry than others",
                field="input",
                remedy="give the acquisition in full, or reconstruct them by themselves with input.slices",
            )
        shapes = [one.solved_shape(found.data.shape) for one in (found.acquisition, wanted)]
        notes = found.notes if shapes[0] <= shapes[1] else [*found.notes, LARGER]
        return replace(found, acquisition=wanted, notes=notes, part_of=self.slices)

    def _read(self, first: int, last: int) -> Measurement:
        record = self.sample.preparation
        return reader.read_part(self.spec, self.files, first, last, None if record is None else record.scan)

    def part(self, first: int, last: int) -> Problem:
        """Problem of slices ``[first, last)`` alone."""
        return self.inverse(first, last).problem

    def inverse(self, first: int, last: int) -> InverseProblem:
        """Inverse problem of slices ``[first, last)``; a few more are read, whose air may tell their noise."""
        begin = max(first - NEIGHBOURS, 0)
        found = problems.build(self.measurement(begin, min(last + NEIGHBOURS, self.slices)))
        part = found.problem.part(first - begin, last - begin)
        return replace(found, problem=replace(part, first=first))

    def digest(self) -> str:
        """Hash of the measurement: files' sizes and times of their last change, the sample, and what is asked for."""
        asked = None if self.spec.acquisition is None else self.spec.acquisition.model_dump(mode="json")
        slices = self.spec.input.slices
        return digest({"files": self.stamps, "sample": digest_of(self.sample), "slices": slices, "acquisition": asked})


def _stamps(files: Mapping[str, Path]) -> dict[str, list[list[int]]]:
    """Size and time of the last change of each file, or of every file in a folder, by name."""
    found = {}
    for name, path in files.items():
        every = sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]
        found[name] = [[status.st_size, status.st_mtime_ns] for status in (file.stat() for file in every)]
    return found
