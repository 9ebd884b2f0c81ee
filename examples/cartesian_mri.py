# %% [markdown]
# # Cartesian MRI
#
# The data are measured k-space of a brain: eight coils, and 12 % of the points in a Poisson-disc pattern. An array
# and the kind of scan are all that is needed. Points with the value zero count as not measured, and the coil
# sensitivity maps are estimated from the centre of k-space (ESPIRiT).

# %%
import numpy as np

import recon
from recon.samples import SAMPLES

kspace = np.load(SAMPLES / "mri_brain_8coil.npy")
print("k-space (slices, coils, rows, cols):", kspace.shape, f"{np.mean(kspace != 0):.0%} measured")

# %%
result = recon.reconstruct(kspace, "mri-cartesian", method="red-diff", baselines=["zero-filled", "l1-wavelet"])
for method, misfit in result.report.data_misfit.items():
    print(f"{method:12} misfit {misfit:.3f}")
print(f"noise alone would leave {result.report.expected_misfit:.3f}")

# %% [markdown]
# There is no truth to compare with, but two things can be checked. The result should fit the data about as well as
# their noise allows, and it should look familiar to the prior: the familiarity is a percentile among images like
# those that the prior was trained on, and near 0 it is a warning.

# %%
print(f"familiarity: {result.report.familiarity.median:.0f} %")
result.picture().save("brain.png")

# %% [markdown]
# MR images are complex: the result has a phase as well as a magnitude.

# %%
magnitude = abs(result.volume)
phase = np.where(magnitude > 0.1 * magnitude.max(), np.angle(result.volume), 0)
result.picture({"phase": phase}, window=(-np.pi, np.pi), unit="rad").save("phase.png")
