"""A daemon's API without a daemon: a real HTTP server in a thread, with scripted answers."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .fake_painter import FakePainter

NODE_ID = "12D3KooWFakeNode"
OTHER_ID = "12D3KooWOtherNode"
TOKEN = "exo1-abcdefghijkl"
KEY = "sk-exo-abcd2345-secret"
OPEN = "This cluster is open to everyone on its network. `exo cluster lock` closes it."
SINCE = "2026-11-23T10:00:00+00:00"
DEVICE = {
    "kind": "cpu",
    "name": "Test CPU",
    "cores": 8,
    "memory_total": 16 * 1024**3,
    "flops": {"float32": 1.5e11, "bfloat16": 2e10},
    "memory_bandwidth": 4e10,
    "os": "Linux 6.1 x86_64",
    "python": "3.11.7",
    "mlx": "0.32.2",
    "kernels": "avx512vnni",
    "no_kernels": None,
    "measured_at": "2026-11-23T10:00:00Z",
}
MODEL = {
    "id": "exo-demo",
    "object": "model",
    "created": 1,
    "owned_by": "exo",
    "name": "Exo demo",
    "aliases": ["demo"],
    "family": "llama",
    "architecture": "LlamaForCausalLM",
    "n_layers": 6,
    "context_length": 4096,
    "quantization": "4bit",
    "storage_size": 3 * 1024**2,
    "available": True,
    "path": "/models/exo-demo",
    "supports_tensor": True,
    "tasks": ["text"],
    "hugging_face_id": None,
}


def instance(instance_id: str, status: str = "ready", done: int = 6) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "model_id": "exo-demo",
        "status": status,
        "reason": None,
        "created_at": "2026-11-23T10:00:00Z",
        "sharding": "pipeline",
        "instance_meta": "local",
        "context_length": 4096,
        "concurrency": 4,
        "encrypted": None,
        "kv_bits": None,
        "draft": None,
        "pinned": True,
        "ring": None,
        "drafts": None,
        "shards": [
            {
                "rank": 0,
                "node_id": NODE_ID,
                "start_layer": 0,
                "end_layer": 6,
                "memory": 5 * 1024**2,
                "runner": {
                    "runner_id": "r1",
                    "status": status,
                    "done": done,
                    "total": 6,
                    "pid": 42,
                    "error": None,
                    "restarts": 0,
                },
            }
        ],
    }


# How a ring of two works.
RING = {
    "seconds": [0.0021, 0.0019],
    "busy": [0.9, 0.75],
    "hop": 0.0003,
    "rows": 3,
    "groups": 2,
    "waiting": 1,
}


def node(node_id: str, name: str, **fields: Any) -> dict[str, Any]:
    """A node as `/state` has it."""
    return {
        "node_id": node_id,
        "name": name,
        "role": "node",
        "status": "online",
        "version": "0.1.0",
        "address": "127.0.0.1:52415",
        "links": ["/ip4/10.0.0.2/tcp/52416"],
        "started_at": SINCE,
        "since": SINCE,
        "device": DEVICE,
        "memory": {"total": 16 * 1024**3, "available": 12 * 1024**3},
        "latency": 0.00031,
        **fields,
    }


def link(one: str, other: str, latency: float, bandwidth: float | None = None) -> dict[str, Any]:
    return {"from": one, "to": other, "latency": latency, "bandwidth": bandwidth}


def loading(done: int) -> dict[str, Any]:
    """A step of a script: so many layers are loaded."""
    return {"status": "loading", "shards": instance("", "loading", done)["shards"]}


class FakeApi:
    """Answers by the contract. `steps` is what happens to a new instance, one event at a time."""

    def __init__(self) -> None:
        self.instances: dict[str, dict[str, Any]] = {}
        self.models = [MODEL]
        self.painter = FakePainter()
        self.nodes = [node(NODE_ID, "box", role="master", latency=None)]
        self.links: list[dict[str, Any]] = []
        self.open_to_network = False
        self.refused: dict[str, int] = {}
        self.missed: list[str] = []
        self.network: dict[str, Any] = {
            "listening": ["/ip4/10.0.0.1/tcp/52416"],
            "interfaces": [{"name": "eth0", "addresses": ["10.0.0.1", "fd00::1"]}],
            "discovery": {"enabled": True, "working": True, "problem": None},
            "seen": [],
            "links": [],
            "refused": {},
        }
        self.locked = False
        self.note: str | None = None
        self.keys: list[dict[str, Any]] = []
        self.shown_keys: list[str | None] = []
        self.steps: list[dict[str, Any]] = [loading(3), {"status": "warming"}, {"status": "ready"}]
        self.stays_open = True
        self.events: list[dict[str, Any]] = []
        self.answer = ["Hel", "lo."]
        self.thoughts: list[str] = []
        self.finish_reason: str | None = "stop"
        self.stream_error: dict[str, Any] | None = None
        self.hangs_after: str | None = None
        self.previews: list[dict[str, Any]] = []
        self.failure: tuple[int, dict[str, Any]] | None = None
        self.calls: list[tuple[str, str]] = []
        self.chats: list[dict[str, Any]] = []
        self.posted: list[dict[str, Any]] = []
        self.url = ""
        self._fetched = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "FakeApi":
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def status(self, pid: int) -> dict[str, Any]:
        return {**self.state(), "node_id": NODE_ID, "pid": pid, "api": self.url}

    def state(self) -> dict[str, Any]:
        return {
            "master_id": NODE_ID,
            "term": {"number": 1, "master_id": NODE_ID},
            "index": 7,
            "cluster": self.summary(),
            "access": {"keys_required": False, "keys": len(self.keys), "note": self.note},
            "topology": {"nodes": self.nodes, "links": self.links},
            "instances": self.instances,
            "downloads": [],
        }

    def summary(self) -> dict[str, Any]:
        return {
            "name": "exo",
            "locked": self.locked,
            "nodes": len(self.nodes),
            "refused": self.refused,
            "warning": OPEN if self.open_to_network and not self.locked else None,
        }

    def cluster(self) -> dict[str, Any]:
        members = [
            {
                "peer_id": node["node_id"],
                "name": node["name"],
                "status": "alive",
                "version": node["version"],
                "addresses": node["links"],
                "incarnation": 0,
                "since": node["since"],
            }
            for node in self.nodes
        ]
        reign = {"master_id": NODE_ID, "term": {"number": 3, "master_id": NODE_ID}}
        return {**self.summary(), "node_id": NODE_ID, **reign, "members": members}

    def token(self) -> dict[str, Any]:
        return {"name": "exo", "locked": self.locked, "token": TOKEN}

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(middlewares=[self._around])
        app.add_routes(
            [
                web.get("/healthz", self._json(lambda: {"status": "ok"})),
                web.get("/state", self._json(self.state)),
                web.get("/cluster", self._json(self.cluster)),
                web.get("/cluster/token", self._json(self.token)),
                web.post("/cluster/{verb}", self._new_secret),
                web.get("/keys", self._json(lambda: {"object": "list", "data": self.keys})),
                web.post("/keys", self._new_key),
                web.delete("/keys/{key}", self._revoke),
                web.post("/nodes/{node}/{verb}", self._node),
                web.get("/network", self._json(lambda: self.network)),
                web.get("/models", self._json(lambda: {"object": "list", "data": self.models})),
                web.get("/instance", self._json(self._list)),
                web.get("/instance/previews", self._json(lambda: self.previews)),
                web.post("/instance", self._create),
                web.get("/instance/{id}", self._show),
                web.delete("/instance/{id}", self._delete),
                web.post("/instance/{id}/{verb}", self._pin),
                web.get("/events", self._events),
                web.get("/v1/models/{id}", self._model),
                *self.painter.routes(),
                web.post("/v1/chat/completions", self._chat),
                web.post("/bench/chat/completions", self._bench),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    @web.middleware
    async def _around(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.calls.append((request.method, request.path_qs))
        self.shown_keys.append(request.headers.get("Authorization"))
        if self.failure and request.path != "/healthz":
            status, body = self.failure
            return web.json_response(body, status=status)
        return await handler(request)

    def _json(
        self, value: Callable[[], object]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(value())

        return answer

    def _list(self) -> dict[str, Any]:
        return {"object": "list", "data": list(self.instances.values())}

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        fields = ("id", "name", "path")
        [found] = [m for m in self.models if name in {*m["aliases"], *(m[f] for f in fields)}]
        return web.json_response(found)

    async def _new_secret(self, _: web.Request) -> web.Response:
        self.locked = True
        return web.json_response({**self.token(), "missed": self.missed})

    async def _new_key(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posted.append(body)
        made = {**body, "key_id": "abcd2345", "created_at": SINCE, "last_used": None}
        self.keys.append(made)
        return web.json_response({**made, "key": KEY})

    async def _revoke(self, request: web.Request) -> web.Response:
        name = request.match_info["key"]
        [gone] = [key for key in self.keys if name in {key["name"], key["key_id"]}]
        self.keys.remove(gone)
        return web.json_response(gone)

    async def _node(self, request: web.Request) -> web.Response:
        name = request.match_info["node"]
        [found] = [n for n in self.nodes if name in {n["node_id"], n["name"]}]
        changes = {"drain": "draining", "undrain": "online", "leave": "lost"}
        found["status"] = changes[request.match_info["verb"]]
        return web.json_response(found)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posted.append(body)
        made = instance("new-instance", "loading", 0)
        self.instances["new-instance"] = made
        return web.json_response({**made, "message": "ok", "command_id": "c1", "model_card": MODEL})

    async def _show(self, request: web.Request) -> web.Response:
        self._fetched.set()
        return web.json_response(self.instances[request.match_info["id"]])

    async def _delete(self, request: web.Request) -> web.Response:
        gone = request.match_info["id"]
        del self.instances[gone]
        return web.json_response({"message": "ok", "command_id": "c2", "instance_id": gone})

    async def _pin(self, request: web.Request) -> web.Response:
        found = self.instances[request.match_info["id"]]
        found["pinned"] = request.match_info["verb"] == "pin"
        return web.json_response(found)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query.get("since", "0"))
        events = [event for event in self.events if event["index"] >= since]
        if "follow" not in request.query:
            return web.json_response(events[: int(request.query.get("limit", "100"))])
        stream = await self._open_stream(request)
        await stream.write(b": keep-alive\n\n")
        for event in events:
            await self._send(stream, event)
        for step in self.steps if self.instances else []:
            self._fetched.clear()
            self.instances["new-instance"].update(step)
            await self._send(stream, {"index": 8, "type": "InstanceChanged"})
            await self._fetched.wait()
        if self.stays_open:
            await asyncio.Event().wait()
        return stream

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.chats.append(await request.json())
        stream = await self._open_stream(request)
        for thought in self.thoughts:
            delta = {"reasoning_content": thought}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await self._send(stream, {"choices": [choice]})
        for piece in self.answer:
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            await self._send(stream, {"choices": [choice]})
            if piece == self.hangs_after:
                await asyncio.Event().wait()
        if self.stream_error:
            await self._send(stream, self.stream_error)
            return stream
        end = {"index": 0, "delta": {}, "finish_reason": self.finish_reason}
        await self._send(stream, {"choices": [end]})
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        await self._send(stream, {"choices": [], "usage": usage})
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def _bench(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.chats.append(body)
        words = len(body["messages"][0]["content"].split())
        stats = {
            # As a chat template does: some tokens around the words.
            "prompt_tokens": 20 + words,
            "prompt_tps": 1000.0,
            "generation_tokens": body["max_tokens"],
            "generation_tps": 50.0,
            "peak_memory_usage": 2 * 1024**3,
            "prefix_cache_hit": "none",
            "ttft": 0.123,
        }
        return web.json_response({"choices": [], "generation_stats": stats})

    async def _open_stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        return stream

    async def _send(self, stream: web.StreamResponse, data: dict[str, Any]) -> None:
        await stream.write(f"data: {json.dumps(data)}\n\n".encode())
