"""The AsyncAPI 3 document of the protocol, made from its types: `python -m
rtvc.engine.protocol.asyncapi docs/asyncapi.json`."""

import json
import sys
from pathlib import Path
from typing import Any

from rtvc.engine.protocol.fields import PATH, VERSION
from rtvc.engine.protocol.frames import FORMATS, HEADER, Flag
from rtvc.engine.protocol.messages import ClientMessage, ServerMessage


def document() -> dict[str, Any]:
    """The whole document: one channel, an operation for each direction, a schema for each
    message."""
    schemas: dict[str, Any] = {}
    sides: dict[str, list[str]] = {"fromClient": ["Frame"], "fromServer": ["Frame"]}
    messages: dict[str, Any] = {"Frame": frame()}
    for side, union in (("fromClient", ClientMessage), ("fromServer", ServerMessage)):
        for kind in union.__args__:
            schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            summary = " ".join(schema.pop("description", "").split("\n\n")[0].split())
            schemas[kind.__name__] = schema | {"required": ["type", *schema.get("required", [])]}
            messages[kind.__name__] = {
                "name": schema["properties"]["type"]["const"],
                "title": kind.__name__,
                "summary": summary,
                "contentType": "application/json",
                "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
            }
            sides[side].append(kind.__name__)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "rtvc streaming voice conversion",
            "version": str(VERSION),
            "description": (
                "Speech goes in, the same speech in another voice comes out. See protocol.md for"
                " the order of things."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:8765", "protocol": "ws", "pathname": PATH}},
        "channels": {
            "session": {
                "address": PATH,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            side: {
                "action": "receive" if side == "fromClient" else "send",
                "channel": {"$ref": "#/channels/session"},
                "messages": [{"$ref": f"#/channels/session/messages/{name}"} for name in names],
            }
            for side, names in sides.items()
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def frame() -> dict[str, Any]:
    """The binary frame, described in words and numbers: AsyncAPI has no schema for bytes."""
    return {
        "name": "frame",
        "title": "Frame",
        "summary": "Audio, or a piece of an uploaded file",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
        "x-header": {
            "bytes": HEADER.size,
            "order": "little-endian",
            "fields": ["version u8", "flags u8", "format u16", "sequence u32", "timestamp u64"],
            "flags": {flag.name: flag.value for flag in Flag},
            "formats": FORMATS,
        },
    }


def text() -> str:
    """The document as it is stored."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), "utf-8")
