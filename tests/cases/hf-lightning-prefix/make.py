import json

import torch
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

NAMES = ["background", "road", "car"]

torch.manual_seed(0)
config = SegformerConfig(
    num_labels=3, id2label=dict(enumerate(NAMES)), label2id={name: id for id, name in enumerate(NAMES)}
)
SegformerForSemanticSegmentation(config).save_pretrained("theirs")
images = {
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.485, 0.456, 0.406],
    "do_rescale": True,
}
with open("theirs/preprocessor_config.json", "w") as file:
    json.dump(images, file)
tensors = load_file("theirs/model.safetensors")
torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}}, "w.ckpt")
