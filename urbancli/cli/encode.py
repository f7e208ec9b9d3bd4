"""`urban encode`: the frozen encoders alone, into the cache that `urban train` reads."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urbancli.cli._console import city_key, print_json, progress_bar, say, workspace_of
from urbancli.cli._encoders import encoder_options
from urbancli.errors import UsageError

if TYPE_CHECKING:
    from urbancli.encoding import Encoders
    from urbancli.layers import CityLayers


def command(
    context: typer.Context,
    city: Annotated[
        list[str] | None, typer.Option(help="Fetched city; repeatable; default all.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=ENCODER[:MODEL][,KEY=VALUE…]",
            help="Only these (`urban list encoders`); repeatable; default all that `urban train` "
            "would use.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Encode the tiles of fetched cities; what is encoded already is only counted."""
    from urbancli.encoding import choose
    from urbancli.layers import expand_modalities, open_city
    from urbancli.report.encoded import render_encoded

    workspace = workspace_of(context)
    options = encoder_options(workspace, encoder or [])
    named = expand_modalities([one.partition("=")[0].strip() for one in encoder or []])
    cities = list(dict.fromkeys(map(city_key, city))) if city else workspace.cities()
    if not cities:
        raise UsageError("no city is fetched yet: run `urban fetch --city NAME` first")
    rows = []
    for key in cities:
        opened = open_city(workspace, key)
        for mark in opened.marks().values():
            say(f"{key} is {mark}")
        have, choice = opened.modalities(), choose(options, opened.views())
        wanted = [name for name in have if name in choice and (not named or name in named)]
        if not wanted:
            raise UsageError(
                f"'{key}' has no {', '.join(named) or 'layer'} to encode: it has "
                f"{', '.join(have)}; fetch it first"
            )
        with progress_bar() as progress:
            for number, name in enumerate(wanted):
                progress(f"encode {key}", number, len(wanted))
                rows.append(_encode(opened, name, choice[name]))
            progress(f"encode {key}", len(wanted), len(wanted))
    if json:
        print_json(rows)
    else:
        render_encoded(rows)


def _encode(city: "CityLayers", modality: str, encoders: "Encoders") -> dict[str, Any]:
    """Encode a modality of a city's tiles; return a row about it."""
    from urbancli.encoding import encode_cached, fit_encoders

    places, began = city.tiles(), time.perf_counter()
    state = fit_encoders(city, modality, places, encoders)
    tokens = encode_cached(city, modality, places, encoders, *state)
    return {
        "city": city.key,
        "modality": modality,
        "encoder": " + ".join(chosen.title for chosen in encoders),
        "places": len(places),
        "present": int(tokens.present.sum()),
        "tokens": len(tokens.values),
        "width": int(tokens.values.shape[1]),
        "dtype": str(tokens.values.dtype),
        "seconds": round(time.perf_counter() - began, 3),
    }
