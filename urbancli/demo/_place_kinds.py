"""The kinds of places that a town has, what each speaks for, and the words in their names."""

NAMES = (
    "Abrelo", "Belunda", "Corvash", "Dimsel", "Ellowen", "Fandrik", "Gustoly", "Hevran", "Ilmaro",
    "Jodvik", "Karsimo", "Lunvell", "Marhosk", "Nebrily", "Oskendo", "Pellura", "Quandry",
    "Rossvik", "Sembola", "Tavrin", "Ulmaska", "Vendroy", "Wilbren", "Yorsell",
)  # fmt: skip
"""Names of places as the map has them, of a language that does not exist."""

CHAIN_WORDS = ("Zavimarex", "Zavimarol", "Zavimarkin", "Zavimart")
"""First words of the names of chains, in the POI file only."""

FAMILY_WORDS = ("Morroskel", "Morroskin", "Morroska", "Morrosk")
"""First words of the names of family businesses, in the POI file only."""

KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "----": (("shop", "laundry"), ("shop", "car_parts"), ("amenity", "vending_machine")),
    "---C": (("shop", "mobile_phone"), ("amenity", "fast_food"), ("shop", "bookmaker")),
    "--O-": (("shop", "second_hand"), ("amenity", "social_facility"), ("craft", "metal")),
    "--OC": (("shop", "pawnbroker"), ("shop", "locksmith"), ("amenity", "pub")),
    "-G--": (("leisure", "playground"), ("amenity", "shelter"), ("shop", "kiosk")),
    "-G-C": (
        ("leisure", "fitness_station"), ("amenity", "bicycle_rental"),
        ("amenity", "drinking_water"),
    ),
    "-GO-": (("amenity", "bench"), ("historic", "wayside_cross"), ("shop", "convenience")),
    "-GOC": (("historic", "memorial"), ("shop", "greengrocer"), ("amenity", "marketplace")),
    "A---": (("amenity", "charging_station"), ("shop", "car"), ("amenity", "dentist")),
    "A--C": (("office", "it"), ("amenity", "bank"), ("office", "coworking")),
    "A-O-": (("craft", "cabinet_maker"), ("amenity", "doctors"), ("shop", "wine")),
    "A-OC": (("shop", "jewelry"), ("shop", "antiques"), ("tourism", "hotel")),
    "AG--": (("shop", "garden_centre"), ("leisure", "horse_riding"), ("amenity", "kindergarten")),
    "AG-C": (("shop", "florist"), ("leisure", "fitness_centre"), ("office", "architect")),
    "AGO-": (("tourism", "viewpoint"), ("tourism", "picnic_site"), ("craft", "beekeeper")),
    "AGOC": (("tourism", "gallery"), ("historic", "monument"), ("amenity", "theatre")),
}  # fmt: skip
"""Kinds of places (OSM key and value) by what they speak for: A affluent, G green, O old, C central
parts of the town, and against what is not named. As every kind speaks of all four factors, eight
places tell as much as thirty-two would if each spoke of one."""
