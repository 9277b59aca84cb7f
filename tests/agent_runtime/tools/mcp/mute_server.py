"""An MCP server of a few lines that says only as much as its argument asks for, and then hangs.

`nothing`: not even the handshake is answered. `list`: its tools are listed, a call blocks the whole program. It takes
no notice of the end of its input nor of SIGTERM, as programs that hang do.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
with Path("pids").open("a") as pids:
    pids.write(f"{os.getpid()}\n")
info = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "m", "version": "1"}}
tool = {"name": "wait", "description": "Wait.", "inputSchema": {"type": "object"}}
known = {"initialize": info, "tools/list": {"tools": [tool]}} if sys.argv[1] == "list" else {}
for line in sys.stdin:
    request = json.loads(line)
    method = request.get("method")
    if method in known:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": known[method]}), flush=True)
    elif method == "server/discover" and known:
        error = {"code": -32601, "message": "Method not found"}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}), flush=True)
    elif method == "tools/call":
        break
time.sleep(600)
