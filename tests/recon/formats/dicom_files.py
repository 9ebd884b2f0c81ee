"""DICOM files of a body whose place in the patient is known, written with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid()
SIDE_MM, APART_MM = 2.0, 5.0


def body(slices: int = 4, rows: int = 20, cols: int = 24) -> np.ndarray:
    """HU ``(slices, rows, cols)``, each slice different, without symmetry."""
    y, x = np.mgrid[:rows, :cols]
    found = np.full((slices, rows, cols), -1000, np.int16)
    for number in range(slices):
        found[number, ((y - rows / 2) / (0.4 * rows)) ** 2 + ((x - cols / 2) / (0.4 * cols)) ** 2 < 1] = 0
        found[number, 4 : 6 + number, 5:9] = 500
    return found


def slice_file(path: Path, hu: np.ndarray, number: int, **changed: Any) -> Path:
    """One CT slice, 5 mm above the last, its values stored with an intercept of -1024; None takes an element out."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = "CT", SERIES, 3
    data.ImageType, data.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], number + 1
    data.ImagePositionPatient = [-10.0, -20.0, 100.0 + APART_MM * number]
    data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [SIDE_MM, SIDE_MM]
    data.SliceThickness = 6.0
    data.Rows, data.Columns = hu.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
    for name, value in changed.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    stored = (hu.astype(np.float64) - float(data.get("RescaleIntercept", 0))) / float(data.get("RescaleSlope", 1))
    data.PixelData = np.rint(stored).astype("<i2").tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, slices: np.ndarray | None = None, **changed: Any) -> Path:
    """Slices in a folder, whose names are in no order."""
    folder.mkdir(exist_ok=True)
    for number, hu in enumerate(body() if slices is None else slices):
        slice_file(folder / f"{(number * 7) % 10}{number}.dcm", hu, number, **changed)
    return folder
