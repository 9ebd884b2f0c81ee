"""Links of answers: paths of this service as the client reaches them, below the prefix of a proxy if there is one."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import Scope

root: ContextVar[str] = ContextVar("root", default="")
"""Prefix of the request that is being answered, as ``/recon``; empty without one."""


def link(path: str) -> str:
    """Path by which the client of this request reaches `path` of the service."""
    return root.get() + path


def local_path(scope: Scope) -> str:
    """Path of a request as the service knows it, without the prefix of a proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
