# %% [markdown]
# # How sure is it? Uncertainty, and what no sample determined
#
# Two maps beside a result. The expected error in every voxel comes from measuring the result again by a comparable
# scan and reconstructing that; intervals of 90 % are fitted to true errors on tuning data. The undetermined part is
# the result minus what its own samples ask for: a prior or a regulariser has drawn it.

# %%
import numpy as np

import recon
from recon.samples import SAMPLES

scan = recon.simulate(SAMPLES / "ct_body.nii.gz", "ct-parallel", views=23, photons_per_ray=1e5, slices=(55, 56))
result = recon.reconstruct(scan, method="red-diff", uncertainty=1, undetermined=True)
error = np.abs(result.volume - scan.truth)

# %%
result.picture({"truth": scan.truth, "RED-Diff, 23 views": result.volume}, window=(-200, 300)).save("result.png")

# %%
maps = {"true error": error, "expected error": result.uncertainty, "undetermined": abs(result.undetermined)}
result.picture(maps, colours="inferno", window=(0, 200)).save("maps.png")

# %% [markdown]
# Because the truth is known here, the report says how many of the object's voxels the intervals hold.

# %%
print(f"expected error {result.report.uncertainty.rms:.0f} HU, true error {result.report.uncertainty.rms_error:.0f} HU")
print(f"90 % intervals hold {result.report.uncertainty.held:.0%} of the object's voxels")

# %% [markdown]
# The maps do not know a wrong geometry, or an object that the prior has never seen: the report's misfit and
# familiarity are for these.

# %%
print(f"misfit {result.report.misfit:.4f}; familiarity {result.report.familiarity.median:.0f} %")
