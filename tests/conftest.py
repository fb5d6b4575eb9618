"""For every test: one thread, as the suite runs on all cores at once and threads would only wait for each other."""

import torch

torch.set_num_threads(1)
