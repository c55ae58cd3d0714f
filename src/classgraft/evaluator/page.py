from typing import Any

def page(results: dict[str, Any], command: str) -> str:
    return ""
