"""x"""


async def run_all(as_json: bool) -> bool:
    return True
