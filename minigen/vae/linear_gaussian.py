"""The latent-variable model whose every integral is known: the exact answer for the VAE.

Where the decoder is linear and all noise Gaussian, evidence, posterior, ELBO and the parameters of
greatest likelihood have closed forms. [Tipping & Bishop 1999]
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.distributions import MultivariateNormal

from minigen.shapes import X, check_batch, check_count, check_finite, noise, wide

Latent = Float[Tensor, "B k"]
Nats = Float[Tensor, " B"]


class LinearGaussian:
    """The linear model with Gaussian noise, whose every integral is known.

    x = W z + b + σ eps, z ~ N(0, I), eps ~ N(0, I), so p(x) = N(b, W Wᵀ + σ² I).
    W (D, k), b (D,), sigma the standard deviation; x (B, D) or any shape with D values a sample.
    [Tipping & Bishop 1999]
    """

    def __init__(self, W: Real[Tensor, "D k"], b: Real[Tensor, "D"], sigma: float | Tensor):
        if W.ndim != 2 or b.shape != W.shape[:1]:
            raise ValueError(f"need W (D, k) and b (D,), got {tuple(W.shape)} and {tuple(b.shape)}")
        check_count(W.shape[1], "the latent size")
        dtype = torch.promote_types(torch.promote_types(W.dtype, b.dtype), torch.float32)
        self.W, self.b = W, b = W.to(dtype), b.to(dtype)
        self.sigma = torch.as_tensor(sigma, dtype=dtype, device=W.device)
        if not bool(self.sigma > 0):
            raise ValueError(f"sigma is a standard deviation and must be positive: {sigma}")
        self.eye = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        self._m = W.T @ W + self.sigma**2 * self.eye

    def _centred(self, x: X) -> Float[Tensor, "B D"]:
        check_batch(x, "x")
        x = check_finite(x)[:, None].flatten(1)  # (B,) is (B, 1)
        if x.shape[1] != len(self.b):
            raise ValueError(f"x has {x.shape[1]} values a sample, the model {len(self.b)}")
        return x.to(self.b.dtype) - self.b

    def log_prob(self, x: X) -> Nats:
        """log p(x) = log N(x; b, W Wᵀ + σ² I), in nats."""
        noise_cov = self.sigma**2 * torch.eye(len(self.b)).to(self.W)
        p = MultivariateNormal(torch.zeros_like(self.b), self.W @ self.W.T + noise_cov)
        return p.log_prob(self._centred(x))

    def posterior(self, x: X) -> MultivariateNormal:
        """p(z | x) = N(M⁻¹ Wᵀ (x − b), σ² M⁻¹), M = Wᵀ W + σ² I."""
        root = torch.linalg.cholesky(self._m)
        mean = torch.cholesky_solve(self.W.T @ self._centred(x).T, root).T
        return MultivariateNormal(mean, self.sigma**2 * torch.cholesky_inverse(root))

    def elbo(self, x: X, mean: Latent, cov: Float[Tensor, "*N k k"]) -> Nats:
        """The exact bound on log p(x) for q = N(mean, cov), in nats.

        E_q[log p(x | z)] − KL(q ‖ N(0, I)) = log p(x) − KL(q ‖ p(z | x)).
        cov (k, k) or (B, k, k) may be full.
        """
        root, fail = torch.linalg.cholesky_ex(cov)
        if bool(fail.any()):
            raise ValueError("cov must be a covariance: symmetric and positive definite")
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1)
        kl = 0.5 * (mean.square().sum(1) + trace - log_det - mean.shape[1])
        rest = (self._centred(x) - mean @ self.W.T).square().sum(1)
        spread = (self.W @ root).square().sum((-2, -1))  # tr W cov Wᵀ
        var = self.sigma**2
        return -0.5 * ((rest + spread) / var + len(self.b) * torch.log(2 * torch.pi * var)) - kl

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n D"]:
        """n draws of p(x)."""
        check_count(n)
        z = noise(self.W.new_empty(n, self.W.shape[1]), generator=generator)
        x = z @ self.W.T + self.b
        return x + self.sigma * noise(x, generator=generator)

    @classmethod
    def fit(cls, x: X, k: int) -> "LinearGaussian":
        """Probabilistic PCA: the W, b, σ of greatest likelihood, from the covariance's eigenvalues.

        b = mean x, σ² = the mean of the D − k least, W = U_k (Λ_k − σ² I)^½ up to a rotation.
        [Tipping & Bishop 1999, eq. 7–8]
        """
        check_count(k, "k")
        check_batch(x, "x")
        x = check_finite(x)[:, None].flatten(1)
        if k >= x.shape[1]:
            raise ValueError(f"k must be below the number of values a sample, {x.shape[1]}: {k}")
        data = wide(x)
        b = data.mean(0)
        value, vector = torch.linalg.eigh((data - b).T @ (data - b) / len(x))  # rising
        var = value[:-k].mean()
        if not bool(var > 1e-14 * value[-1]):
            raise ValueError(f"the data lie in {k} dimensions or fewer: no variance is left to σ")
        W = vector[:, -k:] * (value[-k:] - var).clamp(min=0).sqrt()  # the clamp meets rounding only
        return cls(W.to(x), b.to(x), var.sqrt().to(x))
