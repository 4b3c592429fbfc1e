"""What a reference image says of a target image of the same place, and how far it is believed (Refign)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def refined(target: Tensor, reference: Tensor, *, gamma: float, static: Tensor, certainty: Tensor | float) -> Tensor:
    """The target's probabilities moved towards those of its reference, class by class.

        s = (mean over pixels of H(p) / ln C)^gamma    one number an image, in [0, 1]: how unsure the target is
        M_c = 1 where c is static and the most probable class of both is one of the static ones, else 0
        e_c = s max(P, M_c)
        p'_c = (1 - e_c) p_c + e_c r_c

    target p, reference r: (B, C, H, W) probabilities, pixel for pixel of the same place. gamma > 0: at 0.25 already a
    little doubt lets the reference in. static: (C,) bool, large things that stand still, in which the reference is
    believed even where its pixel is not the same point. certainty P: a number or (B, 1, H, W), in [0, 1]: how probable
    it is that a pixel shows the same point in both.

    (B, C, H, W) float32. e differs from class to class, so p' does not sum to 1, by up to 0.4; it is taken as it is, as
    in the authors' code. s = 0, a target that is certain everywhere, leaves p.  Bruggemann et al. 2023, sec. 3.3;
    brdav/refign `models/segmentation_model.py:439-523`.
    """
    p, r = target.float(), reference.float()
    unsure = torch.special.entr(p).sum(1).mean((1, 2)) / torch.log(torch.tensor(float(p.shape[1])))
    large = static[p.argmax(1)] & static[r.argmax(1)]
    believed = (large[:, None] & static[:, None, None]).float().clamp(min=certainty)
    e = unsure.pow(gamma)[:, None, None, None] * believed
    return (1 - e) * p + e * r
