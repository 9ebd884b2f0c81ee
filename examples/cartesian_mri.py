# %% [markdown]
# # Cartesian MRI
#
# Measured k-space of a brain: eight coils, a Poisson-disc pattern, 12 % of the points. An array and the kind of scan
# suffice; the sampling mask is told by the zeros, and coil maps are estimated from the centre of k-space (ESPIRiT).

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
# There is no truth to compare with. What can be checked: the result fits the data about as well as their noise
# allows, and it looks familiar to the prior (a percentile among images like those it was trained on).

# %%
print(f"familiarity: {result.report.familiarity.median:.0f} %")
result.picture().save("brain.png")

# %% [markdown]
# Images of MRI are complex; the phase comes with them.

# %%
magnitude = abs(result.volume)
phase = np.where(magnitude > 0.1 * magnitude.max(), np.angle(result.volume), 0)
result.picture({"phase": phase}, window=(-np.pi, np.pi), unit="rad").save("phase.png")
