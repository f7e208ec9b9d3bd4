"""Names of streets and places in an invented language, made from syllables."""

import numpy as np
import numpy.typing as npt

from urbancli.demo.recipe import Recipe

Integers = npt.NDArray[np.int64]

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


def street_names(
    recipe: Recipe,
    kinds: list[str],
    line: Integers,
    stretch: Integers,
) -> list[str]:
    """Return the names of ways: one for each stretch of a line and class; '' for the nameless.

    Args:
        recipe: of the city.
        kinds: (W,) classes of the ways.
        line: (W,) the lattice line of each.
        stretch: (W,) the stretch of it.
    """
    stems = name_stems(recipe)
    keys = np.stack([line, stretch], axis=1)
    _, street = np.unique(keys, axis=0, return_inverse=True)
    street = street.ravel()
    count = int(street.max()) + 1 if len(street) else 0
    generator = recipe.generator("street names")
    stem = generator.integers(0, len(stems), count)
    sort = generator.integers(0, 1 << 16, count)
    return [
        f"{stems[stem[s]]} {TYPES[kind][sort[s] % len(TYPES[kind])]}" if kind in TYPES else ""
        for kind, s in zip(kinds, street, strict=True)
    ]
