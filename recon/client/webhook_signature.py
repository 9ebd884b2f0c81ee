"""Webhook signature: made by the server, checked by the receiver."""

from __future__ import annotations

import hashlib
import hmac
import time

from operators.errors import InputError

HEADER = "X-Recon-Signature"
TOLERANCE_S = 300


def sign(secret: str, body: bytes, at: int) -> str:
    """Sign a body sent at `at` (seconds since 1970); returns the header."""
    return f"t={at}, v1={_mac(secret, body, at)}"


def verify(secret: str, body: bytes, header: str, now: float | None = None) -> None:
    """Verify that the header belongs to the body and is at most five minutes old; raises `InputError`."""
    parts = dict(part.strip().partition("=")[::2] for part in header.split(","))
    at = parts.get("t", "")
    if not at.isdigit() or abs((time.time() if now is None else now) - int(at)) > TOLERANCE_S:
        raise InputError("the signature has no time, or one long ago", field=HEADER)
    if not hmac.compare_digest(parts.get("v1", ""), _mac(secret, body, int(at))):
        raise InputError("the signature does not belong to the body", field=HEADER)


def _mac(secret: str, body: bytes, at: int) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
