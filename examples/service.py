# %% [markdown]
# # The service, from Python
#
# A server takes jobs over HTTP, queues them and lets workers compute them. In a terminal, `recon serve --embedded`
# starts one. This example starts one on a free port, and stops it at the end.

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
# The shortest way is to send an array and to get back the volume that the server computed. The second argument is
# the specification of a job without its input.

# %%
kspace = np.load(SAMPLES / "mri_brain_8coil.npy")
volume = client.reconstruct(kspace, {"acquisition": "mri-cartesian", "method": "cg-sense"})
print(volume.shape, volume.dtype)

# %% [markdown]
# A job can also be followed while it runs: submit it, which uploads its file and queues it, follow its progress, and
# fetch its results.

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
# The server keeps the jobs it has computed and lists them. In a browser, a page at the same address shows them.

# %%
for known in client.jobs():
    print(known["state"], known["name"])
running.close()
