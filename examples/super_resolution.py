# %% [markdown]
# # Super-resolution, and a dial for detail
#
# The input is an image with half the resolution in both directions, as from a scanner that measured only the centre
# of k-space. The data do not contain the missing detail. `detail` says what to do about that: at 0 the result is the
# expected image, which is nearest to the truth on average, and soft; at 1 it is as sharp as the truth, but its fine
# detail is drawn by the prior.

# %%
import numpy as np

import recon
from recon.samples import SAMPLES

brain = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][4:5].astype(np.float32)
radiological = np.diag([-0.9, -0.9, 3.0, 1.0])  # columns run to the patient's left, rows to the back
scan = recon.simulate(brain, {"kind": "mri-superresolution", "factor": 2}, affine=radiological)
print("from", scan.data.shape, "to", brain.shape)

# %%
dial = {detail: recon.reconstruct(scan, method={"name": "boundary", "detail": detail}) for detail in (0.0, 0.5, 1.0)}
for detail, result in dial.items():
    scores = result.report.against_truth
    print(f"detail {detail}: {scores['boundary'].psnr:.1f} dB; interpolation {scores['interpolation'].psnr:.1f} dB")

# %%
expected = dial[0.0]
shown = {"truth": scan.truth, **{f"detail {detail:g}": result.volume for detail, result in dial.items()}}
crop = {title: volume[:, 70:180, 60:190] for title, volume in {**shown, **expected.baselines}.items()}
expected.picture(crop).save("super-resolution.png")

# %% [markdown]
# The fidelity falls as the detail grows. Every result with `detail` above 0 comes with its undetermined part, which
# shows what was drawn although no sample determined it.

# %%
sharp = dial[1.0]
print(f"drawn at detail 1: {sharp.report.undetermined.inside:.1%} of the object's root mean square")
sharp.picture({"drawn at detail 1": abs(sharp.undetermined)}, colours="inferno")
