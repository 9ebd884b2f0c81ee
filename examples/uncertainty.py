# %% [markdown]
# # How sure is it? Uncertainty, and what no sample determined
#
# Two maps can come with a result. The first is the error to be expected in every voxel, together with intervals that
# should hold 90 % of the true values. It is found by simulating a comparable scan of the result and reconstructing
# that scan; how much its errors count was fitted to true errors on tuning data. The second is the undetermined part:
# the result minus the least-squares image with the same data. A prior or a regulariser has drawn it.

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
# Because the truth is known here, the report says for how many of the object's voxels it lies within the interval.

# %%
print(f"expected error {result.report.uncertainty.rms:.0f} HU, true error {result.report.uncertainty.rms_error:.0f} HU")
print(f"90 % intervals hold {result.report.uncertainty.held:.0%} of the object's voxels")

# %% [markdown]
# Neither map can know that the geometry is wrong, or that the prior has never seen such an object. For these, look
# at the misfit and the familiarity in the report.

# %%
print(f"misfit {result.report.misfit:.4f}; familiarity {result.report.familiarity.median:.0f} %")
