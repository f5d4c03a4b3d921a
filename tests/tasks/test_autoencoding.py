import math

import pytest
import torch
from fixtures.tasks import fit, no_questions
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from optnas.data import TensorData
from optnas.tasks import Autoencoding

torch.manual_seed(0)
X = torch.rand(40, 6)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x):
        mean, log_variance = self.encode(x).chunk(2, 1)
        noise = torch.randn_like(mean) if self.training else 0
        return self.decode(mean + noise * (0.5 * log_variance).exp()), mean, log_variance


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
def test_the_bound_is_that_of_torchs_distributions(likelihood):
    model = Vae()
    y = torch.zeros(40)
    data = TensorData((X, y), val=(X, y), test=(X, y), batch_size=7)
    metrics = fit(Autoencoding(likelihood, beta=0.5)(model, no_questions()), data)
    with torch.no_grad():
        found, mean, log_variance = model.eval()(X)
    told = Normal(found, 1.0) if likelihood == "normal" else Bernoulli(logits=found, validate_args=False)
    reconstruction = -told.log_prob(X).sum(1).mean()
    kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert metrics["val_reconstruction"] == pytest.approx(reconstruction.item(), rel=1e-4)
    assert metrics["val_kl"] == pytest.approx(kl.item(), rel=1e-4)
    assert metrics["test_loss"] == pytest.approx((reconstruction + 0.5 * kl).item(), rel=1e-4)


def test_a_plain_autoencoder_and_batches_of_inputs_alone():
    step = Autoencoding()(nn.Identity(), no_questions()).training_step
    assert step(X, 0).item() == pytest.approx(3 * math.log(2 * math.pi), rel=1e-5)
    with pytest.raises(ValueError, match=r"inputs are \(40, 6\), and the model returned \(40, 2\)"):
        Autoencoding()(nn.Linear(6, 2), no_questions()).training_step(X, 0)
    with pytest.raises(ValueError, match="likelihood='poisson'"):
        Autoencoding("poisson")
