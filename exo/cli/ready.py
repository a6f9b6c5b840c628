"""A model that answers, for the commands that use one."""

from exo.cli.client import Client, JsonObject
from exo.cli.follow import require_ready, wait
from exo.cli.output import count_text
from exo.errors import Forbidden, ModelForbidden, RequestError


def ensure_ready(api: Client, model: str, nodes: int | None = None) -> JsonObject:
    """A ready instance of `model`; places the model if no instance has it yet. With `nodes`, it is
    one over so many.

    Raises:
        RequestError: there is another one, over more or fewer nodes, that would answer as well.
    """
    names = _names(api, model)
    instances = [
        instance
        for instance in api.get("/instance")["data"]
        if instance["model_id"] in names and instance["status"] != "failed"
    ]
    others = [one for one in instances if nodes and len(one["shards"]) != nodes]
    if others:
        raise RequestError(
            f"{others[0]['model_id']} runs over {count_text(len(others[0]['shards']), 'node')}; "
            "requests would go there too.",
            hint=f"Delete it first: `exo instance delete {others[0]['instance_id']}`.",
        )
    ready = [instance for instance in instances if instance["status"] == "ready"]
    if ready or instances:
        instance = (ready or instances)[0]
    else:
        wanted = {"min_nodes": nodes, "max_nodes": nodes} if nodes else {}
        instance = api.post("/instance", {"instance": {"model_id": model, **wanted}})
    return require_ready(wait(api, instance))


def ready_model(api: Client, model: str) -> str:
    """The id of `model`, with a ready instance of it. With a key that is for answers only the name
    as it is: the daemon finds an instance by itself, and places one if it may."""
    try:
        return ensure_ready(api, model)["model_id"]
    except ModelForbidden:
        raise
    except Forbidden:
        return model


def _names(api: Client, model: str) -> set[str]:
    """Every name under which an instance of `model` may be recorded."""
    names = {model}
    for card in api.get("/models")["data"]:
        known = {card["id"], card.get("hugging_face_id"), card.get("path"), card.get("name")}
        if model in known or model in card.get("aliases", []):
            names.add(card["id"])
    return names
