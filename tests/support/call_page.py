"""A server that takes calls, with a page, as a program: tells its address, serves until its input
ends, and then what became of the packets of calls."""

import asyncio
import json
import sys
from pathlib import Path

from serving import make_service

from rtvc.engine.server.app import serving


async def main(folder, page):
    service = make_service(folder)
    async with serving(service, page=page, webrtc=True) as port:
        print(f"http://127.0.0.1:{port}/", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    value = service.metrics.registry.get_sample_value
    fates = ("received", "recovered", "concealed")
    told = {f: value("rtvc_call_packets_total", {"fate": f}) or 0 for f in fates}
    print(json.dumps(told | {"errors": value("rtvc_internal_errors_total") or 0}))


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
