# %% [markdown]
# # Your own operator
#
# The priors and solvers work with any linear measurement. Here a CT slice was blurred by a focal spot of known size,
# and is sharpened again. An operator is a class that says how it acts on an image (`_forward`) and how its adjoint
# acts on data (`_adjoint`).

# %%
import numpy as np
import torch

from operators.linear import LinearOperator, Space, dot_product_error
from recon.priors import registry as priors
from recon.problem.problem import IntensityMap, Problem, run
from recon.quality.metrics import psnr
from recon.quality.pictures import side_by_side
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.spec.methods import TV, REDDiff


class Blur(LinearOperator):
    """Operator that convolves an image with a Gaussian of a standard deviation in pixels."""

    def __init__(self, rows: int, cols: int, width_px: float) -> None:
        super().__init__(domain=Space((rows, cols)), range=Space((rows, cols)))
        down, right = torch.fft.fftfreq(rows)[:, None], torch.fft.fftfreq(cols)
        self.transfer = torch.exp(-2 * (torch.pi * width_px) ** 2 * (down**2 + right**2))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x) * self.transfer).real

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._forward(y)  # a Gaussian is symmetric: the blur is its own adjoint


# %% [markdown]
# One number tells whether the two belong together: `<A x, y>` and `<x, A^H y>` must agree for any `x` and `y`.

# %%
hu = np.load(SAMPLES / "tune" / "ct_hu.npz")["images"][8:9, 30:222, 30:222].astype(np.float32) * 4 - 1024
truth = torch.from_numpy(0.02 * (1 + hu / 1000)).clamp(min=0)  # attenuation in 1/mm, water is 0.02
operator = Blur(*truth.shape[1:], width_px=1.5)
print(f"dot product test: {dot_product_error(operator):.1e}")

# %% [markdown]
# A problem consists of an operator, data and the standard deviation of their noise. RED-Diff also needs a prior, and
# the map from the prior's intensity scale to that of the image: here -1 to 1 becomes 0 to 0.05 per mm, which is
# -1000 to 1500 HU.

# %%
noise_std = 2e-4
noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
data = operator(truth) + noise_std * noise
problem = Problem(operator, data, noise_std)
intensity = IntensityMap(scale=0.025, offset=0.025)
red_diff = run(solvers.start(problem, REDDiff(), prior=priors.load("ct"), intensity=intensity))
tv = run(solvers.start(problem, TV(dimensions=2)))
for name, found in {"RED-Diff": red_diff, "TV": tv}.items():
    print(f"{name:9} {psnr(found.numpy(), truth.numpy()):.1f} dB")

# %%
shown = {"measured": data, "RED-Diff": red_diff, "TV": tv, "truth": truth}
images = {name: image[0].numpy() for name, image in shown.items()}
side_by_side(images, unit="1/mm", window=(0.014, 0.026)).save("own-operator.png")
