"""Licences of data by the names that layers carry: SPDX's where there is one, else our own."""

from dataclasses import dataclass

USER_SUPPLIED = "user-supplied"

JOINED = " AND "
"""Between the licences of a layer that is under several, as in an SPDX expression."""


@dataclass(frozen=True)
class Licence:
    """A licence as a layer names it.

    Attributes:
        name: what layers carry.
        spdx: its SPDX identifier; None where it has none.
        title: for people.
        url: of its text; empty where there is none to link.
        asks: what it asks of whoever passes the data on.
    """

    name: str
    spdx: str | None
    title: str
    url: str
    asks: str


_NAME_AND_CHANGES = "Name the author and the licence, and say that the data were changed."

_TABLE = (
    Licence(
        "ODbL-1.0", "ODbL-1.0", "Open Data Commons Open Database License 1.0",
        "https://opendatacommons.org/licenses/odbl/1-0/",
        "Name the source; what is derived from the database and made public stays under the "
        "ODbL, and says that it was changed.",
    ),
    Licence(
        "CC-BY-4.0", "CC-BY-4.0", "Creative Commons Attribution 4.0",
        "https://creativecommons.org/licenses/by/4.0/", _NAME_AND_CHANGES,
    ),
    Licence(
        "CC-BY-SA-4.0", "CC-BY-SA-4.0", "Creative Commons Attribution-ShareAlike 4.0",
        "https://creativecommons.org/licenses/by-sa/4.0/",
        f"{_NAME_AND_CHANGES} What is adapted from them stays under the same licence.",
    ),
    Licence(
        "CC0-1.0", "CC0-1.0", "Creative Commons Zero 1.0",
        "https://creativecommons.org/publicdomain/zero/1.0/", "Asks for nothing.",
    ),
    Licence(
        "CDLA-Permissive-2.0", "CDLA-Permissive-2.0",
        "Community Data License Agreement, Permissive 2.0",
        "https://cdla.dev/permissive-2-0/",
        "Pass the licence's text on with the data.",
    ),
    Licence(
        "Apache-2.0", "Apache-2.0", "Apache License 2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
        "Pass the licence's text and notices on, and say what was changed.",
    ),
    Licence(
        "Copernicus-Sentinel", None, "Legal notice on the use of Copernicus Sentinel data",
        "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
        "Name the source; of modified data: 'contains modified Copernicus Sentinel data'.",
    ),
    Licence(
        "public-domain", None, "Public domain (a work of the United States government)",
        "https://www.usa.gov/government-copyright", "Asks for nothing; naming the source is usual.",
    ),
    Licence(
        USER_SUPPLIED, None, "Not known to urban: the licence of the file that was given", "",
        "Ask whoever made the file before you pass the data on.",
    ),
)  # fmt: skip

LICENCES = {licence.name: licence for licence in _TABLE}

PRODUCERS = (
    ("OpenStreetMap", "OpenStreetMap contributors", "https://www.openstreetmap.org/copyright"),
    ("Copernicus", "Copernicus Sentinel, ESA and European Union", "https://sentinels.copernicus.eu"),
    ("NAIP", "USDA Farm Production and Conservation, NAIP", "https://naip-usdaonline.hub.arcgis.com"),
    ("Overture", "Overture Maps Foundation", "https://overturemaps.org"),
    ("Mapillary", "Mapillary contributors", "https://www.mapillary.com"),
)  # fmt: skip
"""A word of an attribution, who it names, and where to find them."""


def known_licences(names: str) -> list[Licence] | None:
    """Return the licences that a layer's `licence` names; None where any is unknown."""
    found = [LICENCES.get(name) for name in names.split(JOINED)]
    return None if None in found else [each for each in found if each]


def licences(names: str) -> list[Licence]:
    """Return the licences that a layer's `licence` names, an unknown one as no more than a name."""
    asks = "Look its terms up before you pass the data on."
    return [LICENCES.get(name, Licence(name, None, name, "", asks)) for name in names.split(JOINED)]


def producers(attribution: str) -> list[tuple[str, str]]:
    """Return (name, URL) of whom an attribution names, as far as they are known here."""
    return [(name, url) for word, name, url in PRODUCERS if word in attribution]
