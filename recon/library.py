"""Python interface: reconstruct, simulate and load priors in one call each.

Everything runs along the path of every job (`recon.pipeline.reconstruct`), so that results are those of the command
line. Data in memory are put into temporary files for as long as a call takes.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions import Acquisition
from recon.spec.affine import Affine
from recon.spec.files import File
from recon.spec.job import JobSpec
from recon.spec.methods import MethodSettings
from recon.spec.registry import ACQUISITIONS
from recon.spec.report import Report

if TYPE_CHECKING:
    from recon.pipeline.prepare import JobProgress
    from recon.pipeline.reconstruct import Outcome
    from recon.quality.pictures import Picture
    from recon.quality.png import Colours

Data = str | Path | NDArray[Any] | Measurement
Volume = NDArray[np.float32] | NDArray[np.complex64]
INPUT_FIELDS = ("format", "dataset", "scan", "slices", "simulate")
OUTPUT_FIELDS = ("baselines", "uncertainty", "undetermined")


class _Shown(Protocol):
    """Protocol of a progress display, such as `rich.progress.Progress`."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Result:
    """Result of a reconstruction, with the evidence to check it. A notebook shows three planes of it, with sliders.

    Parameters
    ----------
    outcome
        Outcome of the solved job.
    """

    outcome: Outcome

    @property
    def report(self) -> Report:
        """Settings that were used, misfit, noise, familiarity, notes."""
        return self.outcome.report

    @cached_property
    def volume(self) -> Volume:
        """Volume ``(slices, rows, cols)`` in ``report.unit``; MRI as reconstructed, complex64."""
        return self._values(self.outcome.solved.volume)

    @cached_property
    def baselines(self) -> dict[str, Volume]:
        """Classical reconstructions of the same data, by method."""
        return {name: self._values(volume) for name, volume in self.outcome.solved.baselines.items()}

    @property
    def affine(self) -> Affine:
        """Affine from voxel ``(col, row, slice)`` to millimetres of the patient (RAS), or of the scanner's frame."""
        return self.outcome.job.inverse.affine

    @property
    def uncertainty(self) -> NDArray[np.float32] | None:
        """Map of expected errors ``(slices, rows, cols)`` in ``report.unit``, if it was requested."""
        errors = self.outcome.solved.errors
        return None if errors is None else errors.expected.numpy()

    @property
    def interval(self) -> NDArray[np.float32] | None:
        """Half the widths ``(slices, rows, cols)`` of 90 % intervals in ``report.unit``, if requested."""
        errors = self.outcome.solved.errors
        return None if errors is None else errors.half_widths.numpy()

    @property
    def undetermined(self) -> NDArray[np.float32] | None:
        """Part of the volume that no sample determined, ``(slices, rows, cols)`` in ``report.unit``, if requested."""
        drawn = self.outcome.solved.drawn
        return None if drawn is None else drawn[0].numpy()

    def picture(
        self,
        volumes: Mapping[str, NDArray[Any]] | None = None,
        *,
        index: int | None = None,
        window: tuple[float, float] | None = None,
        colours: Colours = "gray",
        unit: str | None = None,
    ) -> Picture:
        """Draw one slice of several volumes side by side, upright: in the patient as a radiologist sees it.

        Parameters
        ----------
        volumes
            Volumes ``(slices, rows, cols)`` of the result's shape, by title; of complex ones the magnitude is drawn.
            Default: the result and its baselines.
        index
            Number of the slice. Default: the middle one.
        window
            Values that are black and white, in the volumes' unit. Default: percentiles of the first volume's slice.
        colours
            Map of colours: ``gray``, or ``inferno`` for maps of errors.
        unit
            Unit of the volumes. Default: that of the result.
        """
        from recon.quality.montage import upright
        from recon.quality.pictures import side_by_side

        inverse = self.outcome.job.inverse
        if volumes is None:
            volumes = {self.report.method["name"]: self.volume, **self.baselines}
        place = self.report.shape[0] // 2 if index is None else index
        slices = {
            title: upright(volume[place], self.affine, in_patient=inverse.in_patient)
            for title, volume in volumes.items()
        }
        aspect = next(iter(slices.values()))[1]
        images = {title: image for title, (image, _) in slices.items()}
        shown = self.report.unit if unit is None else unit
        return side_by_side(images, unit=shown, window=window, colours=colours, aspect=aspect)

    def save(self, path: str | Path) -> Path:
        """Write volume, baselines, pictures and report to the folder `path`, which must not exist yet."""
        self.outcome.publish(Path(path))
        return Path(path)

    def _values(self, volume: Any) -> Volume:
        inverse = self.outcome.job.inverse
        arranged = inverse.arranged(volume.values)
        found: Volume = arranged.numpy() if arranged.is_complex() else inverse.display(arranged)
        return found

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Show every slice by widgets; nothing where ipywidgets is not installed, and IPython takes the HTML."""
        from recon.quality import notebook

        inverse = self.outcome.job.inverse
        found = notebook.widget(self._displayed(), inverse.affine, in_patient=inverse.in_patient)
        bundle: dict[str, Any] = {} if found is None else found._repr_mimebundle_()
        return bundle

    def _repr_html_(self) -> str:
        from recon.quality import notebook

        inverse = self.outcome.job.inverse
        return notebook.html(self._displayed(), inverse.affine, inverse.unit, in_patient=inverse.in_patient)

    def _displayed(self) -> NDArray[np.float32]:
        """Volume in the result's unit; a complex one as its magnitude."""
        inverse = self.outcome.job.inverse
        return inverse.display(inverse.arranged(self.outcome.solved.volume.part(0, self.outcome.solved.volume.slices)))

    def _repr_png_(self) -> bytes:
        from recon.pipeline.publish import arranged, planes
        from recon.quality import montage

        inverse = self.outcome.job.inverse
        volume = arranged(inverse, self.outcome.solved.volume)
        shown = {self.report.method["name"]: planes(inverse, volume, inverse.display)}
        picture = io.BytesIO()
        montage.write(picture, shown, inverse.affine, inverse.unit, in_patient=inverse.in_patient)
        return picture.getvalue()

    def __repr__(self) -> str:
        slices, rows, cols = self.report.shape
        return (
            f"Result({self.report.method['name']}, {slices} x {rows} x {cols}, {self.report.unit},"
            f" misfit {self.report.misfit:.4f})"
        )


class Running(Iterator["JobProgress"]):
    """Running reconstruction: iterate it for its progress, close it to cancel it; `result` once it has ended.

    Parameters
    ----------
    spec
        The job; its files are on this machine.
    folder
        Temporary files of the job, removed with it.
    """

    def __init__(self, spec: JobSpec, folder: tempfile.TemporaryDirectory[str]) -> None:
        from recon.pipeline.chunk_cache import ChunkCache
        from recon.pipeline.reconstruct import solve
        from recon.spec.job import local_files

        self._folder = folder
        self.folder = folder.name
        """Folder of its temporary files."""
        self._job = solve(spec, local_files(spec), ChunkCache(Path(folder.name) / "chunks"))
        self._result: Result | None = None

    def __next__(self) -> JobProgress:
        try:
            return next(self._job)
        except StopIteration as end:
            self._result = Result(end.value.held())
            self._folder.cleanup()
            raise
        except BaseException:
            self.close()
            raise

    @property
    def result(self) -> Result:
        """The result, once the iteration has ended; raises `RuntimeError` before that."""
        if self._result is None:
            raise RuntimeError("the reconstruction has not ended: iterate it first")
        return self._result

    def close(self) -> None:
        """Cancel the reconstruction if it is running, and remove its temporary files."""
        self._job.close()
        self._folder.cleanup()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin(
    data: Data,
    acquisition: str | Mapping[str, Any] | Acquisition | None = None,
    *,
    method: str | Mapping[str, Any] | MethodSettings = "auto",
    **more: Any,
) -> Running:
    """Start a reconstruction that the caller drives; parameters as for `reconstruct`."""
    folder = tempfile.TemporaryDirectory(prefix="recon-")
    try:
        return Running(_specification(data, acquisition, method, more, Path(folder.name)), folder)
    except BaseException:
        folder.cleanup()
        raise


def reconstruct(
    data: Data,
    acquisition: str | Mapping[str, Any] | Acquisition | None = None,
    *,
    method: str | Mapping[str, Any] | MethodSettings = "auto",
    progress: bool | Callable[[JobProgress], None] = True,
    **more: Any,
) -> Result:
    """Reconstruct a scan.

    Parameters
    ----------
    data
        A file, or an array as the acquisition says: line integrals ``(slices, views, detectors)``, k-space ``(slices,
        coils, rows, cols)``, a stack ``(slices, rows, cols)``; or a `Measurement`, as `simulate` makes it.
    acquisition
        Kind of scan and its geometry, as in a specification: ``"ct-parallel"``, or ``{"kind": "ct-fan", ...}``. Not
        needed where the file knows it.
    method
        Name or settings of the method, as in a specification.
    progress
        Show a progress bar in terminals and notebooks, or call this with every `JobProgress`; an exception in it, or
        an interrupt, cancels the reconstruction.
    **more
        Other parts of a specification: ``slices``, ``format``, ``dataset``, ``scan``, ``simulate`` of the input;
        ``baselines``, ``uncertainty``, ``undetermined`` of the output; ``seed``, ``name``; and files of the
        acquisition, as ``mask`` and ``coil_maps``, as paths or arrays.

    Returns
    -------
    Result
        Volume, baselines, report, affine, and the errors to be expected.

    Raises
    ------
    ReconError
        Whatever is wrong, with field, value, reason and remedy.

    Examples
    --------
    >>> import recon
    >>> result = recon.reconstruct(kspace, "mri-cartesian", method="red-diff")  # doctest: +SKIP
    >>> result.save("results/brain")  # doctest: +SKIP
    """
    with begin(data, acquisition, method=method, **more) as running:
        if callable(progress):
            for state in running:
                progress(state)
        else:
            _shown(running, visible=progress)
        return running.result


def simulate(
    volume: str | Path | NDArray[Any],
    acquisition: str | Mapping[str, Any] | Acquisition,
    *,
    affine: Affine | None = None,
    slices: tuple[int, int] | None = None,
    **settings: Any,
) -> Measurement:
    """Simulate the measurement of a known volume (retrospective undersampling).

    Parameters
    ----------
    volume
        File of a volume (NIfTI, DICOM, MetaImage, NRRD), or an array ``(slices, rows, cols)``: CT in HU, MRI in any
        magnitude.
    acquisition
        Kind of scan, with as much of its geometry as is known.
    affine
        Affine of an array: voxel ``(col, row, slice)`` to RAS millimetres. Default: voxels of 1 mm.
    slices
        Only slices ``[first, last)``.
    **settings
        As `recon.spec.simulation.Simulation` has them: ``views``, ``photons_per_ray``, ``acceleration``, ``noise_std``.

    Returns
    -------
    Measurement
        Its `data` and `truth`; `reconstruct` takes it as it is.
    """
    from recon.formats import nifti, reader
    from recon.spec.job import local_files

    with tempfile.TemporaryDirectory(prefix="recon-") as folder:
        if isinstance(volume, np.ndarray):
            path = Path(folder) / "volume.nii"
            codes = nifti.SCANNER if affine is None else nifti.PATIENT
            placed = np.eye(4) if affine is None else affine
            nifti.write(path, volume.astype(np.float32), placed, nifti.OURS.decode(), codes)
        else:
            path = Path(volume)
        given = {"simulate": settings, "slices": slices}
        kind = str(_fields(acquisition).get("kind"))
        # No method runs; the quick one fits for certain.
        method = ACQUISITIONS[kind].BASELINE if kind in ACQUISITIONS else "fbp"
        spec = _parsed(path, acquisition, method, given, {})
        return reader.read(spec, local_files(spec))


def load_prior(name: str) -> Any:
    """Load a shipped prior by name, or one of your own by the path of its card: ``prior.denoise(x, sigma)``."""
    from recon.priors import registry
    from recon.settings import use_disk_cache

    use_disk_cache()
    return registry.load(name, field="name")


def _specification(
    data: Data,
    acquisition: str | Mapping[str, Any] | Acquisition | None,
    method: str | Mapping[str, Any] | MethodSettings,
    more: dict[str, Any],
    folder: Path,
) -> JobSpec:
    """Make the job of a call; arrays become files in `folder`."""
    files = {name: _stored(value, folder, name) for name, value in more.items() if isinstance(value, np.ndarray)}
    more = {**more, **files}
    if isinstance(data, Measurement):
        from recon.formats import hdf5

        path = folder / "measurement.h5"
        hdf5.write_measurement(path, data)
        return _parsed(path, acquisition, method, {"format": "hdf5"}, more)
    if isinstance(data, np.ndarray):
        return _parsed(_stored(data, folder, "input"), acquisition, method, {"format": "numpy"}, more)
    return _parsed(Path(data), acquisition, method, {}, more)


def _stored(array: NDArray[Any], folder: Path, name: str) -> Path:
    path = folder / f"{name}.npy"
    np.save(path, array)
    return path


def _parsed(
    path: Path,
    acquisition: str | Mapping[str, Any] | Acquisition | None,
    method: str | Mapping[str, Any] | MethodSettings,
    given: dict[str, Any],
    more: dict[str, Any],
) -> JobSpec:
    """Make a specification from its parts; raises `InputError` that names the offending one."""
    rest = dict(more)
    value: dict[str, Any] = {
        "input": {"path": str(path.resolve()), **given, **_taken(rest, INPUT_FIELDS)},
        "method": method.model_dump(exclude_unset=True) if isinstance(method, MethodSettings) else method,
        "output": _taken(rest, OUTPUT_FIELDS),
    }
    if isinstance(method, MethodSettings):
        value["method"]["name"] = method.name
    own = {name: str(found) for name, found in _taken(rest, _file_fields()).items()}
    kind = _fields(acquisition)
    if not kind and own:
        raise InputError("needed with files of its own", field="acquisition", remedy="give its kind")
    if kind:
        value["acquisition"] = {**kind, **own}
    return JobSpec.parse({**value, **rest}, "the call")


def _fields(acquisition: str | Mapping[str, Any] | Acquisition | None) -> dict[str, Any]:
    """Convert an acquisition to the form of a specification; empty for none."""
    if isinstance(acquisition, Acquisition):
        return {**acquisition.model_dump(exclude_unset=True, exclude_none=True), "kind": acquisition.kind}
    if isinstance(acquisition, str):
        return {"kind": acquisition}
    return dict(acquisition or {})


def _taken(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Remove some fields from a dictionary and return them."""
    return {name: values.pop(name) for name in names if name in values}


def _file_fields() -> tuple[str, ...]:
    """Names of the file fields of all acquisitions."""
    fields = (field for kind in ACQUISITIONS.values() for field in kind.model_fields.items())
    return tuple(dict.fromkeys(name for name, field in fields if field.annotation == File | None))


def _shown(running: Running, *, visible: bool) -> None:
    """Drive a reconstruction, with a progress bar if one is shown."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    seen = visible and (console.is_terminal or console.is_jupyter)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not seen) as bar:
        task = bar.add_task("reading", total=1.0)
        for state in running:
            bar.update(task, completed=state.fraction, description=state.stage)
        bar.update(task, completed=1.0)
