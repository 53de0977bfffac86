"""What `luab annotate` runs."""

from collections.abc import Sequence
from pathlib import Path

from luab.annotate.config import load_collection
from luab.errors import JobError


def serve_collection(configuration: Path, host: str, port: int) -> None:
    """Serves a collection until it is interrupted.

    Raises:
        ConfigError, DataError: The configuration, the images or the database cannot be used.
        JobError: The server's packages are missing, or another server uses the collection.
    """
    collection = load_collection(configuration)
    try:
        from luab.annotate.server import serve
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    serve(collection, host, port)


def export_collection(configuration: Path, folder: Path, without: Sequence[str]) -> list[Path]:
    """Writes all exports of a collection, also of one without a server; errors as for `serve_collection`."""
    from luab.annotate.desk import Desk
    from luab.annotate.exports import export_all

    desk = Desk.of(load_collection(configuration))
    try:
        return export_all(desk, folder, without)
    finally:
        desk.close()


def _not_installed(error: ModuleNotFoundError) -> JobError:
    return JobError(
        f"luab annotate needs the package {error.name}, which is not installed. Run `make setup`, or "
        "`pip install starlette uvicorn`."
    )
