"""Says what was understood."""
import asyncio
import hashlib
import sys

from aiohttp import web


async def handle(request):
    body = await request.read()
    return web.json_response({"method": request.method, "raw": request.raw_path, "host": request.headers.get("Host"),
                              "a": ", ".join(request.headers.getall("X-A", [])) or None, "length": len(body),
                              "sha256": hashlib.sha256(body).hexdigest()})


async def main():
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()


asyncio.run(main())
