# %% [markdown]
# # Let the scan choose its method
#
# `method: auto` is the default. Several candidate methods reconstruct a few slices from most of the scan's samples.
# The samples that were withheld show how well each candidate did. The result is a mixture of the candidates, with
# weights of their own for each slice, for the object and for what lies beside it. Where it is doubtful that another
# method is better, the classical method stays.

# %%
import recon
from recon.samples import SAMPLES

scan = recon.simulate(SAMPLES / "ct_body.nii.gz", "ct-parallel", views=60, photons_per_ray=1e5, slices=(55, 56))
result = recon.reconstruct(scan, method={"name": "auto", "candidates": ["tv", "red-diff"]})

# %%
selection = result.report.selection
for candidate in selection.candidates:
    print(
        f"{candidate.method['name']:9} judged {candidate.gain_db:+.1f} dB, share of the result {candidate.weight:.0%}"
    )
print(selection.text)

# %% [markdown]
# The choice never saw the truth. Here it is known, and shows whether the choice was right.

# %%
for method, scores in result.report.against_truth.items():
    print(f"{method:9} {scores.psnr:.1f} dB")
result.picture({"truth": scan.truth, "auto": result.volume}, window=(-200, 300)).save("auto.png")
