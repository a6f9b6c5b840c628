"""`exo instance …`: models that are placed and served."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from exo.cli.client import Client, JsonObject, connect, model_argument, path_segment
from exo.cli.follow import layers as layers_done
from exo.cli.follow import require_ready, wait
from exo.cli.node import labels, layers_text
from exo.cli.output import JsonOption, bytes_text, count_text, fields, out, rate_text, table
from exo.errors import InstanceNotFound, RequestError

app = typer.Typer(name="instance", help="Place models and manage them.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name or folder of a model.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Instance id, or its beginning.")]


class Sharding(StrEnum):
    """How a model is split over nodes."""

    pipeline = "pipeline"
    tensor = "tensor"
    guidance = "guidance"


class KvBits(StrEnum):
    """Bits of a number in the KV cache."""

    four = "4"
    eight = "8"


class Meta(StrEnum):
    """What carries the activations."""

    tcp = "tcp"
    mlx_ring = "mlx_ring"
    mlx_jaccl = "mlx_jaccl"
    mlx_nccl = "mlx_nccl"


class Objective(StrEnum):
    """What a placement is best at."""

    latency = "latency"
    throughput = "throughput"


ObjectiveOption = Annotated[
    Objective | None, typer.Option(help="Fast answers one by one, or many at a time.")
]
ShardingOption = Annotated[
    Sharding | None,
    typer.Option(
        help="Some layers on each node, or a part of every layer; of an image model, one of the "
        "two passes of a step."
    ),
]
MetaOption = Annotated[
    Meta | None,
    typer.Option(
        help="What links the nodes: exo's encrypted links, or mx.distributed's, which are not."
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option("--context", min=1, help="Longest prompt and answer together, in tokens."),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(min=1, help="Requests computed at the same time.")
]
PinOption = Annotated[
    bool,
    typer.Option(
        help="Keep it until it is deleted, or only while it is used and nothing else needs its "
        "place."
    ),
]
# A table of 64 nodes must still be read.
_NAMED = 6


@app.command()
def create(  # noqa: PLR0913, PLR0917  one for each flag
    model: ModelArgument,
    min_nodes: Annotated[
        int | None, typer.Option(min=1, help="Fewest nodes to split the model over.")
    ] = None,
    max_nodes: Annotated[
        int | None, typer.Option(min=1, help="Most nodes to split the model over.")
    ] = None,
    nodes: Annotated[str | None, typer.Option(metavar="A,B", help="Use these nodes only.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(metavar="A=0-9,B=10-15", help="Give these layers to these nodes, in order."),
    ] = None,
    objective: ObjectiveOption = None,
    sharding: ShardingOption = None,
    meta: MetaOption = None,
    context: ContextOption = None,
    concurrency: ConcurrencyOption = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Guess ahead with this smaller model, or with `ngram`: no model."
        ),
    ] = None,
    kv_bits: Annotated[
        KvBits | None, typer.Option(help="Quantise keys and values, for longer contexts.")
    ] = None,
    pin: PinOption = True,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return before the instance is ready.")
    ] = False,
    _json: JsonOption = False,
) -> None:
    """Place a model and wait until it is ready."""
    wanted = {
        "model_id": model_argument(model),
        "min_nodes": min_nodes,
        "max_nodes": max_nodes,
        "nodes": nodes,
        "layers": layers,
        "objective": objective.value if objective else None,
        "sharding": sharding.value if sharding else None,
        "instance_meta": meta.value if meta else None,
        "context_length": context,
        "concurrency": concurrency,
        "draft": model_argument(draft) if draft and draft != "ngram" else draft,
        "kv_bits": int(kv_bits) if kv_bits else None,
        "pin": None if pin else False,
    }
    body = {"instance": {name: value for name, value in wanted.items() if value is not None}}
    with connect() as api:
        instance = api.post("/instance", body)
        if not no_wait:
            instance = _wait(api, instance)
        if out.json or instance["status"] != "failed":
            out.result(instance, lambda: details(instance, _node_names(api)))
    require_ready(instance)


@app.command("list")
def list_(_json: JsonOption = False) -> None:
    """List the instances."""
    with connect() as api:
        answer = api.get("/instance")
    out.result(answer, lambda: overview(answer["data"]))


@app.command()
def show(instance_id: IdArgument, _json: JsonOption = False) -> None:
    """Show an instance and its shards."""
    with connect() as api:
        instance = api.get(f"/instance/{path_segment(find_id(api, instance_id))}")
        out.result(instance, lambda: details(instance, _node_names(api)))


@app.command()
def preview(
    model: ModelArgument,
    objective: ObjectiveOption = None,
    context: ContextOption = None,
    concurrency: ConcurrencyOption = None,
    _json: JsonOption = False,
) -> None:
    """Show how a model could be placed.

    There is a row for each number of nodes that is worth a look, with the best placement on so
    many and the speeds that are predicted for one request, or with what stands in the way.
    """
    asked = {
        "model_id": model_argument(model),
        "objective": objective.value if objective else None,
        "context_length": context,
        "concurrency": concurrency,
    }
    given = {name: str(value) for name, value in asked.items() if value is not None}
    columns = ["nodes", "sharding", "meta", "layers and memory", "prefill", "decode", "problem"]
    with connect() as api:
        previews = api.get_list("/instance/previews", **given)

        def text() -> str:
            names = _node_names(api)
            rows = (_preview_row(one, names) for one in previews)
            return table(columns, rows, empty="There is no way to place it.")

        out.result(previews, text)


@app.command()
def delete(instance_id: IdArgument, _json: JsonOption = False) -> None:
    """End an instance and free its memory."""
    with connect() as api:
        answer = api.delete(f"/instance/{path_segment(find_id(api, instance_id))}")
    out.result(answer, lambda: f"Instance {answer['instance_id']} is deleted.")


@app.command()
def pin(instance_id: IdArgument, _json: JsonOption = False) -> None:
    """Keep an instance until it is deleted."""
    _set_pinned(instance_id, "pin", "stays until it is deleted")


@app.command()
def unpin(instance_id: IdArgument, _json: JsonOption = False) -> None:
    """Let an instance go when nobody uses it."""
    _set_pinned(instance_id, "unpin", "goes when nobody uses it, or its place is needed")


def _set_pinned(beginning: str, verb: str, what: str) -> None:
    with connect() as api:
        instance = api.post(f"/instance/{path_segment(find_id(api, beginning))}/{verb}", {})
    out.result(instance, lambda: f"Instance {instance['instance_id']} {what}.")


def find_id(api: Client, beginning: str) -> str:
    """The id of the one instance whose id begins so.

    Raises:
        InstanceNotFound: there is none.
        RequestError: there are several, or the beginning is empty.
    """
    if not beginning:
        # An unset variable in a script must not mean "the only one there is".
        raise RequestError("The instance id is empty.", hint="`exo instance list` shows them.")
    ids: list[str] = [instance["instance_id"] for instance in api.get("/instance")["data"]]
    found = [one for one in ids if one.startswith(beginning)]
    if beginning in ids or len(found) == 1:
        return beginning if beginning in ids else found[0]
    if found:
        raise RequestError(
            f"{count_text(len(found), 'instance')} have an id that begins with '{beginning}'.",
            hint=f"Give more of it: {', '.join(found)}.",
        )
    raise InstanceNotFound(
        f"No instance has an id that begins with '{beginning}'.",
        hint="`exo instance list` shows them.",
    )


def overview(instances: Sequence[JsonObject]) -> str:
    """The table of instances."""
    rows = (
        (
            instance["model_id"],
            _status(instance),
            instance["context_length"],
            len({shard["node_id"] for shard in instance["shards"]}),
            bytes_text(sum(shard["memory"] for shard in instance["shards"])),
            instance["instance_id"],
        )
        for instance in instances
    )
    columns = ["model", "status", "context", "nodes", "memory", "id"]
    return table(columns, rows, empty="There are no instances.")


def details(instance: JsonObject, names: Mapping[str, str]) -> str:
    """Everything about one instance; `names` are what to call the nodes, by id."""
    facts = fields(
        [
            ("Instance", instance["instance_id"]),
            ("Model", instance["model_id"]),
            ("Status", _status(instance)),
            *([("Reason", instance["reason"])] if instance.get("reason") else []),
            ("Sharding", instance["sharding"]),
            ("Links", _links(instance)),
            ("Context", f"{instance['context_length']} tokens"),
            ("Concurrency", instance["concurrency"]),
            *([("KV cache", f"{bits} bits")] if (bits := instance.get("kv_bits")) else []),
            *([("Drafts", drafts_text(instance))] if instance.get("draft") else []),
            *([] if instance.get("pinned", True) else [("Stays", "while it is used")]),
            ("Created", instance["created_at"]),
        ]
    )
    rows = (
        (
            shard["rank"],
            names.get(shard["node_id"], shard["node_id"]),
            layers_text(shard),
            bytes_text(shard["memory"]),
            *_runner(shard["runner"]),
        )
        for shard in instance["shards"]
    )
    columns = ["rank", "node", "layers", "memory", "runner", "pid", "restarts"]
    shards = table(columns, rows, empty="It has no shards.")
    return "\n\n".join(
        [facts, shards, *([ring_text(ring)] if (ring := instance.get("ring")) else [])]
    )


def _links(instance: JsonObject) -> str:
    plain = ", NOT encrypted" if instance.get("encrypted") is False else ""
    return f"{instance['instance_meta']}{plain}"


def drafts_text(instance: JsonObject) -> str:
    """What guesses ahead, and how often it was right."""
    drafts: JsonObject = instance.get("drafts") or {}
    if drafts.get("off"):
        return f"off: {drafts['off']}"
    if not drafts.get("guessed"):
        return instance["draft"]
    return (
        f"{instance['draft']}, {drafts['acceptance']:.0%} of "
        f"{count_text(drafts['guessed'], 'token')} right"
    )


def ring_text(ring: JsonObject) -> str:
    """How a ring works: what each rank takes for a decode step, and what it waits. Split by
    tensors, all ranks take it together."""
    streams = f"{count_text(ring['rows'], 'stream')} in {ring['groups']} micro-batches"
    if len(ring["seconds"]) == 1:
        return (
            f"A decode step takes {ring['seconds'][0] * 1e3:.2f} ms; the nodes are "
            f"{ring['busy'][0]:.0%} busy. {streams}, {ring['waiting']} waiting."
        )
    ranks = zip(ring["seconds"], ring["busy"], strict=True)
    rows = (
        (rank, f"{seconds * 1e3:.2f} ms", f"{share:.0%}", f"{1 - share:.0%}")
        for rank, (seconds, share) in enumerate(ranks)
    )
    return "\n".join(
        [
            table(["rank", "decode step", "busy", "bubbles"], rows, empty=""),
            f"A hop takes {ring['hop'] * 1e3:.2f} ms. {streams}, {ring['waiting']} waiting.",
        ]
    )


def _wait(api: Client, instance: JsonObject) -> JsonObject:
    try:
        return wait(api, instance)
    except KeyboardInterrupt:
        out.note(
            f"The instance goes on loading; `exo instance delete {instance['instance_id']}` "
            "ends it."
        )
        raise


def _status(instance: JsonObject) -> str:
    if instance["status"] != "loading":
        return instance["status"]
    done, total = layers_done(instance)
    return f"loading {done}/{total}"


def _runner(runner: JsonObject | None) -> tuple[object, object, object]:
    if not runner:
        return None, None, None
    error = f" ({runner['error']})" if runner.get("error") else ""
    return f"{runner['status']}{error}", runner["pid"], runner["restarts"]


def _node_names(api: Client) -> dict[str, str]:
    return labels(api.get("/state")["topology"]["nodes"])


def _preview_row(preview: JsonObject, names: Mapping[str, str]) -> Sequence[object]:
    placement: JsonObject = preview["instance"] or {}
    shards: list[JsonObject] = placement.get("shards") or []
    placed = [
        f"{names.get(shard['node_id'], shard['node_id'])} {layers_text(shard)} "
        f"({bytes_text(shard['memory'])})"
        for shard in shards[:_NAMED]
    ]
    more = [f"and {len(shards) - _NAMED} more"] if len(shards) > _NAMED else []
    return (
        len(shards) or preview["min_nodes"],
        preview["sharding"],
        preview["instance_meta"],
        ", ".join(placed + more),
        rate_text(placement.get("prefill_tps")),
        rate_text(placement.get("decode_tps")),
        preview["error"],
    )
