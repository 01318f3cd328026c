"""Forms of requests, read to their end."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from starlette.formparsers import MultiPartException, MultiPartParser

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request

__all__ = ["MultiPartException", "parse_form"]


class CompleteForm(MultiPartParser):
    """Refuses a form without its closing boundary. To Starlette the parts before it are a form, and
    the last one, which nothing closes, is none."""

    def __init__(self, request: "Request", *, max_files: int, max_fields: int):
        stream = self._up_to_its_end(request.stream())
        super().__init__(request.headers, stream, max_files=max_files, max_fields=max_fields)
        self.is_complete = False

    def on_end(self) -> None:
        """The closing boundary was read."""
        self.is_complete = True

    async def _up_to_its_end(
        self, stream: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        # Inside the stream, so that the parser closes the files it has begun.
        async for chunk in stream:
            yield chunk
        if not self.is_complete:
            raise MultiPartException("its closing boundary is missing, so send all of it again")


async def parse_form(request: "Request", *, max_files: int, max_fields: int) -> "FormData":
    """The form of a request. Raises MultiPartException on one that is no form, is cut off or has
    too many parts."""
    return await CompleteForm(request, max_files=max_files, max_fields=max_fields).parse()
