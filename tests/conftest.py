import torch

# The tests' tensors are tiny: a second thread gains nothing, and costs much when the machine is busy.
torch.set_num_threads(1)
