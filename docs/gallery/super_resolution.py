# %% [markdown]
# # Super-resolution, and a dial for detail
#
# An image of half the resolution, each way, as a scanner gives it that measured the centre of k-space only. What is
# missing is not in the data. `detail` says what to do about it: at 0 the result is the image to be expected, which is
# nearest to the truth on average and soft; at 1 it is as sharp as the truth, and its detail is drawn.

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
# The fidelity falls as the detail grows. The part that no sample determined is written with every such result.

# %%
sharp = dial[1.0]
print(f"drawn at detail 1: {sharp.report.undetermined.inside:.1%} of the object's root mean square")
sharp.picture({"drawn at detail 1": abs(sharp.undetermined)}, colours="inferno")
