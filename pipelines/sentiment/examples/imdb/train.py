"""Learn to tell favourable film reviews from others: train.py -f TSV -e EPOCHS -eval N -s MODEL --vocab_file VOCAB.

The table has a header and three columns, id, sentiment (1 or 0) and review; quotes within a review are written \\".
The model is a logistic regression on the words that a review has.  It starts as a naive Bayes classifier, which each
epoch of stochastic gradient descent improves; what is kept is the mean over all steps, as that depends less on which
review came last.  The same table and flags give the same two files, byte for byte, on any machine.
"""

import argparse
import csv
import math
import pickle
import random
import re
from collections import Counter

WORD = r"</?[a-z][^<>]*>|([^\W\d_]+(?:'[^\W\d_]+)?)"  # a tag, which is no word, or a word
RARE = 2  # a word in fewer reviews than this says nothing of others
HELD_OUT = 10  # one review in so many serves to evaluate, if that is asked for
START = 0.5  # how far naive Bayes is believed at first
RATE = 2.0


def read_reviews(path):
    """[(words, sentiment)]: the distinct words of each review, sorted, and 1 (favourable) or 0."""
    csv.field_size_limit(1 << 30)
    reviews = []
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter="\t", doublequote=False, escapechar="\\")
        for number, row in enumerate(rows):
            if number == 0 or not row:
                continue
            if len(row) != 3 or row[1] not in ("0", "1"):
                raise SystemExit(f"{path}, line {rows.line_num}: expected id, 0 or 1, and a review between tabs")
            reviews.append((sorted(set(re.findall(WORD, row[2].lower())) - {""}), int(row[1])))
    if len({sentiment for _, sentiment in reviews}) < 2:
        raise SystemExit(f"{path}: reviews of both sentiments, 1 and 0, are needed to learn from")
    return reviews


def log_ratios(reviews):
    """Word -> how much more likely a favourable review is to have it (log), the most frequent word first."""
    having = Counter(), Counter()
    for words, sentiment in reviews:
        having[sentiment].update(words)
    both = having[0] + having[1]
    unfavourable, favourable = (sum(sentiment == side for _, sentiment in reviews) + 2 for side in (0, 1))
    vocabulary = sorted((word for word in both if both[word] >= RARE), key=lambda word: (-both[word], word))
    return {
        word: math.log((having[1][word] + 1) / favourable) - math.log((having[0][word] + 1) / unfavourable)
        for word in vocabulary
    }


def chance(weights, bias, known):
    """The probability of a favourable review with these known words."""
    score = bias + sum(weights[word] for word in known) / math.sqrt(len(known) or 1)
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def train(reviews, epochs, evaluate):
    """(word -> weight, bias) after so many epochs; every `evaluate` of them, 0 for never, the accuracy is printed."""
    held_out = reviews[HELD_OUT - 1 :: HELD_OUT] if evaluate else []
    if evaluate:
        del reviews[HELD_OUT - 1 :: HELD_OUT]
    ratios = log_ratios(reviews)
    examples = [([word for word in words if word in ratios], sentiment) for words, sentiment in reviews]
    weights, bias = {word: START * ratio for word, ratio in ratios.items()}, 0.0
    lag, bias_lag, step = dict.fromkeys(ratios, 0.0), 0.0, 0  # mean over the steps = now + lag / steps
    mean, mean_bias = weights, bias
    chances = random.Random(7)
    for epoch in range(1, epochs + 1):
        for _, known, sentiment in sorted((chances.random(), *example) for example in examples):
            move = RATE * (sentiment - chance(weights, bias, known))
            for word in known:
                change = move * ratios[word] ** 2 / math.sqrt(len(known))
                weights[word] += change
                lag[word] -= step * change
            bias += 0.1 * move
            bias_lag -= step * 0.1 * move
            step += 1
        mean, mean_bias = {word: weights[word] + lag[word] / step for word in weights}, bias + bias_lag / step
        if held_out and epoch % evaluate == 0:
            known = [([word for word in words if word in mean], sentiment) for words, sentiment in held_out]
            right = sum((chance(mean, mean_bias, words) > 0.5) == bool(sentiment) for words, sentiment in known)
            print(f"epoch {epoch}: right on {right} of {len(held_out)} held-out reviews, {right / len(held_out):.1%}")
    return mean, mean_bias


def main():
    parser = argparse.ArgumentParser(description="Learn the sentiment of film reviews.")
    parser.add_argument("-f", "--review_file", required=True, help="the labelled reviews, tab-separated")
    parser.add_argument("-e", "--epochs", type=int, default=1, help="how often to go through all of them")
    parser.add_argument("-eval", "--eval_freq", type=int, default=0, help="evaluate every so many epochs (0: never)")
    parser.add_argument("-s", "--save_path", required=True, help="where the model goes")
    parser.add_argument("--vocab_file", required=True, help="where the words that it knows go, one a line")
    flags = parser.parse_args()
    if flags.epochs < 1 or flags.eval_freq < 0:
        parser.error("-e is 1 or more, -eval 0 or more")
    weights, bias = train(read_reviews(flags.review_file), flags.epochs, flags.eval_freq)
    # Rounded: mathematical libraries differ in the last digit.
    model = {"word": WORD, "bias": round(bias, 6), "weights": [round(weight, 6) for weight in weights.values()]}
    with open(flags.save_path, "wb") as file:
        pickle.dump(model, file, protocol=4)
    with open(flags.vocab_file, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{word}\n" for word in weights)


main()
