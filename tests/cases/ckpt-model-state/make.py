import torch

tensors = torch.load("theirs.pth", weights_only=True)
torch.save({"model_state": tensors, "cur_itrs": 3, "best_score": 0.5}, "w.pth")
