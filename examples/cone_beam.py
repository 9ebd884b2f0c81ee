# %% [markdown]
# # Cone beam: rays that cross slices
#
# A point source and a flat panel go round the object, so that one turn measures a volume. Rays cross slices: the
# volume is solved in one piece. Eight slices of the body CT that comes with the package, 48 views over a turn.

# %%
import recon
from recon.samples import SAMPLES

scan = recon.simulate(SAMPLES / "ct_body.nii.gz", "ct-cone", views=48, photons_per_ray=1e5, slices=(52, 60))
cone = scan.acquisition
print("line integrals (detector rows, views, columns):", scan.data.shape)
print(f"source {cone.source_origin_mm:.0f} mm before the axis, panel {cone.origin_detector_mm:.0f} mm behind it")
solved = cone.solved_shape(scan.data.shape)[0]
print(f"the body goes on above and below: {solved} slices are solved for {cone.slices}")

# %% [markdown]
# Feldkamp's filtered back-projection (`fbp`) is exact in the plane of the source and good near it. Total variation fits
# the data by the operator itself, whatever the orbit, and takes the noise into account.

# %%
result = recon.reconstruct(scan, method={"name": "tv", "iterations": 20, "cg_iterations": 3}, baselines=["fbp"])
for method, scores in result.report.against_truth.items():
    print(f"{method}: {scores.psnr:.1f} dB")

# %%
shown = {"truth": scan.truth, "TV": result.volume, "FDK": result.baselines["fbp"]}
result.picture(shown, window=(-200, 300)).save("cone-beam.png")

# %% [markdown]
# Any measured geometry is given by vectors, twelve numbers per view in millimetres: source, middle of the panel, step
# from column to column, step from row to row, as ASTRA has them.

# %%
vectors = cone.view_vectors(scan.data.shape[2])
print("views and numbers:", vectors.shape)
for name, place in zip(("source", "panel", "column", "row"), vectors[12].reshape(4, 3), strict=True):
    print(f"{name:6} " + " ".join(f"{round(value, 1) + 0:8.1f}" for value in place))
