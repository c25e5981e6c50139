"""What a decoder's output says of x: modules that turn parameters into a torch Distribution."""

import torch
from torch import Tensor, nn
from torch import distributions as dist
from torch.distributions import Distribution

from minigen.shapes import X


class Bernoulli(nn.Module):
    """A probability for each value, whose logit the decoder gives, for x in [0, 1].

    p(x | z) = ∏ π^x (1 − π)^(1 − x), π = sigmoid(decoder(z)).
    A probability where x is 0 or 1; for grey values a cross-entropy: not normalised, no likelihood
    to set beside others. [Loaiza-Ganem & Cunningham 2019]
    """

    def check(self, x: Tensor) -> None:
        """Refuses x outside [0, 1]."""
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"a Bernoulli likelihood needs x in [0, 1], got values from {low:g} to {high:g}; "
                f"for images in [-1, 1]: (x + 1) / 2"
            )

    def forward(self, logits: X) -> Distribution:
        # unvalidated: torch's own check would refuse grey values
        return dist.Independent(dist.Bernoulli(logits=logits, validate_args=False), logits.ndim - 1)


class Gaussian(nn.Module):
    """A normal about the decoder's output with one learned variance, as in probabilistic PCA.

    p(x | z) = N(decoder(z), σ² I), with `log_var` = log σ², which starts at the number given.
    Use `vae.to(x.dtype)` for float64.
    """

    def __init__(self, log_var: float = 0.0):
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor(float(log_var)))

    def forward(self, mean: X) -> Distribution:
        std = torch.exp(0.5 * self.log_var).to(mean.dtype)
        return dist.Independent(dist.Normal(mean, std, validate_args=False), mean.ndim - 1)
