"""The classifier that digits are judged by."""

from jaxtyping import Float
from torch import Tensor, nn


class DigitsClassifier(nn.Module):
    """Two convolutions and two linear layers that read 8×8 digits: (B, 1, 8, 8) -> logits (B, 10).

    `features` are the 64 rectified units before the logits, the space of the course's Fréchet
    distances on digits. The trained one is bundled: data.checkpoint("digits_classifier").
    """

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 64),
            nn.ReLU(),
        )
        self.logits = nn.Linear(64, 10)

    def forward(self, x: Float[Tensor, "B 1 8 8"]) -> Float[Tensor, "B 10"]:
        return self.logits(self.features(x))
