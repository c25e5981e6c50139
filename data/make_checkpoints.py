"""Train the bundled checkpoints: python data/make_checkpoints.py [--seed 0] [--only NAME].

Each is trained in one thread by its recipe (data/*_recipes.py), measured on data that it has not
seen, and written to --to (data/) with the command, the seed, the commit and what was measured.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from data import digit_recipes, distill_recipes, letter_recipes, token_recipes, word_recipes
from minigen import train

HERE = Path(__file__).parent

RECIPES = {  # in this order: the judges come first
    recipe.__name__: recipe
    for recipe in (
        digit_recipes.digits_classifier,
        word_recipes.letters_reader,
        word_recipes.words_reader,
        digit_recipes.digits_eps,
        digit_recipes.digits_flow,
        distill_recipes.digits_onestep,
        word_recipes.words_mmdit,
        letter_recipes.letters_autoencoder,
        letter_recipes.letters_latent,
        token_recipes.letters_vq,
        token_recipes.letters_scales,
        token_recipes.letters_raster,
        token_recipes.letters_masked,
        token_recipes.letters_nextscale,
    )
}


def commit() -> str:
    """The commit that the code stands at, with a + where files differ from it."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--abbrev=12"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"


def main(arguments: list[str] | None = None) -> None:
    """Make all checkpoints, or the one named by --only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--to", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in [options.only] if options.only else RECIPES:
        start = time.process_time()
        net, measured = RECIPES[name](options.seed)
        about = {"seed": options.seed, "commit": commit(), "measured": measured}
        about["command"] = f"python data/make_checkpoints.py --only {name} --seed {options.seed}"
        about["torch"] = torch.__version__
        path = options.to / f"{name}.safetensors"
        train.save(path, net, **about)
        print(f"{path}  {time.process_time() - start:.0f} CPU-s", file=sys.stderr)
        for key, value in measured.items():
            print(f"    {key}: {value}")


if __name__ == "__main__":
    main()
