"""The benchmark of supports on the samples: what it counts is what it says."""

from __future__ import annotations

from recon.samples import SAMPLES
from tests.benchmarks.support import compare, objects


def test_objects_are_chests_and_heads_on_something() -> None:
    found = objects(SAMPLES, test=False, slices=2)
    assert [volume.shape[0] for volume, _ in found.values()] == [2, 2]
    heads, pixel_mm = found["head on a holder or table"]
    assert pixel_mm == 0.9
    assert float(heads.min()) == -1000.0
    assert 0.02 < float(((heads > -990) & (heads < -100)).mean()) < 0.5


def test_known_air_brings_the_rest_nearer_and_cuts_nothing_off() -> None:
    rows = list(compare(SAMPLES, [{"name": "fbp"}], [8], 1e5, 1, test=False))
    assert [(row.object.split()[0], row.support) for row in rows] == [
        (name, support) for name in ("chest", "head") for support in ("none", "auto")
    ]
    for without, known in zip(rows[::2], rows[1::2], strict=True):
        assert without.known_air == 0 < known.known_air < 0.8
        assert known.cut_off == 0
        assert known.psnr > without.psnr
        assert known.psnr_beside > without.psnr_beside
        assert known.psnr_inside == without.psnr_inside
