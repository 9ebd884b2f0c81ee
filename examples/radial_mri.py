# %% [markdown]
# # Radial MRI
#
# The scan has a quarter of the spokes of a full radial scan, at golden angles, and eight coils. It is simulated from
# a brain slice that comes with the package, and realistically: an object with sharp edges on a finer grid, loop
# coils with correlated noise, and off-resonance.

# %%
import numpy as np

import recon
from recon.samples import SAMPLES

brain = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][4:5, ::2, ::2].astype(np.float32)
radiological = np.diag([-1.8, -1.8, 3.0, 1.0])  # columns run to the patient's left, rows to the back
scan = recon.simulate(brain, "mri-noncartesian", affine=radiological, acceleration=4, noise_std=0.01)
print("samples (slices, coils, samples):", scan.data.shape)

# %% [markdown]
# Finufft computes the Fourier integrals at the samples, and their normal operator is applied by Toeplitz embedding.
# For a scan of your own, give the trajectory in `trajectory_cycles_per_fov`, or use an ISMRMRD file, which contains
# it.

# %%
result = recon.reconstruct(scan, method="red-diff", baselines=["gridding", "cg-sense"])
for method, scores in result.report.against_truth.items():
    print(f"{method:9} {scores.psnr:.1f} dB")

# %%
shown = {"truth": scan.truth, "RED-Diff": result.volume, **result.baselines}
result.picture(shown, window=(0, 250)).save("radial-mri.png")
