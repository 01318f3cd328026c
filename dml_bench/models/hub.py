"""Whether the host of some weights answers, which takes seconds here and a minute in the libraries
that download them."""

import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

__all__ = ["from_cache_or_hub", "require_answer", "require_hub"]


def from_cache_or_hub(load: Callable[..., Any], name: str, **options: Any) -> Any:
    """What `load(name, local_files_only=...)` makes of a folder, of Hugging Face's cache, or else
    of a download. Raises OSError within seconds where the hub does not answer."""
    try:
        return load(name, local_files_only=True, **options)
    except OSError:
        require_hub(name)
    return load(name, local_files_only=False, **options)


def require_hub(repository: str) -> None:
    """Raises OSError where Hugging Face's hub is switched off or does not answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError(f"HF_HUB_OFFLINE is set, and {repository} is not in {constants.HF_HUB_CACHE}")
    require_answer(constants.ENDPOINT)


def require_answer(url: str) -> None:
    """Raises OSError within seconds where the host of `url` does not answer, through the proxy if
    the environment names one."""
    scheme, host, *_ = urlsplit(url)
    try:
        urllib.request.urlopen(
            urllib.request.Request(f"{scheme}://{host}", method="HEAD"), timeout=5
        ).close()
    except HTTPError as refusal:
        refusal.close()  # it answers
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(
            reason, SSLError
        ):  # other certificates may be trusted by those who download
            raise OSError(f"{host} can't be reached: {reason}") from None
