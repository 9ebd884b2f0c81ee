"""Results in DICOM: a file for each slice in one archive, or an enhanced multi-frame file; CT or MR.

Each volume is a series of its own. Patient, study and frame of reference are those of a DICOM input, else clearly made
up. Values are int16 with a rescale slope: of one for HU, else that of the largest value.

References
----------
DICOM PS3.3: A.3 and A.4 (CT and MR images), A.36 and A.38 (enhanced MR and CT), C.7.6.16 (functional groups), C.8.13
and C.8.15 (enhanced MR and CT); PS3.5, 7.1 (data elements) and B.2 (unique identifiers from UUIDs).
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import Diverged, GeometryError, InputError
from recon.formats.dicom import SCANNER
from recon.formats.format import Format, Origin, Written
from recon.formats.kspace import LPS_TO_RAS
from recon.spec.affine import Affine, voxel_size

if TYPE_CHECKING:
    from pydicom import Dataset

NOT_CLINICAL = "Not for clinical use"
MADE_UP = "MADE UP"
"""Name of a patient of whom the input says nothing."""
_LARGEST = 32767
_LONGEST_SIDE = 65535
_MOST_PIXEL_BYTES = 2**32 - 2
"""Longest value of an element."""
_SQUARE = 0.01
"""Largest cosine between rows and columns, as the reader has it."""
_FIRST_SERIES = 1000
"""Our series are numbered from here, behind those that a study has already."""
_SOFT_TISSUE_HU = (40.0, 400.0)
"""Centre and width of the window that viewers begin with."""
_UNKNOWN_REGION = {"CodeValue": "38266002", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Entire body"}


@dataclass(frozen=True)
class _Stored:
    """Storage of values: ``value = slope * stored``, and the window that shows them."""

    slope: float
    centre: float
    width: float

    @classmethod
    def of(cls, volume: Written) -> _Stored:
        """Choose slope and window of a volume, in one pass through it."""
        peak = float(np.max([np.abs(slab).max() for slab in volume.slabs()]))  # NaN, where there is one
        if not np.isfinite(peak):
            raise Diverged("the volume has values that are no numbers", field="output.format")
        if volume.unit == "HU" and volume.quantity == "values":
            return cls(max(1.0, _rounded_up(peak / _LARGEST)), *_SOFT_TISSUE_HU)
        slope = _rounded_up(peak / _LARGEST) or 1.0
        if volume.quantity == "phase":
            return cls(slope, 0.0, 2 * np.pi)
        return cls(slope, peak / 2, peak or 1.0)

    def numbers(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Convert values to what is stored."""
        return np.rint(values / self.slope).astype("<i2")


def _text(value: float) -> str:
    """Decimal string: at most 16 characters."""
    return f"{value:.10g}"


def _rounded_up(value: float) -> float:
    """Round up to what a decimal string holds."""
    found = float(_text(value))
    return found if found >= value else float(_text(value * (1 + 1e-9)))


def _write_slices(path: Path, volume: Written) -> None:
    """Write an archive (zip) with one file per slice."""
    stored = _Stored.of(volume)
    data = _described(volume)
    _describe_slice(data, volume, stored)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, values in enumerate(chain.from_iterable(volume.slabs())):
            _identify(data, volume, index + 1)
            data.ImagePositionPatient = _position(volume.affine, index)
            data.PixelData = stored.numbers(values).tobytes()
            stream = io.BytesIO()
            data.save_as(stream, enforce_file_format=True)
            archive.writestr(f"{path.stem}/{index + 1:04d}.dcm", stream.getvalue())


def _write_enhanced(path: Path, volume: Written) -> None:
    """Write a multi-frame file; the pixels follow their header slab by slab."""
    stored = _Stored.of(volume)
    data = _described(volume)
    _describe_frames(data, volume, stored)
    _identify(data, volume, 1)
    with path.open("wb") as file:
        data.save_as(file, enforce_file_format=True)
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, _pixel_bytes(volume.shape)))
        for slab in volume.slabs():
            file.write(stored.numbers(slab).tobytes())


def _pixel_bytes(shape: tuple[int, int, int]) -> int:
    return 2 * shape[0] * shape[1] * shape[2]


def _check(shape: tuple[int, int, int], affine: Affine) -> None:
    """Raise unless a volume has sizes and axes that DICOM can state."""
    if max(shape[1:]) > _LONGEST_SIDE:
        raise InputError(
            f"DICOM images have at most {_LONGEST_SIDE} rows and columns, the result has {shape[1]} x {shape[2]}",
            field="output.format",
            remedy="use nifti",
        )
    cosines = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    if abs(float(cosines[:, 0] @ cosines[:, 1])) > _SQUARE:
        raise GeometryError(
            "rows and columns of the result are not at right angles, as DICOM has them",
            field="output.format",
            remedy="use nifti",
        )


def _check_enhanced(shape: tuple[int, int, int], affine: Affine) -> None:
    _check(shape, affine)
    if _pixel_bytes(shape) > _MOST_PIXEL_BYTES:
        raise InputError(
            f"the pixels of a DICOM file have at most 4 GiB, those of {shape[0]} x {shape[1]} x {shape[2]} have"
            f" {_pixel_bytes(shape) / 2**30:.1f}",
            field="output.format",
            remedy="use dicom, which has a file for each slice",
        )


def _described(volume: Written) -> Dataset:
    """Make what all images of a volume share, whatever their kind: patient, study, series, equipment, pixels."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    origin, made = volume.origin, volume.origin.made
    data = Dataset.from_json(dict(origin.source)) if origin.source else _made_up(volume)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 192"
    source_series = data.get("SeriesInstanceUID")
    # Elements of type 2, which may be empty and not missing.
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                 "AccessionNumber", "ReferringPhysicianName", "PatientPosition", "Laterality"):  # fmt: skip
        if name not in data:
            setattr(data, name, "")
    if not (data.get("FrameOfReferenceUID") and volume.in_patient):
        data.FrameOfReferenceUID = origin.uid("frame of reference")
    data.PositionReferenceIndicator = "" if volume.in_patient else SCANNER
    data.Modality = "CT" if origin.modality == "ct" else "MR"
    data.SeriesInstanceUID = origin.uid(f"series {volume.number}")
    data.SeriesNumber = _FIRST_SERIES + volume.number
    data.SeriesDescription = f"{NOT_CLINICAL}: {_titled(volume)}"[:64]
    data.SeriesDate = data.ContentDate = data.InstanceCreationDate = made.strftime("%Y%m%d")
    data.SeriesTime = data.ContentTime = data.InstanceCreationTime = made.strftime("%H%M%S")
    data.Manufacturer, data.ManufacturerModelName = "diffusion-recon", "diffusion-recon"
    data.DeviceSerialNumber, data.SoftwareVersions = "software", origin.software
    data.DerivationDescription = _derivation(volume, source_series)[:1024]
    data.ImageComments = NOT_CLINICAL
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    _, data.Rows, data.Columns = volume.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    return data


def _made_up(volume: Written) -> Dataset:
    """Make a patient and a study that no reader takes for real ones."""
    from pydicom import Dataset

    data, key = Dataset(), volume.origin.key.hex[:12].upper()
    data.PatientName, data.PatientID = f"{MADE_UP}^NO PATIENT", f"MADE-UP-{key}"
    data.StudyDescription = "Made up: the input names no patient and no study"
    data.StudyDate, data.StudyTime = volume.origin.made.strftime("%Y%m%d"), volume.origin.made.strftime("%H%M%S")
    data.StudyInstanceUID, data.StudyID = volume.origin.uid("study"), key
    return data


def _titled(volume: Written) -> str:
    kind = {
        "values": "",
        "phase": "phase, ",
        "error": "expected error, ",
        "interval": "90 % interval, ",
        "undetermined": "undetermined part, ",
    }[volume.quantity]
    return kind + volume.method


def _derivation(volume: Written, series: str | None) -> str:
    """Say in words what the images are."""
    origin = volume.origin
    what = {
        "values": "Values",
        "phase": "Phase",
        "error": "Expected errors (standard deviations)",
        "interval": "Half of the 90 % interval about the result",
        "undetermined": "Part that no sample determined",
    }[volume.quantity]
    return " ".join(
        [
            f"{NOT_CLINICAL}.",
            f"Reconstructed by {origin.software} from {origin.scan}, by {volume.method}.",
            f"{what} in {'rad' if volume.quantity == 'phase' else volume.unit.rstrip('.')}.",
            _origin_of_patient(origin, series),
            *([] if volume.in_patient else ["Positions are those of a scanner's frame, not the patient's."]),
        ]
    )


def _origin_of_patient(origin: Origin, series: str | None) -> str:
    """Say where patient and study come from."""
    if not origin.source:
        return "Patient and study are made up."
    return "Patient and study are those of the raw data." if series is None else f"The input was series {series}."


def _identify(data: Dataset, volume: Written, number: int) -> None:
    """Give an image its number, and an identifier of its own."""
    data.InstanceNumber = number
    data.SOPInstanceUID = volume.origin.uid(f"image {volume.number} {number}")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID


def _describe_slice(data: Dataset, volume: Written, stored: _Stored) -> None:
    """Add what single slices state."""
    from pydicom.uid import CTImageStorage, MRImageStorage

    data.AcquisitionNumber = ""
    _describe_pixels(data, volume, stored)
    _show(data, volume, stored)
    _measure(data, volume.affine)
    data.ImageOrientationPatient = _orientation(volume.affine)
    more = ["STD_DEVIATION"] if volume.quantity == "error" else []
    if volume.origin.modality == "ct":
        data.SOPClassUID, data.ImageType = CTImageStorage, ["DERIVED", "SECONDARY", "AXIAL", *more]
        data.KVP = ""
        return
    kind = "PHASE MAP" if volume.quantity == "phase" else "OTHER"
    data.SOPClassUID, data.ImageType = MRImageStorage, ["DERIVED", "SECONDARY", kind, *more]
    data.ScanningSequence, data.SequenceVariant = "RM", "NONE"  # a research mode
    data.ScanOptions = data.MRAcquisitionType = data.RepetitionTime = data.EchoTime = data.EchoTrainLength = ""


def _describe_frames(data: Dataset, volume: Written, stored: _Stored) -> None:
    """Add what a multi-frame file states, in groups that frames share and in one for each."""
    from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

    ct = volume.origin.modality == "ct"
    data.SOPClassUID = EnhancedCTImageStorage if ct else EnhancedMRImageStorage
    data.NumberOfFrames, data.PresentationLUTShape = volume.shape[0], "IDENTITY"
    data.ContentQualification, data.AcquisitionContextSequence = "RESEARCH", []
    kind = {
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
    }
    if not ct:
        kind |= {
            "ComplexImageComponent": "PHASE" if volume.quantity == "phase" else "MAGNITUDE",
            "AcquisitionContrast": "UNKNOWN",
        }
    types = ["DERIVED", "PRIMARY", "VOLUME", "STD_DEVIATION" if volume.quantity == "error" else "NONE"]
    for name, value in {"ImageType": types, **kind}.items():
        setattr(data, name, value)
    _index_frames(data, volume)
    frame_type = _group(FrameType=types, **kind)
    side, region = data.Laterality or "U", _group(**_UNKNOWN_REGION)
    del data.Laterality  # stated by frames
    shared = _group(
        PlaneOrientationSequence=[_group(ImageOrientationPatient=_orientation(volume.affine))],
        FrameAnatomySequence=[_group(FrameLaterality=side, AnatomicRegionSequence=[region])],
    )
    if ct:
        shared.CTImageFrameTypeSequence = [frame_type]
        shared.IrradiationEventIdentificationSequence = [_group(IrradiationEventUID=volume.origin.uid("irradiation"))]
    else:
        shared.MRImageFrameTypeSequence = [frame_type]
        data.ApplicableSafetyStandardAgency = "UNKNOWN"
    measures, transformation, window = _group(), _group(), _group()
    _measure(measures, volume.affine)
    _describe_pixels(transformation, volume, stored)
    _show(window, volume, stored)
    shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence = [measures], [transformation]
    shared.FrameVOILUTSequence = [window]
    data.SharedFunctionalGroupsSequence = [shared]


def _index_frames(data: Dataset, volume: Written) -> None:
    """Say where each frame lies: in the patient, and in the only stack."""
    dimension = volume.origin.uid(f"dimensions {volume.number}")
    data.DimensionOrganizationSequence = [_group(DimensionOrganizationUID=dimension)]
    data.DimensionIndexSequence = [
        _group(
            DimensionOrganizationUID=dimension,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,  # FrameContentSequence
        )
        for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber
    ]
    data.PerFrameFunctionalGroupsSequence = [
        _group(
            FrameContentSequence=[
                _group(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1])
            ],
            PlanePositionSequence=[_group(ImagePositionPatient=_position(volume.affine, index))],
        )
        for index in range(volume.shape[0])
    ]


def _group(**elements: Any) -> Dataset:
    """Data set with some elements, by keyword."""
    from pydicom import Dataset

    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    return found


def _describe_pixels(data: Dataset, volume: Written, stored: _Stored) -> None:
    """Describe what stored numbers mean."""
    data.RescaleSlope, data.RescaleIntercept = _text(stored.slope), "0"
    data.RescaleType = "HU" if volume.unit == "HU" else "US"


def _show(data: Dataset, volume: Written, stored: _Stored) -> None:
    """Set the window that viewers begin with."""
    data.WindowCenter, data.WindowWidth = _text(stored.centre), _text(stored.width)
    if volume.unit != "HU":
        data.VOILUTFunction = "LINEAR_EXACT"  # a linear window has at least the width of one


def _measure(data: Dataset, affine: Affine) -> None:
    """Write the sizes of voxels: the distance of rows comes first."""
    col_mm, row_mm, slice_mm = voxel_size(affine)
    data.PixelSpacing = [_text(row_mm), _text(col_mm)]
    data.SliceThickness = data.SpacingBetweenSlices = _text(slice_mm)


def _orientation(affine: Affine) -> list[str]:
    """Directions in which columns, and rows, count: LPS unit vectors."""
    directions = LPS_TO_RAS @ affine[:3, :2]
    return [_text(value) for value in (directions / np.linalg.norm(directions, axis=0)).T.ravel()]


def _position(affine: Affine, index: int) -> list[str]:
    """Centre of the first pixel of a slice: LPS, mm."""
    return [_text(value) for value in LPS_TO_RAS @ (affine[:3, 3] + index * affine[:3, 2])]


SLICES = Format(name="dicom", endings=(".zip",), media_type="application/zip", write=_write_slices, check=_check)
ENHANCED = Format(
    name="dicom-enhanced",
    endings=(".dcm",),
    media_type="application/dicom",
    write=_write_enhanced,
    check=_check_enhanced,
)
