# %% [markdown]
# # A tooth from raw counts
#
# Measured at a synchrotron (Advanced Photon Source): detector counts, flat and dark fields in a DXchange file. What a
# file holds and what it lacks is told by `inspect`, also on the command line as `recon inspect ct_tooth.h5`.

# %%
from pathlib import Path

import recon
from recon.formats.inspect import inspect
from recon.quality.pictures import Picture
from recon.samples import SAMPLES
from recon.spec.job import Input

tooth = SAMPLES / "ct_tooth.h5"
contents = inspect(tooth, Input(path=str(tooth)))
print("format:", contents.format)
for missing in contents.missing:
    print(f"missing: {missing.field}, {missing.remedy}")

# %% [markdown]
# The file does not say how large a detector element is, nor where the rotation axis lies. The first is told, the
# second is found from views half a turn apart. Averaging neighbouring columns in pairs makes the example quick.

# %%
acquisition = {
    "kind": "ct-parallel",
    "detector_mm": 0.01,
    "rotation_center_column": "auto",
    "preparation": {"binning": {"columns": 2}},
}
result = recon.reconstruct(tooth, acquisition, slices=(0, 1), method={"name": "tv", "iterations": 30})
for step in result.report.preparation:
    print(f"{step.name}: {step.text}")

# %%
result.picture().save("tooth.png")

# %% [markdown]
# A result is saved with everything that is needed to judge it: volume, baselines, pictures, the report as a page and
# as JSON, and the sinogram before and after its preparation.

# %%
folder = result.save("tooth")
print(*sorted(path.name for path in folder.iterdir()), sep="\n")
Picture((Path("tooth") / "preparation.png").read_bytes())
