# %% [markdown]
# # Half acquisition: a detector that sees half of the object
#
# If an object is wider than the detector, the detector can be moved aside until the rotation axis projects near its
# edge, while the object makes a full turn. Each view then sees little more than half of the object, but all views
# together see the whole of it.

# %%
import math
from dataclasses import replace

import recon
from recon.samples import SAMPLES

turn = {"kind": "ct-parallel", "angles_rad": {"count": 240, "stop_rad": 2 * math.pi}}
scan = recon.simulate(SAMPLES / "ct_body.nii.gz", turn, photons_per_ray=1e5, slices=(55, 56))
columns = scan.data.shape[2]
print(f"a detector that sees all has {columns} columns of {scan.acquisition.detector_mm:.2f} mm")

# %% [markdown]
# The displaced detector consists of the last 100 of these columns, and the axis projects onto its column 20. So it
# sees 60 mm of the object on one side of the axis, and all of it on the other side.

# %%
first = columns - 100
axis = {"detector_shift_mm": None, "rotation_center_column": (columns - 1) / 2 - first}
half = replace(scan, data=scan.data[:, :, first:], acquisition=scan.acquisition.model_copy(update=axis))
result = recon.reconstruct(half, method="tv", baselines=["fbp"])
for method, scores in result.report.against_truth.items():
    print(f"{method}: {scores.psnr:.1f} dB")

# %% [markdown]
# Some rays are measured twice, from opposite sides. FBP has to share the weight of a ray between its two
# measurements; the iterative methods need no such correction.

# %%
whole = recon.reconstruct(scan, method="fbp", baselines=[])
print(f"fbp of the whole detector: {whole.report.scores.psnr:.1f} dB")
shown = {"TV, half": result.volume, "FBP, half": result.baselines["fbp"], "FBP, whole detector": whole.volume}
result.picture(shown, window=(-200, 300)).save("half-acquisition.png")
