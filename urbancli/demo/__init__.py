"""The embedded SYNTHETIC city: factors are drawn first, then rendered into ordinary files.

The files are what services would give (COGs with STAC items, a .osm.pbf, a table of POIs, label
files); the ordinary sources read them. Because the factors are known, so is what every modality can
and cannot tell.
"""
