"""`exo model …`: the models that exo knows."""

import typer

from exo.cli.client import Client, connect, path_segment
from exo.cli.output import JsonOption, bytes_text, out, table
from exo.errors import RequestError

_DOES = {
    "text": "answers in words",
    "image": "makes images",
    "embedding": "makes vectors",
}
_DOES_NOT = {"text": "does not answer in words", "image": "makes no images"}

app = typer.Typer(name="model", help="See the models that exo knows.", no_args_is_help=True)


@app.command("list")
def list_(_json: JsonOption = False) -> None:
    """List the models."""
    with connect() as api:
        answer = api.get("/models")
    rows = (
        (
            model["id"],
            ", ".join(model["tasks"]),
            bytes_text(model["storage_size"]),
            model.get("quantization"),
            model["n_layers"],
            model["context_length"],
            "yes" if model["available"] else "no",
            ", ".join(model.get("aliases", [])),
        )
        for model in answer["data"]
    )
    columns = ["model", "for", "size", "quantization", "layers", "context", "here", "also called"]
    out.result(answer, lambda: table(columns, rows, empty="exo knows no models."))


def require_task(api: Client, name: str, task: str) -> None:
    """See that the model called `name` is one for this task: another would be loaded in vain.

    Raises:
        ModelNotFound: there is none.
        RequestError: it is for something else.
    """
    card = api.get(f"/v1/models/{path_segment(name)}")
    if task not in card["tasks"]:
        does = _DOES.get(card["tasks"][0], "is for something else")
        raise RequestError(
            f"{card['id']} {does}; it {_DOES_NOT[task]}.",
            hint="`exo model list` shows what models are for.",
        )
