"""Two hosts: nothing is lost, done twice or damaged when one's worker is killed and its cable pulled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import hosts
from tests.faults.faults import Scale
from tests.faults.reliability import failures
from tests.faults.two_hosts import two_hosts


@pytest.mark.slow
def test_two_hosts_lose_nothing(tmp_path: Path) -> None:
    reason = hosts.forbidden()
    if reason is not None:
        pytest.skip(f"no second host can be made here: {reason}")
    # Longer than a lease and its grace period last, so that the service misses the other host.
    outcome = two_hosts(tmp_path, Scale(iterations=20), cut_off_s=25.0)
    assert failures([outcome]) == []
    assert outcome.faults == 4 and outcome.succeeded == outcome.accepted > 20
