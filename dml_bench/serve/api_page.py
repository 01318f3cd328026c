"""The page of the HTTP interface, made of its OpenAPI description. FastAPI's own pages load
programs from elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dml_bench.system.templates import templates

__all__ = ["api_page"]

CURL = {
    "/predict": "curl -F images=@photo.jpg $URL/predict",
    "/enrol": "curl -F class=pigeon -F images=@first.jpg -F images=@second.jpg $URL/enrol",
    "/classes/{name}": "curl -X DELETE $URL/classes/pigeon",
}


def fields(
    schema: dict[str, Any], schemas: dict[str, Any], before: str = ""
) -> Iterator[tuple[str, str]]:
    """The names of an answer's fields, such as `answers[].class`, and what they are."""
    for name, value in schema.get("properties", {}).items():
        yield f"{before}{name}", value.get("description", "")
        inner = value.get("items", value).get("$ref", "").rpartition("/")[2]
        dots = "[]." if "items" in value else "."
        yield from fields(schemas.get(inner, {}), schemas, f"{before}{name}{dots}")


def api_page(description: dict[str, Any]) -> str:
    """The page as HTML."""
    environment = templates(Path(__file__).parent / "page")
    schemas = description.get("components", {}).get("schemas", {})
    operations = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            content = operation["responses"]["200"].get("content", {}).get("application/json", {})
            answer = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            operations.append(
                {
                    "path": path,
                    "method": method.upper(),
                    "text": operation.get("description", ""),
                    "parameters": operation.get("parameters", []),
                    "curl": CURL.get(path, f"curl $URL{path}"),
                    "answer": list(fields(schemas.get(answer, {}), schemas)),
                    "refusals": {
                        status: response["description"]
                        for status, response in operation["responses"].items()
                        if status != "200"
                    },
                }
            )
    template = environment.get_template("api.html.jinja")
    return template.render(title=description["info"]["summary"], operations=operations)
