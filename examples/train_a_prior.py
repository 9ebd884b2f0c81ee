# %% [markdown]
# # Train a prior
#
# A prior is a network that removes Gaussian noise of any level, trained on images of one kind. The recipe `objects` needs
# no data: it draws synthetic specimens. Here it trains a very small network for two hundred steps, which is
# enough to see that it learns. Real training is the same call with the recipe as it is (`recon train objects`), on
# your own volumes `recon train NAME --modality ct --data FOLDER`.

# %%
from pathlib import Path

import torch

from recon.quality.pictures import side_by_side
from recon.training.recipe import Recipe
from recon.training.training import Trainer

recipe = Recipe.named("objects").with_settings(
    ["channels=[16, 32]", "blocks=1", "training.crop=64", "training.batch=8", "training.steps=200"]
)
trainer = Trainer(recipe, Path("data"), Path("runs") / "small")
