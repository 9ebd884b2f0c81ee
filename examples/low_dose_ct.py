# %% [markdown]
# # Low-dose CT
#
# This scan has all its views but few photons: 180 views with 30,000 photons per ray in air. Behind the spine about
# twenty of them are left, so that some rays are far noisier than others.

# %%
import recon
from recon.samples import SAMPLES

scan = recon.simulate(SAMPLES / "ct_body.nii.gz", "ct-parallel", views=180, photons_per_ray=3e4, slices=(70, 71))

# %% [markdown]
# Every method except filtered back-projection weights the rays by their photons: a ray behind the spine counts for
# less. The simulated scan carries its `photons_per_ray`. For a measured scan, give the number in the specification;
# otherwise it is estimated from the rays through air.

# %%
result = recon.reconstruct(scan, method="red-diff", baselines=["fbp", "tv"])
for method, scores in result.report.against_truth.items():
    print(f"{method:9} {scores.psnr:.1f} dB, root mean square error {100 * scores.nrmse:.1f} % of the image's")

# %%
shown = {"truth": scan.truth, "RED-Diff": result.volume, "TV": result.baselines["tv"], "FBP": result.baselines["fbp"]}
result.picture(shown, window=(-200, 300)).save("low-dose-ct.png")

# %% [markdown]
# On average RED-Diff is nearer to the truth, but some of the soft streaks that it shows between the organs do not
# exist in the truth: with few photons, as with few views, a prior fills in what it expects. The misfit is a check of
# another kind. If it were far above what the noise alone would leave, the geometry would be wrong.

# %%
print(f"misfit {result.report.misfit:.3f}, noise alone would leave {result.report.expected_misfit:.3f}")
