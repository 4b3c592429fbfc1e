"""What files call the parts of DINOv2 and DINOv3, and of VFM-UDA's networks; how such tables are read: names.py."""

from __future__ import annotations

Names = dict[str, str | tuple[str, ...]]

EMBEDDINGS = ("embeddings", "embeddings.patch_embeddings")
"""The modules before DINO's first block; the first has the tokens and the positions."""

BLOCK = (
    *(f"layer.B.{part}" for part in ("norm1", "norm2", "layer_scale1", "layer_scale2")),
    *(f"layer.B.attention.{part}_proj" for part in ("q", "k", "v", "o")),
)

DINOV2: Names = {
    name: name
    for name in (
        *EMBEDDINGS,
        "embeddings.patch_embeddings.projection",
        *BLOCK,
        "layer.B.mlp.fc1",
        "layer.B.mlp.fc2",
        "norm",
    )
}

PUBLISHED_DINOV2: Names = {
    **{theirs: ours for theirs, ours in DINOV2.items() if theirs != "norm"},
    "layer.B.attention.attention.query": "layer.B.attention.q_proj",
    "layer.B.attention.attention.key": "layer.B.attention.k_proj",
    "layer.B.attention.attention.value": "layer.B.attention.v_proj",
    "layer.B.attention.output.dense": "layer.B.attention.o_proj",
    "layernorm": "norm",
}
"""In memory transformers 5 has other names for the attention's parts than in files: both are read."""

HUB_DINOV2: Names = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    # One matrix: queries, keys and values, each a third of its rows.
    "blocks.B.attn.qkv": tuple(f"layer.B.attention.{part}_proj" for part in "qkv"),
    "blocks.B.attn.proj": "layer.B.attention.o_proj",
    **{f"blocks.B.{part}": f"layer.B.{part}" for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")},
    "norm": "norm",
}
"""Of facebookresearch/dinov2 and its files on torch's hub."""

HUB_TENSORS: Names = {
    **{token: f"embeddings.{token}" for token in ("cls_token", "mask_token", "register_tokens")},
    "pos_embed": "embeddings.position_embeddings",
    **{f"blocks.B.ls{k}.gamma": f"layer.B.layer_scale{k}.lambda1" for k in (1, 2)},
}

DINOV3: Names = {
    name: name
    for name in (*EMBEDDINGS, *BLOCK, *(f"layer.B.mlp.{part}_proj" for part in ("gate", "up", "down")), "norm")
}

CONVNEXT: Names = {
    name: name
    for name in (
        "stages.S.downsample_layers.B",
        "stages.S.layers.B",
        *(
            f"stages.S.layers.B.{part}"
            for part in ("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2")
        ),
        "norm",
    )
}

PUBLISHED_CONVNEXT: Names = {
    **{theirs: ours for theirs, ours in CONVNEXT.items() if theirs != "norm"},
    "layer_norm": "norm",
}

ATTENTION = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
"""The parts of deformable attention, by everybody's names."""

LIGHT_DECODER: Names = {"upscale.S": "enlarge.S", "out": "classify"}

EXTRACTOR: Names = {
    **{part: part for part in ("query_norm", "feat_norm", "ffn_norm")},
    **{f"attn.{part}": f"attn.{part}" for part in ATTENTION},
    **{f"ffn.{part}": part for part in ("fc1", "fc2")},
    "ffn.dwconv.dwconv": "depthwise",
}

ADAPTER: Names = {
    "spm.stem.S": "stem.S",
    **{f"spm.conv{k + 2}.S": f"down.{k}.S" for k in range(3)},
    **{f"spm.fc{k + 1}": f"project.{k}" for k in range(4)},
    "interactions.B.injector": "inject.B",
    **{f"interactions.B.injector.{part}": f"inject.B.{part}" for part in ("query_norm", "feat_norm")},
    **{f"interactions.B.injector.attn.{part}": f"inject.B.attn.{part}" for part in ATTENTION},
    # Two more after the last quarter.
    **{f"interactions.3.extra_extractors.0.{theirs}": f"extract.4.{ours}" for theirs, ours in EXTRACTOR.items()},
    **{f"interactions.3.extra_extractors.1.{theirs}": f"extract.5.{ours}" for theirs, ours in EXTRACTOR.items()},
    **{f"interactions.B.extractor.{theirs}": f"extract.B.{ours}" for theirs, ours in EXTRACTOR.items()},
    "up": "up",
    **{f"norm{k + 1}": f"norm.{k}" for k in range(4)},
}

ADAPTER_TENSORS: Names = {"level_embed": "level"}

PYRAMID: Names = {
    **{
        f"upscale.{theirs}{k + 1}": f"{ours}.{k}"
        for theirs, ours in (
            ("up_conv", "enlarge"),
            ("reduce_conv", "embed"),
            ("smooth_conv", "smooth"),
            ("norm", "norm"),
        )
        for k in range(4)
    },
    "out": "classify",
}
