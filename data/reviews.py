"""Made-up film reviews, for trying out sentiment analysis: no person wrote them, and no film is meant.

Each is a handful of sentences from the templates below.  Most sentences of a review say what its label says; some say
nothing, a few the opposite, so that there is something to learn and something to get wrong.  `make.py` writes them.
"""

from __future__ import annotations

import random
from pathlib import Path

REVIEWS = 300
KINDS = ("thriller", "comedy", "western", "musical", "documentary", "love story", "war film", "ghost story")
PARTS = ("cast", "script", "camera work", "score", "editing", "dialogue", "plot", "pacing", "ending", "direction")
PEOPLE = ("my sister", "my neighbour", "everyone in the row behind", "the friend I took along", "my father")
WORDS = (
    (
        ("dull", "clumsy", "lifeless", "tiresome", "wooden", "pointless", "shallow", "muddled", "stale", "annoying"),
        ("drags", "falls flat", "goes nowhere", "makes no sense", "wears thin"),
        ("yawned", "looked at the clock", "left early", "fell asleep"),
        ("Save your money", "Avoid it", "A waste of an evening", "Do something else instead"),
    ),
    (
        ("lively", "clever", "moving", "gripping", "charming", "graceful", "witty", "honest", "tender", "splendid"),
        ("works", "holds together", "never lets go", "surprises", "shines"),
        ("laughed", "cried a little", "clapped at the end", "wanted to see it again"),
        ("See it while you can", "Warmly recommended", "An evening well spent", "Do not miss it"),
    ),
)
JUDGING = (
    "The {part} is {word} and the {part2} {does}.",
    "For a {kind} it is remarkably {word}.",
    "I found the {part} {word}, and {who} {did}.",
    "What a {word} {kind}!",
    '{Who} called it "{word}", and I agree.',
    "{advice}.",
)
NEUTRAL = (
    "It runs for about two hours.",
    "The story is set in a small town by the sea.",
    "This is a {kind} about two brothers and a letter.",
    "I saw it on a Tuesday with {who}.",
    "There are not many people in it, and most of it takes place in one house.",
    "It was made from a book that I have not read.",
)
README = """\
# Generated film reviews

`labeledTrainData.tsv` and `reviews/` are made by a script, `data/make.py` of gitpipe's source, from templates and lists
of words. They are no real reviews, nobody wrote them, and how well a model does on them says nothing about real text.

The table has the form of a well-known set of labelled reviews: a header, then `id`, `sentiment` (1 favourable, 0 not)
and `review` between tabs, text in quotation marks, those within it written `\\"`, and line breaks as HTML.
"""


class Chance:
    """Picks from sequences, the same ones with every version of Python."""

    def __init__(self, seed: int) -> None:
        self.number = random.Random(seed).random

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.number() * len(options))]


def review(chance: Chance, sentiment: int) -> str:
    """The text of a review that is favourable (1) or not (0), three to seven sentences of it."""
    sentences = []
    for _ in range(3 + int(chance.number() * 5)):
        kind = chance.number()
        template = chance.pick(NEUTRAL if kind < 0.3 else JUDGING)
        words, does, did, advice = WORDS[1 - sentiment if kind > 0.9 else sentiment]
        who = chance.pick(PEOPLE)
        sentences.append(
            template.format(
                part=chance.pick(PARTS),
                part2=chance.pick(PARTS),
                kind=chance.pick(KINDS),
                word=chance.pick(words),
                does=chance.pick(does),
                did=chance.pick(did),
                advice=chance.pick(advice),
                who=who,
                Who=who[0].upper() + who[1:],
            )
        )
    return " ".join(sentences[:3]) + "".join(f"<br /><br />{' '.join(sentences[3:])}" if sentences[3:] else "")


def write_sentiment(folder: Path) -> None:
    """Write `labeledTrainData.tsv`, two reviews to be judged in `reviews/`, and a README that says what they are."""
    (folder / "reviews").mkdir(parents=True, exist_ok=True)
    chance = Chance(4)
    rows = ["id\tsentiment\treview\n"]
    for number in range(1, REVIEWS + 1):
        sentiment = int(chance.number() < 0.5)
        text = review(chance, sentiment).replace('"', '\\"')
        rows.append(f'"made_{number}"\t{sentiment}\t"{text}"\n')
    (folder / "labeledTrainData.tsv").write_text("".join(rows), newline="\n")
    for number, sentiment in ((1, 1), (2, 0)):
        (folder / "reviews" / f"{number}.txt").write_text(review(chance, sentiment) + "\n", newline="\n")
    (folder / "README.md").write_text(README, newline="\n")
