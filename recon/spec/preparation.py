"""Preparation of measured data before the reconstruction: its steps, their settings and their defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recon.spec.base import Strict
from recon.spec.files import File

Stripes = Literal["filtering", "sorting", "large", "dead", "all", "wavelet-fft"]
"""Filters against stripes, which algotom has."""
Factor = Annotated[int, Field(ge=1, le=64)]


class Paganin(Strict):
    """Phase retrieval from one distance for an object of one material (Paganin 2002)."""

    delta_beta: float = Field(gt=0, le=1e6)
    """Ratio of the decrement of the refractive index, delta, to its absorption index, beta."""
    energy_kev: float = Field(gt=0, le=1000)
    """Photon energy in keV."""
    distance_mm: float = Field(gt=0)
    """Distance from the object to the detector in mm."""


class BeamHardening(Strict):
    """Polynomial ``p + a2 p^2 + a3 p^3 + ...`` that corrects line integrals of a beam of many energies."""

    coefficients: tuple[float, ...] | None = Field(None, min_length=1, max_length=7)
    """Coefficients ``a2, a3, ...``. Default: those with which the object of the middle slice is flattest."""
    degree: int = Field(3, ge=2, le=5)
    """Degree of the polynomial, where it is fitted."""


class Binning(Strict):
    """Numbers of neighbours whose intensities are averaged."""

    views: Factor = 1
    """Number of views that follow each other."""
    columns: Factor = 1
    """Number of detector elements along a row."""
    rows: Factor = 1
    """Number of detector rows, which are slices."""


class Preparation(Strict):
    """Preparation of CT data, in the order of the fields. What a step found and changed is in the report.

    Steps that are on by default leave data without such defects as they are, bit by bit.
    """

    exclude_views: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Indices of views to leave out, with their angles, counted from 0 in the order of the file."""
    flat_field: Literal["median", "mean", "principal-components"] = "median"
    """Flat and dark fields: median or mean of the frames of each set, interpolated in time between sets whose order
    the file tells. Or mean and ``principal-components`` of all flats, of which each view has its own: for beams whose
    shape changes."""
    bad_elements: bool = True
    """Find dead, hot, stuck and unstable detector elements in raw counts, and fill them in along their row. Dead:
    flats less than a tenth as far above the darks as the neighbours'. Hot: a dark signal above the neighbours' by half
    of that. Stuck: the same value in nine frames of ten. Unstable: flats that scatter ten times as much."""
    mask: File | None = None
    """Further detector elements to fill in: a .npy of bool or 0/1 ``([rows,] columns)``, of all rows of the file."""
    lost_frames: bool = True
    """Leave out frames that failed, with their angles: those without a fifth of the light of the frames around in even
    their brightest rays, blank ones, and exact repetitions of the frame before."""
    zingers: bool = True
    """Replace single samples that exceed the brightest of their neighbours, in the view and in the views beside it, by
    8 times the noise and by 0.05 in roots of the transmission; and those without a signal among neighbours that have
    one. Slices with more than 1 % of such samples are left as they are."""
    beam_drift: bool = True
    """Correct each view by the air at the ends of the detector, where there is air and it varies by more than 0.005 in
    line integrals."""
    binning: Binning | None = None
    """Average neighbouring views, columns or rows. Default: none."""
    phase: Paganin | None = None
    """Retrieve the phase of parallel beams by Paganin's filter. It couples rows: give all slices. Default: no."""
    stripes: Stripes | None = None
    """Remove stripes, which become rings, by a filter. Default: no, since the usual ones harm data without."""
    beam_hardening: BeamHardening | None = None
    """Correct for beam hardening. Default: no."""

    @property
    def couples_rows(self) -> bool:
        """Whether a row of the result depends on others."""
        if self.flat_field == "principal-components":
            return True
        return self.phase is not None or (self.binning is not None and self.binning.rows > 1)


class CoilPreparation(Strict):
    """Preparation of the coils of an MRI scan, in the order of the fields; what a step found is in the report.

    Data whose noise is white, of no more than twelve coils, stay as they are, bit by bit.
    """

    whitening: bool = True
    """Make the coils' noise white by its covariance. That is taken from a noise scan (`noise_scan`, or in the file),
    else from the outermost samples if these are noise alone and at least twenty per coil. If they are not, coils more
    than three times as noisy as the usual one are weighted by their noise. The image keeps the shading of the coils as
    they were measured."""
    kept_energy: float = Field(0.999, gt=0.5, le=1)
    """Fraction of the signal's energy to keep when more than twelve coils are combined to as few as possible; 1 keeps
    all coils."""


class KSpacePreparation(CoilPreparation):
    """Preparation of Cartesian k-space: coils, wrapped fields of view and partial Fourier sampling."""

    map_sets: Literal["auto", 1, 2] = "auto"
    """Number of sets of coil maps that ESPIRiT estimates: two where the field of view is smaller than the object, so
    that its image wraps. ``auto``: two if ESPIRiT's second eigenvalue is above 0.9 for more than 2 % of
    the image's energy. Every method then solves for two images, whose root sum of squares is the result."""
    partial_fourier: bool = True
    """Complete k-space that was measured less than 0.85 times as far to one side of its centre as to the other. Methods
    without a prior then solve for a real image with the smooth phase of the symmetric centre (`zero-filled`: homodyne);
    methods with a prior leave the phase free."""
