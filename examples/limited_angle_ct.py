# %% [markdown]
# # CT from a limited angle
#
# The scan has 80 views over 120 degrees; a complete scan covers 180 degrees. The data lack the directions along
# which no ray ran. No method can recover what is missing, but some methods guess better than others.

# %%
import math

import recon
from recon.samples import SAMPLES

arc = {"kind": "ct-parallel", "angles_rad": {"count": 80, "stop_rad": 2 * math.pi / 3}}
scan = recon.simulate(SAMPLES / "ct_body.nii.gz", arc, photons_per_ray=1e5, slices=(55, 56))
result = recon.reconstruct(scan, method="red-diff", baselines=["fbp", "tv"], undetermined=True)
for method, scores in result.report.against_truth.items():
    print(f"{method:9} {scores.psnr:.1f} dB")

# %%
shown = {"truth": scan.truth, "RED-Diff": result.volume, "TV": result.baselines["tv"], "FBP": result.baselines["fbp"]}
result.picture(shown, window=(-400, 400)).save("limited-angle.png")

# %% [markdown]
# How much of the image is a guess? The undetermined part is the result minus the least-squares image with the same
# projections. This is what the method added although no sample determined it: here, edges along the missing
# directions.

# %%
print(f"undetermined: {result.report.undetermined.inside:.0%} of the object's root mean square")
result.picture({"undetermined": abs(result.undetermined)}, colours="inferno", window=(0, 200)).save("undetermined.png")

# %% [markdown]
# The next data were measured, over a far smaller angle: 30 degrees, a twelfth of a turn, around an acrylic disc with
# holes, in a fan beam (Helsinki Tomography Challenge 2022). The outline and the holes come out stretched along the
# rays. The undetermined part is small nevertheless. It shows only what the method added to the least-squares image,
# and not what is missing from both images.

# %%
disc = recon.reconstruct(
    SAMPLES / "ct_htc2022.npz",
    {"kind": "ct-fan", "pixel_mm": 0.8},
    format="htc",
    scan="ta_subsample73",
    method="tv",
    undetermined=True,
)
print(f"undetermined: {disc.report.undetermined.inside:.0%} of the object's root mean square")
disc.picture({"TV, measured disc": disc.volume, "undetermined": abs(disc.undetermined)}).save("disc.png")
