"""Names of the queues in Redis, one per device and priority."""

from __future__ import annotations

from recon.spec.job_states import PRIORITIES, Device, Priority


def queue(device: Device, priority: Priority) -> str:
    """Name of the queue of a device and a priority: ``cpu`` is the one of normal priority."""
    return device if priority == "normal" else f"{device}.{priority}"


def queues(device: Device) -> list[str]:
    """Queues of a device, first served first."""
    return [queue(device, priority) for priority in PRIORITIES]
