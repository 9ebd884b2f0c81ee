# %% [markdown]
# # Your own solver
#
# A solver is a generator: it yields its progress and returns the volume. Progress bars, cancelling and solving in
# chunks of slices then work without further code, and so do the tests that every solver has to pass. The example is
# the simplest iterative method, gradient descent (Landweber), beside conjugate gradients (CGLS).

# %%
import numpy as np
import torch

from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.problem.problem import Problem, Progress, run
from recon.quality.pictures import side_by_side
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.spec.methods import CGLS


def landweber(problem, steps=100):
    """Minimise ``|A x - y|^2`` by steps along the gradient, of length 1 over the squared norm of A."""
    operator = problem.operator.normalized()
    x, y = problem.zeros(), problem.data / problem.operator.norms
    for step in range(steps):
        x = (x + operator.adjoint(y - operator(x))).clamp(min=0)
        yield Progress(step + 1, steps, x, problem)
    return x


# %%
hu = np.load(SAMPLES / "tune" / "ct_hu.npz")["images"][8:9, ::2, ::2].astype(np.float32) * 4 - 1024
truth = torch.from_numpy(0.02 * (1 + hu / 1000)).clamp(min=0)  # attenuation in 1/mm, water is 0.02
angles_rad = tuple(np.linspace(0, np.pi, 60, endpoint=False))
beam = ParallelBeam(rows=128, cols=128, pixel_mm=2.8, angles_rad=angles_rad, detectors=184, detector_mm=2.8)
operator = Tomography(beam)
problem = Problem(operator, operator(truth))

# %% [markdown]
# Gradient descent is slow: after a hundred steps it is still behind fifteen iterations of conjugate gradients.

# %%
volumes = {
    "Landweber, 10 steps": run(landweber(problem, steps=10)),
    "Landweber, 100 steps": run(landweber(problem, steps=100)),
    "CGLS, 15 iterations": run(solvers.start(problem, CGLS(iterations=15))),
    "truth": truth,
}
for name, volume in volumes.items():
    print(f"{name:21} residual {float((operator(volume) - problem.data).norm() / problem.data.norm()):.4f}")
images = {name: volume[0].numpy() for name, volume in volumes.items()}
side_by_side(images, unit="1/mm", window=(0.0, 0.03)).save("own-solver.png")
