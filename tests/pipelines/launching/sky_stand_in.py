"""Stands in for `sky_process.py`: serves the same pipe without SkyPilot, and misbehaves when it is told to."""

import json
import os
import signal
import sys
import time

for line in sys.stdin:
    request = json.loads(line)
    arguments = request["arguments"]
    match request["call"]:
        case "pid":
            reply = {"result": os.getpid()}
        case "echo":
            reply = {"result": arguments}
        case "count":
            for number in range(arguments["upto"]):
                print(json.dumps({"line": f"{number}\n"}), flush=True)
            reply = {"result": None}
        case "raise":
            reply = {"error": {"kinds": ["ClusterDoesNotExist", "ValueError"], "message": "no such cluster"}}
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            sys.exit(3)
        case "hang":
            time.sleep(600)
    print(json.dumps(reply), flush=True)
