"""The card of a weights file: what the prior is, what it was trained on, what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from recon.priors.recipe import Axis


class Card(BaseModel):
    """Read from the YAML file beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    modality: Literal["ct", "mri"]
    complex: bool
    axis: Axis
    sigma_data: float
    channels: list[int]
    weights: str
    sha256: str
    parameters: int
    data: list[str]
    """Files trained on; their sources and licences are in NOTICE."""
    data_sha256: str
    command: str
    seed: int
    steps: int
    hours: float
    denoising_psnr: dict[float, float]
    """Sigma to PSNR in dB (peak 2) on the tuning set, never trained on."""
    limits: list[str]

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card."""
        return cls.model_validate(yaml.safe_load(path.read_text()))

    def write(self, path: Path) -> None:
        """Write the card."""
        path.write_text(yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True))
