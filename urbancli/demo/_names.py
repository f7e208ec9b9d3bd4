"""Names of streets and places in an invented language, made from syllables."""

import numpy as np

from urbancli.demo._network import CLASSES, Ways
from urbancli.demo.recipe import Recipe

ONSETS = ("b", "br", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
CODAS = ("l", "n", "r", "s", "th", "nd", "rk", "lm", "st", "m")
ENDINGS = ("", "en", "or", "ia", "ow", "et", "by", "ham", "mere", "ford")

TYPES = {
    "primary": ("Avenue", "Boulevard"),
    "secondary": ("Avenue", "Road"),
    "tertiary": ("Road", "Street"),
    "residential": ("Street", "Lane", "Close", "Row", "Way"),
    "pedestrian": ("Passage", "Market", "Steps"),
}
"""What streets of a class are called."""

STEMS = 220


def name_stems(recipe: Recipe) -> list[str]:
    """Return `STEMS` different invented words, capitalised."""
    generator = recipe.generator("names")
    stems: dict[str, None] = {}
    while len(stems) < STEMS:
        onset, vowel, coda, ending = (
            str(generator.choice(part)) for part in (ONSETS, VOWELS, CODAS, ENDINGS)
        )
        stems[(onset + vowel + coda + ending).capitalize()] = None
    return list(stems)


def street_names(recipe: Recipe, ways: Ways) -> list[str]:
    """Return the names of ways: one for each stretch of a line; '' for the nameless."""
    stems = name_stems(recipe)
    _, street = np.unique(np.stack([ways.line, ways.stretch]), axis=1, return_inverse=True)
    street = street.ravel()
    count = len(ways)
    generator = recipe.generator("street names")
    stem = generator.integers(0, len(stems), count)[street]
    sort = generator.integers(0, 1 << 16, count)[street]
    kinds = [CLASSES[kind] for kind in ways.kind]
    return [
        f"{stems[stem[i]]} {TYPES[kind][sort[i] % len(TYPES[kind])]}" if kind in TYPES else ""
        for i, kind in enumerate(kinds)
    ]
