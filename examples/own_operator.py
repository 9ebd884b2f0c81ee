# %% [markdown]
# # An operator of one's own
#
# Any linear measurement can be solved with the priors and solvers: here a CT slice that was blurred, and of which three
# pixels in ten were kept. An operator says how it acts (`_forward`) and what its adjoint is (`_adjoint`).

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


class BlurAndKeep(LinearOperator):
    """Operator that blurs an image by a Gaussian and keeps some of its pixels: ``y = mask * (g convolved with x)``."""

    def __init__(self, mask: torch.Tensor, width_px: float) -> None:
        super().__init__(domain=Space(tuple(mask.shape)), range=Space(tuple(mask.shape)))
        self.mask = mask
        down, right = (torch.fft.fftfreq(n) for n in mask.shape)
        self.transfer = torch.exp(-2 * (torch.pi * width_px) ** 2 * (down[:, None] ** 2 + right[None] ** 2))

    def _blurred(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x) * self.transfer).real

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mask * self._blurred(x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._blurred(self.mask * y)  # a Gaussian is symmetric: the blur is its own adjoint


# %% [markdown]
# One number tells whether the two belong together: `<A x, y>` and `<x, A^H y>` must agree.

# %%
hu = np.load(SAMPLES / "tune" / "ct_hu.npz")["images"][8:9, 30:222, 30:222].astype(np.float32) * 4 - 1024
truth = torch.from_numpy(0.02 * (1 + hu / 1000)).clamp(min=0)  # attenuation in 1/mm, water is 0.02
generator = torch.Generator().manual_seed(0)
mask = (torch.rand(truth.shape[1:], generator=generator) < 0.3).float()
operator = BlurAndKeep(mask, width_px=0.8)
print(f"dot product test: {dot_product_error(operator):.1e}")

# %% [markdown]
# A problem is an operator, data and the noise's standard deviation. RED-Diff needs a prior, too, and the map from its
# intensity scale to the image's: -1000 to 1500 HU is 0 to 0.05 per mm.

# %%
noise_std = 2e-4
data = operator(truth) + noise_std * mask * torch.randn(truth.shape, generator=generator)
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
