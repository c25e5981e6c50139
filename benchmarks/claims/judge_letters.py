"""Lecture 13: the protocol for letters orders samples whose order is known, as for digits.

The controls of `judge_controls`, made of the 520 test letters and the 5,200 training letters.
"""

from benchmarks.claims.judge_controls import Controls, judged
from minigen import data, judge


def main():
    controls = Controls(data.letters)
    named = {name.replace("no 3", "no D"): make for name, make in controls.all().items()}
    rows = {name: judged(judge.letters, controls, make) for name, make in named.items()}
    print(judge.table(rows, judge.letters))


if __name__ == "__main__":
    main()
