"""The variational autoencoder: a density with latents, and a bound on its logarithm to climb.

p(x) = ∫ p(x | z) N(z; 0, I) dz has no closed form where p(x | z) is a network. With an encoder's
q(z | x) = N(mean, diag exp(log_var)),

    log p(x) = E_q[log p(x | z)] − KL(q ‖ N(0, I)) + KL(q ‖ p(z | x)),

and without the last term, which is ≥ 0, it is the ELBO. Everything is in nats per sample, summed
over the values of x and of z. `log_var` is always the logarithm of a variance.

`model`: encoder, decoder, likelihood. `likelihoods`: p(x | z). `bounds`: ELBO and IWAE.
`linear_gaussian`: the exact answer.
"""

from . import linear_gaussian
from .bounds import (
    Elbo,
    active_units,
    elbo,
    free_bits,
    iwae,
    kl_normal,
    kl_residual,
    reparameterize,
)
from .likelihoods import Bernoulli, Gaussian
from .linear_gaussian import LinearGaussian
from .model import VAE, mlp

__all__ = [
    "VAE", "Bernoulli", "Elbo", "Gaussian", "LinearGaussian", "active_units", "elbo", "free_bits",
    "iwae", "kl_normal", "kl_residual", "linear_gaussian", "mlp", "reparameterize",
]  # fmt: skip
