# %% [markdown]
# # The service, from Python
#
# A server takes jobs over HTTP, queues them and computes them in workers. On a terminal it is started by `recon serve
# --embedded`; here the example starts one on a free port, and stops it at the end.

# %%
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import recon
from recon.cli.demo_server import server
from recon.samples import SAMPLES

running = ExitStack()
url = running.enter_context(server(Path("store")))
client = running.enter_context(recon.Client(url))

# %% [markdown]
# The shortest way: an array in, a volume out, computed there. The second argument is a specification without its
# input.

# %%
kspace = np.load(SAMPLES / "mri_brain_8coil.npy")
volume = client.reconstruct(kspace, {"acquisition": "mri-cartesian", "method": "cg-sense"})
print(volume.shape, volume.dtype)

# %% [markdown]
# A job that is watched: its file is uploaded, the job queued, its progress followed, and its results fetched.

# %%
job = recon.JobSpec.parse(
    {
        "name": "body CT, 60 views",
        "input": {"path": str(SAMPLES / "ct_body.nii.gz"), "slices": [54, 56], "simulate": {"views": 60}},
        "acquisition": "ct-parallel",
        "method": {"name": "tv", "iterations": 20},
        "tags": ["example"],
    }
)
submitted = client.submit(job)
stages = []
for event in client.progress(submitted["id"]):
    if event.data.get("stage") not in (None, *stages):
        stages.append(event.data["stage"])
print("stages:", ", ".join(stages))

# %%
client.fetch(submitted["id"], Path("results"))
report = recon.Report.read(Path("results") / "report.json")
print(f"{report.name}: {report.method['name']}, misfit {report.misfit:.4f}")
print(*sorted(path.name for path in Path("results").iterdir()), sep="\n")

# %% [markdown]
# The server keeps what it computed, and lists it; a page in the browser at the same address shows it.

# %%
for known in client.jobs():
    print(known["state"], known["name"])
running.close()
