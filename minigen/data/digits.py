"""Handwritten digits: scikit-learn's own, 8×8, and MNIST for those who have a network."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "n C H W"]
Labels = Int[Tensor, "n"]


def digits(split: str = "train") -> tuple[Images, Labels]:
    """Handwritten 8×8 digits: x (n, 1, 8, 8) in [-1, 1] and the digit (n,).

    scikit-learn's 1,797 images, split once and for all, evenly by digit: 1,437 to train on, 360 to
    test on. [Alpaydin & Kaynak, UCI 1998]
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, label = load_digits(return_X_y=True)
    index = torch.arange(len(label)).numpy()
    train, test = train_test_split(index, test_size=360, random_state=0, stratify=label)
    kept = pick(split, train=train, test=test)
    x = torch.from_numpy(images[kept]).float().reshape(-1, 1, 8, 8)
    return x / 8 - 1, torch.from_numpy(label[kept]).long()


def mnist(split: str = "train") -> tuple[Images, Labels]:
    """MNIST, fetched once from openml.org: x (n, 1, 28, 28) in [-1, 1], n = 60,000 or 10,000."""
    return _openml("mnist_784", split)


def fashion_mnist(split: str = "train") -> tuple[Images, Labels]:
    """Fashion-MNIST, fetched once from openml.org: shapes as `mnist`."""
    return _openml("Fashion-MNIST", split)


def _openml(name: str, split: str) -> tuple[Images, Labels]:
    from sklearn.datasets import fetch_openml

    kept = pick(split, train=slice(None, 60_000), test=slice(60_000, None))
    try:  # liac-arff is the parser that needs no pandas
        images, label = fetch_openml(
            name, version=1, return_X_y=True, as_frame=False, parser="liac-arff"
        )
    except OSError as error:  # URLError is one
        raise ConnectionError(
            f"{name} has to be downloaded once from openml.org, which can't be reached ({error}); "
            f"data.glyphs(n, 28) draws as many 28 × 28 images as you like without a network"
        ) from error
    x = torch.from_numpy(images[kept]).float().reshape(-1, 1, 28, 28)
    return x / 127.5 - 1, torch.from_numpy(label[kept].astype("int64"))


def pick(split: str, **parts):
    """The part of that name, "train" or "test". Raises ValueError for another name."""
    if split not in parts:
        raise ValueError(f"split is 'train' or 'test', got {split!r}")
    return parts[split]
