"""Patient and study of an input, of DICOM or of raw data: what results in DICOM take over from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize",
    "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)  # fmt: skip
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
    "StudyDescription", "FrameOfReferenceUID", "PatientPosition", "BodyPartExamined", "Laterality",
)  # fmt: skip
SERIES = ("SeriesInstanceUID",)
"""Named in the derivation of results, which are a series of their own."""


def kept(path: Path) -> dict[str, Any]:
    """Read what describes patient and study, in DICOM's JSON model.

    Values that cannot be written again are left out. Empty if the file names no study, to which results could belong.
    """
    from pydicom import Dataset, dcmread

    header = dcmread(path, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *PATIENT, *STUDY, *SERIES])
    found: dict[str, Any] = {}
    for name in (*PATIENT, *STUDY, *SERIES):
        one = Dataset()
        try:
            if name in header:
                one.add(header[name])
            model = one.to_json_dict()
            Dataset.from_json(model)
        except Exception:  # noqa: BLE001, S112 - a damaged value can fail in any way, and belongs to no image
            continue
        found |= model
    return found if _named(found, "StudyInstanceUID") else {}


def of_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    """Make DICOM's JSON model of what a header says of patient and study, by keyword.

    Values that DICOM does not allow are left out. Empty if no study is named, to which results could belong.
    """
    from pydicom import DataElement, Dataset, config
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    data = Dataset()
    for name in (*PATIENT, *STUDY):
        tag, text = tag_for_keyword(name), texts.get(name, "").strip()
        if text and tag is not None:
            try:
                data.add(DataElement(tag, dictionary_VR(tag), text, validation_mode=config.RAISE))
            except ValueError:
                continue
    return data.to_json_dict() if data.get("StudyInstanceUID") else {}


def _named(model: dict[str, Any], keyword: str) -> bool:
    """Whether an element is there and has a value."""
    from pydicom.datadict import tag_for_keyword

    return "Value" in model.get(f"{tag_for_keyword(keyword):08X}", {})
