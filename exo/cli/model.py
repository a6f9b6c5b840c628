"""`exo model …`: the models that exo knows."""

import typer

from exo.cli.client import Client, connect, path_segment
from exo.cli.output import JsonOption, bytes_text, out, table
from exo.errors import RequestError

_MISTAKES = {
    "text": "makes images; it does not answer in words.",
    "image": "answers in words; it makes no images.",
}

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
        raise RequestError(
            f"{card['id']} {_MISTAKES[task]}", hint="`exo model list` shows what models are for."
        )
