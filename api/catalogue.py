"""Catalogue of a server: kinds of scans, the methods that fit them, priors with their limits, devices."""

from __future__ import annotations

import inspect
import math
from importlib.metadata import version

from fastapi import APIRouter, Request

from api.models import AcquisitionKind, Catalogue, Limits, MethodKind, OutputFormat, PriorCard
from api.service import service
from recon.planning import plan
from recon.priors import cards
from recon.spec.acquisitions import methods_of
from recon.spec.job import JobSpec, classical_methods
from recon.spec.methods import DEFAULT_PRIOR
from recon.spec.registry import ACQUISITIONS, METHODS, OUTPUT_FORMATS
from workers.settings import Settings

router = APIRouter(tags=["service"])


@router.get("/v1/catalogue")
@router.head("/v1/catalogue", include_in_schema=False)
def catalogue(request: Request) -> Catalogue:
    """Kinds of scans, which methods fit each, their fields and settings; priors with their limits; devices."""
    return made(service(request).settings)


def made(settings: Settings) -> Catalogue:
    """Make the catalogue of what is installed, and of what a service's settings accept."""
    fitting = {kind: methods_of(found.model_construct()) for kind, found in ACQUISITIONS.items()}
    return Catalogue(
        version=version("diffusion-recon"),
        acquisitions=[_acquisition(kind, list(methods)) for kind, methods in fitting.items()],
        methods=[_method(name, [kind for kind, methods in fitting.items() if name in methods]) for name in METHODS],
        default_method=JobSpec.model_fields["method"].default.name,
        priors=[_prior(name) for name in cards.names()],
        output_formats=[
            OutputFormat(name=name, ending=row.endings[0], modalities=list(row.modalities))
            for name, row in OUTPUT_FORMATS.items()
        ],
        devices=list(settings.devices),
        limits=Limits(upload_bytes=settings.max_upload_bytes, memory_bytes=plan.memory_limit()),
    )


def _acquisition(kind: str, methods: list[str]) -> AcquisitionKind:
    found = ACQUISITIONS[kind]
    summary, description = _texts(found)
    return AcquisitionKind(
        name=kind,
        summary=summary,
        description=description,
        modality=found.MODALITY,
        axes=list(found.AXES),
        methods=methods,
        baseline=found.BASELINE,
        fields=found.model_json_schema(),
    )


def _method(name: str, acquisitions: list[str]) -> MethodKind:
    found = METHODS[name]
    summary, description = _texts(found)
    return MethodKind(
        name=name,
        summary=summary,
        description=description,
        acquisitions=acquisitions,
        classical=name in classical_methods(),
        settings=found.model_json_schema(),
    )


def _prior(name: str) -> PriorCard:
    card = cards.card_of(name)
    return PriorCard(
        name=name,
        modality=card.modality,
        default=name == DEFAULT_PRIOR[card.modality],
        condition=card.condition,
        super_resolution=card.super_resolution if card.factors is None else math.ceil(card.factors[1]),
        unit=card.intensity_range.unit,
        low=card.intensity_range.low,
        high=card.intensity_range.high,
        parameters=card.parameters,
        limits=card.limits,
        licences=list(dict.fromkeys(source.licence for source in card.data)),
    )


def _texts(kind: type) -> tuple[str, str]:
    """First sentence of a class's docstring, and the rest, without markup."""
    summary, _, description = (inspect.getdoc(kind) or "").replace("`", "").partition("\n\n")
    return " ".join(summary.split()), "\n\n".join(" ".join(part.split()) for part in description.split("\n\n"))
