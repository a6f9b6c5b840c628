"""`exo model …`: the models that exo knows."""

import typer

from exo.cli.client import connect
from exo.cli.output import JsonOption, bytes_text, out, table

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
