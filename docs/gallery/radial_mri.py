# %% [markdown]
# # Radial MRI
#
# A quarter of the spokes of a full radial scan, at golden angles, eight coils. A brain slice that comes with the
# package is measured by simulation: sharp edges on a finer grid, loops as coils with correlated noise, off-resonance.

# %%
import numpy as np

import recon
from recon.samples import SAMPLES

brain = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][4:5, ::2, ::2].astype(np.float32)
radiological = np.diag([-1.8, -1.8, 3.0, 1.0])  # columns run to the patient's left, rows to the back
scan = recon.simulate(brain, "mri-noncartesian", affine=radiological, acceleration=4, noise_std=0.01)
print("samples (slices, coils, samples):", scan.data.shape)

# %% [markdown]
# The Fourier integrals at the samples are computed by finufft, and their normal operator by Toeplitz embedding. A
# scan of your own brings its trajectory: `trajectory_cycles_per_fov`, or an ISMRMRD file that carries it.

# %%
result = recon.reconstruct(scan, method="red-diff", baselines=["gridding", "cg-sense"])
for method, scores in result.report.against_truth.items():
    print(f"{method:9} {scores.psnr:.1f} dB")

# %%
shown = {"truth": scan.truth, "RED-Diff": result.volume, **result.baselines}
result.picture(shown, window=(0, 250)).save("radial-mri.png")
