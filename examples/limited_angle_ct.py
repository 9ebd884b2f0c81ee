# %% [markdown]
# # CT from a limited angle
#
# Two thirds of half a turn: 80 views over 120 degrees. Directions along which no ray ran are missing from the data,
# and no method can put them back; some are better guesses than others.

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
# How much of it is a guess? The result minus the least-squares image of the data is the part that no sample
# determined: edges along the missing directions.

# %%
print(f"undetermined: {result.report.undetermined.inside:.0%} of the object's root mean square")
result.picture({"undetermined": abs(result.undetermined)}, colours="inferno", window=(0, 200)).save("undetermined.png")

# %% [markdown]
# Measured data of a far smaller angle: a twelfth of a turn around an acrylic disc with holes, in a fan beam, from the
# Helsinki Tomography Challenge 2022. Outline and holes are drawn out along the rays. The undetermined part is small
# all the same: it is what the method added to the least-squares image, not what is missing from both.

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
