# %% [markdown]
# # Train a prior
#
# A prior is a network that removes Gaussian noise of any level, trained on images of one kind. The recipe `objects`
# needs no data, because it draws synthetic specimens. This example trains a very small network for a hundred steps,
# enough to see that it learns. A useful prior takes `recon train objects`, or on your own volumes `recon train NAME
# --modality ct --data FOLDER`.

# %%
from pathlib import Path

import torch

from recon.priors import registry as priors
from recon.quality.metrics import psnr
from recon.quality.pictures import side_by_side
from recon.training import synthetic
from recon.training.recipe import Recipe
from recon.training.training import Trainer

recipe = Recipe.named("objects").with_settings(
    ["channels=[16,32]", "blocks=1", "training.crop=64", "training.batch=4", "training.steps=100"]
)
trainer = Trainer(recipe, Path("data"), Path("runs") / "small")
for progress in trainer.run(validate_every=1000):
    if progress.step % 25 == 0:
        print(f"step {progress.step}: loss {progress.loss:.3f}")

# %% [markdown]
# The run's folder holds a log, and a checkpoint from which the same call goes on. `recon export` turns the
# checkpoint into weights with a card. A job names the card by its path: `method: {name: red-diff, prior:
# my-prior.yaml}`.

# %%
print(*sorted(path.name for path in Path("runs/small").iterdir()))

# %% [markdown]
# The shipped prior shows what training leads to: it removes the noise from a specimen that it has not seen.

# %%
clean = 1.6 * torch.from_numpy(synthetic.specimens(seed=7, count=1, size=128)) - 1  # air is -1, the densest 1
noisy = clean + 0.25 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
denoised = priors.load("objects").denoise(noisy, 0.25)
for name, image in {"noisy": noisy, "denoised": denoised}.items():
    print(f"{name:9} {psnr(image.numpy(), clean.numpy()):.1f} dB")
images = {"clean": clean, "noisy": noisy, "denoised": denoised}
side_by_side({name: image[0].numpy() for name, image in images.items()}, window=(-1, 1)).save("prior.png")
