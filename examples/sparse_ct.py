# %% [markdown]
# # CT from few views
#
# This CT scan has 60 views instead of several hundred, and so takes a small fraction of the dose. It is simulated
# from the body CT that comes with the package, so that the truth is known. The simulation is realistic: the beam has
# a width, and 100,000 photons per ray are counted. The methods are not told how the data were simulated.

# %%
import recon
from recon.samples import SAMPLES

scan = recon.simulate(SAMPLES / "ct_body.nii.gz", "ct-parallel", views=60, photons_per_ray=1e5, slices=(55, 56))
print("line integrals (slices, views, detectors):", scan.data.shape)

# %% [markdown]
# RED-Diff fits the data in every step, and lets a diffusion prior that was trained on CT decide what the data leave
# open. The classical methods, filtered back-projection (FBP) and total variation (TV), get the same data.

# %%
result = recon.reconstruct(scan, method="red-diff", baselines=["fbp", "tv"])
for method, scores in result.report.against_truth.items():
    print(f"{method:9} {scores.psnr:.1f} dB, structural similarity {scores.ssim:.3f}")

# %% [markdown]
# The pictures show soft tissue in a window of 500 HU. The streaks of FBP and the patches of TV are gone. Where the
# result is sharper than the truth, however, the prior has drawn it. The example on uncertainty shows where that is.

# %%
shown = {"truth": scan.truth, "RED-Diff": result.volume, "TV": result.baselines["tv"], "FBP": result.baselines["fbp"]}
result.picture(shown, window=(-200, 300)).save("sparse-ct.png")

# %% [markdown]
# Every report says how well the result fits its data, how familiar it looks to the prior, and what to watch out for.

# %%
print(f"misfit {result.report.misfit:.4f}, noise alone would leave {result.report.expected_misfit:.4f}")
print("\n".join(result.report.notes))
