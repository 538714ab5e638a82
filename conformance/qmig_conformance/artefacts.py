"""A play and what came of it, in a folder from which alone it can be repeated.

`NAME.sent.bin` and `NAME.received.bin` per connection, `meta.json` (settings, steps, outcome), `stderr.txt`,
`qmp.jsonl`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qmig.testing.scenario import Boot, Flow, Scenario
from qmig_conformance.play import Accept, Close, Connect, End, Expect, Play, Qmp, Seen, Send, Settle, Step

SCHEMA: Final = "qmig/play/1"
_STEPS: Final[Mapping[str, type[Step]]] = {
    kind.__name__.lower(): kind for kind in (Connect, Accept, Send, End, Close, Expect, Settle, Qmp)
}


def save(
    folder: Path, play: Play, seen: Seen, *, argv: Sequence[str], qmp: Sequence[Mapping[str, Any]]
) -> None:
    """Writes all of it; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    sent: dict[str, bytearray] = {}
    steps = [_step(step, sent) for step in play.steps]
    for name, data in sent.items():
        (folder / f"{name}.sent.bin").write_bytes(data)
    for name, answer in seen.answered.items():
        (folder / f"{name}.received.bin").write_bytes(answer)
    document = {
        "schema": SCHEMA,
        "argv": list(argv),
        "settings": _plain(dataclasses.asdict(play.settings)),
        "exit_on_error": play.exit_on_error,
        "steps": steps,
        "seen": {
            "outcome": str(seen.outcome),
            "states": list(seen.states),
            "returncode": seen.returncode,
            "run_state": seen.run_state,
            "evidence": seen.evidence,
        },
    }
    (folder / "meta.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "stderr.txt").write_text(seen.words + "\n", encoding="utf-8")
    lines = "".join(json.dumps(message) + "\n" for message in qmp)
    (folder / "qmp.jsonl").write_text(lines, encoding="utf-8")


def load(folder: Path) -> tuple[Play, str]:
    """The play of a folder, and the outcome it had. Raises OSError, KeyError, ValueError for what is none."""
    document = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{folder}: no play of the schema {SCHEMA}")
    sent: dict[str, bytes] = {}
    steps = []
    for entry in document["steps"]:
        name = entry.get("name", "")
        if entry["step"] == "send" and name not in sent:
            sent[name] = (folder / f"{name}.sent.bin").read_bytes()
        steps.append(_read_step(entry, sent))
    settings = document["settings"]
    scenario = Scenario(
        **{
            **settings,
            "flow": Flow(settings["flow"]),
            "boot": Boot(settings["boot"]),
            "options": tuple(settings["options"]),
            "fill": tuple(settings["fill"]),
            "dirty": tuple(settings["dirty"]),
            "bitmap": tuple(settings["bitmap"]) if settings["bitmap"] else None,
        }
    )
    play = Play(settings=scenario, steps=tuple(steps), exit_on_error=document["exit_on_error"])
    return play, document["seen"]["outcome"]


def binary(folder: Path) -> Path:
    """The build that it was played on. Raises OSError, KeyError, ValueError as `load` does."""
    argv = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["argv"]
    if not argv:
        raise ValueError("no build is named")
    return Path(argv[0])


def _step(step: Step, sent: dict[str, bytearray]) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": type(step).__name__.lower()}
    match step:
        case Send(name, data):
            whole = sent.setdefault(name, bytearray())
            entry |= {"name": name, "offset": len(whole), "bytes": len(data)}
            whole += data
        case Expect(name, data):
            entry |= {"name": name, "hex": data.hex()}
        case Qmp(command, arguments):
            entry |= {"command": command, "arguments": dict(arguments)}
        case Connect(name) | Accept(name) | End(name) | Close(name):
            entry["name"] = name
    return entry


def _read_step(entry: Mapping[str, Any], sent: Mapping[str, bytes]) -> Step:
    kind = _STEPS[entry["step"]]
    if kind is Settle:
        return Settle()
    if kind is Qmp:
        return Qmp(entry["command"], entry["arguments"])
    if kind is Expect:
        return Expect(entry["name"], bytes.fromhex(entry["hex"]))
    if kind is Send:
        return Send(entry["name"], sent[entry["name"]][entry["offset"] : entry["offset"] + entry["bytes"]])
    assert kind is Connect or kind is Accept or kind is End or kind is Close
    return kind(entry["name"])


def _plain(value: Any) -> Any:
    """Without what JSON does not have."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
