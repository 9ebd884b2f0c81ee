"""States, priorities and devices of a job: names that the service, its client and the specification share."""

from __future__ import annotations

from typing import Literal, get_args

State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
Priority = Literal["high", "normal", "low"]
Device = Literal["cpu", "gpu"]
STATES: tuple[State, ...] = get_args(State)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Priorities, first served first."""
DEVICES: tuple[Device, ...] = get_args(Device)
TRANSITIONS: dict[State, tuple[State, ...]] = {
    "queued": ("running", "cancelled", "failed"),
    "running": ("running", "cancelling", "succeeded", "failed", "cancelled"),
    "cancelling": ("cancelled", "succeeded", "failed"),
    "succeeded": (),
    "failed": (),
    "cancelled": (),
}
"""Allowed transitions: each state with those that may follow it; ``running`` to itself is another attempt."""
TERMINAL = tuple(state for state, following in TRANSITIONS.items() if not following)
