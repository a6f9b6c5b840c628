"""`exo image`: draw pictures, or edit them."""

import base64
import binascii
import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from exo.cli.client import LOGS_HINT, Client, Files, JsonObject, model_argument
from exo.cli.image_paths import STDOUT, Target, target
from exo.cli.image_view import View
from exo.cli.instance import ModelArgument
from exo.cli.model import require_task
from exo.cli.output import JsonOption, QuietOption, out
from exo.cli.ready import ready_model
from exo.cli.run import connect_or_start
from exo.cli.terminal_pictures import Show
from exo.errors import DaemonError, RequestError

_PREVIEWS = 3


class Quality(StrEnum):
    """How many steps a picture takes."""

    auto = "auto"
    low = "low"
    medium = "medium"
    high = "high"


class Format(StrEnum):
    """Format of a file."""

    png = "png"
    jpeg = "jpeg"
    webp = "webp"


class Fidelity(StrEnum):
    """How much of an image stays."""

    low = "low"
    high = "high"


PromptArgument = Annotated[
    str | None, typer.Argument(metavar="PROMPT", help="What to draw; without it, stdin.")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Where to write it, `-` for stdout; else a name made of the prompt.",
    ),
]
EditOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Edit this image; may be given several times."),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Change only where this image is transparent."),
]
SizeOption = Annotated[
    str | None, typer.Option(metavar="WxH", help="Width and height in pixels, or `auto`.")
]
CountOption = Annotated[int, typer.Option("--n", "-n", min=1, max=10, help="How many pictures.")]
QualityOption = Annotated[Quality | None, typer.Option(help="Fewer or more steps.")]
StepsOption = Annotated[int | None, typer.Option(min=1, max=100, help="Exactly so many steps.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Same seed, same picture.")]
GuidanceOption = Annotated[
    float | None, typer.Option(min=1, max=20, help="How closely to follow the prompt.")
]
NegativeOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the picture must not show.")
]
PatchesOption = Annotated[
    int | None,
    typer.Option(
        min=2, max=64, help="Over several nodes: so many parts at once; faster, approximate."
    ),
]
SyncOption = Annotated[
    int | None, typer.Option(min=1, max=100, help="Exact steps before those of --patches.")
]
FidelityOption = Annotated[Fidelity | None, typer.Option(help="How much of the image stays.")]
FormatOption = Annotated[Format | None, typer.Option("--format", help="Format of the file.")]
CompressionOption = Annotated[
    int | None, typer.Option(min=0, max=100, help="Quality of a jpeg or webp; 100 is best.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")]
StreamOption = Annotated[
    bool, typer.Option(help="Show the steps and, where the terminal can, the picture.")
]
ShowOption = Annotated[
    Show, typer.Option(help="How to show pictures in the terminal; EXO_SHOW says it for always.")
]


def image(  # noqa: PLR0913, PLR0917  one for each flag
    model: ModelArgument,
    prompt: PromptArgument = None,
    output: OutOption = None,
    edit: EditOption = None,
    mask: MaskOption = None,
    size: SizeOption = None,
    n: CountOption = 1,
    quality: QualityOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    guidance: GuidanceOption = None,
    negative: NegativeOption = None,
    patches: PatchesOption = None,
    sync_steps: SyncOption = None,
    fidelity: FidelityOption = None,
    file_format: FormatOption = None,
    compression: CompressionOption = None,
    force: ForceOption = False,
    stream: StreamOption = True,
    show: ShowOption = Show.auto,
    _json: JsonOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Draw pictures from words, or edit images.

    Starts exo and places the model if need be. A prompt that is piped in is drawn like PROMPT. No
    file is overwritten without --force.
    """
    prompt = _prompt(prompt)
    goal = target(output, file_format, prompt, force=force)
    _check_stdout(output, n)
    paths, files = goal.paths(n), _files(edit or [], mask)
    fields = {
        "prompt": prompt,
        "n": n,
        "size": size,
        "quality": quality,
        "output_format": goal.format,
        "output_compression": compression,
        "input_fidelity": fidelity,
        "advanced_params": _advanced(
            seed=seed,
            num_inference_steps=steps,
            guidance=guidance,
            negative_prompt=negative,
            patches=patches,
            num_sync_steps=sync_steps,
        ),
    }
    with connect_or_start() as api:
        name = model_argument(model)
        require_task(api, name, "image")
        body = {"model": ready_model(api, name), **_given(fields)}
        if stream and output != STDOUT:
            pictures = _streamed(api, body, files, View(show, body["model"], n))
        else:
            pictures = _posted(api, body, files)
    _save(goal, paths, pictures, body["model"])


def _prompt(given: str | None) -> str:
    if given is None and not sys.stdin.isatty():
        given = sys.stdin.read().strip()
    if given is None:
        raise RequestError("There is no prompt.", hint="Give PROMPT, or pipe it in.")
    return given


def _advanced(**fields: float | str | None) -> JsonObject | None:
    return _given(fields) or None


def _given(fields: JsonObject) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None}


def _check_stdout(output: str | None, n: int) -> None:
    if output != STDOUT:
        return
    if n > 1 or out.json:
        raise RequestError("stdout takes one picture, and nothing beside it.")
    if sys.stdout.isatty():
        raise RequestError("A terminal cannot take a file.", hint="Give --out a name, or use >.")


def _files(images: list[Path], mask: Path | None) -> Files | None:
    """What is uploaded for an edit; None if it is none.

    Raises:
        RequestError: a file cannot be read, or there is a mask without an image.
    """
    if mask and not images:
        raise RequestError("A mask needs an image.", hint="--edit names it.")
    named = [*(("image[]", path) for path in images), *([("mask", mask)] if mask else [])]
    files: Files = []
    for field, path in named:
        try:
            files.append((field, (path.name, path.expanduser().read_bytes())))
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    return files or None


def _path(files: Files | None) -> str:
    return "/v1/images/edits" if files else "/v1/images/generations"


def _posted(api: Client, body: JsonObject, files: Files | None) -> list[JsonObject]:
    answer = api.post(_path(files), body, files=files, timeout=None)
    return [{**picture, "size": answer["size"]} for picture in answer["data"]]


def _streamed(api: Client, body: JsonObject, files: Files | None, view: View) -> list[JsonObject]:
    """The pictures, in order, shown as they come."""
    body = {**body, "stream": True, "partial_images": _PREVIEWS if view.shows else 0}
    done: dict[int, JsonObject] = {}
    with view, closing(api.stream(_path(files), body, files, view.on_comment)) as events:
        for event in events:
            final = str(event.get("type")).endswith(".completed")
            view.picture(event["image_index"], _decoded(event), final=final)
            if final:
                done[event["image_index"]] = event
    if len(done) < body["n"]:
        raise DaemonError("The pictures ended before they were complete.", hint=LOGS_HINT)
    return [done[index] for index in sorted(done)]


def _decoded(picture: JsonObject) -> bytes:
    try:
        return base64.b64decode(picture["b64_json"], validate=True)
    except (binascii.Error, KeyError, TypeError) as error:
        raise DaemonError("The answer has no picture.", hint=LOGS_HINT) from error


def _save(goal: Target, paths: list[Path], pictures: list[JsonObject], model: str) -> None:
    if goal.path is None:
        sys.stdout.buffer.write(_decoded(pictures[0]))
        sys.stdout.flush()
        return
    for path, picture in zip(paths, pictures, strict=True):
        goal.write(path, _decoded(picture))
    saved = [
        {"path": str(path.absolute()), "seed": picture["seed"], "size": picture["size"]}
        for path, picture in zip(paths, pictures, strict=True)
    ]
    out.result(
        {"model": model, "format": goal.format, "images": saved},
        lambda: "\n".join(
            f"{path}  {picture['size']}, seed {picture['seed']}"
            for path, picture in zip(paths, saved, strict=True)
        ),
        lambda: "\n".join(map(str, paths)),
    )
