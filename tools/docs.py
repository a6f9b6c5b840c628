"""Write the generated pages of docs/; `--check` writes nothing and fails where one has drifted.

docs/cli.md         from the help of every command
docs/openapi.json   from the routes
docs/config.md      from the settings
docs/metrics.md     its table, from the metrics
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from exo import config, errors
from exo.api.app import ROUTES
from exo.api.metric import METRICS
from exo.api.openapi import document

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by tools/docs.py. Do not edit. -->"
TABLE = "<!-- This table is written by tools/docs.py. -->"
TABLE_END = "<!-- End of the table. -->"


def cli() -> str:
    """The help of every command, as Typer's own `utils docs` renders it, and the exit codes."""
    command = [sys.executable, "-m", "typer", "exo.cli.main", "utils", "docs"]
    command += ["--name", "exo", "--title", "Command line"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{NOTE}\n\n{done.stdout.strip()}\n\n{exit_codes()}"


def exit_codes() -> str:
    """The table of exit codes, from the classes in exo.errors."""
    rows = {0: ["success"], 1: ["a check of `exo doctor` failed, or a pipe was closed"]}
    rows |= {2: ["the command line is wrong"], 130: ["interrupted (Ctrl-C), or a forced stop"]}
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.ExoError):
            rows.setdefault(cls.exit_code, []).append(f"`{cls.code}`")
    lines = "".join(f"| {code} | {', '.join(rows[code])} |\n" for code in sorted(rows))
    return (
        "## Exit codes\n\n"
        "The names in code font are the error codes of the API.\n\n"
        f"| Code | Meaning |\n|---|---|\n{lines}"
    )


def openapi() -> str:
    """What `/openapi.json` answers."""
    return json.dumps(document(ROUTES), indent=1, ensure_ascii=False) + "\n"


def settings() -> str:
    """The table of settings, and the places on disk from the module's own picture."""
    rows = [
        f"| `{name}` | `EXO_{name.upper()}` | {_default(field.default)} | {field.description} |\n"
        for name, field in config.Settings.model_fields.items()
    ]
    picture = (config.__doc__ or "").split("state folders):", 1)[1].strip("\n")
    return (
        f"{NOTE}\n\n# Settings\n\n"
        "A setting is taken from the first of: a flag of `exo start` ([command line](cli.md)), the "
        "environment, `config.toml`, the default.\n\n"
        "| in `config.toml` | in the environment | default | what it is |\n|---|---|---|---|\n"
        f"{''.join(rows)}\n"
        "## On disk\n\n"
        "With `EXO_HOME=H`; without it, the platform's own config, data and state folders:\n\n"
        f"```\n{picture}\n```\n"
    )


def metrics() -> str:
    """The page as it is, with its table made anew."""
    page = (DOCS / "metrics.md").read_text("utf-8")
    before, rest = page.split(TABLE, 1)
    after = rest.split(TABLE_END, 1)[1]
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(map(_code, one.labels))} | {one.help} |\n"
        for one in METRICS
    ]
    head = "| name | kind | labels | what it is |\n|---|---|---|---|\n"
    return f"{before}{TABLE}\n\n{head}{''.join(rows)}\n{TABLE_END}{after}"


def _code(text: str) -> str:
    return f"`{text}`"


def _default(value: object) -> str:
    return "none" if value is None else f"`{json.dumps(value)}`"


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "openapi.json": openapi,
    "config.md": settings,
    "metrics.md": metrics,
}


def main() -> int:
    check = "--check" in sys.argv[1:]
    drifted = 0
    for name, render in PAGES.items():
        page, text = DOCS / name, render()
        if page.is_file() and page.read_text("utf-8") == text:
            continue
        if check:
            print(f"docs/{name} has drifted. Run: make fix", file=sys.stderr)
            drifted = 1
        else:
            page.write_text(text, "utf-8")
    return drifted


if __name__ == "__main__":
    sys.exit(main())
