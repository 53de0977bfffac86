"""The web server of a collection: pages for participants and for the administrator, and what they request."""

import functools
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luab.annotate import admin
from luab.annotate.bodies import parse_json
from luab.annotate.config import Collection
from luab.annotate.desk import Desk
from luab.annotate.store import Refused

STATIC = Path(__file__).parent / "static"
_SMALL_BYTES = 64 << 10  # a request other than a page
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

Endpoint = Callable[[Request], Awaitable[Response]]


class _Headers:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def _answered(endpoint: Endpoint) -> Endpoint:
    """Turns what is refused, and a disk that is full, into an answer that the page shows."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as error:
            return JSONResponse({"error": error.message}, error.status)
        except ClientDisconnect:
            return Response(status_code=400)
        except (sqlite3.OperationalError, OSError) as error:
            print(f"a request failed: {error}", flush=True)
            message = "The server cannot store anything at the moment; its disk may be full. Your page is kept: "
            return JSONResponse({"error": message + "leave it open and try again in a minute."}, 507)

    return answer


async def _content(request: Request, limit: int) -> Any:
    """The JSON of a request; Refused if it is larger than the limit, or has another type."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "Expected application/json.")
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise Refused(413, f"The record is larger than the limit of {limit / 2**20:g} MiB (page_limit_mib).")
    return await run_in_threadpool(parse_json, bytes(data))


async def _fields(request: Request) -> Mapping[str, Any]:
    content = await _content(request, _SMALL_BYTES)
    if not isinstance(content, dict):
        raise Refused(422, "Expected a JSON object.")
    return content


def application(desk: Desk) -> Starlette:
    """Builds the web application of a collection."""
    cookie = "luab-{}".format

    def interface_of(request: Request) -> Any:
        name = request.path_params["interface"]
        if name not in desk.collection.interfaces:
            raise Refused(404, f"This collection has no {name} pages.")
        return name

    def session_of(request: Request) -> dict[str, Any] | None:
        interface = interface_of(request)
        return desk.session(interface, request.cookies.get(cookie(interface), ""))

    def required(request: Request) -> dict[str, Any]:
        session = session_of(request)
        if session is None:
            raise Refused(401, "You are not logged in, perhaps because cookies are blocked. Open your link again.")
        return session

    async def state(request: Request, another: bool = False) -> Response:
        session = session_of(request)
        return JSONResponse(await run_in_threadpool(desk.state, interface_of(request), session, another))

    async def login(request: Request) -> Response:
        interface, fields = interface_of(request), await _fields(request)
        session = desk.login(interface, fields.get("parameters"), fields.get("name"))
        response = JSONResponse(await run_in_threadpool(desk.state, interface, session, False))
        path, secure = f"/api/{interface}", request.url.scheme == "https"
        value = desk.keys.sign(session)
        response.set_cookie(cookie(interface), value, path=path, secure=secure, httponly=True, samesite="lax")
        return response

    async def logout(request: Request) -> Response:
        await _fields(request)
        response = JSONResponse({})
        response.delete_cookie(cookie(interface_of(request)), path=f"/api/{interface_of(request)}")
        return response

    async def consent(request: Request) -> Response:
        session, fields = required(request), await _fields(request)
        await run_in_threadpool(desk.consent, session, fields.get("version"))
        return await state(request)

    async def another(request: Request) -> Response:
        await _fields(request)
        return await state(request, another=True)

    async def put_page(request: Request) -> Response:
        session = required(request)
        content = await _content(request, round(desk.collection.page_limit_mib * 2**20))
        place = request.path_params["assignment"], request.path_params["number"]
        interface = interface_of(request)
        await run_in_threadpool(desk.put_page, interface, session, *place, content, time.time())
        return JSONResponse(await run_in_threadpool(desk.state, interface, session, False))

    async def withdraw(request: Request) -> Response:
        session = required(request)
        await _fields(request)
        pages = await run_in_threadpool(desk.store.withdraw, session["worker"])
        response = JSONResponse({"pages": pages})
        response.delete_cookie(cookie(interface_of(request)), path=f"/api/{interface_of(request)}")
        return response

    async def image(request: Request) -> Response:
        served = desk.pools.served.get(request.path_params["token"])
        if served is None:
            raise Refused(404, "There is no such image.")
        headers = {"Cache-Control": "private, max-age=86400"}
        return FileResponse(served.path, media_type=served.media, headers=headers)

    async def worker_page(request: Request) -> Response:
        interface_of(request)
        return FileResponse(STATIC / "worker.html")

    async def first_page(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/{desk.collection.interfaces[0]}{query}", 302)

    async def admin_page(request: Request) -> Response:
        return FileResponse(STATIC / "admin.html")

    async def admin_answer(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not desk.keys.is_admin(token):
            raise Refused(401, "Expected the administrator's token, which the server printed when it started.")
        arguments = request.path_params["what"], dict(request.query_params)
        content = await run_in_threadpool(admin.answer, desk, *arguments)
        return content if isinstance(content, Response) else JSONResponse(content)

    def route(path: str, endpoint: Any, method: str = "GET") -> Route:
        return Route(path, _answered(endpoint), methods=[method])

    api = "/api/{interface}"
    routes = [
        route("/", first_page),
        route("/admin", admin_page),
        route("/api/admin/{what:path}", admin_answer),
        route(f"{api}/state", state),
        route(f"{api}/login", login, "POST"),
        route(f"{api}/logout", logout, "POST"),
        route(f"{api}/consent", consent, "POST"),
        route(f"{api}/another", another, "POST"),
        route(f"{api}/withdraw", withdraw, "POST"),
        route(f"{api}/assignments/{{assignment}}/pages/{{number:int}}", put_page, "PUT"),
        route("/image/{token}", image),
        Mount("/static", StaticFiles(directory=STATIC)),
        route("/{interface}", worker_page),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        desk.close()

    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(_Headers)
    return app


def serve(collection: Collection, host: str, port: int) -> None:
    """Serves a collection until it is interrupted, and prints its addresses.

    Raises:
        DataError, JobError: The images or the database cannot be used.
    """
    desk = Desk.of(collection)
    shown = f"[{host}]" if ":" in host else host
    for name in collection.interfaces:
        print(f"{name + ':':15}http://{shown}:{port}/{name}")
    print(f"administrator: http://{shown}:{port}/admin#{desk.keys.admin}", flush=True)
    # No access log: it would hold addresses of participants and their ids in the query.
    config = uvicorn.Config(application(desk), host, port, access_log=False, log_level="warning", server_header=False)
    uvicorn.Server(config).run()
