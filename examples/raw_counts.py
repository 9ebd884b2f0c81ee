# %% [markdown]
# # A tooth from raw counts
#
# A tooth was measured at a synchrotron (Advanced Photon Source). The file, in DXchange format, holds detector counts
# with flat and dark fields. `inspect` tells what a file holds and what it lacks; on the command line, `recon inspect
# ct_tooth.h5` does the same.

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
# The file says neither how large a detector element is nor where the rotation axis lies. We state the size; the axis
# is found from views half a turn apart. Neighbouring columns are averaged in pairs, which makes the example quick.

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
# `save` writes a result together with everything that is needed to judge it: the volume, baselines, pictures, the
# report as a web page and as JSON, and the sinogram before and after its preparation.

# %%
folder = result.save("tooth")
print(*sorted(path.name for path in folder.iterdir()), sep="\n")
Picture((Path("tooth") / "preparation.png").read_bytes())
