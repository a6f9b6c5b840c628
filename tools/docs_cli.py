"""Write docs/cli.md from the help of every command; `--check` fails if it differs.

Typer's own `utils docs` renders the help, so the page knows nothing that `--help` does not.
"""

import subprocess
import sys
from pathlib import Path

from exo import errors

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"


def render() -> str:
    """The whole page."""
    command = [sys.executable, "-m", "typer", "exo.cli.main", "utils", "docs"]
    command += ["--name", "exo", "--title", "Command line"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    note = "<!-- Written by tools/docs_cli.py from the help texts. Do not edit. -->"
    return f"{note}\n\n{done.stdout.strip()}\n\n{exit_codes()}"


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


def main() -> int:
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, "utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text("utf-8") == page:
        return 0
    print(f"{PAGE} is not what the help says. Run: python tools/docs_cli.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
