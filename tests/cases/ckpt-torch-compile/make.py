import torch

tensors = torch.load("theirs.pth", weights_only=True)
torch.save({"_orig_mod." + name: tensor for name, tensor in tensors.items()}, "w.pth")
