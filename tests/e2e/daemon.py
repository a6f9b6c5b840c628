"""The real daemon as a test holds it: started, asked, followed, stopped or killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

Json = dict[str, Any]

# Long enough for a machine that is busy with something else; a test that hangs is ended by pytest.
PATIENCE = httpx.Timeout(100)
EXO = [sys.executable, "-P", "-m", "exo"]
DONE = "[DONE]"


class NotStartedError(Exception):
    """The daemon told why it did not start, and ended with `code`."""

    def __init__(self, code: int, error: Json | None) -> None:
        super().__init__(f"exit code {code}: {error}")
        self.code = code
        self.error = error


# A test's daemon is alone, unless the test wants it otherwise.
ALONE = {"p2p_host": "127.0.0.1", "p2p_port": 0, "discovery": "false"}


def environment(home: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with that home and these settings, and no others."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EXO_", "MLX_"))}
    given = {f"EXO_{k.upper()}": str(value) for k, value in {**ALONE, **settings}.items()}
    return {**clean, "EXO_HOME": str(home), "NO_COLOR": "1", **given}


def run_exo(home: Path, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """One command line, to its end."""
    return subprocess.run(
        [*EXO, *words],
        env=environment(home, settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process with that home in its environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EXO_HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


@dataclass
class Daemon:
    """A running `exo start`. `status` is what it said when it was ready."""

    home: Path
    process: subprocess.Popen[bytes]
    status: Json
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.base_url, timeout=PATIENCE, trust_env=False)
        # Its end is taken notice of at once, as a shell or init would.
        threading.Thread(target=self.process.wait, daemon=True).start()

    @classmethod
    def start(cls, home: Path, *flags: str, **settings: object) -> "Daemon":
        """Return when it is ready.

        Raises:
            NotStartedError: it is not, and never will be.
        """
        read_end, write_end = os.pipe()
        words = ["start", f"--ready-fd={write_end}", *flags]
        with (home.parent / f"{home.name}.out").open("ab") as output:
            process = subprocess.Popen(
                [*EXO, *words],
                env=environment(home, {"port": 0, **settings}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write_end],
            )
        os.close(write_end)
        with os.fdopen(read_end, encoding="utf-8") as pipe:
            word = pipe.read()
        told = json.loads(word) if word else {}
        if "ready" not in told:
            raise NotStartedError(process.wait(), told.get("failed"))
        return cls(home, process, told["ready"])

    @property
    def base_url(self) -> str:
        return self.status["api"]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.home / "state" / "logs" / "exo.log").read_text("utf-8")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait()
        self.http.close()
        return code

    def stop(self) -> None:
        """Stop it as `exo stop` does, and see that nothing of it is left."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"exit code {code}: {self.log[-2000:]}"
        assert self.processes() == [], "it left processes behind"

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.wait()

    def processes(self) -> list[psutil.Process]:
        """Every process of this home but the daemon itself."""
        return [process for process in processes_of(self.home) if process.pid != self.pid]

    # Events.

    def events(self, **query: object) -> list[Json]:
        return self.get("/events", **query)

    def follow(self, done: Callable[[Json], bool], since: int = 0) -> Json:
        """The first event after `since` for which `done` is true; wait for it if need be."""
        query = {"since": since, "follow": "true"}
        with self.http.stream("GET", "/events", params=query) as response:
            for data in sse_data(response.iter_lines()):
                event = json.loads(data)
                if done(event):
                    return event
        raise AssertionError("the stream of events ended")

    def wait_ready(self, instance_id: str, since: int = 0) -> Json:
        """The instance, as soon as it is ready after the event `since`."""

        def settled(event: Json) -> bool:
            runner = event.get("runner") or {}
            ours = runner.get("instance_id") == instance_id
            assert not ours or runner["status"] != "failed", runner["error"]
            return ours and runner["status"] == "ready"

        self.follow(settled, since)
        return self.get(f"/instance/{instance_id}")

    def wait_failed(self, instance_id: str) -> Json:
        """The instance, as soon as it has failed."""

        def failed(event: Json) -> bool:
            runner = event.get("runner") or {}
            return runner.get("instance_id") == instance_id and runner["status"] == "failed"

        self.follow(failed)
        return self.get(f"/instance/{instance_id}")

    # Requests.

    def get(self, path: str, **query: Any) -> Any:
        response = self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: object) -> Any:
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def create(self, model_id: str | Path, **wanted: object) -> Json:
        """A new instance, ready."""
        body = {"instance": {"model_id": str(model_id), **wanted}}
        return self.wait_ready(self.post("/instance", body)["instance_id"])

    def delete(self, instance: Json) -> None:
        response = self.http.delete(f"/instance/{instance['instance_id']}")
        assert response.status_code == 200, response.text

    def chat(self, model: str, content: str = "Hello", **fields: Any) -> Json:
        return self.post("/v1/chat/completions", chat_body(model, content, **fields))

    def text(self, model: str, content: str = "Hello", **fields: Any) -> str:
        return self.chat(model, content, **fields)["choices"][0]["message"]["content"]

    @contextmanager
    def stream(self, model: str, content: str = "Hello", **fields: Any) -> Iterator[Iterator[str]]:
        """The `data:` lines of a streamed answer, as they come."""
        body = chat_body(model, content, stream=True, **fields)
        with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
            assert response.status_code == 200, response.text
            yield sse_data(response.iter_lines())


def chat_body(model: str, content: str, **fields: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def sse_data(lines: Iterable[str]) -> Iterator[str]:
    """What the `data:` lines of an event stream carry."""
    for line in lines:
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def content_of(data: str) -> str:
    """The text that one chunk adds to answer 0."""
    choices = json.loads(data)["choices"] if data != DONE else []
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def error_of(response: httpx.Response, status: int, code: str) -> Json:
    """The error object of a response, which must be that error in OpenAI's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code, body
    return body["error"]
