"""FDA: give source images the target's low frequencies, be robustly sure of the target (Yang and Soatto, CVPR 2020,
arXiv 2004.05498).

First without pseudo-labels, where the target's image is the style as well; then, in the paper's rounds of
self-training, with labels that several networks made (`segda pseudo-label RUN RUN RUN --rule quantile`). There the
style is another image of the target. As in the authors' code the entropy is that of the cells, before they are
upsampled. Its trainer also looks at the target's true labels, for a line of its log (train.py:94); this does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from segda.errors import RecipeError
from segda.methods.method import Method
from segda.networks.network import Network, of_each_head
from segda.parts.entropy import entropy_summary, robust_entropy
from segda.parts.fourier import swap
from segda.parts.losses import supervised
from segda.scene import Batch


class FDA(Method):
    """beta: of the swap, 0 to 0.5. entropy_weight: factor of each head's robust entropy. eta: its
    exponent. entropy_after: the step, from 0, after which the entropy counts; null: it does from the beginning.
    """

    target_labels = "may"
    style = True

    def __init__(
        self,
        student: Network,
        *,
        beta: float,
        entropy_weight: dict[str, float | None],
        eta: float,
        entropy_after: int | None,
    ):
        super().__init__()
        if not 0 <= beta <= 0.5:
            raise RecipeError(f"method.beta: {beta} is not between 0 (the mean alone) and 0.5 (all frequencies)")
        if not eta > 0:
            raise RecipeError(f"method.eta: {eta} is not above 0; the authors' is 2")
        self.student = student
        self.beta, self.eta, self.entropy_after = beta, eta, entropy_after
        self.entropy_weight = of_each_head(student, "entropy_weight", entropy_weight)

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        style = batch.target if batch.style is None else batch.style
        output = self.student(swap(batch.source.image, style.image, self.beta))
        terms = {"source": supervised(output, batch.source, over="valid", share=batch.share)}
        yield terms | entropy_summary("source", output.logits)

        output = self.student(batch.target.image)
        counts = self.entropy_after is None or t > self.entropy_after
        terms = {}
        for name, head in output.heads.items():
            if head.cells is None:
                raise RecipeError(
                    "network: does not tell its logits before they are upsampled, which method fda looks at; set "
                    "Head.cells in its forward, or choose another network"
                )
            terms[f"robust_entropy/{name}"] = counts * self.entropy_weight[name] * robust_entropy(head.cells, self.eta)
        if batch.target.label is not None:
            terms["pseudo"] = supervised(output, batch.target, over="valid", share=batch.share)
        yield terms | entropy_summary("target", output.logits)
