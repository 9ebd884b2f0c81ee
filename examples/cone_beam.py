# %% [markdown]
# # Cone beam: rays that cross slices
#
# A point source and a flat panel circle the object, so that one turn measures a whole volume. Because the rays cross
# slices, the volume is solved in one piece instead of slice by slice. This example simulates 48 views over a full
# turn around eight slices of the body CT that comes with the package.

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
# The baseline `fbp` is here the method of Feldkamp, Davis and Kress (FDK), a filtered back-projection that is exact
# in the plane of the source and a good approximation near it. Total variation (TV) fits the data with the projection
# operator itself, so that it works for any orbit, and takes the noise into account.

# %%
result = recon.reconstruct(scan, method={"name": "tv", "iterations": 20, "cg_iterations": 3}, baselines=["fbp"])
for method, scores in result.report.against_truth.items():
    print(f"{method}: {scores.psnr:.1f} dB")

# %%
shown = {"truth": scan.truth, "TV": result.volume, "FDK": result.baselines["fbp"]}
result.picture(shown, window=(-200, 300)).save("cone-beam.png")

# %% [markdown]
# Any other geometry is given by vectors, in the convention of ASTRA: twelve numbers per view, in millimetres. They
# are the position of the source, the middle of the panel, the step from one column to the next, and the step from
# one row to the next.

# %%
vectors = cone.view_vectors(scan.data.shape[2])
print("views and numbers:", vectors.shape)
for name, place in zip(("source", "panel", "column", "row"), vectors[12].reshape(4, 3), strict=True):
    print(f"{name:6} " + " ".join(f"{round(value, 1) + 0:8.1f}" for value in place))
