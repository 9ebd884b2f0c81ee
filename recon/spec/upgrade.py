"""Upgrade stored specifications to today's names, also from old names that a new submission may not have any more."""

from __future__ import annotations

from typing import Any

from recon.spec.base import Strict
from recon.spec.job import JobSpec
from recon.spec.registry import ACQUISITIONS, METHODS, RENAMED_KINDS, RENAMED_METHODS, Registry
from recon.spec.simulation import RENAMED_PATTERNS, Simulation


def upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Return the specification in today's names; any other error in it is left to validation."""
    spec = renamed(JobSpec, value)
    for part, key, registry, names in (
        ("acquisition", "kind", ACQUISITIONS, RENAMED_KINDS),
        ("method", "name", METHODS, RENAMED_METHODS),
    ):
        if isinstance(spec.get(part), dict):
            spec[part] = _part(spec[part], key, registry, names)
    method = spec.get("method")
    if isinstance(method, dict) and isinstance(method.get("candidates"), list):
        spec["method"] = {**method, "candidates": [_candidate(one) for one in method["candidates"]]}
    given = spec.get("input")
    if isinstance(given, dict) and isinstance(given.get("simulate"), dict):
        settings = renamed(Simulation, given["simulate"])
        if "pattern" in settings:
            settings["pattern"] = _name(settings["pattern"], RENAMED_PATTERNS)
        spec["input"] = {**given, "simulate": settings}
    return spec


def _part(value: dict[str, Any], key: str, registry: Registry[Any], names: dict[str, str]) -> dict[str, Any]:
    """Rename the fields of an acquisition or a method, which depend on its kind."""
    kind = _name(value.get(key), names)
    return renamed(registry[kind], {**value, key: kind}) if isinstance(kind, str) and kind in registry else value


def _candidate(value: Any) -> Any:
    """Rename a candidate of an automatic choice: a name, or a dictionary with settings."""
    return _part(value, "name", METHODS, RENAMED_METHODS) if isinstance(value, dict) else _name(value, RENAMED_METHODS)


def _name(value: Any, names: dict[str, str]) -> Any:
    return names.get(value, value) if isinstance(value, str) else value


def renamed(model: type[Strict], value: dict[str, Any]) -> dict[str, Any]:
    """Fields of a model in today's names."""
    names = model.renamed()
    return {names.get(field, field): given for field, given in value.items()}
