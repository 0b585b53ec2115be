"""Write the types of the HTTP API for the console: ``console/src/lib/schema.d.ts``.

    python tools/console_types.py           # needs node and `npm ci` in console/
    python tools/console_types.py --print   # the description that they are made from, to look at

What the console does not need (texts, failures, which all have one shape) is taken out first, to keep the file small. Its
first line holds a digest of the description, so that a test can tell without Node that the file is fresh.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.api import openapi
from agentmesh.api.routes import ROWS
from agentmesh.wire import console_views

CONSOLE = Path(__file__).resolve().parent.parent / "console"
TARGET = CONSOLE / "src" / "lib" / "schema.d.ts"
#: What only streams carry: no route answers with it as JSON.
STREAMED = (console_views.Tick,)


def description() -> bytes:
    """Return the description of the API as far as the console needs it, in one spelling."""
    document: dict[str, Any] = json.loads(openapi.build(ROWS))
    _, extra = msgspec.json.schema_components(STREAMED, ref_template="#/components/schemas/{name}")
    document["components"]["schemas"].update(extra)
    document["info"]["version"] = "0"
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"] = {"200": operation["responses"]["200"]}
    return json.dumps(_bare(document), sort_keys=True, separators=(",", ":")).encode()


def digest() -> str:
    """Return the digest that stands in the first line of the file while it is fresh."""
    return hashlib.sha256(description()).hexdigest()[:16]


def _bare(node: Any) -> Any:
    if isinstance(node, dict):
        # A property may be called "description" too; as a text of the schema it is a plain string.
        return {
            k: _bare(v)
            for k, v in node.items()
            if not (k in ("description", "summary", "title") and isinstance(v, str))
        }
    return [_bare(one) for one in node] if isinstance(node, list) else node


def main() -> int:
    """Write the file; print the description instead with ``--print``."""
    if "--print" in sys.argv[1:]:
        print(description().decode())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "schema.json"
        source.write_bytes(description())
        made = Path(folder) / "schema.d.ts"
        program = CONSOLE / "node_modules" / ".bin" / "openapi-typescript"
        subprocess.run([program, source, "-o", made], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        TARGET.write_text(
            f"// Made by tools/console_types.py from {digest()}; do not edit.\n{made.read_text('utf-8')}", "utf-8"
        )
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
